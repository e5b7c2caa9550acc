"""The batcher in virtual time: hours pass in milliseconds, and whoever would wait for ever raises SleepForeverError."""

import asyncio
import functools
import gc
import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import async_solipsism
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.serving.batcher import Batcher, BatchFailed, Closed, DeadlinePassed, QueueFull

T = TypeVar("T")
Task = asyncio.Task[str]


class VirtualLoop(async_solipsism.EventLoop):
    """Time passes in sleep only, and where a test adds to `lag`: there the loop comes late to its timers."""

    lag = 0.0

    def time(self) -> float:
        return super().time() + self.lag


def play(story: Coroutine[Any, Any, T]) -> T:
    """Run a story in virtual time; nothing may be reported to the loop's exception handler."""
    reported: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: reported.append(context))
        result = runner.run(story)
    assert not reported
    return result


def virtual(story: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that is a story in virtual time."""

    @functools.wraps(story)
    def test(*args: Any, **kwargs: Any) -> None:
        play(story(*args, **kwargs))

    return test


def now() -> float:
    return asyncio.get_running_loop().time()


# First any day at the office: generated clients, and what must be true whatever they do.


class Poison(Exception):
    pass


@dataclass(frozen=True)
class Client:
    arrives: float
    cost: int = 1
    patience: float | None = None  # leaves so long after arriving
    deadline: float | None = None  # so long after arriving
    poison: str | None = None  # makes its batch "raise" or "miscount"


@dataclass(frozen=True)
class Day:
    clients: list[Client]
    durations: list[float]  # of the batches, in turn
    workers: int = 1
    max_batch_cost: int = 8
    max_waiting: int = 8
    max_delay: float = 0.0
    closes: float = 20.0
    gently: bool = True  # finishes what it accepted


@dataclass(eq=False)
class Visit:
    """What became of a client."""

    number: int
    client: Client
    entered: float = math.inf
    place: int = -1  # in the order of entering
    found_closed: bool = False
    found_waiting: int = 0  # who had a claim to be answered
    found_unwinding: int = 0  # and those who have just lost it
    left: float = math.inf
    started: float = math.inf
    ended: float = math.inf
    outcome: str = ""
    value: Any = None

    @property
    def deadline(self) -> float:
        return math.inf if self.client.deadline is None else self.entered + self.client.deadline

    @property
    def refused(self) -> bool:
        return self.found_closed or self.deadline <= self.entered or self.outcome == "full"

    def waits(self, time: float) -> bool:
        """Waits and still has a claim."""
        return self.entered <= time < min(self.left, self.deadline) and self.started == self.ended == math.inf


@dataclass(eq=False)
class Run:
    """A batch, and what the office looked like when it left."""

    members: list[Visit]
    queue: list[Visit]
    free: int
    closed: bool
    started: float
    ended: float = math.inf

    @property
    def oldest(self) -> Visit:
        return min(self.queue, key=lambda visit: visit.place)

    @property
    def poisons(self) -> set[str]:
        return {visit.client.poison for visit in self.members if visit.client.poison}

    @property
    def share(self) -> int:
        return math.ceil(len(self.queue) / self.free)

    @property
    def nearest(self) -> list[Visit]:
        return sorted(self.queue, key=lambda visit: (abs(visit.client.cost - self.oldest.client.cost), visit.place))


@dataclass(eq=False)
class Office:
    """Plays a day and takes notes: every client's visit, every run of the model."""

    day: Day
    visits: list[Visit] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    heard: dict[str, Any] = field(default_factory=dict)
    entered: int = 0
    busy: int = 0
    closed: bool = False
    ended: float = math.inf

    async def play(self) -> "Office":
        day = self.day
        self.visits = [Visit(number, client) for number, client in enumerate(day.clients)]
        self.batcher = Batcher(
            self.run,
            workers=day.workers,
            max_batch_cost=day.max_batch_cost,
            max_waiting=day.max_waiting,
            max_delay=day.max_delay,
            observer=self,
        )
        async with self.batcher:
            clients = [asyncio.create_task(self.visit(visit)) for visit in self.visits]
            await asyncio.sleep(day.closes)
            assert self.batcher.alive
            self.closed = True
            if day.gently:
                self.batcher.close()
                await self.batcher.drained()
                assert not self.busy
                assert not any(visit.waits(now()) for visit in self.visits)
            self.ended = now()
        await asyncio.gather(*clients)
        return self

    async def visit(self, visit: Visit) -> None:
        client, loop = visit.client, asyncio.get_running_loop()
        await asyncio.sleep(client.arrives)
        visit.found_closed = self.closed
        visit.found_waiting = sum(other.waits(now()) for other in self.visits)
        visit.found_unwinding = sum(
            other.entered <= now() and other.started == other.ended == math.inf and not other.waits(now())
            for other in self.visits
        )
        visit.entered, visit.place = now(), self.entered
        self.entered += 1
        if client.patience is not None:
            loop.call_later(client.patience, self.leave, visit, asyncio.current_task())
        deadline = None if client.deadline is None else visit.deadline
        try:
            visit.value = await self.batcher.submit(visit.number, cost=client.cost, deadline=deadline)
            visit.outcome = "answered"
        except asyncio.CancelledError:
            visit.outcome = "left"
        except (QueueFull, DeadlinePassed, BatchFailed, Closed) as error:
            visit.outcome, visit.value = OUTCOMES[type(error)], error
        visit.ended = now()

    def leave(self, visit: Visit, task: asyncio.Task[None]) -> None:
        if visit.ended == math.inf:
            visit.left = now()
            task.cancel()

    async def run(self, numbers: Sequence[int]) -> list[str]:
        members = [self.visits[number] for number in numbers]
        queue = [visit for visit in self.visits if visit.waits(now())]
        run = Run(members, queue, self.day.workers - self.busy, self.closed, now())
        for visit in members:
            assert visit.started == math.inf, "started twice"
            visit.started = now()
        duration = self.day.durations[len(self.runs) % len(self.day.durations)]
        self.runs.append(run)
        self.busy += 1
        try:
            if duration:
                await asyncio.sleep(duration)
        finally:
            self.busy -= 1
            run.ended = now()
        if "raise" in run.poisons:
            raise Poison(run)
        return [headline(visit.number) for visit in members[len(run.poisons) :]]

    def waiting(self, jobs: int, cost: int) -> None:
        assert jobs <= self.day.max_waiting
        self.heard["waiting"] = jobs, cost

    def running(self, jobs: int) -> None:
        self.heard["running"] = jobs

    def taken(self, waited: Sequence[float]) -> None:
        self.heard["taken"] = [*self.heard.get("taken", []), *waited]


OUTCOMES = {QueueFull: "full", DeadlinePassed: "late", BatchFailed: "failed", Closed: "closed"}


def headline(number: int) -> str:
    return f"headline {number}"


half_hours = st.integers(0, 12).map(lambda halves: halves / 2)
clients = st.builds(
    Client,
    arrives=half_hours,
    cost=st.integers(1, 6),
    patience=st.none() | st.none() | half_hours,
    deadline=st.none() | st.none() | st.integers(-1, 12).map(lambda halves: halves / 2),
    poison=st.sampled_from([None] * 8 + ["raise", "miscount"]),
)
days = st.builds(
    Day,
    clients=st.lists(clients, min_size=1, max_size=16),
    durations=st.lists(st.integers(0, 6).map(lambda halves: halves / 2), min_size=1, max_size=4),
    workers=st.integers(1, 3),
    max_batch_cost=st.integers(1, 20),
    max_waiting=st.integers(1, 9),
    max_delay=st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.5]),
    closes=st.integers(0, 40).map(lambda halves: halves / 2),
    gently=st.booleans(),
)


