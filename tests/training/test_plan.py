"""The plan: every pair in its turn, sources by their weights, tasks and leads in their time, batches of like length."""

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.training.errors import TrainingError
from app.training.plan import WINDOW, Measured, Plan, Task, _grouped, _tasks, check_weights, make_plan
from app.training.recipe import Recipe

LONGEST = 400

quick = settings(deadline=None, max_examples=50)

sources = st.lists(st.sampled_from(["wire", "wikinews_a", "wikinews_b", "press"]), min_size=1, max_size=60)
seeds = st.integers(0, 2**31 - 1)
batches = st.integers(1, 17)


@st.composite
def measured(draw: st.DrawFn, *, unsupported: bool = False) -> Measured:
    named = draw(sources)
    random = np.random.default_rng(draw(seeds))
    tokens = random.integers(1, LONGEST, len(named)).astype(np.int32)
    needed = random.integers(-1 if unsupported else 0, tokens + 1).astype(np.int32)
    return Measured(named, tokens, needed)


def same(pairs: int, *, source: str = "wire", tokens: int = 20, needed: int = 0) -> Measured:
    return Measured([source] * pairs, np.full(pairs, tokens, np.int32), np.full(pairs, needed, np.int32))


def recipe(**options: Any) -> Recipe:
    return Recipe(**{"max_source_tokens": 128, **options})


def rows(plan: Plan) -> list[tuple[int, int, int]]:
    return list(zip(plan.pairs.tolist(), plan.tasks.tolist(), plan.limits.tolist(), strict=True))


def shown_in_turn(pairs: Measured, plan: Plan) -> None:
    """Nobody is shown n + 2 times while another of its source was shown n times."""
    counts = Counter(plan.pairs.tolist())
    for source in set(pairs.sources):
        often = [counts[place] for place, name in enumerate(pairs.sources) if name == source]
        assert max(often) - min(often) <= 1


@quick
@given(measured(), seeds, batches)
def test_the_same_seed_gives_the_same_plan(pairs: Measured, seed: int, batch: int) -> None:
    options = {"seed": seed, "lead_tokens": 32, "infill": 0.3, "first_sentence": 0.2, "epochs": 1.5}
    plan = make_plan(pairs, recipe(**options), batch=batch)
    assert rows(plan) == rows(make_plan(pairs, recipe(**options), batch=batch))
    assert len(plan) == max(1, round(1.5 * len(pairs.sources)))


def test_another_seed_gives_another_plan() -> None:
    plans = [make_plan(same(50), recipe(seed=seed), batch=1).pairs.tolist() for seed in (1, 2)]
    assert plans[0] != plans[1]


@quick
@given(measured(), st.floats(0.1, 3), batches)
def test_every_pair_of_a_source_is_seen_before_any_is_seen_again(pairs: Measured, epochs: float, batch: int) -> None:
    shown_in_turn(pairs, make_plan(pairs, recipe(epochs=epochs), batch=batch))


@quick
@given(measured(), batches)
def test_whole_epochs_of_one_source_show_each_pair_as_often(pairs: Measured, batch: int) -> None:
    pairs = Measured(["wire"] * len(pairs.sources), pairs.tokens, pairs.needed)
    plan = make_plan(pairs, recipe(epochs=2), batch=batch)
    assert Counter(plan.pairs.tolist()) == dict.fromkeys(range(len(pairs.sources)), 2)


def test_each_phase_has_rounds_of_its_own() -> None:
    plan = make_plan(same(WINDOW), recipe(epochs=2, lead_tokens=32, lead_until=0.5), batch=1)
    halves = [plan.pairs[:WINDOW], plan.pairs[WINDOW:]]
    assert [sorted(half.tolist()) for half in halves] == [list(range(WINDOW))] * 2


@quick
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.lists(st.floats(0.1, 4), min_size=4, max_size=4))
def test_weights_are_the_shares_of_the_draws(sizes: list[int], weights: list[float]) -> None:
    names = [f"source{number}" for number in range(len(sizes))]
    given_weights = dict(zip(names, weights, strict=False))
    pairs = same(sum(sizes))
    pairs = Measured([name for name, size in zip(names, sizes, strict=True) for _ in range(size)], *pairs_of(pairs))
    plan = make_plan(pairs, recipe(epochs=3, weights=given_weights), batch=4)
    drawn = Counter(pairs.sources[place] for place in plan.pairs)
    for name, size in zip(names, sizes, strict=True):
        assert drawn[name] == pytest.approx(3 * size * given_weights[name], abs=len(names) + 1)
    shown_in_turn(pairs, plan)


def pairs_of(pairs: Measured) -> tuple[Any, Any]:
    return pairs.tokens, pairs.needed


def test_sources_are_mixed_evenly_all_along() -> None:
    pairs = Measured(["rare"] * 10 + ["often"] * 90, *pairs_of(same(100)))
    drawn = make_plan(pairs, recipe(epochs=10), batch=1).pairs
    for start in range(0, 1000, 100):
        assert 8 <= (drawn[start : start + 100] < 10).sum() <= 12


def test_the_first_pattern_that_fits_is_the_weight_and_nought_leaves_out() -> None:
    names = ["wikinews_a"] * 10 + ["wikinews_b"] * 10 + ["spam"] * 10 + ["other"] * 10
    weights = {"wikinews_b": 2.0, "wikinews*": 3.0, "spam": 0.0}
    plan = make_plan(Measured(names, *pairs_of(same(40))), recipe(epochs=1, weights=weights), batch=1)
    drawn = Counter(names[place] for place in plan.pairs)
    assert len(plan) == 60
    assert "spam" not in drawn
    assert [drawn[name] for name in ("wikinews_a", "wikinews_b", "other")] == pytest.approx([30, 20, 10], abs=1)


