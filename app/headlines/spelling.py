"""How an article spells the words of a headline: which of them are names. Knows no house style."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

READ = 20_000  # characters of the article that are looked at: what a headline names, the article names near its top

# A word, or one part of a word with hyphens: initials ("U.S."), or letters and digits with apostrophes between them.
PART = re.compile(
    r"(?:[^\W\d_]\.){1,6}[^\W\d_]\.?(?![^\W_])|[^\W_](?:[^\W_]|[\u0300-\u036f]|['’](?=[^\W_]))*",
)
POSSESSIVE = re.compile(r"['’]s$", re.I)
# Between two words: what follows may be written with a capital for another reason than being a name.
MAY_BEGIN = re.compile(r"[.!?…:;\n\"“”„«»•|]|\s['‘‹]")
_ABBREVIATIONS = "dr ft gen gov hon jr lt messrs mr mrs ms mt no prof rep rev sen sens sgt sr st vs"
_SMALL = "a an and as at but by for from if in into nor of on or over per the to up v via vs with"
ABBREVIATIONS, SMALL = (frozenset(words.split()) for words in (_ABBREVIATIONS, _SMALL))


class Spelling:
    """The article's spelling of some words, learnt where a capital means something.

    That is not at the start of a sentence nor in a line that is all capitals or in title case. A word that the article
    also writes in lower case is no name by itself, but may be one beside its neighbour ("New York", "White House").
    Words are parts without their possessive ending.
    """

    def __init__(self, article: str, words: Sequence[str]) -> None:
        self._wanted = {key(word) for word in words}
        self._common: set[str] = set()
        self._names: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._pairs: dict[tuple[str, str], tuple[str, str]] = {}
        self._first_pairs: set[tuple[str, str]] = set()
        for sentence in _sentences(article[:READ]):
            if self._wanted.intersection(map(key, sentence)) and not _is_heading(sentence):
                self._learn(sentence)

    def _learn(self, sentence: list[str]) -> None:
        for place, word in enumerate(sentence):
            if word.islower():
                self._common.add(key(word))
            elif is_cased(word) and (place or not is_capitalised(word)):
                self._names[key(word)][word] += 1
        for place, pair in enumerate(pairwise(sentence)):
            keys = (key(pair[0]), key(pair[1]))
            if self._wanted.issuperset(keys) and all(is_cased(word) and not word.islower() for word in pair):
                if place:
                    self._pairs.setdefault(keys, pair)
                elif keys[0] not in SMALL:
                    self._first_pairs.add(keys)

    def is_common(self, word: str) -> bool:
        """Whether the article writes the word in lower case, and nowhere with a capital that means something."""
        return key(word) in self._common and key(word) not in self._names

    def name(self, words: Sequence[str], place: int) -> str | None:
        """How the article spells the word at this place of the headline, if it is a name there."""
        word = key(words[place])
        if word in self._names and word not in self._common:
            return recased(words[place], self._names[word].most_common(1)[0][0])
        for first in (place, place - 1):
            pair = self._pairs.get(_pair(words, first))
            if pair:
                return recased(words[place], pair[place - first])
        return None

    def may_be_name(self, words: Sequence[str], place: int) -> bool:
        """Whether the word starts a sentence of the article, and there stands beside the same capitalised neighbour."""
        return _pair(words, place) in self._first_pairs


def key(word: str) -> str:
    return word.casefold().replace("’", "'")


def base(part: str) -> str:
    """The word without its possessive ending."""
    return POSSESSIVE.sub("", part)


def is_cased(word: str) -> bool:
    return word.lower() != word.upper()


def is_capitalised(word: str) -> bool:
    """A capital and no other: "Mars", "I"; not "NASA", "iPhone"."""
    return not word[:1].islower() and not any(letter.isupper() for letter in word[1:])


def recased(word: str, spelling: str) -> str:
    """The word with the spelling's letter case; the word itself where more than case would change."""
    if len(word) != len(spelling) or key(word) != key(spelling):
        return word
    return "".join(new if new.casefold() == old.casefold() else old for old, new in zip(word, spelling, strict=True))


def gap(text: str, before: re.Match[str], part: re.Match[str]) -> str:
    """What stands between two parts, without the period of an abbreviation or an initial."""
    between = text[before.end() : part.start()]
    if between.startswith(".") and (len(before[0]) == 1 or key(before[0]) in ABBREVIATIONS):
        return between[1:]
    return between


def _sentences(text: str) -> Iterator[list[str]]:
    """The words of each stretch that may begin with a capital."""
    sentence: list[str] = []
    before: re.Match[str] | None = None
    for part in PART.finditer(text):
        if before and MAY_BEGIN.search(gap(text, before, part)):
            yield sentence
            sentence = []
        sentence.append(base(part[0]))
        before = part
    yield sentence


def _is_heading(sentence: list[str]) -> bool:
    cased = [word for word in sentence if is_cased(word)]
    if len(cased) >= 3 and all(word.isupper() for word in cased):
        return True
    return len(cased) >= 5 and not any(word.islower() and key(word) not in SMALL for word in cased)


def _pair(words: Sequence[str], first: int) -> tuple[str, str]:
    if 0 <= first < len(words) - 1:
        return key(words[first]), key(words[first + 1])
    return "", ""