@settings(max_examples=800, deadline=None)
@given(days)
@example(Day([Client(0.0), Client(0.5, deadline=0.5), Client(0.5)], [1.0]))
@example(Day([Client(0.0), Client(0.5, patience=0.5), Client(0.5)], [1.0]))
@example(Day([Client(0.0, poison="raise"), Client(0.5), Client(1.0)], [2.0], workers=2))
def test_any_day(day: Day) -> None:
    office = play(Office(day).play())
    for visit in office.visits:
        check_the_door(visit, day)
        check_the_outcome(visit, office)
    for run in office.runs:
        check_who_went(run, day)
        check_when_it_left(run, day)
    check_nobody_waits_beside_a_free_worker(office)
    check_the_end(office)
    check_what_was_heard(office)


def check_the_door(visit: Visit, day: Day) -> None:
    """Refused are the late, all once closed, and those for whom there is no room; nobody else."""
    if visit.deadline <= visit.entered:
        assert visit.outcome == "late"
    elif visit.found_closed:
        assert visit.outcome == "closed"
    elif visit.found_waiting >= day.max_waiting:
        assert visit.outcome == "full"
    elif visit.outcome == "full":
        assert visit.found_waiting + visit.found_unwinding >= day.max_waiting
    assert not visit.refused or visit.ended == visit.entered


