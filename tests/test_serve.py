"""One real `headline serve` with the model that ships: signals, sockets and bad articles are not to be mocked."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[1]
ARTICLES = [json.loads(line) for line in (ROOT / "tests/data/articles.jsonl").read_text(encoding="utf-8").splitlines()]


@dataclass
class Service:
    process: subprocess.Popen[str]
    url: str
    log: list[str]

    def post(self, text: str, **fields: object) -> httpx.Response:
        return httpx.post(f"{self.url}/headline", json={"text": text, **fields}, timeout=60, trust_env=False)


def start(*flags: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "app", "serve", "--port", "0", *flags],
        cwd=ROOT,
        env={**os.environ, **env},
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def serving(*flags: str, **env: str) -> Iterator[Service]:
    """A service that listens; killed at the end if it has not ended by itself."""
    process = start(*flags, **env)
    log: list[str] = []
    url: list[str] = []
    listening = threading.Event()

    def follow() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            log.append(line)
            if found := re.search(r"http://[\d.]+:\d+", line):
                url.append(found[0])
                listening.set()
        listening.set()

    reader = threading.Thread(target=follow)
    reader.start()
    try:
        listening.wait(120)
        assert url, "".join(log)
        yield Service(process, url[0], log)
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serving() as running:
        yield running


def test_the_shipped_model_writes_about_the_article(service: Service) -> None:
    for article in ARTICLES[:5]:
        answer = service.post(article["text"]).json()
        headline = answer["headlines"][0]
        shared = {word for word in re.findall(r"\w{4,}", headline["text"].lower()) if word in article["text"].lower()}
        assert len(shared) >= 2, headline
        assert headline["score"] < 0
        assert headline["chars"] == len(headline["text"])
        assert answer["model"]["name"] == "press-en"


def test_the_answer_does_not_depend_on_the_batch(service: Service) -> None:
    texts = [article["text"] for article in ARTICLES[:24]]
    alone = [service.post(text, num_headlines=2).json()["headlines"] for text in texts]
    with ThreadPoolExecutor(24) as clients:
        together = [
            answer.json()["headlines"] for answer in clients.map(lambda t: service.post(t, num_headlines=2), texts)
        ]
    for one, other in zip(alone, together, strict=True):
        assert [headline["text"] for headline in one] == [headline["text"] for headline in other]
        assert [h["score"] for h in one] == pytest.approx([h["score"] for h in other], abs=2e-4)


def test_wishes_hold_for_real_articles(service: Service) -> None:
    counts = []
    for article in ARTICLES[5:11]:
        text = article["text"]
        plain = service.post(text).json()["headlines"][0]["text"]
        word = max(re.findall(r"\w+", plain), key=len)
        names = [name for name in re.findall(r"(?<=[a-z,] )[A-Z][a-z]+", text) if name != word]
        answer = service.post(text, max_chars=45, max_words=8, avoid=[word], include=names[:1])
        assert answer.status_code == 200, answer.text
        for headline in answer.json()["headlines"]:
            assert headline["chars"] == len(headline["text"]) <= 45
            assert headline["words"] == len(headline["text"].split()) <= 8
            assert not re.search(rf"\b{word}\b", headline["text"], re.I)
            assert headline["missing"] == []
        several = service.post(text, num_headlines=5).json()["headlines"]
        assert len({re.sub(r"\W", "", headline["text"].lower()) for headline in several}) == len(several)
        counts.append(len(several))
    assert sum(counts) >= 4 * len(counts), counts  # of five each; the model may have fewer for one of them


def test_a_seed_draws_the_same_again(service: Service) -> None:
    text = ARTICLES[3]["text"]
    first, again, other = (
        [
            headline["text"]
            for headline in service.post(text, strategy="sample", seed=seed, num_headlines=3).json()["headlines"]
        ]
        for seed in (7, 7, 8)
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("text", "wishes"),
    [
        ("Donaudampfschifffahrtsgesell", {"max_chars": 20}),
        ("Rain", {"num_headlines": 8}),
        ("Rain fell on Monday.", {"avoid": ["rain", "fell", "on", "monday", *(f"word{n}" for n in range(46))]}),
        ("Rain fell on Monday.", {"include": ["Overton", "Quebec", "Zanzibar", "Monday", "rain"], "max_chars": 60}),
        (
            "\u0414\u043e\u0436\u0434\u044c \u0432 \u041c\u043e\u0441\u043a\u0432\u0435",
            {"include": ["\u041c\u043e\u0441\u043a\u0432\u0435"], "max_words": 5},
        ),
    ],
)
def test_wishes_at_their_edge_get_a_headline_that_obeys_or_words(
    service: Service, text: str, wishes: dict[str, object]
) -> None:
    answer = service.post(text, **wishes)
    if answer.status_code == 422:
        assert answer.json()["errors"][0]["message"]
        return
    assert answer.status_code == 200
    for headline in answer.json()["headlines"]:
        assert headline["chars"] <= int(wishes.get("max_chars", 300))  # type: ignore[call-overload]
        assert headline["words"] <= int(wishes.get("max_words", 40))  # type: ignore[call-overload]
        assert not any(re.search(rf"\b{word}\b", headline["text"], re.I) for word in wishes.get("avoid", []))  # type: ignore[attr-defined]


STRANGE = {
    "one character": "a",
    "NUL": "\u0000The council voted\u0007",
    "emoji": "\U0001f680\U0001f469\u200d\U0001f680" * 40,
    "right to left": "\u05d4\u05de\u05d5\u05e2\u05e6\u05d4 \u0635\u0648\u062a\u062a",
    "only digits": "2026 1984 7",
    "one word fifty thousand times": "the " * 50_000,
    "one word without an end": "a" * 200_000,
    "html without an end": "<p>The council voted <b" * 5_000,
}


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
def test_strange_articles_get_headlines(service: Service, text: str) -> None:
    answer = service.post(text[:200_000])
    assert answer.status_code == 200, answer.text
    assert answer.json()["headlines"][0]["text"].strip()


def test_a_lone_surrogate_is_read_over(service: Service) -> None:
    raw = b'{"text": "The \\ud800 council voted"}'
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{service.url}/headline", content=raw, headers=headers, timeout=60, trust_env=False)
    assert answer.status_code == 200


def test_a_body_of_3_mb_is_refused_while_it_is_sent(service: Service) -> None:
    """With its length in the header, and in chunks without it."""
    host, port = service.url.removeprefix("http://").split(":")
    head = b"POST /headline HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    chunks = b"Transfer-Encoding: chunked\r\n\r\n2dc6c0\r\n" + b" " * 2_100_000
    for rest in (b"Content-Length: 3000000\r\n\r\n", chunks):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(head + rest)  # and no more: the answer must not wait for what is left
            assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_an_offer_to_upgrade_to_http_2_is_passed_over(service: Service) -> None:
    """As Java's client makes it with its first request."""
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAAB"}
    body = {"text": ARTICLES[0]["text"]}
    answer = httpx.post(f"{service.url}/headline", json=body, headers=offer, timeout=60, trust_env=False)
    assert answer.status_code == 200
    assert not any("upgrade" in line.lower() for line in service.log)


