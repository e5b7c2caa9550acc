"""Finds the names and numbers of a headline that its article never mentions. Knows no tokens and no model.

A word is a name if it has a capital that the style of the headline does not explain: in title case every word has one,
so there only words that are not also common words of the language count (`words/en.txt`: the words that 90 000 news
articles and press releases write in lower case).
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from typing import Literal

from app.headlines.spelling import PART, POSSESSIVE

Kind = Literal["name", "number"]

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
SENTENCE = re.compile(r"(?:^|[.!?:;][\"”’')]*\s+)[\"“‘'(]*$")  # what stands before a word that begins a sentence
TITLE_CASE = 0.6  # of the longer words have a capital, the first aside
LONG = 4  # letters
_NOT_NAMES = (
    "adm amb apr atty aug brig cir cmdr co col corp cpl dec dept det dr feb fri ft gen gov hon inc insp jan jr jul jun "
    "lt ltd maj mar messrs mon mr mrs ms mt nov no oct ofc pres prof rep reps rev sat sec sen sens sep sept sgt sr st "
    "statement sun supt thu tue vs wed i monday tuesday wednesday thursday friday saturday sunday january february "
    "march april june july august september october november december congressman congresswoman readout"
)
_SPELLED = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth"
NOT_NAMES = frozenset(_NOT_NAMES.split())
TENS = {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
SPELLED = {word: number for number, word in enumerate(_SPELLED.split())} | TENS
ORDINALS = {word: number for number, word in enumerate(_ORDINALS.split(), start=1)}
# What a country's people and things are called: an ending in the headline, those of the name that it stands for.
DEMONYMS = {
    "an": ("a", "", "e", "y", "o"),
    "ian": ("", "ia", "y", "e", "a"),
    "n": ("",),
    "ns": ("",),
    "ean": ("", "e"),
    "ese": ("", "a", "e", "al", "on"),
    "ish": ("", "ain", "land", "en", "ey"),
    "i": ("", "ia", "e"),
    "ic": ("land", "ia"),
    "er": ("",),
    "ers": ("",),
    "s": ("",),
    "es": ("",),
}
IRREGULAR = {
    "american": ("us", "america", "united"),
    "british": ("uk", "britain", "kingdom", "england"),
    "briton": ("uk", "britain"),
    "britain": ("uk", "kingdom", "british"),
    "argentine": ("argentina",),
    "belgian": ("belgium",),
    "czech": ("czechia",),
    "dane": ("denmark",),
    "dutch": ("netherlands", "holland"),
    "finn": ("finland",),
    "norwegian": ("norway",),
    "peruvian": ("peru",),
    "pole": ("poland",),
    "polish": ("poland",),
    "portuguese": ("portugal",),
    "scottish": ("scotland",),
    "spaniard": ("spain",),
    "swede": ("sweden",),
    "english": ("england",),
    "french": ("france",),
    "german": ("germany",),
    "greek": ("greece",),
    "welsh": ("wales",),
    "danish": ("denmark",),
    "irish": ("ireland",),
    "swiss": ("switzerland",),
    "thai": ("thailand",),
    "turkish": ("turkey", "türkiye"),
    "filipino": ("philippines", "philippine"),
    "gop": ("republican", "republicans"),
    "dems": ("democrats", "democratic", "democrat"),
    "dem": ("democrat", "democratic", "democrats"),
    "eu": ("european", "europe"),
    "uk": ("britain", "british", "kingdom"),
    "us": ("american", "america", "united", "americans"),
    "america": ("us", "united", "american", "americans"),
    "un": ("united",),
}
_STATES = """
    alabama al ala, alaska ak, arizona az ariz, arkansas ar ark, california ca calif, colorado co colo, connecticut ct
    conn, delaware de del, florida fl fla, georgia ga, hawaii hi, idaho id, illinois il ill, indiana in ind, iowa ia,
    kansas ks kan, kentucky ky, louisiana la, maine me, maryland md, massachusetts ma mass, michigan mi mich, minnesota
    mn minn, mississippi ms miss, missouri mo, montana mt mont, nebraska ne neb, nevada nv nev, ohio oh, oklahoma ok
    okla, oregon or ore, pennsylvania pa penn, tennessee tn tenn, texas tx tex, utah ut, vermont vt, virginia va,
    washington wa wash, wisconsin wi wis, wyoming wy wyo
