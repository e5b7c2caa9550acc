"""When a headline contains a phrase."""

import unicodedata

import pytest

from app.headlines.headline import Impossible, Limits
from app.headlines.phrases import contains, fold, missing, spelled_as_in

CONTAINED = [
    ("Oslo closes plant", "oslo"),
    ("OSLO closes plant", "Oslo"),
    ("In Oslo, plant closes", "oslo"),
    ("Oslo's plant", "Oslo"),
    ("Oslo’s plant", "oslo's"),
    ("North-Oslo plant", "oslo"),
    ("New  York\tvotes", "new york"),
    ("Straße gesperrt", "STRASSE"),
    ("ﬁne for bank", "fine"),
    ("Beyoncé sings", "BEYONCE\u0301"),
    ("Ökonom: это победа", "ПОБЕДА"),
    ("It costs $5 more", "$5"),
    ("Why?", "?"),
    ("Osloer at Oslo", "oslo"),
]
NOT_CONTAINED = [
    ("Osloers vote", "Oslo"),
    ("Cooslo", "oslo"),
    ("Oslo1", "oslo"),
    ("New-York", "new york"),
    ("Oslo\u0301", "oslo"),
    ("It costs $50", "$5"),
    ("", "oslo"),
]


@pytest.mark.parametrize(("text", "phrase"), CONTAINED)
def test_contained(text: str, phrase: str) -> None:
    assert contains(fold(text), fold(phrase))
    assert missing(text, [phrase]) == []


@pytest.mark.parametrize(("text", "phrase"), NOT_CONTAINED)
def test_not_contained(text: str, phrase: str) -> None:
    assert not contains(fold(text), fold(phrase))
    assert missing(text, [phrase, phrase.upper()]) == [phrase, phrase.upper()]


def test_a_phrase_is_spelled_as_the_article_mostly_does() -> None:
    article = "OSLO (NTB) - The mayor of Oslo spoke. Oslo will pay.  New\nYork waits; McDonald's (a+b) too."
    spelled = {phrase: spelled_as_in(article, phrase) for phrase in ("oslo", "new york", "A+B", "mcdonald", "Bergen")}
    assert spelled == {
        "oslo": "Oslo",
        "new york": "New York",
        "A+B": "A+B",  # no word characters at its ends to find it by
        "mcdonald": "McDonald",
        "Bergen": "Bergen",
    } | {"A+B": "a+b"}


IMPOSSIBLE = [
    (Limits(include=("!?",)), "include.0"),
    (Limits(max_chars=20, include=("Oslo", "x" * 21)), "include.1"),
    (Limits(max_words=3, include=("one two three four",)), "include.0"),
    (Limits(include=("the mayor of Oslo",), avoid=("OSLO",)), "include.0"),
    (Limits(max_chars=20, include=("Christiania", "Copenhagen")), "include"),
    (Limits(max_words=3, include=("one two", "three four", "five six")), "include"),
    (Limits(max_chars=30, include=("to", "agreed to", "Attorney", "assaults", "Tobacco")), "include"),
    (Limits(avoid=("a", "\x1f")), "avoid.1"),
]


@pytest.mark.parametrize(("limits", "field"), IMPOSSIBLE)
def test_what_can_never_hold_is_told(limits: Limits, field: str) -> None:
    with pytest.raises(Impossible) as told:
        limits.check()
    assert told.value.field == field


POSSIBLE = [
    Limits(),
    Limits(max_chars=20, include=("x" * 20,)),
    Limits(max_chars=20, include=("new york city", "york city hall")),  # they may overlap
    Limits(include=("Osloers",), avoid=("Oslo",)),
    Limits(max_words=3, include=("one two", "three four")),  # "one two-three four"
    Limits(max_chars=20, include=("Obama-Merkel", "Merkel talks")),
    Limits(max_chars=20, include=(unicodedata.normalize("NFD", "한국어한국어한국"),)),
    Limits(avoid=("?",)),
]


@pytest.mark.parametrize("limits", POSSIBLE)
def test_what_may_hold_is_tried(limits: Limits) -> None:
    limits.check()


def test_limits_are_obeyed_to_the_letter() -> None:
    assert Limits(max_chars=4).obeyed_by("Oslo")
    assert not Limits(max_chars=4).obeyed_by("Oslos")
    assert Limits(max_chars=2).obeyed_by("\U0001f680\U0001f680")  # code points
    assert not Limits(max_words=1).obeyed_by("Oslo votes")
    assert not Limits(avoid=("oslo",)).obeyed_by("In OSLO")
    assert Limits(include=("oslo",)).obeyed_by("Bergen")  # what is missed is told, not refused
