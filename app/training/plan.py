"""Decides before a training starts which pair is shown when, as what task, and how much of its article.

The whole order is one table made from the seed, so a training that goes on after a stop sees what it would have seen.
Knows numbers only: no texts, no tokens, no torch.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from app.training.errors import TrainingError
from app.training.recipe import Recipe

Integers = NDArray[np.int32]
WINDOW = 32  # batches among which examples of like length come together


class Task(IntEnum):
    """What is written from what."""

    HEADLINE = 0  # the headline from the article
    INFILL = 1  # a stretch of the article from the same with holes
    FIRST_SENTENCE = 2  # the first sentence from what follows it


@dataclass(frozen=True)
class Plan:
    """One row an example, in the order in which they are shown."""

    pairs: Integers  # number of the pair
    tasks: Integers
    limits: Integers  # tokens of the article that may be seen

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class Measured:
    """What a plan needs to know of each pair."""

    sources: Sequence[str]
    tokens: Integers  # of the article
    needed: Integers  # tokens up to the last name or number of the headline; -1: the article lacks one


def check_weights(weights: Collection[str], sources: Collection[str]) -> None:
    """Raises TrainingError for a weight whose pattern fits none of the sources."""
    for pattern in weights:
        if not any(fnmatchcase(source, pattern) for source in sources):
            raise TrainingError(f"no source fits the weight {pattern!r}; there is {', '.join(sorted(sources))}")


def make_plan(pairs: Measured, recipe: Recipe, *, batch: int) -> Plan:
    """The order of a whole training in batches of `batch` examples. Raises TrainingError if no pair may be shown."""
    random = np.random.default_rng(recipe.seed)
    weights = np.array([_weight(source, recipe.weights) for source in pairs.sources])
    total = max(1, round(recipe.epochs * weights.sum()))
    short = round(total * recipe.lead_until) if recipe.lead_tokens else 0
    lead = min(recipe.lead_tokens or recipe.max_source_tokens, recipe.max_source_tokens)
    phases = [(short, lead), (total - short, recipe.max_source_tokens)]
    drawn, limits = zip(*(_phase(pairs, weights, recipe, random, *phase) for phase in phases), strict=True)
    chosen, cut = np.concatenate(drawn), np.concatenate(limits)
    tasks = _tasks(total, recipe, random)
    order = _grouped(np.minimum(pairs.tokens[chosen], cut), batch, random)
    return Plan(chosen[order], tasks[order], cut[order])


def _weight(source: str, weights: dict[str, float]) -> float:
    """That of the first pattern that fits ("wikinews*")."""
    return next((weight for pattern, weight in weights.items() if fnmatchcase(source, pattern)), 1.0)


def _phase(
    pairs: Measured, weights: NDArray[np.float64], recipe: Recipe, random: np.random.Generator, count: int, limit: int
) -> tuple[Integers, Integers]:
    """`count` draws, and how much of each article is seen: from two thirds of the limit up to all of it."""
    needed = pairs.needed if recipe.supported_only else np.zeros_like(pairs.needed)
    shown = np.flatnonzero((needed >= 0) & (needed <= limit) & (weights > 0)).astype(np.int32)
    if count and not len(shown):
        raise TrainingError("no pair is left: each headline names what its article, as far as it is seen, does not")
    drawn = _draw(shown, np.array(pairs.sources)[shown], weights[shown], count, random)
    whole = limit == recipe.max_source_tokens
    limits = np.full(count, limit) if whole else random.integers(limit * 2 // 3, limit + 1, count)
    return drawn, np.maximum(limits, needed[drawn]).astype(np.int32)


def _draw(
    shown: Integers, sources: NDArray[np.str_], weights: NDArray[np.float64], count: int, random: np.random.Generator
) -> Integers:
    """Each source in rounds, each round in a new order, and all sources evenly mixed."""
    if not count:
        return np.empty(0, dtype=np.int32)
    shares = {source: weights[sources == source].sum() / weights.sum() for source in np.unique(sources)}
    drawn, times = [], []
    for source, share in shares.items():
        own = shown[sources == source]
        number = round(count * share) + 1
        rounds = [random.permutation(own) for _ in range(-(-number // len(own)))]
        drawn.append(np.concatenate(rounds)[:number])
        times.append((np.arange(number) + random.random(number)) / (count * share))
    order = np.argsort(np.concatenate(times), kind="stable")[:count]
    return np.concatenate(drawn)[order].astype(np.int32)


def _tasks(total: int, recipe: Recipe, random: np.random.Generator) -> Integers:
    """The other tasks' shares fall in a straight line to nothing."""
    left = np.maximum(0, 1 - np.arange(total) / (total * recipe.tasks_until))
    chance = random.random(total)
    infill, sentence = recipe.infill * left, recipe.first_sentence * left
    tasks = np.full(total, Task.HEADLINE, dtype=np.int32)
    tasks[chance < infill + sentence] = Task.FIRST_SENTENCE
    tasks[chance < infill] = Task.INFILL
    return tasks


def _grouped(lengths: Integers, batch: int, random: np.random.Generator) -> Integers:
    """An order in which each batch has examples of like length, and batches near each other the same mix as before."""
    order: list[Integers] = []
    for start in range(0, len(lengths), batch * WINDOW):
        window = np.arange(start, min(start + batch * WINDOW, len(lengths)))
        window = window[np.argsort(lengths[window], kind="stable")]
        batches = [window[place : place + batch] for place in range(0, len(window), batch)]
        last = [batches.pop()] if len(window) % batch else []  # a short batch stays the last
        order += [batches[place] for place in random.permutation(len(batches))] + last
    return np.concatenate(order).astype(np.int32)