def test_a_weight_must_fit_a_source() -> None:
    check_weights({}, ["wire"])
    check_weights({"w*": 2.0, "wire": 1.0}, ["wire", "press"])
    with pytest.raises(TrainingError, match=r"no source fits the weight 'wier'; there is press, wire"):
        check_weights({"w*": 2.0, "wier": 1.0}, ["wire", "press"])


# Tasks


@quick
@given(st.integers(200, 400), st.floats(0.1, 0.45), st.floats(0.1, 0.45), st.floats(0.2, 1), seeds)
def test_the_other_tasks_fall_to_nothing(total: int, infill: float, sentence: float, until: float, seed: int) -> None:
    options = recipe(infill=infill, first_sentence=sentence, tasks_until=until)
    tasks = _tasks(total, options, np.random.default_rng(seed))
    assert (tasks[int(np.ceil(total * until)) :] == Task.HEADLINE).all()


def test_the_other_tasks_have_their_shares_in_a_straight_line() -> None:
    options = recipe(infill=0.4, first_sentence=0.2, tasks_until=0.5)
    tasks = _tasks(100_000, options, np.random.default_rng(1))
    for start, left in ((0, 0.95), (20_000, 0.55), (40_000, 0.15), (50_000, 0.0)):
        part = tasks[start : start + 5000]
        assert np.mean(part == Task.INFILL) == pytest.approx(0.4 * left, abs=0.03)
        assert np.mean(part == Task.FIRST_SENTENCE) == pytest.approx(0.2 * left, abs=0.03)


def test_headlines_are_the_only_task_by_default() -> None:
    assert (make_plan(same(50), recipe(), batch=4).tasks == Task.HEADLINE).all()


# How much of an article is seen


@quick
@given(measured(unsupported=True), st.integers(8, 300), st.floats(0, 1), batches)
def test_only_supported_headlines_are_shown_and_what_they_need_is_seen(
    pairs: Measured, lead: int, until: float, batch: int
) -> None:
    options = recipe(supported_only=True, lead_tokens=lead, lead_until=until, epochs=2)
    try:
        plan = make_plan(pairs, options, batch=batch)
    except TrainingError:
        assert ((pairs.needed < 0) | (pairs.needed > min(lead, 128))).all()
        return
    needed = pairs.needed[plan.pairs]
    assert (needed >= 0).all()
    assert (plan.limits >= needed).all()
    assert (plan.limits <= 128).all()


@quick
@given(measured(unsupported=True))
def test_without_the_option_every_pair_is_shown(pairs: Measured) -> None:
    plan = make_plan(pairs, recipe(epochs=len(set(pairs.sources)) + 1), batch=4)
    assert set(plan.pairs.tolist()) == set(range(len(pairs.sources)))
    assert (plan.limits == 128).all()


@quick
@given(st.integers(8, 127), st.integers(1, 9))
def test_short_leads_come_first(lead: int, tenths: int) -> None:
    short = WINDOW * tenths
    plan = make_plan(same(WINDOW * 10), recipe(epochs=1, lead_tokens=lead, lead_until=tenths / 10), batch=1)
    assert (plan.limits[:short] >= lead * 2 // 3).all()
    assert (plan.limits[:short] <= lead).all()
    assert (plan.limits[short:] == 128).all()


def test_leads_have_many_lengths() -> None:
    limits = make_plan(same(2000), recipe(epochs=1, lead_tokens=60, lead_until=1), batch=1).limits
    assert set(limits.tolist()) == set(range(40, 61))


def test_where_no_headline_is_supported_it_is_said() -> None:
    with pytest.raises(TrainingError, match="no pair is left"):
        make_plan(same(9, needed=-1), recipe(supported_only=True), batch=2)


# Batches


@quick
@given(st.lists(st.integers(1, LONGEST), min_size=1, max_size=300), st.integers(1, 6), seeds)
def test_batches_are_of_like_length_within_their_window(lengths: list[int], batch: int, seed: int) -> None:
    order = _grouped(np.array(lengths, np.int32), batch, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(lengths)))
    size = batch * WINDOW
    for start in range(0, len(lengths), size):
        window = order[start : start + size]
        assert sorted(window.tolist()) == list(range(start, min(start + size, len(lengths))))
        parts = [window[place : place + batch] for place in range(0, len(window), batch)]
        spans = sorted((min(part), max(part)) for part in ([lengths[place] for place in rows] for rows in parts))
        assert all(one[1] <= other[0] for one, other in pairwise(spans))


def test_a_short_batch_is_the_last_of_all() -> None:
    lengths = np.arange(10, dtype=np.int32)[::-1].copy()
    assert sorted(lengths[_grouped(lengths, 4, np.random.default_rng(1))][-2:].tolist()) == [8, 9]


def test_a_plan_is_grouped_by_what_is_seen() -> None:
    random = np.random.default_rng(1)
    tokens = random.integers(1, LONGEST, 640).astype(np.int32)
    pairs = Measured(["wire"] * 640, tokens, np.zeros(640, np.int32))
    plan = make_plan(pairs, recipe(epochs=1), batch=8)
    seen = np.minimum(tokens[plan.pairs], plan.limits).reshape(-1, 8)
    assert np.mean(seen.max(1) - seen.min(1)) < 10
