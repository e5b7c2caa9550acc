"""What a client may wish of a headline, over HTTP; the model is a fake that writes what it is told."""

import asyncio
from typing import Any

import pytest

from app.engine.engine import Job
from app.engine.search import Candidate
from tests.api.harness import ARTICLE, running
from tests.api.test_headline import OUR_WORDS, assert_problem

pytestmark = pytest.mark.anyio


def writes(it: Any, *texts: str) -> list[Job]:
    """Let the model write these, each less likely than the one before; the jobs that it is given."""
    jobs: list[Job] = []

    def write(job: Job) -> list[Candidate]:
        jobs.append(job)
        return [Candidate(tuple(map(ord, text)), -0.5 - place / 10) for place, text in enumerate(texts)]

    it.engine.write = write
    return jobs


async def ask(it: Any, **fields: Any) -> Any:
    return await it.http.post("/headline", json={"text": ARTICLE, **fields})


async def test_wishes_reach_the_model_as_the_article_spells_them() -> None:
    async with running() as it:
        jobs = writes(it, "The library")
        await ask(it, max_chars=60, max_words=9, include=["LIBRARY", "library", " the  council "], avoid=["Open?"])
    limits = jobs[0].wanted.limits
    assert (limits.max_chars, limits.max_words) == (60, 9)
    assert limits.include == ("library", "The council")
    assert limits.avoid == ("Open?",)
    assert jobs[0].wanted.sampling is None


async def test_what_breaks_a_limit_is_not_shown_even_if_the_model_writes_it() -> None:
    async with running() as it:
        writes(it, "The council voted to keep the old library", "Council keeps Library", "Library")
        long = (await ask(it, max_chars=21)).json()["headlines"]
        words = (await ask(it, max_words=3)).json()["headlines"]
        avoided = (await ask(it, avoid=["COUNCIL"])).json()["headlines"]
    assert [headline["text"] for headline in long] == ["Council keeps Library"]
    assert [headline["text"] for headline in words] == ["Council keeps Library"]
    assert [headline["text"] for headline in avoided] == ["Library"]


async def test_headlines_with_all_phrases_come_first_and_the_others_say_what_they_lack() -> None:
    async with running() as it:
        writes(it, "Council votes", "Vote on library", "The council keeps the Library")
        found = (await ask(it, include=["library", "council"], num_headlines=3)).json()["headlines"]
    assert [(headline["text"], headline["missing"]) for headline in found] == [
        ("The council keeps the Library", []),
        ("Council votes", ["library"]),
        ("Vote on library", ["council"]),
    ]


async def test_several_headlines_are_searched_in_lanes() -> None:
    async with running() as it:
        jobs = writes(it, "One", "Two", "Three")
        await ask(it, num_headlines=3)
        await ask(it)
    assert [(job.lanes, job.beams) for job in jobs] == [(3, 2), (1, 4)]


async def test_the_best_of_every_lane_comes_before_its_second_best() -> None:
    async with running() as it:
        found = [("One", -0.1, 0), ("One more", -0.2, 0), ("Other", -0.9, 1), ("Other more", -1.0, 1)]
        it.engine.write = lambda job: [Candidate(tuple(map(ord, text)), score, lane) for text, score, lane in found]
        answer = (await ask(it, num_headlines=2)).json()
    assert [headline["text"] for headline in answer["headlines"]] == ["One", "Other"]


async def test_a_sample_has_its_own_temperature_and_seed() -> None:
    async with running() as it:
        jobs = writes(it, "One", "Two")
        await ask(it, strategy="sample", temperature=0.5, top_p=1, seed=-3)
        await ask(it, strategy="sample", num_headlines=2)
        await ask(it, strategy="sample", num_headlines=2)
    samplings = [job.wanted.sampling for job in jobs]
    assert (samplings[0].temperature, samplings[0].top_p, samplings[0].seed) == (0.5, 1.0, -3)
    assert (samplings[1].temperature, samplings[1].top_p) == (1.0, 0.9)
    assert samplings[1].seed != samplings[2].seed  # by chance alone once in 2^63
    assert [(job.lanes, job.beams) for job in jobs] == [(1, 1), (4, 1), (4, 1)]


