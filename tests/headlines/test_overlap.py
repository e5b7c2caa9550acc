"""How much of one headline another one says."""

import pytest

from app.headlines.overlap import expected_overlap, overlap

PAIRS = [
    ("Oslo closes plant", "Oslo closes plant", 1.0),
    ("Oslo closes plant", "OSLO closes: plant!", 1.0),
    ("Oslo closes plant", "plant closes Oslo", 2 * 1 / 6),
    ("Oslo to close last plant", "Oslo to close plant next spring", 2 * 4 / 11),
    ("a b c d", "x y", 0.0),
    ("", "x", 0.0),
    ("...", "...", 0.0),
]


@pytest.mark.parametrize(("one", "other", "expected"), PAIRS)
def test_overlap(one: str, other: str, expected: float) -> None:
    assert overlap(one, other) == pytest.approx(expected)
    assert overlap(other, one) == pytest.approx(expected)


def test_a_likelier_headline_weighs_more() -> None:
    free = [("Oslo closes plant", -0.1), ("Bergen opens school", -2.0)]
    assert expected_overlap("Oslo closes plant", free) > 0.99
    assert expected_overlap("Bergen opens school", free) < 0.01
    assert expected_overlap("Oslo", []) == 0.0
