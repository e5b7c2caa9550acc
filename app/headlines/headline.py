"""What a headline is, what a client may wish of it, and when two are the same. Knows no model and no HTTP."""

import unicodedata
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

Case = Literal["model", "sentence", "title"]
T = TypeVar("T")


@dataclass(frozen=True)
class Wishes:
    """What a client wants for an article."""

    num_headlines: int = 1
    case: Case = "model"


@dataclass(frozen=True)
class Headline:
    """A headline, and the mean log-probability per token that the model gives it (natural log)."""

    text: str
    score: float

    @property
    def chars(self) -> int:
        """Its length in code points."""
        return len(self.text)

    @property
    def words(self) -> int:
        return len(self.text.split())


def tidy(text: str) -> str:
    """The text without white space around it, and single blanks within."""
    return " ".join(text.split())


def normalised(text: str) -> str:
    """The letters and digits of the text, case-folded: headlines of one answer differ in it; "" is no headline."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(character for character in folded if character.isalnum())


def distinct(candidates: Iterable[T], key: Callable[[T], Hashable]) -> list[T]:
    """Of the candidates with one key the first, in the order they came."""
    first: dict[Hashable, T] = {}
    for candidate in candidates:
        first.setdefault(key(candidate), candidate)
    return list(first.values())
