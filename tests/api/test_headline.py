"""POST /headline: every status, every body."""

import asyncio
import json

import pytest

from app.engine.engine import EngineLost
from app.engine.search import Candidate
from tests.api.harness import ARTICLE, read_slowly, running

pytestmark = pytest.mark.anyio
GATED = {"max_waiting": 2, "max_batch_tokens": 1}  # one article a batch


async def test_an_article_gets_a_headline() -> None:
    async with running() as it:
        answer = await it.http.post("/headline", json={"text": ARTICLE}, headers={"X-Request-ID": "desk-7"})
    assert answer.status_code == 200
    assert answer.headers["X-Request-ID"] == "desk-7"
    body = answer.json()
    assert body["id"] == "desk-7"
    assert body["model"] == {"name": "fake", "version": "3"}
    assert body["headlines"] == [
        {
            "text": "The council voted to kee",
            "score": -0.5,
            "chars": 24,
            "words": 5,
            "missing": [],
            "supported": True,
            "unsupported": [],
        }
    ]
    assert body["article"] == {"tokens": len(ARTICLE), "used_tokens": len(ARTICLE), "truncated": False}
    assert set(body["timing"]) == {"queue_ms", "model_ms", "total_ms"}
    assert body["timing"]["total_ms"] >= body["timing"]["model_ms"]


async def test_headlines_of_one_answer_differ_in_more_than_case_and_punctuation() -> None:
    async with running() as it:
        body = (await it.http.post("/headline", json={"text": ARTICLE, "num_headlines": 3})).json()
    first = ARTICLE[:24]
    assert [headline["text"] for headline in body["headlines"]] == [first, f"{first} 0", f"{first} 1"]
    assert [headline["score"] for headline in body["headlines"]] == [-0.5, -3.5, -4.5]


async def test_fewer_headlines_than_asked_for_where_the_model_has_no_more() -> None:
    async with running() as it:
        it.engine.write = lambda job: [*type(it.engine).write(job)[:3]]  # type: ignore[method-assign]
        body = (await it.http.post("/headline", json={"text": ARTICLE, "num_headlines": 8})).json()
    assert len(body["headlines"]) == 1


async def test_a_long_article_keeps_its_head_and_says_so() -> None:
    async with running() as it:
        body = (await it.http.post("/headline", json={"text": "a" * 100})).json()
        assert it.engine.articles == ["a" * 64]
        assert await it.metric("headline_truncated_articles_total") == 1
    assert body["article"] == {"tokens": 100, "used_tokens": 64, "truncated": True}


async def test_html_is_read_as_its_text() -> None:
    async with running() as it:
        html = "<html><head><script>let x = 1</script></head><p>Caf&eacute; <b>N</b>ASA</p><p>Ende</p></html>"
        answer = await it.http.post("/headline", json={"text": html})
        assert it.engine.articles == ["Café NASA Ende"]
    assert answer.status_code == 200


async def test_case_is_the_house_style() -> None:
    async with running() as it:
        title = await it.http.post("/headline", json={"text": ARTICLE, "case": "title"})
        sentence = await it.http.post("/headline", json={"text": "THE COUNCIL voted", "case": "sentence"})
    assert title.json()["headlines"][0]["text"] == "The Council Voted to Kee"
    assert sentence.json()["headlines"][0]["text"].casefold() == "the council voted"


@pytest.mark.parametrize("model", ["fake", "fake@3", None])
async def test_the_model_by_its_names(model: str | None) -> None:
    async with running() as it:
        assert (await it.http.post("/headline", json={"text": ARTICLE, "model": model})).status_code == 200


