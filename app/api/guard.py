"""What every request passes before a route sees it: its path, its id and record, API keys, the limits of a body."""

import asyncio
import hmac
import logging
import re
from collections.abc import Set
from typing import Annotated
from urllib.parse import unquote

from fastapi import Request
from pydantic import Field, TypeAdapter, ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from ulid import ULID

from app.api.errors import BodyTooLarge, ClientGone, Unauthorized, UnsupportedMediaType, answer, problem
from app.serving.batcher import Closed, DeadlinePassed
from app.serving.metrics import Metrics

log = logging.getLogger("app.requests")
A_DAY = 86_400_000
Milliseconds = Annotated[int, Field(gt=0, le=A_DAY)]
SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
SCHEME_AND_HOST = re.compile(rb"https?://[^/]*", re.IGNORECASE)
HEALTH = frozenset({"/healthz", "/readyz"})


class OriginForm:
    """Takes the path from a target that names the host too, as clients write it to a proxy (RFC 9112, 3.2.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (host := SCHEME_AND_HOST.match(scope["raw_path"])):
            raw_path = scope["raw_path"][host.end() :] or b"/"
            scope = {**scope, "raw_path": raw_path, "path": unquote(raw_path.decode("ascii"))}
        await self._app(scope, receive, send)


class Record:
    """Gives a request its id and its time of arrival, answers what nobody caught, and keeps log and metrics."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Set[str]) -> None:
        """`routes`: the paths that metrics and log name; all others are "unmatched", however many clients invent."""
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        arrived = loop.time()
        request_id = _request_id(Headers(scope=scope))
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "arrived": arrived}
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:
            if status:
                raise
            # The server has stopped while this request was on its way: still arriving, or not done within the grace.
            response = await answer(Request(scope), Closed())
            await response(scope, receive, send_with_id)
        except Exception:
            log.exception("request %s failed", request_id)
            if status:  # the answer had begun; it cannot be mended
                raise
            response = problem(Request(scope), 500, "an error of ours; the log has it under the id of this request")
            await response(scope, receive, send_with_id)
        finally:
            self._note(scope, request_id, status, loop.time() - arrived)

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = scope["path"] if scope["path"] in self._routes else "unmatched"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_duration.labels(route).observe(seconds)
        if route not in HEALTH and route != "/metrics":
            fields = {"request_id": request_id, "route": route, "status": status, "ms": round(seconds * 1000, 1)}
            log.info("%(route)s %(status)s %(ms)s ms %(request_id)s", fields, extra=fields)


class ApiKeys:
    """Lets a request pass that bears one of the keys, or whose path is open."""

    def __init__(self, app: ASGIApp, keys: Set[str], open_paths: Set[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._keys and scope["path"] not in self._open_paths and not self._known(scope):
            response = await answer(Request(scope), Unauthorized())
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _known(self, scope: Scope) -> bool:
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        given = key.strip(" \t").encode("latin-1")  # the bytes as sent; other "blanks" are halves of letters
        matches = [hmac.compare_digest(given, known) for known in self._keys]  # all of them: no early way out
        return scheme.lower() == "bearer" and any(matches)


class BodyRules:
    """Reads a request's body within its limits of length and time, and sets `request.state.deadline`."""

    def __init__(self, app: ASGIApp, paths: Set[str], max_bytes: int, request_timeout: float) -> None:
        """`paths`: the routes that take a body; `request_timeout` in seconds, a client may ask for less."""
        self._app = app
        self._paths = paths
        self._max_bytes = max_bytes
        self._request_timeout = request_timeout
        self._milliseconds = TypeAdapter(Milliseconds)  # reads a header as the routes do

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        deadline = scope["state"]["arrived"] + self._time_limit(headers)
        scope["state"]["deadline"] = deadline
        try:
            self._check(headers)
            async with asyncio.timeout_at(deadline):
                body = await self._read(receive)
        except TimeoutError:
            await (await answer(Request(scope), DeadlinePassed()))(scope, receive, send)
        except (BodyTooLarge, ClientGone, UnsupportedMediaType) as error:
            await (await answer(Request(scope), error))(scope, receive, send)
        else:
            await self._app(scope, _replayed(body, receive), send)

    def _time_limit(self, headers: Headers) -> float:
        """In seconds. What is no number is refused later, by the route."""
        try:
            wished = self._milliseconds.validate_python(headers.get("x-request-timeout-ms"))
        except ValidationError:
            return self._request_timeout
        return min(self._request_timeout, wished / 1000)

    def _check(self, headers: Headers) -> None:
        """What can be known before the body is there."""
        declared = headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            raise BodyTooLarge(self._max_bytes)
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise UnsupportedMediaType

    async def _read(self, receive: Receive) -> bytes:
        parts, received, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            received += len(parts[-1])
            if received > self._max_bytes:
                raise BodyTooLarge(self._max_bytes)
            more = message.get("more_body", False)
        return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """As `receive`, the body being read already."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if SANE_ID.fullmatch(given) else str(ULID())
