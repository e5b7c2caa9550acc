"""Names and numbers that an article never mentions are found; spellings and nationalities are no inventions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.headlines.headline import Headline, best_first
from app.headlines.support import Support, Unsupported, beginnings, is_common, support_ends, unsupported

OSLO = (
    "OSLO — The Environmental Protection Agency said on Monday that 1,200 homes in Norway lost power. "
    "Mayor Kari Lunde called it the third since 2019. It cost $4.23 million, the U.S. Department of Justice said."
)


def found(headline: str, article: str = OSLO) -> list[tuple[str, str]]:
    return [(claim.kind, claim.text) for claim in unsupported(headline, article)]


@pytest.mark.parametrize(
    "headline",
    [
        "Mayor Lunde calls outage the third since 2019",
        "Oslo’s Mayor Lunde: 1200 Homes Lose Power",
        "EPA says 1,200 homes lost power in Norway",
        "DOJ puts cost of outage at $4.2 million",
        "Norwegians lose power for 3rd time",
        "American department names cost",
        "LUNDE CALLS OUTAGE THE THIRD",
        "Sen. says I am right on Monday",
        "Justice Departments of U.S. at odds",
        "",
    ],
)
def test_what_the_article_says_in_other_words_is_supported(headline: str) -> None:
    assert found(headline) == []


@pytest.mark.parametrize(
    ("headline", "claims"),
    [
        ("Mayor Lundy calls outage the third", [("name", "Lundy")]),
        ("Bergen mayor calls outage the third", [("name", "Bergen")]),
        ("Mayor of Bergen’s Power Is Lost", [("name", "Bergen")]),
        ("Swedes lose power in Oslo", [("name", "Swedes")]),
        ("FBI says homes lost power", [("name", "FBI")]),
        ("Outage hits 1,300 homes since 2018", [("number", "1,300"), ("number", "2018")]),
        ("Five outages hit Oslo", [("number", "Five")]),
        ("Cost put at $4.3 million", [("number", "4.3")]),
        ("Oslo’s power fails, Apple says", [("name", "Apple")]),
    ],
)
def test_what_it_does_not_say_is_named(headline: str, claims: list[tuple[str, str]]) -> None:
    assert found(headline) == claims


def test_accents_do_not_matter() -> None:
    assert found("Jaroslaw Kaczynski visits Orebro", "Jarosław Kaczyński was seen in Örebro.") == []


def test_in_title_case_only_words_that_are_always_capital_are_names() -> None:
    assert found("Mayor Urges Swift Repair of Broken Lines") == []
    assert found("Mayor urges Swift to repair lines") == [("name", "Swift")]


@given(st.text(max_size=60), st.text(max_size=60))
def test_offsets_are_those_of_the_headline(headline: str, article: str) -> None:
    for claim in unsupported(headline, article):
        assert headline[claim.start : claim.end] == claim.text
        assert claim.text


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=60))
def test_a_headline_that_stands_in_the_article_is_supported(headline: str) -> None:
    assert unsupported(headline, f"Yesterday. {headline} again.") == []


def test_support_ends_where_the_last_name_or_number_was_first_said() -> None:
    assert support_ends("Lunde: homes in Norway lost power", OSLO) == OSLO.index("Lunde") + len("Lunde")
    assert support_ends("homes lost power", OSLO) == 0
    assert support_ends("Bergen lost power", OSLO) is None


def test_in_other_languages_only_numbers_are_looked_for() -> None:
    claims = Support("Die Stadt wählt.", language="de").unsupported("Das Rathaus öffnet 2031")
    assert [claim.text for claim in claims] == ["2031"]


def headline(text: str, score: float, *, lacks: int = 0, invents: int = 0) -> Headline:
    claims = tuple(Unsupported("x", place, place + 1, "name") for place in range(invents))
    return Headline(text, score, ("phrase",) * lacks, claims)


def test_of_headlines_about_as_likely_the_one_with_the_fewest_inventions_goes_first() -> None:
    written = [headline("a", -0.5, invents=1), headline("b", -0.7), headline("c", -0.9), headline("d", -0.4, invents=2)]
    assert [found.text for found in best_first(written)] == ["b", "a", "c", "d"]


def test_a_far_less_likely_headline_or_one_that_lacks_a_phrase_does_not_go_first() -> None:
    written = [
        headline("a", -0.5, invents=1),
        headline("b", -1.5),
        headline("c", -0.5, lacks=1),
        headline("\ufffd", -0.5),
    ]
    assert [found.text for found in best_first(written)] == ["a", "b", "\ufffd", "c"]


def test_words_that_are_written_in_lower_case_are_common() -> None:
    assert all(map(is_common, ["urges", "recalls", "winning", "governor", "Cities"]))
    assert not any(map(is_common, ["Oslo", "Bush", "Nvidia"]))


@pytest.mark.parametrize(
    ("article", "allowed", "foreign"),
    [
        ("Łódź won.", ["l", "lo", "lodz"], ["wa", "n"]),
        ("The U.S. army", ["us", "american"], ["british"]),
        ("in Ohio", ["ohio", "oh"], ["iowa"]),
        ("Canadian farmers", ["canada", "canadian"], ["chile"]),
        ("twelve men", ["12", "1"], ["2"]),
        ("$1,200 in May", ["1", "12"], ["3"]),
    ],
)
def test_a_headline_may_begin_what_its_article_supports(article: str, allowed: list[str], foreign: list[str]) -> None:
    known = beginnings(article)
    assert known.issuperset(allowed)
    assert known.isdisjoint(foreign)