def check_the_outcome(visit: Visit, office: Office) -> None:
    """What comes first decides: its batch, its deadline, its patience, the end of the day."""
    if visit.refused:
        assert visit.started == math.inf
        return
    ends = [(visit.left, "left"), (visit.deadline, "late")]
    if not office.day.gently:
        ends.append((office.ended, "closed"))
    (run,) = [run for run in office.runs if visit in run.members] or [None]
    if run:
        ends.append((run.ended, "failed" if run.poisons else "answered"))
    first = min(time for time, _ in ends)
    assert visit.ended == first < math.inf
    assert visit.outcome in {outcome for time, outcome in ends if time == first}
    check_the_value(visit, run)


def check_the_value(visit: Visit, run: Run | None) -> None:
    if visit.outcome == "answered":
        assert visit.value == headline(visit.number)
    if visit.outcome == "failed":
        cause = visit.value.__cause__
        assert cause.args == (run,) if "raise" in run.poisons else isinstance(cause, ValueError)


def check_who_went(run: Run, day: Day) -> None:
    """None who had gone; the oldest, then its nearest, as many as fit; no more than a fair share."""
    assert set(run.members) <= set(run.queue)
    assert len(run.members) == 1 or padded(run.members) <= day.max_batch_cost
    assert len(run.members) <= run.share
    assert set(run.members) == set(run.nearest[: len(run.members)])
    if len(run.members) < run.share:
        assert padded(run.nearest[: len(run.members) + 1]) > day.max_batch_cost


def check_when_it_left(run: Run, day: Day) -> None:
    """Not before it was due, unless it was full or nobody else could come."""
    due = run.started - run.oldest.entered >= day.max_delay
    full = (len(run.members) + 1) * max(visit.client.cost for visit in run.members) > day.max_batch_cost
    stopped = len(run.members) < run.share
    assert due or full or stopped or run.closed or len(run.queue) == day.max_waiting


def check_nobody_waits_beside_a_free_worker(office: Office) -> None:
    """Except within `max_delay` of the oldest's arrival."""
    accepted = [visit for visit in office.visits if not visit.refused]
    for time in between(event for visit in accepted for event in (visit.entered, visit.started, visit.ended)):
        queue = [visit for visit in accepted if visit.entered < time < min(visit.started, visit.ended)]
        busy = sum(run.started < time < run.ended for run in office.runs)
        if queue and busy < office.day.workers:
            assert time - min(visit.entered for visit in queue) < office.day.max_delay
            assert time < office.day.closes
            assert len(queue) < office.day.max_waiting


def check_the_end(office: Office) -> None:
    """A gentle end comes as soon as everything has ended, and not sooner."""
    if office.day.gently:
        ends = [visit.ended for visit in office.visits if not visit.refused] + [run.ended for run in office.runs]
        assert office.ended == max([office.day.closes, *ends])
    assert not office.batcher.alive
    assert office.batcher.waiting == office.batcher.running == 0


