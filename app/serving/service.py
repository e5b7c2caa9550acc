"""HeadlineService: an article and wishes in, headlines out. The story of one request, top to bottom."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import NamedTuple, TypeVar

from app.engine.engine import Batch, EngineLost, Job
from app.engine.load import LoadedModel, ModelInfo
from app.engine.names import Names
from app.engine.search import Candidate, Wanted
from app.engine.tokens import Reading
from app.headlines.article import clean
from app.headlines.casing import with_case
from app.headlines.headline import (
    Headline,
    Impossible,
    Limits,
    Wishes,
    best_first,
    distinct,
    ends_open,
    normalised,
    tidy,
)
from app.headlines.overlap import expected_overlap
from app.headlines.phrases import missing, spelled_as_in
from app.headlines.support import Support
from app.serving.batcher import Batcher, BatchFailed, Closed, DeadlinePassed, QueueFull
from app.serving.metrics import Metrics

T = TypeVar("T")
log = logging.getLogger(__name__)
PROBE_SECONDS = 5.0
REST_SECONDS = 1.0  # so long idle, the engine gives memory back
LIMIT_BEAMS = 4  # at least so many beams search within limits,
PHRASE_BEAMS = 8  # so many where phrases must be included,
LIKELIHOOD = 0.05  # how much the mean log-probability weighs beside the words that a shorter headline says
WIDEST = 32  # and so many if those found nothing
PROBE_ARTICLE = "The city council voted on Tuesday to keep the old library open."


class NotReady(Exception):
    """The service takes no requests now; the message says why."""


class UnknownModel(Exception):
    """No loaded model answers to this name; the message says which one was asked for."""


class NoWords(Exception):
    """Nothing is left of an article once its markup and its control characters are gone."""


class NoHeadline(Exception):
    """The model wrote nothing that could be read."""


@dataclass(frozen=True)
class Answer:
    """Headlines, best first, and how they came about; times in seconds."""

    model: ModelInfo
    headlines: list[Headline]
    reading: Reading
    queued: float
    modelled: float
    total: float


class _Article(NamedTuple):
    """An article ready for the engine; the limits' phrases are spelled as it spells them."""

    text: str
    reading: Reading
    names: Names | None
    limits: Limits


@dataclass(frozen=True)
class _Written:
    """What the engine wrote for one job, and when, by `perf_counter`."""

    candidates: list[Candidate]
    started: float
    finished: float


