"""What clients do with their connections, over real sockets: heads and bodies without an end, targets with a host."""

import json
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.api.harness import ARTICLE, listening
from tests.fakes import FakeEngine

BODY = json.dumps({"text": ARTICLE}).encode()
POST = b"POST /headline HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
Connect = Callable[[], socket.socket]


@contextmanager
def hurried(**given: object) -> Iterator[tuple[Connect, FakeEngine]]:
    """A service that gives a head a fifth of a second."""
    with listening(head_seconds=0.2, **given) as (port, engine):
        yield lambda: socket.create_connection(("127.0.0.1", port), timeout=30), engine


def rest(connection: socket.socket, *, dripping: bytes = b"") -> bytes:
    """What comes until the service closes the connection, while the client goes on a byte at a time."""
    received = b""
    while True:
        if dripping and not select.select([connection], [], [], 0.02)[0]:
            connection.sendall(dripping)
            continue
        if not (part := connection.recv(4096)):
            return received
        received += part


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("before", [b"", GET + b"\r\n", POST + BODY], ids=["first", "second", "after a model's answer"])
@pytest.mark.parametrize("dripping", [b"", b"x"], ids=["silent", "dripping"])
def test_a_head_without_an_end_is_408(before: bytes, dripping: bytes) -> None:
    with hurried() as (connect, _), connect() as connection:
        connection.sendall(before + b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        *answers, last = rest(connection, dripping=dripping).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200"] * bool(before)
    head, _, body = last.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert head.startswith(b"408 Request Timeout\r\n")
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    assert problem["status"] == 408
    assert f"x-request-id: {problem['instance']}".encode() in head.replace(b"X-Request-ID", b"x-request-id")


@pytest.mark.parametrize("before", [b"", GET + b"\r\n"], ids=["new", "used"])
def test_an_idle_connection_is_closed_without_a_word(before: bytes) -> None:
    with hurried() as (connect, _), connect() as connection:
        connection.sendall(before)
        assert rest(connection).count(b"HTTP/1.1 ") == bool(before)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (GET + b"Content-Length: 99\r\n\r\n", 200),
        (b"PUT /headline HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n", 405),
        (b"POST /headline HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n63\r\n", 415),
    ],
)
def test_a_body_that_nobody_waits_for_may_not_go_on_for_ever(head: bytes, status: int) -> None:
    with hurried() as (connect, _), connect() as connection:
        connection.sendall(head)
        answer = rest(connection, dripping=b" ")
    assert status_of(answer) == status
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_body_that_stops_is_504_and_its_connection_closed() -> None:
    with hurried(request_timeout_ms=100) as (connect, _), connect() as connection:
        connection.sendall(POST + BODY[:-1])
        assert status_of(rest(connection)) == 504


def test_the_limit_on_heads_is_none_on_answers() -> None:
    with hurried() as (connect, engine), connect() as connection:
        with engine.hold():
            connection.sendall(POST + BODY)
            engine.started.acquire()
            with connect() as later:
                rest(later)  # until its time is up
        answer = connection.recv(4096)
    assert status_of(answer) == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://host/healthz", 200),
        (b"HTTPS://user@[::1]:8000/healthz?probe=1", 200),
        (b"http://host/models", 401),
        (b"http://host", 401),
        (b"/http://host/healthz", 401),
    ],
)
def test_a_target_may_name_the_host(target: bytes, status: int) -> None:
    """As in a request to a proxy; a key is asked for all the same."""
    with hurried(api_keys="a-key") as (connect, _), connect() as connection:
        connection.sendall(b"GET %b HTTP/1.1\r\nHost: host\r\nConnection: close\r\n\r\n" % target)
        assert status_of(rest(connection)) == status
