"""Engine.generate: a batch of articles as tokens in, their headline candidates out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from time import perf_counter

import torch
from torch import Tensor
from transformers import PreTrainedModel

from app.engine.cores import Cores
from app.engine.decoder import Decoder, is_grouped
from app.engine.decoding import Decoding
from app.engine.encoder import Encoder
from app.engine.memory import give_back
from app.engine.search import ANYTHING, Candidate, Wanted, beam_search
from app.engine.vocabulary import Vocabulary
from app.headlines.phrases import fold

LOOK_EVERY = 4  # steps; where to look means to wait for the device


class EngineLost(Exception):
    """The device cannot be used any more in this process; only a restart helps."""


@dataclass(frozen=True)
class Job:
    """One article for the engine: its tokens as the model reads them (prefix and end mark included)."""

    tokens: tuple[int, ...]
    beams: int  # that compete with each other
    lanes: int = 1  # so many times `beams`, each lane shunning what the others write
    wanted: Wanted = ANYTHING

    @property
    def rows(self) -> int:
        """How many headlines are written at once."""
        return self.beams * self.lanes


@dataclass(frozen=True)
class Batch:
    """What one batch brought: candidates for each job in order, best first, and what it cost."""

    candidates: list[list[Candidate]]
    encode_seconds: float
    decode_seconds: float
    padding_tokens: int
    generated_tokens: int


class Engine:
    """A loaded model and the search over it. Safe to call from several threads at once."""

    def __init__(
        self,
        model: PreTrainedModel,
        decoding: Decoding,
        vocabulary: Vocabulary | None = None,
        cores: Cores | None = None,
    ) -> None:
        """Without a `vocabulary` it takes no jobs with limits, without `cores` torch's threads stay as they are."""
        self._model = model.eval()
        self._cores = cores or Cores(1)
        self._cores.lend(model.get_encoder())
        self._encoder = Encoder(model)
        self._grouped = is_grouped(model)
        self.decoding = decoding
        self.vocabulary = vocabulary
        self._look_every = 1 if self.device.type == "cpu" else LOOK_EVERY

    @property
    def device(self) -> torch.device:
        device: torch.device = self._model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._model.dtype
        return dtype

    def why_not_write(self, phrase: str) -> str | None:
        """Why the model can never write this phrase in a headline; None if it can."""
        if self.vocabulary is None:
            return "the model takes no phrases"
        tokens = self.vocabulary.tokens(phrase, at_start=False)
        if fold(self.vocabulary.text(tokens)).strip() != fold(phrase).strip():
            return "has characters that the model cannot write"
        if len(tokens) >= self.decoding.max_new_tokens:
            return "is longer than any headline of the model"
        return None

    def memory(self) -> dict[str, int]:
        """Kinds of the device's memory and their bytes; empty where the device has none of its own."""
        if self.device.type != "cuda":
            return {}
        free, _ = torch.cuda.mem_get_info(self.device)
        allocated = torch.cuda.memory_allocated(self.device)
        return {"allocated": allocated, "reserved": torch.cuda.memory_reserved(self.device), "free": free}

    @staticmethod
    def rest() -> None:
        """Give memory that earlier batches needed back to the system."""
        give_back()

    def generate(self, jobs: Sequence[Job]) -> Batch:
        """Write candidates for every job: for each of its lanes `job.beams` at most, best first.

        A batch that does not fit the device's memory is split; raises torch.OutOfMemoryError only where a single
        article does not fit, and EngineLost where the device itself failed.
        """
        try:
            with self._cores.batch():
                return self._generate(jobs)
        except torch.OutOfMemoryError:
            if len(jobs) == 1:
                raise
        except torch.AcceleratorError as error:
            raise EngineLost(f"{self.device} failed") from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(jobs) // 2
        return _together([self.generate(jobs[:half]), self.generate(jobs[half:])])

    @torch.inference_mode()
    def _generate(self, jobs: Sequence[Job]) -> Batch:
        started = perf_counter()
        memory, mask = self._encoder.encode([job.tokens for job in jobs])
        encoded = perf_counter()
        candidates = self._search(jobs, memory, mask)
        return Batch(
            candidates,
            encode_seconds=encoded - started,
            decode_seconds=perf_counter() - encoded,
            padding_tokens=memory.shape[0] * memory.shape[1] - sum(len(job.tokens) for job in jobs),
            generated_tokens=sum(len(found[0].tokens) for found in candidates if found),
        )

    def _search(self, jobs: Sequence[Job], memory: Tensor, mask: Tensor | None) -> list[list[Candidate]]:
        """Search jobs of as many lanes and beams together."""
        candidates: list[list[Candidate]] = [[] for _ in jobs]
        shape = attrgetter("lanes", "beams")
        order = sorted(range(len(jobs)), key=lambda place: shape(jobs[place]))
        for (lanes, beams), group in groupby(order, key=lambda place: shape(jobs[place])):
            places = list(group)
            everyone = len(places) == len(jobs)
            decoder = Decoder(
                self._model,
                memory if everyone else memory[places],
                mask if everyone or mask is None else mask[places],
                grouped=self._grouped,
            )
            wanted = [jobs[place].wanted for place in places]
            found = beam_search(
                decoder,
                self.decoding,
                wanted,
                self.vocabulary,
                lanes=lanes,
                beams=beams,
                look_every=self._look_every,
            )
            for place, best in zip(places, found, strict=True):
                candidates[place] = best
        return candidates


def _together(parts: Iterable[Batch]) -> Batch:
    parts = list(parts)
    return Batch(
        [found for part in parts for found in part.candidates],
        encode_seconds=sum(part.encode_seconds for part in parts),
        decode_seconds=sum(part.decode_seconds for part in parts),
        padding_tokens=sum(part.padding_tokens for part in parts),
        generated_tokens=sum(part.generated_tokens for part in parts),
    )
