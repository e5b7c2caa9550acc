"""The one table: error -> status -> application/problem+json (RFC 9457)."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from app.serving.batcher import BatchFailed, Closed, DeadlinePassed, QueueFull
from app.serving.service import NoHeadline, NotReady, NoWords, UnknownModel

log = logging.getLogger(__name__)
RETRY_SECONDS = 5  # for "not ready" and "shutting down", which nobody can compute
CLIENT_GONE = 499  # nobody reads it; it keeps such requests apart in logs and metrics


class ClientGone(Exception):
    """The client left before its answer was there."""


class Unauthorized(Exception):
    """API keys are set and the request has none of them."""


class UnsupportedMediaType(Exception):
    """The body is not JSON by its content type."""


class BodyTooLarge(HTTPException):
    """The body is over the limit. An HTTPException, since FastAPI turns any other error while reading into a 400."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body is longer than {limit} bytes")


@dataclass(frozen=True)
class Kind:
    status: int
    detail: str | None = None  # None: the error's own words
    rejection: str | None = None  # the reason in headline_rejected_total


TABLE: Mapping[type[Exception], Kind] = {
    ClientGone: Kind(CLIENT_GONE, "the client has gone", "disconnected"),
    Unauthorized: Kind(401, "send one of the API keys as `Authorization: Bearer <key>`", "unauthorized"),
    UnknownModel: Kind(404),
    BodyTooLarge: Kind(413, None, "too_large"),
    UnsupportedMediaType: Kind(415, "send the body as application/json"),
    QueueFull: Kind(429, "too many requests are waiting", "queue_full"),
    BatchFailed: Kind(500, "the model failed on this request"),
    NoHeadline: Kind(500, "the model wrote no readable headline"),
    NotReady: Kind(503, None, "not_ready"),
    Closed: Kind(503, "shutting down", "not_ready"),
    DeadlinePassed: Kind(504, "the request took longer than its time limit", "deadline"),
}


def add_handlers(app: FastAPI) -> None:
    """Make `app` answer every error from here."""
    for error in (*TABLE, NoWords, RequestValidationError, HTTPException):
        app.add_exception_handler(error, answer)


async def answer(request: Request, error: Exception) -> Response:
    """The problem that `error` is to the client; counts it where it is a rejection."""
    if isinstance(error, NoWords):
        return _unprocessable(request, [{"field": "text", "message": "no words are left once its markup is removed"}])
    if isinstance(error, RequestValidationError):
        return _unprocessable(request, [_in_words(problem) for problem in error.errors()])
    kind = TABLE.get(type(error))
    if kind is None:
        return _from_http(request, error)
    if kind.rejection is not None:
        request.app.state.metrics.rejected.labels(kind.rejection).inc()
    return problem(request, kind.status, kind.detail or _words(error), headers=_headers(error))


def problem(
    request: Request,
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, str]] | None = None,
) -> Response:
    """A problem object; its `instance` is the request id."""
    title = "Client Closed Request" if status == CLIENT_GONE else HTTPStatus(status).phrase
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": request.scope["state"]["request_id"],
    }
    if errors is not None:
        body["errors"] = list(errors)
    return JSONResponse(body, status, headers=headers, media_type="application/problem+json")


def _unprocessable(request: Request, errors: Sequence[Mapping[str, str]]) -> Response:
    detail = "; ".join(f"{error['field']}: {error['message']}" for error in errors)
    return problem(request, 422, detail, errors=errors)


def _in_words(error: Mapping[str, Any]) -> dict[str, str]:
    """One of pydantic's errors, without the input it quotes."""
    if error["type"] == "json_invalid":
        return {"field": "body", "message": f"not valid JSON at character {error['loc'][-1]}"}
    source, *place = map(str, error["loc"])
    if source == "header":
        place = place[:1]  # behind it stands which of its types did not fit
    return {"field": ".".join(place) or "body", "message": str(error["msg"])}


def _from_http(request: Request, error: Exception) -> Response:
    """FastAPI's own errors: unknown route, wrong method, a body it cannot parse."""
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        return _unprocessable(request, [{"field": "body", "message": "cannot be read as JSON"}])
    return problem(request, error.status_code, str(error.detail), headers=error.headers)


def _words(error: Exception) -> str:
    return str(error.detail) if isinstance(error, HTTPException) else str(error)


def _headers(error: Exception) -> dict[str, str] | None:
    if isinstance(error, QueueFull):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    if isinstance(error, NotReady | Closed):
        return {"Retry-After": str(RETRY_SECONDS)}
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, BodyTooLarge):
        return {"Connection": "close"}  # what is left of the body will not be read
    return None
