"""Gives a headline the letter case of a house style; names keep the article's spelling. Changes nothing but case."""

import re
from collections.abc import Iterable
from itertools import pairwise

from titlecase import titlecase

from app.headlines.headline import Case
from app.headlines.spelling import PART, SMALL, Spelling, base, gap, is_cased, key, recased

LONG = 4  # letters; shorter words have no capital in every title
NEARLY_ALL = 0.8
LONGEST = 60  # characters of a word that `titlecase` sees: it calls itself at every "mc" of "mcmcmc"
# Between two words of a headline: a sentence ends, or a quoted one begins.
BEGINS = re.compile(r"[.!?…][\"”’')\]]*\s|[:,]\s*[\"“‘']")
DASH = re.compile("[–—]")


def with_case(headline: str, case: Case, article: str) -> str:
    """The headline in sentence case or in US title case; "model" leaves it as it is."""
    if case == "model" or not PART.search(headline):
        return headline
    words = _Words(headline, article)
    return words.in_sentence_case() if case == "sentence" else words.in_title_case()


class _Words:
    """The words of a headline, and of each whether a style may touch it."""

    def __init__(self, headline: str, article: str) -> None:
        self._headline = headline
        self._parts = list(PART.finditer(headline))
        self._words = [base(part[0]) for part in self._parts]
        self._spelling = Spelling(article, self._words)
        self._begins = self._find_beginnings()
        self._names = [self._spelling.name(self._words, place) for place in range(len(self._words))]
        self._shouts = self._is_shouting()
        self._kept = [self._keep(place) for place in range(len(self._words))]

    def in_sentence_case(self) -> str:
        lower_all = self._shouts or self._is_in_title_case()
        return self._rewritten(
            self._sentence_word(place, lower=lower_all or self._spelling.is_common(word))
            for place, word in enumerate(self._words)
        )

    def in_title_case(self) -> str:
        titled = _titled(self._headline)
        return self._rewritten(self._title_word(place, titled) for place in range(len(self._words)))

    def _sentence_word(self, place: int, *, lower: bool) -> str:
        word = self._words[place]
        word = word.lower() if lower else word
        return _capitalised(word) if self._begins[place] else word

    def _title_word(self, place: int, titled: str) -> str:
        part = self._parts[place]
        word = titled[part.start() : part.start() + len(self._words[place])]
        if len(word) > 2 and word.isupper():
            word = word[0] + word[1:].lower()  # `titlecase` takes every word without vowels for an acronym
        first_of_several = titled[part.end() : part.end() + 1] == "-" and not self._follows_hyphen(part)
        after_dash = place > 0 and DASH.search(titled[self._parts[place - 1].end() : part.start()])
        return _capitalised(word) if self._begins[place] or first_of_several or after_dash else word

    def _follows_hyphen(self, part: re.Match[str]) -> bool:
        return self._headline[: part.start()].endswith("-")

    def _rewritten(self, words: Iterable[str]) -> str:
        pieces, end = [], 0
        for part, old, kept, new in zip(self._parts, self._words, self._kept, words, strict=True):
            possessive = part[0][len(old) :].lower()
            pieces += [self._headline[end : part.start()], recased(old, kept or new), possessive]
            end = part.end()
        return "".join(pieces) + self._headline[end:]

    def _find_beginnings(self) -> list[bool]:
        gaps = (gap(self._headline, before, part) for before, part in pairwise(self._parts))
        return [True, *(BEGINS.search(between) is not None for between in gaps)]

    def _keep(self, place: int) -> str | None:
        """How the word must look in every style; None where the style decides."""
        name, word = self._names[place], self._words[place]
        if name or "." in word:  # initials
            return name or word
        if key(word).split("'")[0] == "i" and word[0] == "I" and not self._spelling.is_common("i"):
            return "I" + word[1:].lower()
        if self._shouts:
            return None
        is_acronym = len(word) > 1 and word.isupper()
        is_mixed = any(letter.isupper() for letter in word[1:])
        is_confirmed = word[0].isupper() and self._spelling.may_be_name(self._words, place)
        return word if is_acronym or is_mixed or is_confirmed else None

    def _is_shouting(self) -> bool:
        """Whether capitals tell nothing of acronyms, all words having them, here or as names in the article."""
        columns = list(zip(self._words, self._names, strict=True))
        has_long = any(_letters(word) >= LONG for word, name in columns if not name)
        return has_long and all(
            (name or word).isupper() or word.isupper() for word, name in columns if _letters(word) > 1
        )

    def _is_in_title_case(self) -> bool:
        """Whether capitals tell nothing of names, nearly all long words having one."""
        columns = zip(self._parts, self._words, self._kept, self._begins, strict=True)
        free = [
            word
            for part, word, kept, begins in columns
            if not (kept or begins or key(word) in SMALL or self._follows_hyphen(part))  # "Irish-born" in a title
        ]
        long = [word for word in free if _letters(word) >= LONG]
        if len(long) == 1:
            long = [word for word in free if is_cased(word)]  # one tells too little: take the short ones, too
        return len(long) > 0 and sum(word[0].isupper() for word in long) >= NEARLY_ALL * len(long)


def _titled(headline: str) -> str:
    """US title case for all words alike, names or not, of the same length as the headline."""
    words = re.split(r"(\s+)", headline)
    lower = [_or_same(word.lower(), word) for word in words[::2]]
    titled = titlecase(" ".join(word[:LONGEST] for word in lower)).split(" ")
    words[::2] = [_or_same(new + old[LONGEST:], old) for new, old in zip(titled, lower, strict=True)]
    return "".join(words)


def _or_same(new: str, old: str) -> str:
    return new if len(new) == len(old) else old


def _capitalised(word: str) -> str:
    return word[:1].title() + word[1:]


def _letters(word: str) -> int:
    return sum(map(is_cased, word))