def check_what_was_heard(office: Office) -> None:
    if any(not visit.refused for visit in office.visits):
        assert office.heard["waiting"] == (0, 0)
    if office.runs:
        assert office.heard["running"] == 0
        waited = [visit.started - visit.entered for run in office.runs for visit in run.members]
        assert office.heard["taken"] == waited


def padded(visits: Sequence[Visit]) -> int:
    return len(visits) * max(visit.client.cost for visit in visits)


def between(events: Iterable[float]) -> list[float]:
    """Moments between the events."""
    return [(before + after) / 2 for before, after in pairwise(sorted({*events} - {math.inf}))]


# Then one rule, one example.


class Desk:
    """A model that takes an hour for a batch unless told otherwise. Its jobs are strings; it answers in capitals."""

    def __init__(self, *, hours: float = 1.0) -> None:
        self.hours = hours
        self.batches: list[list[str]] = []
        self.started: list[float] = []
        self.error: BaseException | None = None

    async def run(self, jobs: Sequence[str]) -> Sequence[str]:
        self.batches.append(list(jobs))
        self.started.append(now())
        await asyncio.sleep(self.hours)
        if self.error is not None and "poison" in jobs:
            raise self.error
        return [job.upper() for job in jobs]


def batcher_for(run: Callable[[Sequence[str]], Any], **changes: Any) -> Batcher[str, str]:
    return Batcher(run, **({"workers": 1, "max_batch_cost": 100, "max_waiting": 100} | changes))


def send(batcher: Batcher[str, str], *jobs: str, cost: int = 1, deadline: float | None = None) -> list[Task]:
    return [asyncio.create_task(batcher.submit(job, cost=cost, deadline=deadline)) for job in jobs]


async def outcomes(tasks: Iterable[Task]) -> list[Any]:
    """Results, and the types of what was raised."""
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    return [type(end) if isinstance(end, BaseException) else end for end in ends]


async def a_moment() -> None:
    """Everything that can happen without time passing happens."""
    await asyncio.sleep(1e-6)


@virtual
async def test_starts_at_once_when_idle_and_grows_under_load() -> None:
    desk = Desk()
    async with batcher_for(desk.run) as batcher:
        first = send(batcher, "a")
        await asyncio.sleep(0.5)
        rest = send(batcher, "b", "c")
        assert await outcomes(first + rest) == ["A", "B", "C"]
    assert desk.batches == [["a"], ["b", "c"]]
    assert desk.started == [0.0, 1.0]


async def batches_of(costs: Sequence[int], **limits: Any) -> list[list[int]]:
    """How jobs that wait together are parted into batches; a cost stands for the job."""
    desk = Desk()
    async with batcher_for(desk.run, **limits) as batcher:
        tasks = [task for cost in costs for task in send(batcher, str(cost), cost=cost)]
        await outcomes(tasks)
    return [[int(job) for job in batch] for batch in desk.batches]


@pytest.mark.parametrize(
    ("costs", "budget", "batches"),
    [
        ([50, 10, 52, 49, 11], 156, [[50, 49, 52], [10, 11]]),  # neighbours of like cost, nearest first
        ([50, 10, 52, 49, 11], 155, [[50, 49], [10, 11], [52]]),  # one more would be padded over the budget
        ([5, 7, 3, 7], 14, [[5, 7], [3, 7]]),  # equally near: the older one
        ([5, 3, 7, 7], 14, [[5, 3], [7, 7]]),
        ([20, 1, 20], 10, [[20], [1], [20]]),  # over the budget alone: goes all the same, alone
    ],
)
def test_neighbours_within_the_budget(costs: list[int], budget: int, batches: list[list[int]]) -> None:
    assert play(batches_of(costs, max_batch_cost=budget)) == batches