"""
# Letters that Unicode does not take apart into a plain one and its accent.
STROKES = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"})
STATES = {short: names[0] for names in map(str.split, _STATES.split(",")) for short in names[1:]}
# What an article's word lets a headline say: "us" American, "ohio" Oh.
_LETS_SAY: defaultdict[str, set[str]] = defaultdict(set)
for _name, _words in [*IRREGULAR.items(), *((short, (state,)) for short, state in STATES.items())]:
    for _word in _words:
        _LETS_SAY[_word].add(_name)


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A name or a number of a headline that its article does not contain; offsets into the headline."""

    text: str
    start: int
    end: int
    kind: Kind


class Support:
    """What an article says, to hold headlines against; it is read when the first name or number is looked for.

    Names are known in English only: in other languages, such as German, not only they have capitals.
    """

    def __init__(self, article: str, *, language: str = "en") -> None:
        self._text = article
        self._knows_names = knows_names(language)

    def unsupported(self, headline: str) -> list[Unsupported]:
        """The names and numbers of the headline that the article does not contain, in their order."""
        return [claim for claim, place in self._places(headline) if place is None]

    def ends(self, headline: str) -> int | None:
        """How far into the article (characters) its every name and number is found; None: some are not there."""
        places = [place for _, place in self._places(headline)]
        return None if None in places else max(map(int, filter(None, places)), default=0)

    def _places(self, headline: str) -> list[tuple[Unsupported, int | None]]:
        names = _names(headline) if self._knows_names else []
        claims = sorted([*names, *_numbers(headline)], key=lambda claim: claim.start)
        return [(claim, self._article.place(claim)) for claim in claims]

    @cached_property
    def _article(self) -> "_Article":
        return _Article(self._text)


def knows_names(language: str) -> bool:
    """Whether a capital is what makes a name there, as far as is known."""
    return language in ("en", "unknown")


def unsupported(headline: str, article: str) -> list[Unsupported]:
    """The names and numbers of the headline that the article does not contain, in their order."""
    return Support(article).unsupported(headline)


def support_ends(headline: str, article: str) -> int | None:
    """How far into the article (characters) one must read to find every name and number; None: some are not there."""
    return Support(article).ends(headline)


def _names(headline: str) -> list[Unsupported]:
    words = [match for match in PART.finditer(headline) if not NUMBER.search(match[0])]
    shouts = headline.isupper()
    title = _is_title_case([word[0] for word in words])
    return [
        Unsupported(POSSESSIVE.sub("", word[0]), word.start(), word.start() + len(POSSESSIVE.sub("", word[0])), "name")
        for word in words
        if word[0][0].isupper() and _is_name(word, headline, lenient=title or shouts)
    ]


def _is_title_case(words: list[str]) -> bool:
    longer = [word for word in words[1:] if len(word) >= LONG]
    return bool(longer) and sum(word[0].isupper() for word in longer) >= TITLE_CASE * len(longer)


def _is_name(word: re.Match[str], headline: str, *, lenient: bool) -> bool:
    text = POSSESSIVE.sub("", word[0])
    if key_of(text) in NOT_NAMES or key_of(text) in SPELLED or key_of(text) in ORDINALS or len(key_of(text)) < 2:
        return False
    if text.isupper() and not headline.isupper():
        return True
    explained = lenient or SENTENCE.search(headline[: word.start()]) is not None
    return not (explained and is_common(text))


@lru_cache(maxsize=100_000)
def is_known(word: str) -> bool:
    """Whether English writes the word whatever an article is about: common ones, titles, days, states in short."""
    key = key_of(word)
    return key in NOT_NAMES or key in STATES or is_common(word)


def is_common(word: str) -> bool:
    """Whether English writes the word, or its plain form, in lower case."""
    known, key = _common(), word.casefold().replace("’", "'")
    endings = {"s": "", "es": "", "ed": "", "d": "", "ing": "", "ies": "y", "ied": "y", "er": "", "ers": "", "ly": ""}
    plain = (key.removesuffix(end) + start for end, start in endings.items() if key.endswith(end))
    return key in known or any(stem in known or f"{stem}e" in known for stem in plain if len(stem) >= LONG - 1)


@cache
def _common() -> frozenset[str]:
    return frozenset((files("app.headlines") / "words" / "en.txt").read_text(encoding="utf-8").split())


def _numbers(headline: str) -> list[Unsupported]:
    digits = [Unsupported(match[0], match.start(), match.end(), "number") for match in NUMBER.finditer(headline)]
    spelled = [
        Unsupported(word[0], word.start(), word.end(), "number")
        for word in PART.finditer(headline)
        if SPELLED.get(word[0].casefold(), 0) > 1  # "one" is seldom a number
    ]
    return digits + spelled


def beginnings(article: str) -> set[str]:
    """The keys of all beginnings of the words and numbers that support a headline's, of other forms of names too."""
    words = {word[0] for word in PART.finditer(article)} | {number[0] for number in NUMBER.finditer(article)}
    return set().union(*map(_beginnings, words))


