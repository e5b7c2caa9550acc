"""When a headline contains a phrase: case-insensitive, as whole words. Knows no model."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

APOSTROPHES = str.maketrans("’‘ʼ`", "''''")
READ = 20_000  # characters of an article
SPACES = re.compile(r"\s+")


def fold(text: str) -> str:
    """The text as phrases are compared in: letter case, typographic variants and runs of white space made alike."""
    compatible = unicodedata.normalize("NFKC", text).casefold()
    return SPACES.sub(" ", unicodedata.normalize("NFKC", compatible).translate(APOSTROPHES))


def is_word(character: str) -> bool:
    """Whether the character belongs to a word: a letter, a digit, or a mark on one."""
    return character.isalnum() or unicodedata.category(character).startswith("M")


def may_part(before: str, after: str) -> bool:
    """Whether one word does not go on from `before` into `after`; either may be empty, at an end of the text."""
    return not (before and after and is_word(before[-1]) and is_word(after[0]))


def has_words(phrase: str) -> bool:
    return any(map(is_word, phrase))


def contains(folded: str, phrase: str) -> bool:
    """Whether `phrase` stands in the text as whole words; both are folded, the phrase is not blank."""
    place = folded.find(phrase)
    while place >= 0:
        end = place + len(phrase)
        if may_part(folded[:place], phrase) and may_part(phrase, folded[end:]):
            return True
        place = folded.find(phrase, place + 1)
    return False


def spelled_as_in(article: str, phrase: str) -> str:
    """The phrase as the article mostly spells it near its top; as it is where the article lacks it."""
    words = r"\s+".join(map(re.escape, phrase.split()))
    found = re.findall(rf"(?<!\w){words}(?!\w)", article[:READ], re.IGNORECASE)
    return " ".join(Counter(found).most_common(1)[0][0].split()) if found else phrase


def missing(headline: str, phrases: Sequence[str]) -> list[str]:
    """Those of the phrases that the headline lacks."""
    folded = fold(headline)
    return [phrase for phrase in phrases if not contains(folded, fold(phrase).strip())]