class HeadlineService:
    """Serves one loaded model. Use it as an async context: it is warmed up inside, and has finished behind it."""

    def __init__(
        self,
        model: LoadedModel,
        metrics: Metrics,
        *,
        max_batch_tokens: int,
        max_waiting: int,
        max_delay: float = 0.0,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_lost` is called when the device failed for good: the process should end and be started again."""
        self._model = model
        self._metrics = metrics
        self._on_lost = on_lost
        self._lost = False
        self._closing = False
        self._accepted = 0  # requests in `write`, from the moment they are taken to their answer
        self._all_answered = asyncio.Event()
        self._reading = 0
        self._warm = False
        self._probe: asyncio.Task[str | None] | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._model_threads = ThreadPoolExecutor(model.workers, thread_name_prefix="model")
        self._text_threads = ThreadPoolExecutor(1, thread_name_prefix="text")
        self._batcher: Batcher[Job, _Written] = Batcher(
            self._run,
            workers=model.workers,
            max_batch_cost=max_batch_tokens,
            max_waiting=max_waiting,
            max_delay=max_delay,
            observer=metrics,
        )
        info = model.info
        metrics.model_info.labels(info.name, info.version, info.device, info.dtype).set(1)
        if model.engine.memory():
            metrics.watch_gpu_memory(model.engine.memory)
        metrics.model_ready.set_function(lambda: self._reason() is None)

    @property
    def models(self) -> list[ModelInfo]:
        """The loaded models, the default one first."""
        return [self._model.info]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Warm up, serve, and on the way out finish what was accepted."""
        try:
            await self._warm_up()
            async with self._batcher:
                self._warm = True
                yield
                self.close()
                await self.drained()
        finally:
            self._warm = False
            if self._resting is not None:
                self._resting.cancel()
            self._text_threads.shutdown()
            self._model_threads.shutdown()

    def close(self) -> None:
        """Take no new requests; those accepted are still answered, wherever on their way they are."""
        self._closing = True

    async def drained(self) -> None:
        """Returns once everything accepted is answered."""
        while self._accepted:
            self._all_answered.clear()
            await self._all_answered.wait()
        await self._batcher.drained()  # what still runs for a client that has left

    async def write(
        self, article: str, wishes: Wishes, *, model: str | None = None, deadline: float | None = None
    ) -> Answer:
        """Headlines for an article, by `deadline` (the loop's time).

        Raises NotReady, UnknownModel, Impossible, NoWords, NoHeadline, QueueFull, DeadlinePassed, BatchFailed.
        """
        self._must_take(model, wishes)
        self._accepted += 1
        try:
            async with asyncio.timeout_at(deadline):
                return await self._write(article, wishes, deadline)
        except TimeoutError:
            raise DeadlinePassed from None
        finally:
            self._accepted -= 1
            if not self._accepted:
                self._all_answered.set()

    async def _write(self, article: str, wishes: Wishes, deadline: float | None) -> Answer:
        arrived = perf_counter()
        text, reading, names, limits = await self._read_aside(article, wishes.limits)
        self._note(reading)
        queued = modelled = 0.0
        for job in self._jobs(reading, names, replace(wishes, limits=limits)):
            submitted = perf_counter()
            written = await self._submit(job, deadline)
            queued += written.started - submitted
            modelled += written.finished - written.started
            headlines = await self._on_text_thread(partial(self._choose, written.candidates, wishes, text))
            if headlines:
                break
        else:
            if wishes.limits:
                raise Impossible("text", "no headline that obeys all limits could be found for this article")
            raise NoHeadline
        self._metrics.unsupported_headlines.inc(sum(bool(headline.unsupported) for headline in headlines))
        return Answer(
            model=self._model.info,
            headlines=headlines,
            reading=reading,
            queued=queued,
            modelled=modelled,
            total=perf_counter() - arrived,
        )

    async def why_not_ready(self) -> str | None:
        """None while a forward pass works, else the reason why requests would not be answered."""
        if (reason := self._reason()) is not None or self._batcher.last_batch_ok:
            return reason
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._try_an_article())
        return await asyncio.shield(self._probe)

    def _must_take(self, model: str | None, wishes: Wishes) -> None:
        """Refuse at once, before any work is done, what could not be answered."""
        if (reason := self._reason()) is not None:
            raise NotReady(reason)
        info = self._model.info
        if model not in (None, info.name, f"{info.name}@{info.version}"):
            raise UnknownModel(f"no model {model!r} is loaded")
        wishes.limits.check()
        for place, phrase in enumerate(wishes.limits.include):
            if (reason := self._model.engine.why_not_write(phrase)) is not None:
                raise Impossible(f"include.{place}", reason)
        self._batcher.check_room(coming=self._reading)

    def _reason(self) -> str | None:
        if self._lost:
            return "the device has failed"
        if not self._warm:
            return "the model is not warmed up"
        if not self._batcher.alive:
            return "the worker has ended"
        if self._closing:
            return "shutting down"
        return None

    async def _read_aside(self, article: str, limits: Limits) -> _Article:
        """Cleaned and tokenised off the event loop; counted meanwhile as one that will wait."""
        self._reading += 1
        try:
            return await self._on_text_thread(partial(self._read, article, limits))
        finally:
            self._reading -= 1

    def _read(self, article: str, limits: Limits) -> _Article:
        text = clean(article)
        if not text:
            raise NoWords
        include = tuple(spelled_as_in(text, phrase) for phrase in limits.include)
        reading = self._model.tokenizer.read(text)
        return _Article(text, reading, self._model.names(reading.tokens), replace(limits, include=include))

    def _note(self, reading: Reading) -> None:
        self._metrics.article_tokens.observe(reading.article_tokens)
        if reading.truncated:
            self._metrics.truncated_articles.inc()

    def _jobs(self, reading: Reading, names: Names | None, wishes: Wishes) -> Iterator[Job]:
        """The job that looks for what is wished, and then, in case it finds nothing within the limits, a wider one."""
        limits = wishes.limits
        lanes, beams = wishes.num_headlines, self._model.engine.decoding.num_beams
        if wishes.sampling is not None and not limits:
            lanes, beams = (2 * lanes if lanes > 1 else 1), 1  # some draws to spare: two may be alike
        elif lanes > 1:
            beams = max(2, beams // 2)
        if limits:
            beams = max(beams, PHRASE_BEAMS if limits.include else LIMIT_BEAMS)
        if limits.bound_length:
            lanes += 1  # the first writes at any length, for the others to be chosen by
        yield Job(reading.tokens, beams, lanes, Wanted(limits, wishes.sampling, names))
        if limits:
            yield Job(reading.tokens, WIDEST, 1, Wanted(limits, names=names))

    async def _submit(self, job: Job, deadline: float | None) -> _Written:
        longest = self._model.engine.decoding.max_new_tokens
        return await self._batcher.submit(job, cost=len(job.tokens) + job.rows * longest, deadline=deadline)

    async def _run(self, jobs: Sequence[Job]) -> list[_Written]:
        """The batcher's way to the engine."""
        loop = asyncio.get_running_loop()
        started = perf_counter()
        try:
            batch = await loop.run_in_executor(self._model_threads, self._model.engine.generate, jobs)
        except EngineLost:
            log.critical("the device has failed; only a restart helps", exc_info=True)
            self._lost = True
            self._on_lost()
            raise
        except Exception:
            log.exception("a batch of %d failed", len(jobs))
            raise
        finally:
            self._rest_soon()
        self._measure(jobs, batch)
        finished = perf_counter()
        return [_Written(candidates, started, finished) for candidates in batch.candidates]

    def _rest_soon(self) -> None:
        """Put off the engine's rest: it comes when nothing has run for a while, and so costs no request anything."""
        if self._resting is not None:
            self._resting.cancel()
        self._resting = asyncio.get_running_loop().call_later(REST_SECONDS, self._rest)

    def _rest(self) -> None:
        if self._warm and not self._batcher.running:
            self._model_threads.submit(self._model.engine.rest)

    def _measure(self, jobs: Sequence[Job], batch: Batch) -> None:
        metrics = self._metrics
        metrics.batch_articles.observe(len(jobs))
        metrics.batch_tokens.observe(sum(len(job.tokens) for job in jobs))
        metrics.batch_duration.labels("encode").observe(batch.encode_seconds)
        metrics.batch_duration.labels("decode").observe(batch.decode_seconds)
        metrics.padding_tokens.inc(batch.padding_tokens)
        metrics.generated_tokens.inc(batch.generated_tokens)

    def _choose(self, candidates: Sequence[Candidate], wishes: Wishes, article: str) -> list[Headline]:
        """The best candidates that obey the limits and differ in more than spelling, in the wanted case; maybe none."""
        limits = wishes.limits
        texts = {found: tidy(self._model.tokenizer.write(found.tokens)) for found in candidates}
        if limits.bound_length:
            candidates = _by_what_they_say(texts, limits)
        obeying = [found for found in candidates if normalised(texts[found]) and limits.obeyed_by(texts[found])]
        support = Support(article, language=self._model.info.language)

        def headline(text: str, score: float) -> Headline:
            return Headline(text, score, tuple(missing(text, limits.include)), tuple(support.unsupported(text)))

        written = (headline(texts[found], found.score) for found in _lane_by_lane(obeying))
        chosen = distinct(best_first(written), key=lambda headline: normalised(headline.text))[: wishes.num_headlines]
        chosen = best_first(sorted(chosen, key=lambda headline: -headline.score))
        return [headline(with_case(found.text, wishes.case, article), found.score) for found in chosen]

    async def _warm_up(self) -> None:
        """Run the longest article on every model thread, so that memory and kernels are there before the first one."""
        engine, tokenizer = self._model.engine, self._model.tokenizer
        text = "news " * self._model.info.max_source_tokens
        longest, probe = tokenizer.read(text).tokens, tokenizer.read(PROBE_ARTICLE).tokens
        limits = Limits(max_chars=60, avoid=("news",))
        wanted = Wanted(limits, names=self._model.names(probe))  # the tables behind them are made on first use
        jobs = [Job(tokens, engine.decoding.num_beams) for tokens in (longest, probe)]
        jobs.append(Job(probe, LIMIT_BEAMS, 1, wanted))
        loop = asyncio.get_running_loop()
        threads = range(self._model.workers)
        await asyncio.gather(*(loop.run_in_executor(self._model_threads, engine.generate, jobs) for _ in threads))

    async def _try_an_article(self) -> str | None:
        """The probe behind a failed batch: does one article go through now?"""
        job = Job(self._model.tokenizer.read(PROBE_ARTICLE).tokens, self._model.engine.decoding.num_beams)
        try:
            await self._submit(job, _now() + PROBE_SECONDS)
        except (BatchFailed, DeadlinePassed, QueueFull, Closed) as error:
            return f"the last batch failed and so did a probe: {type(error).__name__}"
        return None

    async def _on_text_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._text_threads, work)


def _by_what_they_say(texts: Mapping[Candidate, str], limits: Limits) -> list[Candidate]:
    """Best first by how much they say of what was written at any length; that itself, if it obeys anyway."""
    free = [candidate for candidate in texts if candidate.lane == 0]
    if free and limits.obeyed_by(texts[free[0]]):
        return list(texts)
    written = [(texts[candidate], candidate.score) for candidate in free]
    said = {
        candidate: expected_overlap(text, written) + LIKELIHOOD * candidate.score for candidate, text in texts.items()
    }
    return sorted(texts, key=lambda candidate: (ends_open(texts[candidate]), -said[candidate]))


def _lane_by_lane(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The best of every lane, then the second of every lane, and so on; each lane in the order given."""
    ranks: Counter[int] = Counter()
    ranked = []
    for candidate in candidates:
        ranked.append((ranks[candidate.lane], candidate))
        ranks[candidate.lane] += 1
    return [candidate for _, candidate in sorted(ranked, key=lambda entry: entry[0])]


def _now() -> float:
    return asyncio.get_running_loop().time()