INVALID = {
    "empty": ({"text": ""}, "text"),
    "blank": ({"text": " \n\t\u00a0 "}, "text"),
    "missing": ({}, "text"),
    "number": ({"text": 7}, "text"),
    "null": ({"text": None}, "text"),
    "list": ({"text": ["a"]}, "text"),
    "too long": ({"text": "a" * 200_001}, "text"),
    "only markup": ({"text": "<p><br/></p><script>alert(1)</script>"}, "text"),
    "only control characters": ({"text": "\u0000\u0007\u001f"}, "text"),
    "unknown field": ({"text": ARTICLE, "max_char": 60}, "max_char"),
    "a feature that is not there yet": ({"text": ARTICLE, "explain": True}, "explain"),
    "none wanted": ({"text": ARTICLE, "num_headlines": 0}, "num_headlines"),
    "too many wanted": ({"text": ARTICLE, "num_headlines": 9}, "num_headlines"),
    "a number as text": ({"text": ARTICLE, "num_headlines": "2"}, "num_headlines"),
    "true for one": ({"text": ARTICLE, "num_headlines": True}, "num_headlines"),
    "a case of its own": ({"text": ARTICLE, "case": "UPPER"}, "case"),
    "model as number": ({"text": ARTICLE, "model": 3}, "model"),
    "not an object": ([ARTICLE], "body"),
    "a bare string": (ARTICLE, "body"),
}


@pytest.mark.parametrize(("body", "field"), INVALID.values(), ids=INVALID)
async def test_a_body_that_breaks_the_rules_is_422_and_says_where(body: object, field: str) -> None:
    async with running() as it:
        answer = await it.http.post("/headline", json=body)
        assert it.engine.articles == []
    assert_problem(answer, 422)
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert answer.json()["errors"][0]["message"] in OUR_WORDS
    assert "aaaa" not in answer.text  # the input is not sent back


OUR_WORDS = {
    "is required",
    "must be a JSON object",
    "must be a string",
    "must be a whole number",
    "must be at least 1",
    "must be at most 8",
    "must be one of 'model', 'sentence' or 'title'",
    "must have at most 200000 characters",
    "must not be blank",
    "must not be empty",
    "no words are left once its markup is removed",
    "there is no such field",
}


