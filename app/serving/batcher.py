"""Turns many waiting jobs into few batches. Knows asyncio only: no HTTP, no text, no torch.

A batch leaves when a worker is free to run it: batches grow by themselves under load, and nothing waits when idle.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

log = logging.getLogger(__name__)

TICK = 1e-6  # seconds; the loop's timers may fire a little early
MEMORY = 0.9  # the weight of a batch in the measured pace, against that of the next one
SOONEST = 0.1  # seconds; no client is asked to come back sooner

Job = TypeVar("Job")
Result = TypeVar("Result")


class QueueFull(Exception):
    """As many jobs wait as may; `retry_after` is the number of seconds until those have probably been taken."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full, try again in {retry_after:.1f} s")
        self.retry_after = retry_after


class DeadlinePassed(Exception):
    """The job was not done by its deadline."""


class BatchFailed(Exception):
    """The batch that held the job failed; `__cause__` is why."""


class Closed(Exception):
    """Nothing new is taken, or the batcher ended before the job was done."""


class Observer(Protocol):
    """What metrics attach to."""

    def waiting(self, jobs: int, cost: int) -> None:
        """Called when what waits has changed."""

    def running(self, jobs: int) -> None:
        """Called when what runs has changed."""

    def taken(self, waited: Sequence[float]) -> None:
        """Called when a batch leaves, with the seconds that each of its jobs has waited."""


class Unobserved:
    """The observer that does not look."""

    def waiting(self, jobs: int, cost: int) -> None: ...

    def running(self, jobs: int) -> None: ...

    def taken(self, waited: Sequence[float]) -> None: ...


@dataclass(eq=False, slots=True)
class _Accepted(Generic[Job, Result]):
    """A job between submit and its end. Its client may leave at any time, which settles it too."""

    job: Job
    cost: int
    deadline: float | None
    arrived: float
    settled: asyncio.Future[Result]

    def gone(self, now: float) -> bool:
        """Nobody wants its result any more."""
        return self.settled.done() or (self.deadline is not None and self.deadline <= now)

    def succeed(self, result: Result) -> None:
        if not self.settled.done():
            self.settled.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.settled.done():
            self.settled.set_exception(error)


