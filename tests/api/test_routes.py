"""The other routes, and what every request passes: keys, limits, ids, metrics."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.harness import ARTICLE, read_slowly, running
from tests.api.test_headline import assert_problem

pytestmark = pytest.mark.anyio
JSON = {"Content-Type": "application/json"}


async def test_models() -> None:
    async with running() as it:
        answer = await it.http.get("/models")
    assert answer.json() == {
        "models": [
            {
                "name": "fake",
                "version": "3",
                "default": True,
                "language": "en",
                "licence": "CC0-1.0",
                "parameters": 7,
                "max_source_tokens": 64,
                "device": "cpu",
                "dtype": "float32",
                "scores": {"rougeL": 1.0},
            }
        ]
    }


async def test_health_says_nothing_of_the_model() -> None:
    async with running() as it:
        it.service.close()
        answer = await it.http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_after_a_failed_batch_only_if_a_probe_goes_through() -> None:
    async with running() as it:
        assert (await it.http.get("/readyz")).status_code == 200
        it.engine.error = RuntimeError("broken")
        await it.http.post("/headline", json={"text": ARTICLE})
        first, second = await asyncio.gather(it.http.get("/readyz"), it.http.get("/readyz"))
        probes = len(it.engine.articles) - 1
        it.engine.error = None
        mended = await it.http.get("/readyz")
        batches = len(it.engine.batches)
        assert (await it.http.get("/readyz")).status_code == 200
        assert len(it.engine.batches) == batches  # no probe while all is well
    assert_problem(first, 503)
    assert_problem(second, 503)
    assert "probe" in first.json()["detail"]
    assert int(first.headers["Retry-After"]) >= 1
    assert probes == 1  # those who ask at once share one
    assert mended.status_code == 200


async def test_while_stopping_what_is_new_is_503_and_what_was_accepted_is_answered() -> None:
    async with running() as it:
        with it.engine.hold():
            accepted = asyncio.create_task(it.http.post("/headline", json={"text": ARTICLE}))
            await it.started()
            it.service.close()
            refused = await it.http.post("/headline", json={"text": ARTICLE})
            ready = await it.http.get("/readyz")
            assert await it.metric("headline_model_ready") == 0
        assert (await accepted).status_code == 200
        await it.service.drained()
        assert await it.metric("headline_rejected_total", reason="not_ready") == 2
    assert_problem(refused, 503)
    assert refused.headers["Retry-After"]
    assert_problem(ready, 503)


async def test_an_article_that_is_still_read_at_a_stop_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = read_slowly(monkeypatch)
    async with running() as it:
        accepted = asyncio.create_task(it.http.post("/headline", json={"text": ARTICLE}))
        await asyncio.get_running_loop().run_in_executor(None, reading.wait)
        it.service.close()
        draining = asyncio.create_task(it.service.drained())
        refused = await it.http.post("/headline", json={"text": ARTICLE})
        assert not draining.done()
        go_on.set()
        assert (await accepted).status_code == 200
        await draining
    assert_problem(refused, 503)


async def test_unknown_route_and_wrong_method() -> None:
    async with running() as it:
        assert_problem(await it.http.get("/headlines"), 404)
        assert_problem(await it.http.post("/nothing", json={}), 404)
        assert_problem(await it.http.post("/headline/", json={"text": ARTICLE}), 404)
        assert_problem(await it.http.post("/nothing", content=b"no JSON"), 404)
        assert_problem(await it.http.post("/models", content=b"no JSON"), 405)
        wrong = await it.http.get("/headline")
        assert_problem(wrong, 405)
        assert wrong.headers["Allow"] == "POST"


async def test_docs_need_nothing_from_outside() -> None:
    async with running() as it:
        page = await it.http.get("/docs")
        assert page.status_code == 200
        assert "http://" not in page.text
        assert "https://" not in page.text
        for asset in ("swagger-ui-bundle.js", "swagger-ui.css"):
            assert asset in page.text
            assert (await it.http.get(f"/static-offline-docs/{asset}")).status_code == 200


async def test_the_openapi_document_has_an_example_for_every_body() -> None:
    async with running(max_article_chars=1234) as it:
        document = (await it.http.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    assert schemas["HeadlineRequest"]["properties"]["text"]["maxLength"] == 1234
    for name, schema in schemas.items():
        for field, rules in schema["properties"].items():
            has_example = {"examples", "default", "$ref", "items", "anyOf"} & set(rules)
            assert has_example, f"{name}.{field}"
    assert set(document["paths"]) == {"/headline", "/models", "/healthz", "/readyz", "/metrics"}
    assert set(document["paths"]["/headline"]["post"]["responses"]) == {
        *("200", "401", "404", "413", "415", "422", "429", "500", "503", "504")
    }


async def test_the_openapi_document_has_whole_requests_and_problems() -> None:
    async with running() as it:
        document = (await it.http.get("/openapi.json")).json()
        headline = document["paths"]["/headline"]["post"]
        for example in headline["requestBody"]["content"]["application/json"]["examples"].values():
            answer = await it.http.post("/headline", json=example["value"])
            assert answer.status_code == 200, answer.text
    for status, answer in headline["responses"].items():
        if status == "200":
            continue
        [(content_type, content)] = answer["content"].items()
        assert content_type == "application/problem+json"
        assert content["example"]["status"] == int(status)
        assert content["example"]["detail"]
        assert ("errors" in content["example"]) == (status == "422")
        assert "X-Request-ID" in answer["headers"]
        assert ("Retry-After" in answer["headers"]) == (status in ("429", "503"))


@pytest.mark.parametrize(
    ("given", "locked"),
    [
        ({}, set()),
        ({"api_keys": "k"}, {"/headline", "/models", "/metrics"}),
        ({"api_keys": "k", "metrics_open": True}, {"/headline", "/models"}),
    ],
)
async def test_the_openapi_document_tells_which_routes_need_a_key(given: dict[str, object], locked: set[str]) -> None:
    async with running(**given) as it:
        document = (await it.http.get("/openapi.json", headers={"Authorization": "Bearer k"})).json()
    schemes = document["components"].get("securitySchemes", {})
    assert {scheme["scheme"] for scheme in schemes.values()} == ({"bearer"} if locked else set())
    needing = {path for path, operations in document["paths"].items() for it in operations.values() if "security" in it}
    assert needing == locked


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/form-data; boundary=x", ""])
async def test_another_content_type_is_415(content_type: str) -> None:
    async with running() as it:
        headers = {"Content-Type": content_type} if content_type else {}
        answer = await it.http.post("/headline", content=json.dumps({"text": ARTICLE}).encode(), headers=headers)
    assert_problem(answer, 415)


async def test_json_with_a_charset_is_json() -> None:
    async with running() as it:
        headers = {"Content-Type": "Application/JSON; charset=utf-8"}
        answer = await it.http.post("/headline", content=json.dumps({"text": ARTICLE}).encode(), headers=headers)
    assert answer.status_code == 200


async def test_a_body_over_the_limit_is_413_before_it_is_read() -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(300):
            sent += 1
            yield b" " * 10_000

    async with running() as it:
        whole = await it.http.post("/headline", content=b" " * 3_000_000, headers=JSON)
        streamed = await it.http.post("/headline", content=chunks(), headers=JSON)
        just_within = await it.http.post(
            "/headline", content=json.dumps({"text": ARTICLE}).encode().ljust(2_000_000), headers=JSON
        )
        assert await it.metric("headline_rejected_total", reason="too_large") == 2
    assert_problem(whole, 413)
    assert_problem(streamed, 413)
    assert sent <= 201
    assert just_within.status_code == 200


KEYS = {"api_keys": "first-key, second-key"}


async def test_a_key_may_end_in_any_letter() -> None:
    async with running(api_keys="cl\u00e9-\u00e0") as it:
        answer = await it.http.get("/models", headers={"Authorization": "Bearer cl\u00e9-\u00e0".encode()})
    assert answer.status_code == 200


async def test_api_keys() -> None:
    async with running(**KEYS) as it:
        for key in ("first-key", "second-key"):
            headers = {"Authorization": f"Bearer {key}"}
            assert (await it.http.post("/headline", json={"text": ARTICLE}, headers=headers)).status_code == 200
        for value in ("", "Bearer", "Bearer wrong", "Basic first-key", "first-key", "Bearer first-key2", "Bearer ключ"):
            refused = await it.http.post("/headline", json={"text": ARTICLE}, headers={"Authorization": value.encode()})
            assert_problem(refused, 401)
            assert refused.headers["WWW-Authenticate"] == "Bearer"
        for path in ("/models", "/metrics", "/docs", "/openapi.json", "/nowhere"):
            assert (await it.http.get(path)).status_code == 401
        for path in ("/healthz", "/readyz"):
            assert (await it.http.get(path)).status_code == 200
        assert await it.metric("headline_rejected_total", reason="unauthorized") == 12


async def test_metrics_open_by_a_setting() -> None:
    async with running(**KEYS, metrics_open=True) as it:
        assert (await it.http.get("/metrics")).status_code == 200


@pytest.mark.parametrize("insane", ["", "a b", "x" * 129, "línea", "a\tb"])
async def test_an_insane_request_id_is_replaced(insane: str) -> None:
    async with running() as it:
        answer = await it.http.get("/healthz", headers={"X-Request-ID": insane.encode()})
    assert len(answer.headers["X-Request-ID"]) == 26  # a ULID


async def test_what_nobody_caught_is_500_with_its_id_and_without_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> str:
        raise ZeroDivisionError("secret")

    async with running() as it:
        monkeypatch.setattr(it.service, "why_not_ready", broken)
        answer = await it.http.get("/readyz", headers={"X-Request-ID": "abc"})
    assert_problem(answer, 500)
    assert answer.headers["X-Request-ID"] == "abc"
    assert "secret" not in answer.text


async def test_metrics() -> None:
    async with running() as it:
        await it.http.post("/headline", json={"text": ARTICLE})
        await it.http.post("/headline", json={"text": ""})
        await it.http.post("/headline", content=b"{}")
        await it.http.get("/nowhere")
        await it.http.get("/docs")
        answer = await it.http.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    names = {
        *("headline_requests", "headline_request_duration_seconds", "headline_queue_duration_seconds"),
        *("headline_batch_duration_seconds", "headline_batch_articles", "headline_batch_tokens"),
        *("headline_padding_tokens", "headline_article_tokens", "headline_generated_tokens"),
        *("headline_truncated_articles", "headline_waiting_requests", "headline_waiting_tokens"),
        *("headline_running_requests", "headline_rejected", "headline_model_info", "headline_model_ready"),
        "process_resident_memory_bytes",
    }
    assert names <= set(families)
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert values["headline_requests_total", ("route", "/headline"), ("status", "200")] == 1
    assert values["headline_requests_total", ("route", "/headline"), ("status", "422")] == 1
    assert values["headline_requests_total", ("route", "/headline"), ("status", "415")] == 1
    assert values["headline_requests_total", ("route", "unmatched"), ("status", "404")] == 1
    assert values["headline_requests_total", ("route", "/docs"), ("status", "200")] == 1
    assert values["headline_request_duration_seconds_count", ("route", "/headline")] == 3
    assert values[("headline_queue_duration_seconds_count",)] == 1
    assert values["headline_batch_duration_seconds_count", ("stage", "encode")] == 1
    assert values[("headline_batch_tokens_sum",)] == len(ARTICLE)
    assert values[("headline_padding_tokens_total",)] == 5
    assert values[("headline_generated_tokens_total",)] == 11
    info = (("device", "cpu"), ("dtype", "float32"), ("name", "fake"), ("version", "3"))
    assert values["headline_model_info", *info] == 1
    first_buckets = {
        float(s.labels["le"]) for s in families["headline_request_duration_seconds"].samples if "le" in s.labels
    }
    assert min(first_buckets) <= 0.002


async def test_gpu_memory_is_exported_where_there_is_a_card() -> None:
    async with running() as it:
        assert "headline_gpu_memory_bytes" not in (await it.http.get("/metrics")).text
    memory = {"allocated": 7, "free": 9}
    async with running(gpu=memory) as it:
        memory["allocated"] = 8
        assert await it.metric("headline_gpu_memory_bytes", kind="allocated") == 8
        assert await it.metric("headline_gpu_memory_bytes", kind="free") == 9


async def test_the_engine_rests_when_idle_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.serving.service.REST_SECONDS", 0.0)
    async with running() as it:
        with it.engine.hold():
            first = asyncio.create_task(it.http.post("/headline", json={"text": ARTICLE}))
            await it.started()
            assert it.engine.rests == 0
        await first
        await it.until(lambda: _rested(it))


async def _rested(it) -> bool:  # type: ignore[no-untyped-def]
    return bool(it.engine.rests)


async def test_no_article_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with running() as it:
        await it.http.post("/headline", json={"text": ARTICLE})
        await it.http.post("/headline", json={"text": ARTICLE, "num_headlines": 99})
        it.engine.error = RuntimeError("broken")
        await it.http.post("/headline", json={"text": ARTICLE})
    assert any(record.name == "app.requests" for record in caplog.records)
    assert "library" not in caplog.text
