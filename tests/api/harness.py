"""The application around a fake model, called in process."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.api.server import create_app
from app.serving.metrics import Metrics
from app.serving.service import HeadlineService
from app.settings import Settings
from tests.fakes import FakeEngine, fake_model

ARTICLE = "The council voted to keep the old library open."


@dataclass
class Running:
    http: httpx.AsyncClient
    engine: FakeEngine
    service: HeadlineService
    metrics: Metrics
    app: Any
    lost: list[bool]

    async def started(self) -> None:
        """Returns when the model has begun a batch."""
        await asyncio.get_running_loop().run_in_executor(None, self.engine.started.acquire)

    async def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def until(self, what: Callable[[], Awaitable[bool]]) -> None:
        """Let the loop go on until `what` holds."""
        async with asyncio.timeout(10):
            while not await what():  # noqa: ASYNC110 - a metric, not an event
                await asyncio.sleep(0)


@asynccontextmanager
async def running(*, gpu: dict[str, int] | None = None, **given: Any) -> AsyncIterator[Running]:
    """The application as `headline serve` wires it, with these settings, ready."""
    settings = Settings(**given)
    metrics, engine, lost = Metrics(), FakeEngine(), []
    engine.gpu = gpu or {}
    service = HeadlineService(
        fake_model(engine),
        metrics,
        max_batch_tokens=settings.max_batch_tokens or 8192,
        max_waiting=settings.max_waiting,
        max_delay=settings.max_delay_ms / 1000,
        on_lost=lambda: lost.append(True),
    )
    app = create_app(settings, service, metrics)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        engine.started.acquire()  # the warm-up's batch
        yield Running(http, engine, service, metrics, app, lost)


def read_slowly(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Articles are being read until the second event is set; the first one tells that one has begun to be."""
    reading, go_on = threading.Event(), threading.Event()

    def slowly(text: str) -> str:
        reading.set()
        assert go_on.wait(20)
        return text

    monkeypatch.setattr("app.serving.service.clean", slowly)
    return reading, go_on