def test_a_websocket_is_no_route(service: Service) -> None:
    offer = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "eA==",
    }
    answer = httpx.get(f"{service.url}/headline", headers=offer, trust_env=False)
    assert answer.status_code == 405
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "raw", [b"\x16\x03\x01\x02\x00\x01", b"GET /headline\r\n\r\n", b"POST / HTTP/1.1\r\nHost: \xff\x00\r\n\r\n"]
)
def test_what_is_not_http_gets_a_problem(service: Service, raw: bytes) -> None:
    answer = send_raw(service, raw + b"\r\n" * 2)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    problem = json.loads(body)
    assert problem["status"] == 400
    assert f"x-request-id: {problem['instance']}".lower() in head.decode().lower()


def send_raw(service: Service, raw: bytes) -> bytes:
    """What comes back until the service closes the connection."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(raw)
        return b"".join(iter(lambda: connection.recv(4096), b""))


def test_a_client_that_leaves_is_noticed(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    body = json.dumps({"text": ARTICLES[0]["text"]}).encode()
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = b"POST /headline HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    disconnected = r'headline_rejected_total\{reason="disconnected"\} ([1-9])'
    for _ in range(200):
        if re.search(disconnected, httpx.get(f"{service.url}/metrics", trust_env=False).text):
            return
    pytest.fail("nobody noticed")


def test_sigterm_answers_what_was_accepted_and_exits_with_0() -> None:
    with serving("--max-batch-tokens", "1") as service, ThreadPoolExecutor(12) as clients:
        texts = [article["text"] for article in ARTICLES[:12]]
        answers = [clients.submit(service.post, text) for text in texts]
        accepted = re.compile(r"headline_(waiting|running)_requests (\d+)")
        while True:
            metrics = httpx.get(f"{service.url}/metrics", trust_env=False).text
            if sum(int(float(number)) for _, number in accepted.findall(metrics)) >= 6:
                break
        service.process.send_signal(signal.SIGTERM)
        statuses = [_status(answer) for answer in answers]
        assert service.process.wait(60) == 0, "".join(service.log)
    assert set(statuses) <= {200, 503, "refused"}
    assert statuses.count(200) >= 6
    assert any("stopping: SIGTERM" in line for line in service.log)


def test_a_request_that_still_arrives_at_sigterm_is_refused_in_words() -> None:
    with serving() as service:
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            head = b"POST /headline HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
            connection.sendall(head + b'{"text": ')
            httpx.get(f"{service.url}/healthz", trust_env=False)  # an answer to a later request: this one has begun
            service.process.send_signal(signal.SIGTERM)
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert service.process.wait(60) == 0
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"x-request-id: " in answer.lower()
    assert b"shutting down" in answer
    assert not any("Traceback" in line for line in service.log), "".join(service.log)


def _status(answer) -> object:  # type: ignore[no-untyped-def]
    try:
        return answer.result().status_code
    except httpx.ConnectError:
        return "refused"  # it came after the door was shut


def test_json_logs_have_no_article_in_them() -> None:
    with serving(HEADLINE_LOG_FORMAT="json") as service:
        service.post("The zyzzyva museum opened.")
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(60) == 0
    lines = [json.loads(line) for line in service.log]
    assert any(line.get("route") == "/headline" and line["status"] == 200 for line in lines)
    assert "zyzzyva" not in "".join(service.log)


@pytest.mark.parametrize(
    ("flags", "env", "words"),
    [
        (["--model", "./nowhere"], {}, "nowhere"),
        (["--model", "press-en@99"], {}, "99"),
        (["--device", "cuda:77"], {}, "cuda:77"),
        (["--port", "http"], {}, "port: "),
        (["--prot", "1"], {}, "--prot"),
        (["--host", "192.0.2.1"], {}, "cannot listen on 192.0.2.1"),
        (["--host", "no such host"], {}, "cannot listen on no such host"),
        (["--host", "h" * 80], {}, "cannot listen on hhh"),
        (["--device", "meta"], {}, "device: "),
        ([], {"HEADLINE_MODLE": "x"}, "HEADLINE_MODLE"),
        (["--api-keys-file", "/nowhere/keys"], {}, "/nowhere/keys"),
    ],
)
def test_a_start_that_cannot_be_is_one_line_and_a_code(flags: list[str], env: dict[str, str], words: str) -> None:
    process = start(*flags, **env, HF_HUB_OFFLINE="1")
    _, log = process.communicate(timeout=120)
    assert process.returncode not in (0, None)
    assert log.startswith("headline: ")
    assert log.count("\n") == 1
    assert words in log


def test_a_port_that_is_taken_is_known_at_once(service: Service) -> None:
    process = start("--port", service.url.rpartition(":")[2])
    _, log = process.communicate(timeout=120)
    assert process.returncode == 1
    assert log.startswith("headline: cannot listen on 127.0.0.1:")
    assert log.count("\n") == 1


def test_help_tells_every_setting() -> None:
    from app.settings import Settings

    told = subprocess.run(
        [sys.executable, "-m", "app", "serve", "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in told
