"""What every request passes before a route sees it: its id and its record, API keys, the limits of a body."""

import asyncio
import hmac
import logging
import re
from collections.abc import Set

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from ulid import ULID

from app.api.errors import BodyTooLarge, Unauthorized, UnsupportedMediaType, answer, problem
from app.serving.metrics import Metrics

log = logging.getLogger("app.requests")
SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
HEALTH = frozenset({"/healthz", "/readyz"})


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
    """Refuses a body that is not JSON, or too long, before it is read whole."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await (await answer(Request(scope), BodyTooLarge(self._max_bytes)))(scope, receive, send)
            return
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            await (await answer(Request(scope), UnsupportedMediaType()))(scope, receive, send)
            return
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise BodyTooLarge(self._max_bytes)
            return message

        await self._app(scope, receive_within_limit, send)


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if SANE_ID.fullmatch(given) else str(ULID())