@pytest.mark.parametrize(
    ("jobs", "workers", "sizes"),
    [(6, 2, [3, 3]), (7, 3, [3, 2, 2]), (2, 3, [1, 1]), (5, 1, [5])],
)
def test_free_workers_share_what_waits(jobs: int, workers: int, sizes: list[int]) -> None:
    batches = play(batches_of([1] * jobs, workers=workers))
    assert [len(batch) for batch in batches] == sizes


@virtual
async def test_a_worker_that_comes_free_alone_takes_all() -> None:
    desk = Desk()
    async with batcher_for(desk.run, workers=2) as batcher:
        first = send(batcher, "a")
        await asyncio.sleep(0.5)
        second = send(batcher, "b")
        await asyncio.sleep(0.25)
        await outcomes(first + second + send(batcher, "c", "d"))
    assert desk.batches == [["a"], ["b"], ["c", "d"]]


@virtual
async def test_queue_full_counts_the_waiting_only() -> None:
    async with batcher_for(Desk().run, max_waiting=2) as batcher:
        tasks = send(batcher, "a")
        await a_moment()
        batcher.check_room()
        tasks += send(batcher, "b", "c")
        await a_moment()
        assert (batcher.running, batcher.waiting) == (1, 2)
        with pytest.raises(QueueFull):
            batcher.check_room()
        tasks += send(batcher, "d")
        assert await outcomes(tasks) == ["A", "B", "C", QueueFull]
        batcher.check_room()


async def retry_after(batcher: Batcher[str, str]) -> float:
    with pytest.raises(QueueFull) as refused:
        await batcher.submit("one too many", cost=1)
    return refused.value.retry_after


@virtual
async def test_retry_after_is_a_second_before_anything_was_measured() -> None:
    async with batcher_for(Desk().run, max_waiting=1) as batcher:
        tasks = send(batcher, "a", cost=1000)
        await asyncio.sleep(0)
        assert await retry_after(batcher) == 1.0
        await outcomes(tasks)


@pytest.mark.parametrize("workers", [1, 2, 4])
@virtual
async def test_retry_after_is_what_waits_over_the_pace_of_all_workers(workers: int) -> None:
    async with batcher_for(Desk(hours=2.0).run, workers=workers, max_batch_cost=10, max_waiting=8) as batcher:
        for _ in range(3):  # 10 in two hours, each of the workers
            await outcomes(send(batcher, *"abcd"[:workers], cost=10))
        tasks = send(batcher, *"abcd"[:workers], cost=10)
        await a_moment()
        tasks += send(batcher, *"abcdefgh", cost=10)
        await a_moment()
        assert await retry_after(batcher) == pytest.approx(80 / (5 * workers))
        await outcomes(tasks)


@virtual
async def test_retry_after_follows_the_pace_and_is_never_nothing() -> None:
    desk = Desk(hours=100.0)
    async with batcher_for(desk.run, max_waiting=1) as batcher:
        await outcomes(send(batcher, "a"))
        desk.hours = 1e-3
        for _ in range(200):
            await outcomes(send(batcher, "a"))
        tasks = send(batcher, "a")
        await asyncio.sleep(0)
        assert 0 < await retry_after(batcher) < 1
        await outcomes(tasks)


@virtual
async def test_a_deadline_already_past_is_refused_at_once() -> None:
    desk = Desk()
    async with batcher_for(desk.run) as batcher:
        assert await outcomes(send(batcher, "a", deadline=now())) == [DeadlinePassed]
        assert now() == 0.0
    assert not desk.batches


@virtual
async def test_a_deadline_while_waiting() -> None:
    desk = Desk()
    async with batcher_for(desk.run) as batcher:
        tasks = send(batcher, "a")
        await a_moment()
        late = send(batcher, "b", deadline=0.75)
        assert await outcomes(late) == [DeadlinePassed]
        assert now() == 0.75
        assert batcher.waiting == 0
        await outcomes(tasks)
    assert desk.batches == [["a"]]


