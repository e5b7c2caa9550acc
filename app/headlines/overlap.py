"""How much of one headline another one says: the longest common subsequence of their words, as ROUGE-L takes it."""

import math
import re
from collections.abc import Sequence

WORD = re.compile(r"\w+")
SHARPNESS = 3.0  # how much more a likelier headline weighs: exp(3 * mean log-probability)


def overlap(one: str, other: str) -> float:
    """F1 of the words that stand in both in the same order, 0 to 1 (Lin, 2004, https://aclanthology.org/W04-1013)."""
    words, others = (WORD.findall(text.casefold()) for text in (one, other))
    if not words or not others:
        return 0.0
    return 2 * _common(words, others) / (len(words) + len(others))


def expected_overlap(text: str, headlines: Sequence[tuple[str, float]]) -> float:
    """The overlap to expect with what is written freely: `headlines` with their mean log-probabilities.

    To choose by it is minimum Bayes risk decoding (Kumar and Byrne, 2004, https://aclanthology.org/N04-1022).
    """
    weights = [math.exp(SHARPNESS * score) for _, score in headlines]
    found = sum(weight * overlap(text, other) for (other, _), weight in zip(headlines, weights, strict=True))
    return found / (sum(weights) or 1.0)


def _common(words: Sequence[str], others: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(others) + 1)
    for word in words:
        diagonal = 0
        for place, other in enumerate(others, 1):
            above = row[place]
            row[place] = diagonal + 1 if word == other else max(above, row[place - 1])
            diagonal = above
    return row[-1]
