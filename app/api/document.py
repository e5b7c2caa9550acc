"""What the OpenAPI document tells beside the bodies' fields: answers and their headers, whole examples, API keys."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Depends
from fastapi.security import HTTPBearer

from app.api.errors import PROBLEM_JSON, TABLE, TITLES, problem_body
from app.api.schemas import ARTICLE, REQUEST_ID, Problem

KEY = Depends(  # only tells of keys; guard.py asks for them
    HTTPBearer(scheme_name="ApiKey", description="One of the service's API keys.", auto_error=False)
)
ID = {"X-Request-ID": "The request's own, if it sent a sane one, else a new one."}
RETRY = {"Retry-After": "When to try again, in seconds."}
HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: RETRY, 503: RETRY}
DETAILS = {  # examples of those that depend on the request
    404: "no model 'other' is loaded",
    413: "the body is longer than 2000000 bytes",
    422: "num_headlines: must be at most 8",
    500: "the model failed on this request",
    503: "the model is not warmed up",
}
REQUESTS: dict[str, Any] = {
    "plain": {"summary": "The best headline", "value": {"text": ARTICLE}},
    "wishes": {
        "summary": "Three short ones, with a name and without a word",
        "value": {
            "text": ARTICLE,
            "num_headlines": 3,
            "max_chars": 60,
            "include": ["Perseverance"],
            "avoid": ["historic"],
            "case": "title",
        },
    },
    "drawn": {
        "summary": "Drawn by likelihood, the same for the same seed",
        "value": {
            "text": ARTICLE,
            "num_headlines": 3,
            "strategy": "sample",
            "temperature": 0.8,
            "top_p": 0.9,
            "seed": 7,
        },
    },
}


def answers(*problems: int, content: Mapping[str, Any] | None = None) -> dict[int | str, dict[str, Any]]:
    """The answers of a route: 200, with the `content` that no model tells of, and problems."""
    return {
        200: {"headers": _headers(200), "content": content or {}},
        **{status: _problem(status) for status in problems},
    }


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "model": Problem,
        "description": TITLES[status],
        "headers": _headers(status),
        "content": {PROBLEM_JSON: {"schema": schema, "example": _example(status)}},
    }


def with_problems_alone(whole: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """FastAPI's document without its word that a problem, as any model, might come as application/json."""

    def document() -> dict[str, Any]:
        told = whole()
        for operations in told["paths"].values():
            for operation in operations.values():
                for answer in operation["responses"].values():
                    if PROBLEM_JSON in answer["content"]:
                        answer["content"].pop("application/json", None)
        return told

    return document


def _headers(status: int) -> dict[str, Any]:
    told = ID | HEADERS.get(status, {})
    return {name: {"description": text, "required": True, "schema": {"type": "string"}} for name, text in told.items()}


def _example(status: int) -> dict[str, Any]:
    details = {**{kind.status: kind.detail for kind in TABLE.values()}, **DETAILS}
    body = problem_body(status, details[status] or "", request_id=REQUEST_ID)
    if status == 422:
        field, _, message = body["detail"].partition(": ")
        body["errors"] = [{"field": field, "message": message}]
    return body