class Batcher(Generic[Job, Result]):
    """Runs submitted jobs in batches. Use it as an async context: it takes jobs inside, and nobody waits behind it."""

    def __init__(
        self,
        run: Callable[[Sequence[Job]], Awaitable[Sequence[Result]]],
        *,
        workers: int,
        max_batch_cost: int,
        max_waiting: int,
        max_delay: float = 0.0,
        observer: Observer | None = None,
    ) -> None:
        """`run` gets a batch of jobs and returns one result for each, in order; up to `workers` calls run at a time.

        A batch costs its number of jobs times the cost of its dearest (they are padded to it). `max_delay`: how many
        seconds the oldest job may be held back by a free worker, so that others join it.
        """
        if min(workers, max_batch_cost, max_waiting) < 1:
            raise ValueError("workers, max_batch_cost and max_waiting must be at least 1")
        self._run = run
        self._number_of_workers = workers
        self._max_batch_cost = max_batch_cost
        self._max_waiting = max_waiting
        self._max_delay = max_delay
        self._observer = Unobserved() if observer is None else observer
        self._closed = False
        self._last_batch_ok = True
        self._workers: list[asyncio.Task[None]] = []
        self._free = workers
        self._waiting: dict[_Accepted[Job, Result], None] = {}  # an ordered set, the oldest first
        self._waiting_cost = 0
        self._running = 0
        self._pace = _Pace(workers)
        self._changed = asyncio.Event()  # set for a moment only: wakes whoever waits for a change

    async def __aenter__(self) -> Self:
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._number_of_workers)]
        for worker in self._workers:
            worker.add_done_callback(self._worker_ended)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End at once. Whoever still waits gets Closed; `close` and `drained` first for a gentle end."""
        self.close()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def submit(self, job: Job, *, cost: int, deadline: float | None = None) -> Result:
        """The result of a job, by `deadline` (the loop's time).

        Raises QueueFull, DeadlinePassed, BatchFailed, Closed.
        """
        if cost < 1:
            raise ValueError("cost must be at least 1")
        loop = asyncio.get_running_loop()
        accepted: _Accepted[Job, Result] = _Accepted(job, cost, deadline, loop.time(), loop.create_future())
        if accepted.gone(accepted.arrived):
            raise DeadlinePassed
        self.check_room()
        try:
            async with asyncio.timeout_at(deadline):
                self._add(accepted)
                return await accepted.settled
        except TimeoutError:
            raise DeadlinePassed from None
        finally:
            self._remove([accepted])

    def check_room(self, *, coming: int = 0) -> None:
        """Raise what submit would raise for want of room, once `coming` jobs that are still prepared are in: QueueFull
        or Closed."""
        if self._closed or not self.alive:
            raise Closed
        if len(self._waiting) + coming >= self._max_waiting:
            raise QueueFull(self._pace.seconds_for(self._waiting_cost))

    def close(self) -> None:
        """Take nothing new; what was accepted is still finished."""
        self._closed = True
        self._wake()

    async def drained(self) -> None:
        """Returns once nothing waits or runs."""
        while self._waiting or self._running:
            await self._changed.wait()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def alive(self) -> bool:
        """All workers are at work: none has died, and the context is entered and not yet left."""
        return bool(self._workers) and not any(worker.done() for worker in self._workers)

    @property
    def last_batch_ok(self) -> bool:
        """Whether the batch that ended last succeeded; True before the first."""
        return self._last_batch_ok

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return self._running

    async def _work(self) -> None:
        while True:
            batch = await self._next_batch()
            try:
                self._start(batch)
                await self._answer(batch)
            finally:
                self._finish(batch)

    async def _next_batch(self) -> list[_Accepted[Job, Result]]:
        """The batch that should leave now, still in the queue."""
        while not (batch := self._form()) or self._may_grow(batch):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._due(batch) if batch else None):
                    await self._changed.wait()
        return batch

    def _form(self) -> list[_Accepted[Job, Result]]:
        """The oldest job and those nearest to it in cost, while share and budget last. Empty if nothing waits.

        The oldest goes even if it alone is over the budget.
        """
        self._drop_gone()
        if not self._waiting:
            return []
        oldest, *others = self._waiting
        others.sort(key=lambda other: abs(other.cost - oldest.cost))  # stable: ties stay oldest first
        batch, dearest = [oldest], oldest.cost
        for other in others[: self._share() - 1]:
            dearest = max(dearest, other.cost)
            if not self._fits(len(batch) + 1, dearest):
                break
            batch.append(other)
        return batch

    def _share(self) -> int:
        """How many jobs one free worker may take, so that no other is left idle."""
        return math.ceil(len(self._waiting) / self._free)

    def _fits(self, jobs: int, dearest: int) -> bool:
        return jobs * dearest <= self._max_batch_cost

    def _drop_gone(self) -> None:
        """Timers may lag, and a client that left may not have come round to saying so."""
        now = asyncio.get_running_loop().time()
        gone = [accepted for accepted in self._waiting if accepted.gone(now)]
        for accepted in gone:
            accepted.fail(DeadlinePassed())
        self._remove(gone)

    def _may_grow(self, batch: list[_Accepted[Job, Result]]) -> bool:
        """Whether to hold a batch back for others to join: not when it is full or due, nor when no others may come."""
        if self._max_delay == 0 or self._full(batch) or self._closed or len(self._waiting) >= self._max_waiting:
            return False
        return self._due(batch) - asyncio.get_running_loop().time() > TICK

    def _full(self, batch: list[_Accepted[Job, Result]]) -> bool:
        """The next in the queue did not fit, or nobody would."""
        dearest = max(accepted.cost for accepted in batch)
        return len(batch) < self._share() or not self._fits(len(batch) + 1, dearest)

    def _due(self, batch: list[_Accepted[Job, Result]]) -> float:
        return batch[0].arrived + self._max_delay

    def _start(self, batch: list[_Accepted[Job, Result]]) -> None:
        self._free -= 1
        self._running += len(batch)
        self._remove(batch)
        now = asyncio.get_running_loop().time()
        self._observer.taken([now - accepted.arrived for accepted in batch])
        self._observer.running(self._running)

    async def _answer(self, batch: list[_Accepted[Job, Result]]) -> None:
        """Run a batch and settle its jobs. What `run` raises concerns this batch only."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            results = await self._run([accepted.job for accepted in batch])
            pairs = list(zip(batch, results, strict=True))  # checked before the first result goes out
        except Exception as error:
            self._last_batch_ok = False
            for accepted in batch:
                accepted.fail(_because(error))
        else:
            self._last_batch_ok = True
            for accepted, result in pairs:
                accepted.succeed(result)
        self._pace.note(sum(accepted.cost for accepted in batch), loop.time() - started)

    def _finish(self, batch: list[_Accepted[Job, Result]]) -> None:
        for accepted in batch:
            accepted.fail(Closed())  # settled already, unless the worker was ended before it could
        self._free += 1
        self._running -= len(batch)
        self._wake()
        self._observer.running(self._running)

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        """Told to or of a bug, a worker has ended: nobody is left waiting for it."""
        if not (worker.cancelled() and worker.cancelling()):
            log.critical("a worker died", exc_info=None if worker.cancelled() else worker.exception())
        left = list(self._waiting)
        for accepted in left:
            accepted.fail(Closed())
        self._remove(left)

    def _add(self, accepted: _Accepted[Job, Result]) -> None:
        self._waiting[accepted] = None
        self._waiting_cost += accepted.cost
        self._waiting_changed()

    def _remove(self, those: Iterable[_Accepted[Job, Result]]) -> None:
        """Take these off the queue; who is off it already is passed over."""
        leaving = [accepted for accepted in those if accepted in self._waiting]
        for accepted in leaving:
            del self._waiting[accepted]
            self._waiting_cost -= accepted.cost
        if leaving:
            self._waiting_changed()

    def _waiting_changed(self) -> None:
        self._wake()
        self._observer.waiting(len(self._waiting), self._waiting_cost)

    def _wake(self) -> None:
        """Let all who wait for a change look again; whoever comes later waits for the next."""
        self._changed.set()
        self._changed.clear()


class _Pace:
    """How fast the workers settle cost. Recent batches count most."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._cost = 0.0
        self._seconds = 0.0

    def note(self, cost: int, seconds: float) -> None:
        """One worker has settled `cost` in `seconds`."""
        self._cost = MEMORY * self._cost + cost
        self._seconds = MEMORY * self._seconds + seconds

    def seconds_for(self, cost: int) -> float:
        """How long all workers together will take for `cost`; a second if nothing was measured yet."""
        if not self._cost:
            return 1.0
        return max(cost * self._seconds / (self._cost * self._workers), SOONEST)


def _because(error: Exception) -> BatchFailed:
    """One for each client: an exception that is raised in several tasks mixes up their tracebacks."""
    failed = BatchFailed()
    failed.__cause__ = error
    return failed
