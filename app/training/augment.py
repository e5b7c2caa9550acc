"""Changes pairs so that what is learnt from them holds for others too. Knows texts only.

Renaming is the one that teaches copying: a name that no text has can be written only by reading it off the article.
"""

import re
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from app.headlines.spelling import PART, POSSESSIVE
from app.headlines.support import NOT_NAMES, is_common
from app.training.recipe import Recipe

SENTENCE_END = re.compile(r"(?<=[.!?][\"”’')\]]) +|(?<=[^.][^.][.!?]) +(?=[A-Z0-9\"“‘'(])")
SHORTEST = 4  # letters of a name that is exchanged
CROSSED = 0.5  # of the new names are made of two halves; the others are some article's
LENDERS = 3  # articles from which new names are taken


class Augment:
    """What the recipe says is to be done to a pair, at the rates that it says."""

    def __init__(self, recipe: Recipe, lend: Callable[[np.random.Generator], str]) -> None:
        """lend: gives another article, whose names may be used."""
        self._recipe, self._lend = recipe, lend

    def __call__(self, article: str, headline: str, random: np.random.Generator) -> tuple[str, str]:
        """The article and the headline, as they may be shown this once."""
        recipe = self._recipe
        rates = recipe.drop_sentence, recipe.shuffle_sentences, recipe.rename, recipe.noise
        drop, shuffle, rename, noise = random.random(len(rates)) < rates
        if drop:
            article = without_sentence(article, random)
        if shuffle:
            article = shuffled(article, random)
        if rename:
            lent = names_of(" ".join(self._lend(random) for _ in range(LENDERS)))
            article, headline = renamed(article, headline, lent, random)
        if noise:
            article = noisy(article, random)
        return article, headline


def split_first(article: str) -> tuple[str, str]:
    """The first sentence and the rest; half and half where there is but one."""
    end = SENTENCE_END.search(article, 30)
    middle = end.start() if end else article.rfind(" ", 0, len(article) // 2)
    return article[: max(middle, 1)].strip(), article[max(middle, 1) :].strip()


def names_of(text: str) -> list[str]:
    """Its longer words with one capital that are no common words, each once and in their order."""
    words = dict.fromkeys(POSSESSIVE.sub("", word) for word in PART.findall(text))
    return [word for word in words if len(word) >= SHORTEST and word.istitle() and not _is_known(word)]


def _is_known(word: str) -> bool:
    return word.casefold() in NOT_NAMES or is_common(word)


def renamed(article: str, headline: str, lent: list[str], random: np.random.Generator) -> tuple[str, str]:
    """Both with each name that they share exchanged for a new one, the same in both; unchanged if too few are lent."""
    there = set(names_of(article))
    shared = [name for name in names_of(headline) if name in there]
    lent = [name for name in lent if name not in there]
    if not shared or len(lent) <= len(shared):
        return article, headline
    lenders = pairwise(lent[int(place)] for place in random.permutation(len(lent)))
    new = {name: _new_name(*lender, random) for name, lender in zip(shared, lenders, strict=False)}
    new |= {name.upper(): other.upper() for name, other in new.items()}
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, new))})\b")
    return pattern.sub(lambda name: new[name[0]], article), pattern.sub(lambda name: new[name[0]], headline)


def _new_name(first: str, second: str, random: np.random.Generator) -> str:
    if random.random() >= CROSSED:
        return first
    return first[: int(random.integers(2, len(first)))] + second[int(random.integers(1, len(second) - 1)) :]


def without_sentence(article: str, random: np.random.Generator) -> str:
    """The article without its first, second or third sentence, where it has more than that."""
    sentences = SENTENCE_END.split(article)
    if len(sentences) > 3:
        sentences.pop(int(random.integers(0, 3)))
    return " ".join(sentences)


def shuffled(article: str, random: np.random.Generator) -> str:
    """The article with its first four sentences in another order."""
    sentences = SENTENCE_END.split(article)
    head = [sentences[place] for place in random.permutation(min(4, len(sentences)))]
    return " ".join(head + sentences[4:])


def noisy(article: str, random: np.random.Generator) -> str:
    """The article all in lower case, all in capitals, or without its commas, quotes and dashes."""
    match int(random.integers(0, 3)):
        case 0:
            return article.lower()
        case 1:
            return article.upper()
        case _:
            return re.sub(r"[,;:\"“”‘’()–—]", "", article)
