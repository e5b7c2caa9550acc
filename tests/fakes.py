"""A model without a network: it can be held, broken, and asked what it was given. The service around it is real."""

import threading
from collections.abc import Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from app.engine.engine import Batch, Job
from app.engine.load import LoadedModel, ModelInfo
from app.engine.search import Candidate
from app.engine.tokens import Reading

INFO = ModelInfo(
    name="fake",
    version="3",
    language="en",
    licence="CC0-1.0",
    parameters=7,
    max_source_tokens=64,
    device="cpu",
    dtype="float32",
    scores={"rougeL": 1.0},
)


class FakeTokenizer:
    """Characters are tokens; the model reads the first 64."""

    def read(self, text: str) -> Reading:
        return Reading(tuple(map(ord, text))[: INFO.max_source_tokens], len(text))

    def write(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))


class FakeEngine:
    """Writes what `write` says, one batch at a time; `hold()` keeps a batch in the model until it is let go."""

    def __init__(self) -> None:
        self.decoding = SimpleNamespace(num_beams=4, max_new_tokens=8)
        self.vocabulary = None  # characters are no words: it guards no names
        self.batches: list[list[str]] = []
        self.gpu: dict[str, int] = {}
        self.rests = 0
        self.error: BaseException | None = None
        self.started = threading.Semaphore(0)
        self._open = threading.Event()
        self._open.set()

    def generate(self, jobs: Sequence[Job]) -> Batch:
        self.batches.append([FakeTokenizer().write(job.tokens) for job in jobs])
        self.started.release()
        assert self._open.wait(20), "a test forgot to let the model go"
        if self.error is not None:
            raise self.error
        return Batch([self.write(job) for job in jobs], 0.001, 0.002, padding_tokens=5, generated_tokens=11)

    def why_not_write(self, phrase: str) -> str | None:
        return None if phrase.isascii() else "has characters that the model cannot write"

    def rest(self) -> None:
        self.rests += 1

    def memory(self) -> dict[str, int]:
        return self.gpu

    @staticmethod
    def write(job: Job) -> list[Candidate]:
        """The article's own words, its beams differing first in punctuation, then in words."""
        words = FakeTokenizer().write(job.tokens)[:24].strip()
        texts = [words, f"{words}!", f" {words.upper()}", *(f"{words} {number}" for number in range(job.rows - 3))]
        return [Candidate(tuple(map(ord, text)), -0.5 - place) for place, text in enumerate(texts[: job.rows])]

    @contextmanager
    def hold(self) -> Any:
        """Inside, the model begins batches but does not finish them."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    @property
    def articles(self) -> list[str]:
        """All that reached the model since the warm-up."""
        return [article for batch in self.batches[1:] for article in batch]


def fake_model(engine: FakeEngine) -> LoadedModel:
    return LoadedModel(INFO, engine, FakeTokenizer(), workers=1)  # type: ignore[arg-type]