async def test_unknown_fields_beyond_number_and_length_get_a_short_answer() -> None:
    async with running() as it:
        many = await it.http.post("/headline", json={"text": ARTICLE} | {f"field {n}": n for n in range(100_000)})
        long = await it.http.post("/headline", json={"text": ARTICLE, "a" * 1_000_000: 1})
    assert_problem(many, 422)
    assert [error["field"] for error in many.json()["errors"]] == [f"field {n}" for n in range(10)]
    assert_problem(long, 422)
    assert len(long.content) < 1000


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe{}", b'{"text": "a" "b"}', b"[1,]", b"[" * 100_000])
async def test_what_is_not_json_is_422(raw: bytes) -> None:
    async with running() as it:
        answer = await it.http.post("/headline", content=raw, headers={"Content-Type": "application/json"})
    assert_problem(answer, 422)


STRANGE = {
    "one character": "a",
    "lone surrogate": 'x\\ud800 and \\udfff "quoted" words'.replace('"', '\\"'),
    "NUL and control characters": "The \\u0000council\\u0007 voted",
    "emoji": "\\ud83d\\ude80 rocket \\ud83d\\udc69\\u200d\\ud83d\\ude80 lands",
    "right to left": "\u05d4\u05de\u05d5\u05e2\u05e6\u05d4 \u0635\u0648\u062a\u062a",
    "only digits": "2026 1984 7",
    "not quite markup": "profits < costs & x <y> z",
    "bom": "\ufeffThe council",
}


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
async def test_strange_articles_get_headlines(text: str) -> None:
    async with running() as it:
        raw = f'{{"text": "{text}"}}'.encode()
        answer = await it.http.post("/headline", content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["headlines"][0]["text"]


async def test_unknown_model_is_404() -> None:
    async with running() as it:
        for model in ("other", "fake@4", "", "../fake"):
            assert_problem(await it.http.post("/headline", json={"text": ARTICLE, "model": model}), 404)
        assert it.engine.articles == []


async def test_a_full_queue_is_429_with_retry_after() -> None:
    async with running(**GATED) as it:
        with it.engine.hold():
            waiting = [asyncio.create_task(it.http.post("/headline", json={"text": "running"}))]
            await it.started()
            waiting += [asyncio.create_task(it.http.post("/headline", json={"text": f"news {n}"})) for n in range(2)]
            await it.until(lambda: _is(it, "headline_waiting_requests", 2))
            refused = await it.http.post("/headline", json={"text": ARTICLE})
            again = await it.http.post("/headline", json={"text": ARTICLE})
        answers = await asyncio.gather(*waiting)
        assert await it.metric("headline_rejected_total", reason="queue_full") == 2
    assert_problem(refused, 429)
    assert_problem(again, 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert ARTICLE not in it.engine.articles


async def test_names_that_the_article_lacks_are_told_and_counted() -> None:
    async with running() as it:
        it.engine.write = lambda job: [Candidate(tuple(map(ord, "Oslo keeps old library")), -0.5)]  # type: ignore[method-assign]
        answer = await it.http.post("/headline", json={"text": ARTICLE})
        assert await it.metric("headline_unsupported_headlines_total") == 1
    [headline] = answer.json()["headlines"]
    assert headline["supported"] is False
    assert headline["unsupported"] == [{"text": "Oslo", "start": 0, "end": 4, "kind": "name"}]


async def test_articles_that_are_still_read_count_as_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = read_slowly(monkeypatch)
    async with running(max_waiting=1) as it:
        first = asyncio.create_task(it.http.post("/headline", json={"text": ARTICLE}))
        await asyncio.get_running_loop().run_in_executor(None, reading.wait)
        refused = await it.http.post("/headline", json={"text": ARTICLE})
        go_on.set()
        assert (await first).status_code == 200
    assert_problem(refused, 429)


async def test_a_failed_batch_is_500_without_its_reason_and_the_next_one_works() -> None:
    async with running() as it:
        it.engine.error = RuntimeError("secret: /etc/passwd")
        failed = await it.http.post("/headline", json={"text": ARTICLE})
        it.engine.error = None
        worked = await it.http.post("/headline", json={"text": ARTICLE})
    assert_problem(failed, 500)
    assert "secret" not in failed.text
    assert worked.status_code == 200


async def test_a_model_that_writes_nothing_readable_is_500() -> None:
    async with running() as it:
        it.engine.write = lambda job: [type(it.engine).write(job)[0].__class__((33, 32), -1.0)]  # type: ignore[method-assign]
        assert_problem(await it.http.post("/headline", json={"text": ARTICLE}), 500)


async def test_a_lost_device_ends_the_service() -> None:
    async with running() as it:
        it.engine.error = EngineLost("cuda:0 failed")
        assert_problem(await it.http.post("/headline", json={"text": ARTICLE}), 500)
        assert it.lost == [True]
        assert_problem(await it.http.post("/headline", json={"text": ARTICLE}), 503)
        assert_problem(await it.http.get("/readyz"), 503)


async def test_a_deadline_is_504_and_what_expired_never_reaches_the_model() -> None:
    async with running(**GATED) as it:
        with it.engine.hold():
            first = asyncio.create_task(it.http.post("/headline", json={"text": "first"}))
            await it.started()
            short = {"X-Request-Timeout-Ms": "30"}
            late = await it.http.post("/headline", json={"text": "late"}, headers=short)
        assert (await first).status_code == 200
        assert await it.metric("headline_rejected_total", reason="deadline") == 1
    assert_problem(late, 504)
    assert it.engine.articles == ["first"]


async def test_the_servers_own_time_limit_holds_against_a_longer_wish() -> None:
    async with running(request_timeout_ms=30) as it:
        with it.engine.hold():
            long = {"X-Request-Timeout-Ms": "60000"}
            assert_problem(await it.http.post("/headline", json={"text": ARTICLE}, headers=long), 504)


@pytest.mark.parametrize("limit", ["30", "+30", "3_0", "30.0", "00000000000030"])
async def test_a_time_limit_that_is_taken_is_kept(limit: str) -> None:
    async with running() as it:
        with it.engine.hold():
            answer = await it.http.post("/headline", json={"text": ARTICLE}, headers={"X-Request-Timeout-Ms": limit})
            assert_problem(answer, 504)


@pytest.mark.parametrize("limit", ["abc", "0", "-5", "1.5", "", "1" + "0" * 400])
async def test_a_time_limit_that_is_none_is_422(limit: str) -> None:
    async with running() as it:
        headers = {"X-Request-Timeout-Ms": limit}
        answer = await it.http.post("/headline", json={"text": ARTICLE}, headers=headers)
    assert_problem(answer, 422)
    assert [error["field"].lower() for error in answer.json()["errors"]] == ["x-request-timeout-ms"]
    assert "is not valid" not in answer.text


async def test_a_client_that_leaves_frees_its_place() -> None:
    async with running(**GATED) as it:
        with it.engine.hold():
            first = asyncio.create_task(it.http.post("/headline", json={"text": "first"}))
            await it.started()
            leaving, sent = await call_and_leave(it, {"text": "leaving"})
            await it.until(lambda: _is(it, "headline_waiting_requests", 1))
            leaving.set()
            await it.until(lambda: _is(it, "headline_waiting_requests", 0))
        assert (await first).status_code == 200
        await sent
        assert await it.metric("headline_rejected_total", reason="disconnected") == 1
    assert it.engine.articles == ["first"]


async def test_a_client_that_leaves_before_its_body_is_there_is_counted_as_one() -> None:
    async with running() as it:
        leaving, sent = await call_and_leave(it, {"text": ARTICLE}, more_body=True)
        leaving.set()
        await sent
        assert await it.metric("headline_rejected_total", reason="disconnected") == 1
        assert await it.metric("headline_requests_total", route="/headline", status="499") == 1


async def test_a_body_that_does_not_arrive_in_time_is_504() -> None:
    async with running(request_timeout_ms=30) as it:
        _, sent = await call_and_leave(it, {"text": ARTICLE}, more_body=True)
        await sent
        assert await it.metric("headline_requests_total", route="/headline", status="504") == 1


async def test_a_server_that_ends_tells_those_whose_body_is_still_arriving() -> None:
    async with running() as it:
        _, sent = await call_and_leave(it, {"text": ARTICLE}, more_body=True)
        sent.cancel()  # as uvicorn does behind its grace
        await sent
        assert await it.metric("headline_requests_total", route="/headline", status="503") == 1


async def test_the_time_limit_holds_while_the_article_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    _, go_on = read_slowly(monkeypatch)
    async with running(request_timeout_ms=30) as it:
        assert_problem(await it.http.post("/headline", json={"text": ARTICLE}), 504)
        go_on.set()
        await it.service.drained()
        assert it.engine.articles == []


async def call_and_leave(  # type: ignore[no-untyped-def]
    it, body: object, *, more_body: bool = False
) -> tuple[asyncio.Event, asyncio.Task[None]]:
    """A request whose client leaves when the event is set; with `more_body` its body goes on until then."""
    leave, sending = asyncio.Event(), asyncio.Event()
    messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": more_body}]

    async def receive() -> dict[str, object]:
        sending.set()
        if messages:
            return messages.pop()
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(_: object) -> None: ...

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/headline",
        "raw_path": b"/headline",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "asgi": {"version": "3.0"},
        "client": ("test", 1),
        "server": ("test", 80),
    }
    sent = asyncio.create_task(it.app(scope, receive, send))
    await sending.wait()
    return leave, sent


async def _is(it, name: str, value: float) -> bool:  # type: ignore[no-untyped-def]
    return bool(await it.metric(name) == value)


def assert_problem(answer, status: int) -> None:  # type: ignore[no-untyped-def]
    """A problem object as RFC 9457 and docs/API have it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert set(body) - {"errors"} == {"type", "title", "status", "detail", "instance"}
    assert body["status"] == status
    assert body["instance"] == answer.headers["X-Request-ID"]
    assert body["detail"]
    assert ("errors" in body) == (status == 422)
