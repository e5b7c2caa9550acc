"""The one table: error -> status -> application/problem+json (RFC 9457)."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from app.headlines.headline import Impossible
from app.serving.batcher import BatchFailed, Closed, DeadlinePassed, QueueFull
from app.serving.service import NoHeadline, NotReady, NoWords, UnknownModel

log = logging.getLogger(__name__)
PROBLEM_JSON = "application/problem+json"
RETRY_SECONDS = 5  # for "not ready" and "shutting down", which nobody can compute
CLIENT_GONE = 499  # nobody reads it; it keeps such requests apart in logs and metrics
LONGEST_FIELD = 100  # characters of a field's name that are sent back

TITLES: Mapping[int, str] = {  # RFC 9110's words; those of Python's HTTPStatus differ between its versions
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    CLIENT_GONE: "Client Closed Request",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class ClientGone(Exception):
    """The client left before its answer was there."""


class Unauthorized(Exception):
    """API keys are set and the request has none of them."""


class UnsupportedMediaType(Exception):
    """The body is not JSON by its content type."""


class BodyTooLarge(Exception):
    """The body is over the limit, which the message names."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is longer than {limit} bytes")


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

DETAILS: Mapping[int, str] = {404: "there is no such route", 405: "the route does not take this method"}

# What a rule of schemas.py says to a client that broke it: pydantic's type of error -> our words.
MESSAGES: Mapping[str, str] = {
    "extra_forbidden": "there is no such field",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a shorter number",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be one of {expected}",
    "missing": "is required",
    "model_attributes_type": "must be a JSON object",
    "string_pattern_mismatch": "must not be blank",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "string_type": "must be a string",
    "too_long": "must have at most {max_length} entries",
    "value_error": "{error}",  # raised by schemas.py, in our own words
}


def add_handlers(app: FastAPI) -> None:
    """Make `app` answer every error from here."""
    for error in (*TABLE, Impossible, NoWords, RequestValidationError, HTTPException):
        app.add_exception_handler(error, answer)


async def answer(request: Request, error: Exception) -> Response:
    """The problem that `error` is to the client; counts it where it is a rejection."""
    if isinstance(error, NoWords):
        return _unprocessable(request, [{"field": "text", "message": "no words are left once its markup is removed"}])
    if isinstance(error, Impossible):
        return _unprocessable(request, [{"field": error.field, "message": str(error)}])
    if isinstance(error, RequestValidationError):
        return _unprocessable(request, [_in_words(problem) for problem in error.errors()])
    kind = TABLE.get(type(error))
    if kind is None:
        return _from_http(request, error)
    if kind.rejection is not None:
        request.app.state.metrics.rejected.labels(kind.rejection).inc()
    return problem(request, kind.status, kind.detail or str(error), headers=_headers(error))


def problem(
    request: Request,
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, str]] | None = None,
) -> Response:
    """A problem object; its `instance` is the request id."""
    body = problem_body(status, detail, request_id=request.scope["state"]["request_id"])
    if errors is not None:
        body["errors"] = list(errors)
    return JSONResponse(body, status, headers=headers, media_type=PROBLEM_JSON)


def problem_body(status: int, detail: str, *, request_id: str) -> dict[str, Any]:
    title = TITLES[status]
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, "instance": request_id}


def _unprocessable(request: Request, errors: Sequence[Mapping[str, str]]) -> Response:
    detail = "; ".join(f"{error['field']}: {error['message']}" for error in errors)
    return problem(request, 422, detail, errors=errors)


def _in_words(error: Mapping[str, Any]) -> dict[str, str]:
    """One of pydantic's errors in our words, without the input it quotes."""
    if error["type"] == "json_invalid":
        return {"field": "body", "message": f"not valid JSON at character {error['loc'][-1]}"}
    place = [str(part) for part in error["loc"][1:]]  # in front stands "body" or "header"
    message = MESSAGES.get(error["type"], "is not valid").format_map(error.get("ctx", {}))
    return {"field": ".".join(place)[:LONGEST_FIELD] or "body", "message": message}


def _from_http(request: Request, error: Exception) -> Response:
    """FastAPI's own errors: unknown route, wrong method, a body it cannot parse."""
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        return _unprocessable(request, [{"field": "body", "message": "cannot be read as JSON"}])
    return problem(
        request, error.status_code, DETAILS.get(error.status_code, TITLES[error.status_code]), headers=error.headers
    )


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
