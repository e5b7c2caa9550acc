"""Pairs that are changed keep their sense: sentences go or move, case and commas are lost, names are exchanged."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.headlines.support import unsupported
from app.training.augment import Augment, names_of, noisy, renamed, shuffled, without_sentence
from app.training.recipe import Recipe

ARTICLE = 'One fell, at last. Two rose. “Three stayed.” Four left (early). Five: the end of all "things" – it said.'
SENTENCES = ["One fell, at last.", "Two rose.", "“Three stayed.”", "Four left (early).", ARTICLE[64:]]
NEWS = "Mayor Ilse Kwame of Tromso left Tromso. TROMSO AIRPORT closed, Kwame’s office said. Ilsebill stayed."
HEADLINE = "Ilse Kwame's Tromso: mayor leaves"
LENT = ["Zubrowski", "Anneliese", "Hrdlicka's", "O'Leary", "Maputo"]

seeds = st.integers(0, 2**31)


def dice(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def augment(seed: int, article: str = ARTICLE, headline: str = "Two rose", **rates: float) -> tuple[str, str]:
    return Augment(Recipe(**rates), lambda random: " ".join(LENT))(article, headline, dice(seed))


# Sentences, case and punctuation


def test_a_sentence_of_the_first_three_is_lost() -> None:
    random = dice()
    lost = {without_sentence(ARTICLE, random) for _ in range(40)}
    assert lost == {" ".join(SENTENCES[:place] + SENTENCES[place + 1 :]) for place in range(3)}
    assert without_sentence("One fell. Two rose. Three stayed.", random) == "One fell. Two rose. Three stayed."


def test_the_first_four_sentences_change_places() -> None:
    random = dice()
    orders = {shuffled(ARTICLE, random) for _ in range(300)}
    assert len(orders) == 24
    assert all(text.endswith(SENTENCES[4]) for text in orders)
    assert {"".join(sorted(text)) for text in orders} == {"".join(sorted(ARTICLE))}


def test_noise_is_in_case_or_punctuation() -> None:
    random = dice()
    bare = "One fell at last. Two rose. Three stayed. Four left early. Five the end of all things  it said."
    assert {noisy(ARTICLE, random) for _ in range(40)} == {ARTICLE.lower(), ARTICLE.upper(), bare}


# Names


def test_names_are_longer_words_with_a_capital_that_english_does_not_write_without() -> None:
    text = (
        "On Monday Governor Ilse Kwame’s NATO friend, Sen. Ann O'Leary of McAllen, met Kwame in Tromso-Finnmark. Roads!"
    )
    assert names_of(text) == ["Ilse", "Kwame", "O'Leary", "Tromso", "Finnmark"]


@settings(deadline=None, max_examples=200)
@given(seeds)
def test_shared_names_are_exchanged_for_the_same_new_ones_in_both(seed: int) -> None:
    article, headline = renamed(NEWS, HEADLINE, names_of(" ".join(LENT)), dice(seed))
    found = re.fullmatch(r"(\S+) (\S+)'s (\S+): mayor leaves", headline)
    assert found
    first, last, town = found.groups()
    assert len({first, last, town, "Ilse", "Kwame", "Tromso"}) == 6
    assert article == (
        f"Mayor {first} {last} of {town} left {town}. {town.upper()} AIRPORT closed, {last}’s office said. "
        "Ilsebill stayed."
    )
    assert not unsupported(headline, article)


def test_some_new_names_are_of_no_text_and_others_are_lent() -> None:
    new = [renamed("Kwame left.", "Kwame leaves", LENT[:2], dice(seed))[1].split()[0] for seed in range(400)]
    lent = [name for name in new if name in LENT]
    assert set(lent) == set(LENT[:2])
    assert len(lent) / len(new) == pytest.approx(0.5, abs=0.08)
    assert len(set(new)) > 20
    assert all(len(name) >= 4 and name.istitle() for name in new)


@pytest.mark.parametrize(
    ("headline", "lent"),
    [
        ("Roads are closed", LENT),  # no name
        ("Merkel leaves", LENT),  # none that the article has
        (HEADLINE, LENT[:3]),  # three names, and the last that is lent has none to be crossed with
        (HEADLINE, ["Kwame", "Tromso", "Ilse", "Ilsebill"]),  # another's names must not become the same
        (HEADLINE, []),
    ],
)
def test_where_no_name_is_shared_or_too_few_are_lent_a_pair_stays_as_it_is(headline: str, lent: list[str]) -> None:
    assert all(renamed(NEWS, headline, lent, dice(seed)) == (NEWS, headline) for seed in range(20))


def test_names_are_lent_by_three_articles() -> None:
    asked: list[Any] = []

    def lend(random: np.random.Generator) -> str:
        asked.append(random)
        return "Zubrowski" if len(asked) % 3 else "Maputo"

    random = dice()
    article, _ = Augment(Recipe(rename=0.999), lend)("Kwame left.", "Kwame leaves", random)
    assert asked == [random] * 3
    assert article != "Kwame left."


# How often


@pytest.mark.parametrize(
    ("option", "changes"),
    [("drop_sentence", 1.0), ("shuffle_sentences", 1 - 1 / 24), ("noise", 1.0), ("rename", 1.0)],
)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_changes_come_at_their_rate(option: str, changes: float, rate: float) -> None:
    pair = (NEWS, HEADLINE) if option == "rename" else (ARTICLE, "Two rose")
    changed = [augment(seed, *pair, **{option: rate}) != pair for seed in range(600)]
    assert np.mean(changed) == pytest.approx(rate * changes, abs=0.07)


def test_each_change_is_thrown_for_alone() -> None:
    both = {"drop_sentence": 0.5, "rename": 0.5}
    pair = ("Kwame left. One fell. Two rose. Three stayed. Four left.", "Kwame leaves")
    pairs = [augment(seed, *pair, **both) for seed in range(600)]
    dropped = np.array([article.count(".") == 4 for article, _ in pairs])
    exchanged = np.array([headline != pair[1] for _, headline in pairs])
    assert np.mean(dropped) == pytest.approx(0.5, abs=0.07)
    assert np.mean(exchanged[dropped]) == pytest.approx(0.5 * 2 / 3, abs=0.08)  # a third have lost the name
    assert np.mean(exchanged[~dropped]) == pytest.approx(0.5, abs=0.08)


def test_but_for_renaming_headlines_stay() -> None:
    rates = {"drop_sentence": 0.9, "shuffle_sentences": 0.9, "noise": 0.9}
    assert {augment(seed, NEWS, HEADLINE, **rates)[1] for seed in range(50)} == {HEADLINE}


def test_without_the_options_pairs_stay_as_they_are() -> None:
    assert all(augment(seed) == (ARTICLE, "Two rose") for seed in range(100))