async def test_where_nothing_obeys_a_wider_search_is_made_and_then_it_is_422() -> None:
    async with running() as it:
        jobs = writes(it, "The council voted to keep the old library")
        answer = await ask(it, max_chars=20)
        sampled = await ask(it, avoid=["council"], strategy="sample")
    assert_problem(answer, 422)
    assert "no headline" in answer.json()["detail"]
    assert_problem(sampled, 422)
    assert [job.beams for job in jobs] == [4, 32, 4, 32]
    assert jobs[3].wanted.sampling is None  # draws found nothing; the likeliest are looked at


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "too few characters": ({"max_chars": 19}, "max_chars"),
    "too many characters": ({"max_chars": 301}, "max_chars"),
    "half a character": ({"max_chars": 40.5}, "max_chars"),
    "too few words": ({"max_words": 2}, "max_words"),
    "too many words": ({"max_words": 41}, "max_words"),
    "a phrase that is no list": ({"include": "Oslo"}, "include"),
    "six phrases": ({"include": list("abcdef")}, "include"),
    "an empty phrase": ({"include": [""]}, "include.0"),
    "a blank phrase": ({"avoid": ["a", " \t"]}, "avoid.1"),
    "a phrase that is none": ({"include": ["a", 3]}, "include.1"),
    "a phrase beyond length": ({"avoid": ["a" * 301]}, "avoid.0"),
    "51 phrases to avoid": ({"avoid": ["a"] * 51}, "avoid"),
    "only punctuation": ({"include": ["—!"]}, "include.0"),
    "longer than the limit": ({"include": ["x" * 21], "max_chars": 20}, "include.0"),
    "more words than the limit": ({"include": ["a b c d"], "max_words": 3}, "include.0"),
    "together longer than the limit": ({"include": ["Christiania", "Copenhagen"], "max_chars": 20}, "include"),
    "wanted and avoided": ({"include": ["old library"], "avoid": ["OLD"]}, "include.0"),
    "not to be written": ({"include": ["ok", "победа"]}, "include.1"),
    "another strategy": ({"strategy": "greedy"}, "strategy"),
    "temperature without sampling": ({"temperature": 1.0}, "temperature"),
    "top_p without sampling": ({"strategy": "beam", "top_p": 0.5}, "top_p"),
    "seed without sampling": ({"seed": 0}, "seed"),
    "too cold": ({"strategy": "sample", "temperature": 0.09}, "temperature"),
    "too hot": ({"strategy": "sample", "temperature": 2.1}, "temperature"),
    "no nucleus": ({"strategy": "sample", "top_p": 0}, "top_p"),
    "more than all": ({"strategy": "sample", "top_p": 1.1}, "top_p"),
    "a seed with a point": ({"strategy": "sample", "seed": 1.5}, "seed"),
    "a seed beyond 64 bits": ({"strategy": "sample", "seed": 2**63}, "seed"),
    "a temperature in words": ({"strategy": "sample", "temperature": "hot"}, "temperature"),
}
WORDS = OUR_WORDS | {
    "contains 'OLD', which is to be avoided",
    'goes with strategy "sample" only',
    "has characters that the model cannot write",
    "has more words than max_words (3)",
    "has no letter or digit",
    "is longer than max_chars (20)",
    "must be a list",
    "must be a number",
    "must be at least -9223372036854775808",
    "must be less than 9223372036854775808",
    "must be more than 0",
    "must be one of 'beam' or 'sample'",
    "must have at most 300 characters",
    "must have at most 5 entries",
    "must have at most 50 entries",
    "the phrases together are longer than max_chars (20)",
    *(f"must be at least {bound}" for bound in ("0.1", 3, 20)),
    *(f"must be at most {bound}" for bound in (1, 2, 40, 300)),
}


@pytest.mark.parametrize(("fields", "field"), INVALID.values(), ids=INVALID)
async def test_wishes_that_cannot_be_are_422_at_once_and_say_where(fields: dict[str, Any], field: str) -> None:
    async with running() as it:
        answer = await ask(it, **fields)
        assert it.engine.articles == []
    assert_problem(answer, 422)
    [error] = answer.json()["errors"]
    assert error["field"] == field
    assert error["message"].replace(".0", "") in WORDS, error


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
async def test_numbers_that_are_none_are_refused(value: str) -> None:
    async with running() as it:
        body = f'{{"text": "{ARTICLE}", "strategy": "sample", "temperature": {value}}}'.encode()
        answer = await it.http.post("/headline", content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 422)
    assert "is not valid" not in answer.text


async def test_a_batch_takes_articles_of_all_wishes() -> None:
    async with running() as it:
        with it.engine.hold():
            first = asyncio.create_task(ask(it))
            await it.started()
            wishes: list[dict[str, Any]] = [{}, {"max_chars": 40}, {"avoid": ["x"]}, {"num_headlines": 2}]
            others = [asyncio.create_task(ask(it, **fields)) for fields in wishes]
            await it.until(lambda: _waiting(it, 4))
        await asyncio.gather(first, *others)
        assert [len(batch) for batch in it.engine.batches[1:]] == [1, 4]


async def _waiting(it: Any, number: int) -> bool:
    return bool(await it.metric("headline_waiting_requests") == number)