@virtual
async def test_a_deadline_while_running_ends_the_wait_and_nothing_else() -> None:
    async with batcher_for(Desk().run) as batcher:
        late, fine = send(batcher, "a", deadline=0.5), send(batcher, "b")
        assert await outcomes(late) == [DeadlinePassed]
        assert now() == 0.5
        assert await outcomes(fine) == ["B"]
        assert batcher.last_batch_ok


@virtual
async def test_deadlines_are_looked_at_when_the_batch_is_formed() -> None:
    desk = Desk()

    async def hog(jobs: Sequence[str]) -> Sequence[str]:
        answers = await desk.run(jobs)
        asyncio.get_running_loop().lag += 10.0
        return answers

    async with batcher_for(hog) as batcher:
        tasks = send(batcher, "a")
        await a_moment()
        tasks += send(batcher, "b", deadline=5.0) + send(batcher, "c", deadline=50.0)
        assert await outcomes(tasks) == ["A", DeadlinePassed, "C"]
    assert desk.batches == [["a"], ["c"]]


@virtual
async def test_who_left_while_waiting_takes_no_place() -> None:
    desk = Desk()
    async with batcher_for(desk.run, max_waiting=1) as batcher:
        tasks = send(batcher, "a")
        await a_moment()
        tasks += send(batcher, "b")
        await a_moment()
        tasks[1].cancel()
        await a_moment()
        assert batcher.waiting == 0
        tasks += send(batcher, "c")
        assert await outcomes(tasks) == ["A", asyncio.CancelledError, "C"]
    assert desk.batches == [["a"], ["c"]]


@virtual
async def test_who_leaves_in_the_moment_the_batch_is_formed_is_not_in_it() -> None:
    desk = Desk()
    async with batcher_for(desk.run) as batcher:
        tasks = send(batcher, "a", "b")
        await asyncio.sleep(0)
        assert batcher.waiting == 2
        tasks[0].cancel()
        assert await outcomes(tasks) == [asyncio.CancelledError, "B"]
    assert desk.batches == [["b"]]


@virtual
async def test_who_left_while_running_disturbs_nobody() -> None:
    async with batcher_for(Desk().run) as batcher:
        tasks = send(batcher, "a", "b")
        await a_moment()
        tasks[0].cancel()
        assert await outcomes(tasks) == [asyncio.CancelledError, "B"]
        assert batcher.alive
        assert await batcher.submit("c", cost=1) == "C"


async def leave_between_failure_and_sight() -> None:
    async def fail(jobs: Sequence[str]) -> Sequence[str]:
        asyncio.get_running_loop().call_soon(task.cancel)  # before the client comes round to its failure
        raise Poison

    async with batcher_for(fail) as batcher:
        (task,) = send(batcher, "a")
        assert await outcomes([task]) == [asyncio.CancelledError]
        assert not batcher.last_batch_ok


@virtual
async def test_a_failure_that_nobody_stayed_to_see_is_not_reported() -> None:
    await leave_between_failure_and_sight()
    gc.collect()


@virtual
async def test_a_failed_batch_fails_its_own_and_the_worker_lives_on() -> None:
    desk = Desk()
    desk.error = Poison("bad article")
    async with batcher_for(desk.run) as batcher:
        assert batcher.last_batch_ok
        tasks = send(batcher, "a", "poison")
        await a_moment()
        tasks += send(batcher, "b")
        await asyncio.wait(tasks[:2])
        assert not batcher.last_batch_ok
        assert await outcomes(tasks) == [BatchFailed, BatchFailed, "B"]
        assert tasks[0].exception() is not tasks[1].exception()
        assert all(task.exception().__cause__ is desk.error for task in tasks[:2])
        assert batcher.last_batch_ok
        assert batcher.alive


