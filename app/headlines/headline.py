"""What a headline is, what a client may wish of it, and when two are the same. Knows no model and no HTTP."""

import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from app.headlines.phrases import contains, fold, has_words
from app.headlines.support import Unsupported

Case = Literal["model", "sentence", "title"]
WORD = re.compile(r"\w+")
CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # but for those that are white space
OPEN = re.compile(
    r"([,:;–—(-]|(?:^|\s)(?:a|an|and|as|at|but|by|for|from|in|into|its|nor|of|on|or|over|per|the|their|to|via|vs|with))$",
    re.IGNORECASE,
)
NEAR = 0.3  # nats a token between headlines that are about as likely
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What a headline's text must obey. `include` may be missed, all else always holds."""

    max_chars: int | None = None  # code points
    max_words: int | None = None
    include: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != NO_LIMITS

    @property
    def bound_length(self) -> bool:
        return self.max_chars is not None or self.max_words is not None

    def check(self) -> None:
        """Raise Impossible if no headline can obey them all."""
        for place, phrase in enumerate(self.avoid):
            if not fold(phrase).strip():
                raise Impossible(f"avoid.{place}", "must not be blank")
        for place, phrase in enumerate(self.include):
            self._check_phrase(f"include.{place}", phrase)
        # Phrases may share words, and stand side by side as "Obama-Merkel talks" does: the least room for all together.
        words = {word for phrase in self.include for word in WORD.findall(fold(phrase))}
        if self.max_chars is not None and sum(map(len, words)) + len(words) - 1 > self.max_chars:
            raise Impossible("include", f"the phrases together are longer than max_chars ({self.max_chars})")
        several = sum(len(phrase.split()) - 1 for phrase in self.include) + 1
        if self.max_words is not None and several > self.max_words and len(words) == self._words_in_all():
            raise Impossible("include", f"the phrases together have more words than max_words ({self.max_words})")

    def _check_phrase(self, field: str, phrase: str) -> None:
        if not has_words(phrase):
            raise Impossible(field, "has no letter or digit")
        if self.max_chars is not None and len(unicodedata.normalize("NFC", phrase)) > self.max_chars:
            raise Impossible(field, f"is longer than max_chars ({self.max_chars})")
        if self.max_words is not None and len(phrase.split()) > self.max_words:
            raise Impossible(field, f"has more words than max_words ({self.max_words})")
        for avoided in self.avoid:
            if contains(fold(phrase), fold(avoided).strip()):
                raise Impossible(field, f"contains {avoided!r}, which is to be avoided")

    def _words_in_all(self) -> int:
        return sum(len(WORD.findall(fold(phrase))) for phrase in self.include)

    def obeyed_by(self, text: str) -> bool:
        """Whether all but `include` holds for a headline."""
        folded = fold(text)
        return (
            (self.max_chars is None or len(text) <= self.max_chars)
            and (self.max_words is None or len(text.split()) <= self.max_words)
            and not any(contains(folded, fold(phrase)) for phrase in self.avoid)
        )


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Sampling:
    """How headlines are drawn instead of searched for; the same `seed` draws the same ones."""

    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True)
class Wishes:
    """What a client wants for an article."""

    num_headlines: int = 1
    case: Case = "model"
    limits: Limits = NO_LIMITS
    sampling: Sampling | None = None


class Impossible(Exception):
    """No headline can be as wished: `field` is what contradicts the rest, the message says how."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Headline:
    """A headline, its mean log-probability per token by the model (natural log), the wanted phrases that it lacks, and
    the names and numbers in it that its article lacks."""

    text: str
    score: float
    missing: tuple[str, ...] = ()
    unsupported: tuple[Unsupported, ...] = ()

    @property
    def chars(self) -> int:
        """Its length in code points."""
        return len(self.text)

    @property
    def words(self) -> int:
        return len(self.text.split())


def best_first(headlines: Iterable[Headline]) -> list[Headline]:
    """Those with all wanted phrases first, and last those with bytes that are no text, as of a script never learnt.

    Else in the order given, but of those about as likely as the next one that with the fewest inventions goes first.
    """
    left, ordered = sorted(headlines, key=_rank), []
    while left:
        rivals = (headline for headline in left if _rank(headline) == _rank(left[0]))
        near = (headline for headline in rivals if headline.score >= left[0].score - NEAR)
        ordered.append(min(near, key=lambda headline: len(headline.unsupported)))
        left.remove(ordered[-1])
    return ordered


def _rank(headline: Headline) -> tuple[int, bool]:
    return len(headline.missing), "\ufffd" in headline.text


def tidy(text: str) -> str:
    """The text without control characters and white space around it, and single blanks within."""
    return " ".join(CONTROL.sub("", text).split())


def ends_open(text: str) -> bool:
    """Whether the text cannot be whole by its last word or mark, as far as English tells."""
    return OPEN.search(text) is not None


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
