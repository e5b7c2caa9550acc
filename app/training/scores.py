"""What headlines are measured by: each measure a number a headline. Knows no model and no file.

ROUGE is the library's (Lin, 2004, https://aclanthology.org/W04-1013); the copy rate and the novel bigrams are those of
See et al. (2017, https://arxiv.org/abs/1704.04368); intervals are the bootstrap's (Efron, 1979).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer

from app.headlines.support import unsupported

Numbers = NDArray[np.float64]  # [headlines]
WORD = re.compile(r"\w+")
RESAMPLES = 1000
AT_ONCE = 50  # resamples that lie in memory together
BINS = 20


@dataclass(frozen=True)
class Interval:
    """A mean, and where 95 % of the means of resampled headlines lie."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Lengths:
    """How long headlines are, in words or in characters."""

    mean: float
    p5: float
    p50: float
    p95: float

    @classmethod
    def of(cls, lengths: Numbers) -> "Lengths":
        """Of at least one headline."""
        return cls(float(lengths.mean()), *map(float, np.percentile(lengths, (5, 50, 95))))


def rouge(headlines: Sequence[str], references: Sequence[str], kinds: Sequence[str]) -> dict[str, Numbers]:
    """The F1 of every headline for each kind ("rouge1", "rouge2", "rougeL", "rougeLsum"), 0 to 100, words stemmed."""
    scorer = RougeScorer(list(kinds), use_stemmer=True)
    scores = [scorer.score(reference, text) for text, reference in zip(headlines, references, strict=True)]
    return {kind: np.array([100 * score[kind].fmeasure for score in scores]) for kind in kinds}


def wording(headlines: Sequence[str], articles: Sequence[str]) -> dict[str, Numbers]:
    """What a headline takes from its article and how long it is: shares 0 to 1, lengths in words and in code points."""
    pairs = list(zip(headlines, articles, strict=True))
    return {
        "copied": np.array([copy_rate(text, article) for text, article in pairs]),
        "novel_bigrams": np.array([novel_bigrams(text, article) for text, article in pairs]),
        "words": np.array([len(text.split()) for text in headlines], dtype=float),
        "characters": np.array([len(text) for text in headlines], dtype=float),
    }


def invention(headlines: Sequence[str], articles: Sequence[str]) -> dict[str, Numbers]:
    """How many names and how many numbers a headline has that its article lacks."""
    found = [unsupported(text, article) for text, article in zip(headlines, articles, strict=True)]
    return {
        f"unsupported_{kind}s": np.array([sum(one.kind == kind for one in those) for those in found], dtype=float)
        for kind in ("name", "number")
    }


def copy_rate(headline: str, article: str) -> float:
    """The share of the headline's words that its article has, whatever their case; 0 without words."""
    words, known = _words(headline), set(_words(article))
    return _share([word in known for word in words])


def novel_bigrams(headline: str, article: str) -> float:
    """The share of the headline's pairs of neighbouring words that its article lacks; 0 without any."""
    known = set(pairwise(_words(article)))
    return _share([pair not in known for pair in pairwise(_words(headline))])


def bootstrap(groups: Sequence[Numbers], *, seed: int) -> Interval:
    """The mean of the groups' means, and its 95 % interval: every group is resampled by itself.

    One group is a plain mean; one group a source is the macro mean over sources.
    """
    draws = np.random.default_rng(seed)
    means = np.mean([_resampled(group, draws) for group in groups], axis=0)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(np.mean([group.mean() for group in groups])), float(low), float(high))


def histogram(*lengths: Numbers) -> dict[str, Any]:
    """How many headlines of each kind lie in each of 20 bins of the same whole width, which hold them all.

    A bin has its lower edge, not its upper one.
    """
    low, high = min(one.min() for one in lengths), max(one.max() for one in lengths)
    edges = low + math.ceil((high - low + 1) / BINS) * np.arange(BINS + 1)
    return {"edges": edges.tolist(), "counts": [np.histogram(one, edges)[0].tolist() for one in lengths]}


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else 0.0


def _resampled(group: Numbers, draws: np.random.Generator) -> Numbers:
    """The means of `RESAMPLES` draws of as many headlines, with replacement."""
    size = len(group)
    parts = [group[draws.integers(0, size, (AT_ONCE, size))].mean(axis=1) for _ in range(RESAMPLES // AT_ONCE)]
    return np.concatenate(parts)