@lru_cache(maxsize=50_000)
def _beginnings(word: str) -> frozenset[str]:
    plain = key_of(POSSESSIVE.sub("", word))
    number = SPELLED.get(plain) or ORDINALS.get(plain)
    forms = {plain, *_plain_names(plain), *_LETS_SAY.get(plain, ()), *([str(number)] if number else ())}
    return frozenset(form[:end] for form in forms for end in range(1, len(form) + 1))


class _Article:
    """Where an article mentions what."""

    def __init__(self, text: str) -> None:
        self._words: dict[str, int] = {}  # keys of words, and where each first ends
        self._numbers: dict[str, int] = {}
        self._initials: dict[str, int] = {}  # what the capitals of neighbouring words spell
        words = list(PART.finditer(text))
        for word in words:
            self._learn_word(word)
        for match in NUMBER.finditer(text):
            self._numbers.setdefault(_value(match[0]), match.end())
        self._learn_initials(words)

    def place(self, claim: Unsupported) -> int | None:
        """Where the first mention of it ends; None if there is none."""
        if claim.kind == "number":
            return self._place_of_number(claim.text)
        return _earliest(self._words.get(key) for key in _variants(key_of(claim.text))) or self._initials.get(
            key_of(claim.text)
        )

    def _place_of_number(self, text: str) -> int | None:
        value = str(SPELLED.get(text.casefold(), "")) or _value(text)
        rounded = (place for number, place in self._numbers.items() if _rounds_to(number, value))
        return self._numbers.get(value) or _earliest(rounded)

    def _learn_word(self, word: re.Match[str]) -> None:
        key = key_of(POSSESSIVE.sub("", word[0]))
        self._words.setdefault(key, word.end())
        for plain in _plain_names(key):
            self._words.setdefault(plain, word.end())
        if key in SPELLED or key in ORDINALS:
            self._numbers.setdefault(str(SPELLED.get(key, ORDINALS.get(key))), word.end())

    def _learn_initials(self, words: list[re.Match[str]]) -> None:
        """Initials of every run of words with capitals ("Department of Justice": DOJ and DJ)."""
        run: list[tuple[str, bool]] = []
        for word in words:
            capital = word[0][0].isupper()
            if not capital and word[0] not in ("of", "and", "the", "for", "on", "in"):
                run = []
                continue
            run = [*run, (word[0][0].casefold(), capital)][-8:]
            for start in range(len(run) - 1):
                self._initials.setdefault("".join(letter for letter, _ in run[start:]), word.end())
                self._initials.setdefault("".join(letter for letter, big in run[start:] if big), word.end())


def _earliest(places: Iterable[int | None]) -> int | None:
    return min((place for place in places if place is not None), default=None)


def key_of(word: str) -> str:
    """What spellings of one name share: no case, no accents, no points and apostrophes."""
    plain = unicodedata.normalize("NFKD", word.casefold().translate(STROKES))
    return "".join(letter for letter in plain if letter.isalnum())


def _variants(key: str) -> set[str]:
    """Other words of which each supports the name: "canadian" is, where "canada" is."""
    known = {key, STATES.get(key, key), *IRREGULAR.get(key, ()), *IRREGULAR.get(key.removesuffix("s"), ())}
    for ending, origins in DEMONYMS.items():
        stem = key.removesuffix(ending)
        if key != stem and len(stem) >= LONG - 1:
            known |= {stem + origin for origin in origins}
    return known


def _plain_names(key: str) -> set[str]:
    """What else an article has said with this word: "canada" with "canadian", "florida" with "fla"."""
    return _variants(key) - {key} if len(key) >= LONG or key in IRREGULAR or key in STATES else set()


def _value(number: str) -> str:
    """ "1,200" and "1200" are one number, and so are "4.20" and "4.2"."""
    whole, point, rest = number.replace(",", "").partition(".")
    rest = rest.rstrip("0") if point and "." not in rest else rest
    return f"{whole.lstrip('0') or '0'}.{rest}" if rest else whole.lstrip("0") or "0"


def _rounds_to(number: str, value: str) -> bool:
    """Whether "4.23" is meant by "4.2" or "4", "1234567" by "1.2" (million)."""
    try:
        exact, claimed = float(number), float(value)
    except ValueError:
        return False
    digits = len(value.partition(".")[2])
    scales = (1, 1e3, 1e6, 1e9, 1e12)
    return any(exact >= scale and round(exact / scale, digits) == claimed for scale in scales if scale > 1 or digits)