@pytest.mark.parametrize("results", [[], ["A"], ["A", "B", "C"], None])
@virtual
async def test_a_wrong_number_of_results_fails_the_batch(results: Any) -> None:
    async def miscount(jobs: Sequence[str]) -> Any:
        return results if "a" in jobs else ["fine"]

    async with batcher_for(miscount) as batcher:
        assert await outcomes(send(batcher, "a", "b")) == [BatchFailed, BatchFailed]
        assert not batcher.last_batch_ok
        assert await outcomes(send(batcher, "c")) == ["fine"]
        assert batcher.alive


@virtual
async def test_close_refuses_the_new_and_finishes_the_accepted() -> None:
    async with batcher_for(Desk().run, max_batch_cost=1) as batcher:
        accepted = send(batcher, "a", "b")
        await a_moment()
        batcher.close()
        assert batcher.closed
        with pytest.raises(Closed):
            batcher.check_room()
        assert await outcomes(send(batcher, "c")) == [Closed]
        assert batcher.alive
        await batcher.drained()
        assert now() == 2.0
        assert await outcomes(accepted) == ["A", "B"]


@virtual
async def test_drained_waits_for_a_batch_whose_clients_have_left() -> None:
    async with batcher_for(Desk().run) as batcher:
        await batcher.drained()
        (task,) = send(batcher, "a")
        await asyncio.sleep(0.5)
        task.cancel()
        await batcher.drained()
        assert now() == 1.0


@virtual
async def test_nobody_waits_behind_the_exit() -> None:
    async with batcher_for(Desk().run) as batcher:
        tasks = send(batcher, "running")
        await asyncio.sleep(0.5)
        tasks += send(batcher, "waiting")
        await a_moment()
    tasks += send(batcher, "afterwards")
    assert await outcomes(tasks) == [Closed, Closed, Closed]
    assert now() == pytest.approx(0.5, abs=1e-3)
    assert not batcher.alive


@virtual
async def test_nothing_is_taken_before_the_entry() -> None:
    batcher = batcher_for(Desk().run)
    assert not batcher.alive
    with pytest.raises(Closed):
        batcher.check_room()


class Death(BaseException):
    """What no worker can be asked to survive."""


