"""The routes, thin: HTTP in, the service's answer out."""

import asyncio
import secrets
from collections.abc import Coroutine, Set
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Header, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from app.api import schemas
from app.api.document import KEY, REQUESTS, answers
from app.api.errors import ClientGone
from app.api.guard import A_DAY, Milliseconds
from app.headlines.headline import Impossible, Limits, Sampling, Wishes, distinct, tidy
from app.headlines.phrases import fold
from app.serving.metrics import Metrics
from app.serving.service import Answer, HeadlineService, NotReady

T = TypeVar("T")
TEMPERATURE, TOP_P = 1.0, 0.9  # of strategy "sample", unless the client says otherwise
TimeLimit = Annotated[Milliseconds, Header(description="A shorter time limit than the service's own.")]


def build_router(
    service: HeadlineService, metrics: Metrics, *, max_article_chars: int, open_paths: Set[str] | None = None
) -> APIRouter:
    """All routes of one service. `open_paths`: those that need no key; None where no route needs one."""
    router = APIRouter()

    def key(path: str) -> list[Any]:
        return [] if open_paths is None or path in open_paths else [KEY]

    async def headline(
        request: Request,
        body: schemas.HeadlineRequest,
        x_request_timeout_ms: TimeLimit = A_DAY,  # checked and told here; guard.py made it the deadline
    ) -> schemas.HeadlineAnswer:
        writing = service.write(body.text, _wishes(body), model=body.model, deadline=request.state.deadline)
        return _shown(await _unless_gone(request, writing), request.state.request_id)

    limited = schemas.headline_request(max_article_chars)  # this service's limit
    headline.__annotations__["body"] = Annotated[limited, Body(openapi_examples=REQUESTS)]
    router.post(
        "/headline",
        dependencies=key("/headline"),
        response_model=schemas.HeadlineAnswer,
        responses=answers(401, 404, 413, 415, 422, 429, 500, 503, 504),
        summary="Write headlines for an article",
    )(headline)

    @router.get(
        "/models",
        dependencies=key("/models"),
        response_model=schemas.Models,
        responses=answers(401),
        summary="The loaded models",
    )
    async def models() -> dict[str, Any]:
        return {"models": [{**asdict(model), "default": place == 0} for place, model in enumerate(service.models)]}

    @router.get("/healthz", response_model=schemas.Health, responses=answers(), summary="Whether the process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get(
        "/readyz",
        response_model=schemas.Health,
        responses=answers(503),
        summary="Whether a request would be answered",
    )
    async def readyz() -> dict[str, str]:
        if (reason := await service.why_not_ready()) is not None:
            raise NotReady(reason)
        return {"status": "ready"}

    @router.get(
        "/metrics",
        dependencies=key("/metrics"),
        response_class=Response,
        responses=answers(401, content={"text/plain": {}}),
        summary="Metrics for Prometheus",
    )
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _wishes(body: schemas.HeadlineRequest) -> Wishes:
    """Raises Impossible for options of another strategy."""
    sampling = None
    if body.strategy == "sample":
        sampling = Sampling(
            temperature=TEMPERATURE if body.temperature is None else body.temperature,
            top_p=TOP_P if body.top_p is None else body.top_p,
            seed=secrets.randbits(63) if body.seed is None else body.seed,
        )
    else:
        for field in ("temperature", "top_p", "seed"):
            if getattr(body, field) is not None:
                raise Impossible(field, 'goes with strategy "sample" only')
    limits = Limits(body.max_chars, body.max_words, _distinct(body.include), _distinct(body.avoid))
    return Wishes(body.num_headlines, body.case, limits, sampling)


def _distinct(phrases: list[str]) -> tuple[str, ...]:
    return tuple(distinct(map(tidy, phrases), key=fold))


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled as soon as the client leaves."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    """Returns when the client closes its connection; the body has been read by then."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _shown(answer: Answer, request_id: str) -> schemas.HeadlineAnswer:
    return schemas.HeadlineAnswer(
        id=request_id,
        model=schemas.ModelName(name=answer.model.name, version=answer.model.version),
        headlines=[
            schemas.Headline(
                text=found.text,
                score=min(0.0, round(found.score, 4)),
                chars=found.chars,
                words=found.words,
                missing=list(found.missing),
                supported=not found.unsupported,
                unsupported=[schemas.Unsupported(**asdict(claim)) for claim in found.unsupported],
            )
            for found in answer.headlines
        ],
        article=schemas.Article(
            tokens=answer.reading.article_tokens,
            used_tokens=len(answer.reading.tokens),
            truncated=answer.reading.truncated,
        ),
        timing=schemas.Timing(queue_ms=_ms(answer.queued), model_ms=_ms(answer.modelled), total_ms=_ms(answer.total)),
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
