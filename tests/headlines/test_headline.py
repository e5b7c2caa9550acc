import dataclasses
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.headlines.headline import Headline, Wishes, distinct, normalised, tidy


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("NASA lands!", "nasa  LANDS"),
        ("“Rover” – on Mars", "rover on mars"),
        ("Straße", "STRASSE"),
        ("ﬁnal №１", "Final No1"),
        ("café", "cafe\u0301"),
        ("ϒ", "υ"),
    ],
)
def test_headlines_that_are_the_same(one: str, other: str) -> None:
    assert normalised(one) == normalised(other) != ""


@pytest.mark.parametrize(
    ("one", "other"), [("1 dead", "11 dead"), ("Rover lands", "Rover landed"), ("cafe", "café"), ("东京", "北京")]
)
def test_headlines_that_differ(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@pytest.mark.parametrize("text", ["", " ", "…!?—", "🎉", "\u0301", "$"])
def test_no_headline_without_a_letter_or_digit(text: str) -> None:
    assert normalised(text) == ""


@given(st.text())
def test_normalised_is_letters_and_digits_and_blind_to_form(text: str) -> None:
    assert normalised(text) == "" or normalised(text).isalnum()
    assert normalised(unicodedata.normalize("NFD", text)) == normalised(text)


def test_distinct_keeps_the_first_and_the_order() -> None:
    candidates = [("B!", 1), ("a", 2), ("b", 3), ("A", 4), ("c", 5)]
    assert distinct(candidates, key=lambda candidate: normalised(candidate[0])) == [("B!", 1), ("a", 2), ("c", 5)]
    assert distinct([], key=normalised) == []


def test_tidy() -> None:
    assert tidy(" \tNASA\n lands\u00a0 ") == "NASA lands"


def test_a_headline_counts_code_points_and_words() -> None:
    headline = Headline("Café 👩‍🚀  lands", -0.4)
    assert (headline.chars, headline.words) == (15, 3)


def test_wishes_have_defaults_and_do_not_change() -> None:
    assert Wishes() == Wishes(num_headlines=1, case="model")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Wishes().num_headlines = 2  # type: ignore[misc]
