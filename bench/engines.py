"""The engine against transformers' generate(): the same model, articles and decoding, turn and turn about."""

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


@dataclass
class Comparison:
    engine: Result
    as_they_come: Result
    by_length: Result
    encode_seconds: float  # of the engine, all workers together, a round

    @property
    def same(self) -> int:
        """How many headlines are the same, token for token."""
        return sum(ours == theirs for ours, theirs in zip(self.engine.headlines, self.by_length.headlines, strict=True))


def compare(
    engine: Engine,
    plain: PreTrainedModel,
    articles: Sequence[Tokens],
    *,
    workers: int,
    batch: int,
    max_batch_tokens: int,
    rounds: int,
    progress: Callable[[str], None],
) -> Comparison:
    """Run all three ways in turn, `rounds` times; `plain` is the same model as transformers loads it."""
    cores = torch.get_num_threads() if workers == 1 else workers
    come, sort = list(range(len(articles))), sorted(range(len(articles)), key=lambda place: len(articles[place]))
    ours, as_come, by_length = Result("engine"), Result("generate(), as they come"), Result("generate(), by length")
    encode_seconds = []
    for number in range(rounds + 1):  # the first one warms up
        progress(f"round {number} of {rounds}" if number else "warming up")
        seconds, ours.headlines, encoded = _engine_round(engine, articles, workers, max_batch_tokens)
        times = {"ours": seconds}
        torch.set_num_threads(cores)
        for result, order in ((as_come, come), (by_length, sort)):
            times[result.name], result.headlines = _generate_round(engine, plain, articles, order, batch)
        if number:
            ours.rates.append(len(articles) / times["ours"])
            as_come.rates.append(len(articles) / times[as_come.name])
            by_length.rates.append(len(articles) / times[by_length.name])
            encode_seconds.append(encoded)
    _one_at_a_time(engine, plain, articles[:ALONE], ours, as_come, workers=workers, cores=cores)
    return Comparison(ours, as_come, by_length, median(encode_seconds))


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


def _generate_round(
    engine: Engine, plain: PreTrainedModel, articles: Sequence[Tokens], order: Sequence[int], batch: int
) -> tuple[float, list[Tokens]]:
    headlines: list[Tokens] = [()] * len(articles)
    began = perf_counter()
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        for place, tokens in zip(places, _generate(engine, plain, [articles[p] for p in places]), strict=True):
            headlines[place] = tokens
    return perf_counter() - began, headlines


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
    engine: Engine, plain: PreTrainedModel, articles: Sequence[Tokens], ours: Result, theirs: Result, **cores: int
) -> None:
    """Latencies of one article alone, engine and generate() in turn."""
    with ThreadPoolExecutor(1, initializer=_threads_for, initargs=(cores["workers"],)) as pool:
        for article in articles:
            job = Job(article, engine.decoding.num_beams)
            began = perf_counter()
            pool.submit(engine.generate, [job]).result()
            ours.latencies.append(perf_counter() - began)
            torch.set_num_threads(cores["cores"])
            began = perf_counter()
            _generate(engine, plain, [article])
            theirs.latencies.append(perf_counter() - began)