@pytest.mark.parametrize("death", [Death(), asyncio.CancelledError()])
@virtual
async def test_when_a_worker_dies_nobody_is_left_waiting(
    death: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk()
    desk.error = death
    async with batcher_for(desk.run, workers=2, max_batch_cost=1) as batcher:
        dying = send(batcher, "poison")
        await asyncio.sleep(0.25)
        running, waiting = send(batcher, "a"), send(batcher, "b", "c", "d")
        assert await outcomes(dying) == [Closed]
        assert not batcher.alive
        assert await outcomes(waiting) == [Closed, Closed, Closed]
        assert await outcomes(send(batcher, "e")) == [Closed]
        assert now() == 1.0
        assert await outcomes(running) == ["A"]
        await batcher.drained()
    assert [record.getMessage() for record in caplog.records] == ["a worker died"]


@virtual
async def test_when_an_observer_fails_nobody_is_left_waiting(caplog: pytest.LogCaptureFixture) -> None:
    class Clumsy(Ear):
        def taken(self, waited: Sequence[float]) -> None:
            raise ZeroDivisionError

    async with batcher_for(Desk().run, observer=Clumsy(), max_batch_cost=1) as batcher:
        assert await outcomes(send(batcher, "a", "b")) == [Closed, Closed]
        assert not batcher.alive
        await batcher.drained()
    assert "ZeroDivisionError" in caplog.text


class Ear:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def waiting(self, jobs: int, cost: int) -> None:
        self.heard.append(("waiting", jobs, cost))

    def running(self, jobs: int) -> None:
        self.heard.append(("running", jobs))

    def taken(self, waited: Sequence[float]) -> None:
        self.heard.append(("taken", *waited))


@virtual
async def test_the_observer_hears_of_every_change() -> None:
    ear = Ear()
    async with batcher_for(Desk().run, observer=ear) as batcher:
        tasks = send(batcher, "a", cost=3)
        await asyncio.sleep(0.5)
        tasks += send(batcher, "b", cost=4)
        await outcomes(tasks)
    first = [("waiting", 1, 3), ("waiting", 0, 0), ("taken", 0.0), ("running", 1)]
    second = [("waiting", 1, 4), ("running", 0), ("waiting", 0, 0), ("taken", 0.5), ("running", 1), ("running", 0)]
    assert ear.heard == first + second


@virtual
async def test_held_back_until_the_oldest_has_waited() -> None:
    desk = Desk()
    async with batcher_for(desk.run, max_delay=5.0) as batcher:
        tasks = send(batcher, "a")
        await asyncio.sleep(3.0)
        tasks += send(batcher, "b")
        await outcomes(tasks)
    assert desk.batches == [["a", "b"]]
    assert desk.started == [5.0]


@virtual
async def test_held_back_no_longer_than_the_batch_is_full() -> None:
    desk = Desk()
    async with batcher_for(desk.run, max_delay=5.0, max_batch_cost=3) as batcher:
        tasks = send(batcher, "a", "b")
        await asyncio.sleep(3.0)
        tasks += send(batcher, "c")
        await outcomes(tasks)
    assert desk.batches == [["a", "b", "c"]]
    assert desk.started == [3.0]


@virtual
async def test_held_back_no_longer_when_the_next_does_not_fit() -> None:
    desk = Desk()
    async with batcher_for(desk.run, max_delay=5.0, max_batch_cost=10) as batcher:
        tasks = send(batcher, "a", cost=3)
        await asyncio.sleep(3.0)
        tasks += send(batcher, "b", cost=6)
        await outcomes(tasks)
    assert desk.batches == [["a"], ["b"]]
    assert desk.started == [3.0, 4.0]


@virtual
async def test_the_delay_counts_from_the_arrival() -> None:
    desk = Desk(hours=10.0)
    async with batcher_for(desk.run, max_delay=5.0) as batcher:
        tasks = send(batcher, "a")
        await asyncio.sleep(7.0)
        tasks += send(batcher, "b")  # waits eight hours for the worker
        await asyncio.sleep(7.0)
        tasks += send(batcher, "c")
        await outcomes(tasks)
    assert desk.batches == [["a"], ["b", "c"]]
    assert desk.started == [5.0, 15.0]


@virtual
async def test_when_the_oldest_leaves_the_delay_is_that_of_the_next() -> None:
    desk = Desk()
    async with batcher_for(desk.run, max_delay=5.0) as batcher:
        tasks = send(batcher, "a")
        await asyncio.sleep(3.0)
        tasks += send(batcher, "b")
        await asyncio.sleep(1.0)
        tasks[0].cancel()
        await outcomes(tasks)
    assert desk.started == [8.0]


@pytest.mark.parametrize("end", ["close", "fill the queue"])
@virtual
async def test_nothing_is_held_back_for_those_who_cannot_come(end: str) -> None:
    desk = Desk()
    async with batcher_for(desk.run, max_delay=5.0, max_waiting=2) as batcher:
        tasks = send(batcher, "a")
        await asyncio.sleep(3.0)
        if end == "close":
            batcher.close()
        else:
            tasks += send(batcher, "b")
        await outcomes(tasks)
    assert desk.started == [3.0]


@virtual
async def test_a_few_thousand_are_all_answered() -> None:
    async with batcher_for(Desk().run, workers=2, max_batch_cost=64, max_waiting=3000) as batcher:
        tasks = [task for n in range(3000) for task in send(batcher, f"job {n}", cost=n % 7 + 1)]
        assert await outcomes(tasks) == [f"JOB {n}" for n in range(3000)]


@pytest.mark.parametrize("limit", ["workers", "max_batch_cost", "max_waiting"])
def test_limits_start_at_one(limit: str) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        batcher_for(Desk().run, **{limit: 0})


@virtual
async def test_costs_start_at_one() -> None:
    async with batcher_for(Desk().run) as batcher:
        with pytest.raises(ValueError, match="at least 1"):
            await batcher.submit("a", cost=0)
