"""The engine against generate() and CTranslate2: the same model, articles and decoding, turn and turn about."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import torch
from transformers import PreTrainedModel

from app.engine.engine import Batch, Engine, Job
from app.serving.batcher import Batcher

Tokens = tuple[int, ...]
ALONE = 16  # articles timed one at a time


@dataclass
class Result:
    """One way to write headlines: articles a second over the rounds, and seconds for one article at a time."""

    name: str
    rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    headlines: list[Tokens] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return median(self.rates)

    def same(self, other: "Result") -> int:
        """How many headlines are the same, token for token."""
        return sum(ours == theirs for ours, theirs in zip(self.headlines, other.headlines, strict=True))


@dataclass
class Way:
    """How a rival writes: all articles at once, and one alone where that is to be measured."""

    name: str
    write: Callable[[Sequence[Tokens]], list[Tokens]]
    write_one: Callable[[Tokens], Tokens] | None = None


@dataclass
class Comparison:
    engine: Result
    rivals: list[Result]
    encode_seconds: float  # of the engine, all workers together, a round


def compare(
    engine: Engine,
    rivals: Sequence[Way],
    articles: Sequence[Tokens],
    *,
    workers: int,
    max_batch_tokens: int,
    rounds: int,
    progress: Callable[[str], None],
) -> Comparison:
    """Run the engine and its rivals in turn, `rounds` times, then one article at a time."""
    ours, results = Result("engine"), [Result(way.name) for way in rivals]
    encode_seconds = []
    for number in range(rounds + 1):  # the first one warms up
        progress(f"round {number} of {rounds}" if number else "warming up")
        seconds, ours.headlines, encoded = _engine_round(engine, articles, workers, max_batch_tokens)
        times = [seconds]
        for way, result in zip(rivals, results, strict=True):
            began = perf_counter()
            result.headlines = way.write(articles)
            times.append(perf_counter() - began)
        if number:
            encode_seconds.append(encoded)
            for result, seconds in zip([ours, *results], times, strict=True):
                result.rates.append(len(articles) / seconds)
    progress("one article at a time")
    _one_at_a_time(engine, rivals, articles[:ALONE], ours, results, workers=workers)
    return Comparison(ours, results, median(encode_seconds))


def generate_ways(engine: Engine, plain: PreTrainedModel, *, batch: int, cores: int) -> list[Way]:
    """generate() of `plain`, the same model as transformers loads it: as articles come, and sorted by length."""

    def as_they_come(articles: Sequence[Tokens]) -> list[Tokens]:
        return _generate_all(engine, plain, articles, range(len(articles)), batch, cores)

    def by_length(articles: Sequence[Tokens]) -> list[Tokens]:
        order = sorted(range(len(articles)), key=lambda place: len(articles[place]))
        return _generate_all(engine, plain, articles, order, batch, cores)

    def alone(article: Tokens) -> Tokens:
        return _generate_all(engine, plain, [article], [0], 1, cores)[0]

    return [
        Way("generate(), as they come", as_they_come, alone),
        Way("generate(), by length", by_length),
    ]


def _engine_round(
    engine: Engine, articles: Sequence[Tokens], workers: int, max_batch_tokens: int
) -> tuple[float, list[Tokens], float]:
    """Seconds, headlines, and seconds of encoding, with the batcher that the service has."""
    batches: list[Batch] = []

    async def all_at_once() -> tuple[float, list[Tokens]]:
        loop = asyncio.get_running_loop()

        async def run(jobs: Sequence[Job]) -> list[Tokens]:
            done = await loop.run_in_executor(pool, engine.generate, jobs)
            batches.append(done)
            return [found[0].tokens for found in done.candidates]

        began = perf_counter()
        beams, longest = engine.decoding.num_beams, engine.decoding.max_new_tokens
        async with Batcher(run, workers=workers, max_batch_cost=max_batch_tokens, max_waiting=len(articles)) as batcher:
            jobs = [Job(article, beams) for article in articles]
            headlines = await asyncio.gather(
                *(batcher.submit(job, cost=len(job.tokens) + beams * longest) for job in jobs)
            )
        return perf_counter() - began, headlines

    with ThreadPoolExecutor(workers, initializer=_threads_for, initargs=(workers,)) as pool:
        seconds, headlines = asyncio.run(all_at_once())
    return seconds, headlines, sum(batch.encode_seconds for batch in batches)


def _threads_for(workers: int) -> None:
    if workers > 1:
        torch.set_num_threads(1)


def _generate_all(
    engine: Engine, plain: PreTrainedModel, articles: Sequence[Tokens], order: Sequence[int], batch: int, cores: int
) -> list[Tokens]:
    torch.set_num_threads(cores)
    headlines: list[Tokens] = [()] * len(articles)
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        for place, tokens in zip(places, _generate(engine, plain, [articles[p] for p in places]), strict=True):
            headlines[place] = tokens
    return headlines


def _generate(engine: Engine, plain: PreTrainedModel, articles: Sequence[Tokens]) -> list[Tokens]:
    """What generate() writes for one padded batch, cut behind the end token."""
    longest = max(map(len, articles))
    tokens = torch.full((len(articles), longest), plain.generation_config.pad_token_id or 0)
    mask = torch.zeros_like(tokens)
    for row, article in enumerate(articles):
        tokens[row, : len(article)] = torch.tensor(article)
        mask[row, : len(article)] = 1
    written = plain.generate(input_ids=tokens.to(plain.device), attention_mask=mask.to(plain.device))
    return [_until(engine.decoding.end_tokens, row[1:]) for row in written.tolist()]


def _until(ends: Sequence[int], row: list[int]) -> Tokens:
    cut = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
    return tuple(row[:cut])


def _one_at_a_time(
    engine: Engine,
    rivals: Sequence[Way],
    articles: Sequence[Tokens],
    ours: Result,
    results: Sequence[Result],
    *,
    workers: int,
) -> None:
    """Latencies of one article alone, in turn."""
    with ThreadPoolExecutor(1, initializer=_threads_for, initargs=(workers,)) as pool:
        for article in articles:
            job = Job(article, engine.decoding.num_beams)
            began = perf_counter()
            pool.submit(engine.generate, [job]).result()
            ours.latencies.append(perf_counter() - began)
            for way, result in zip(rivals, results, strict=True):
                if way.write_one is not None:
                    began = perf_counter()
                    way.write_one(article)
                    result.latencies.append(perf_counter() - began)
