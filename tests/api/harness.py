"""The application around a fake model, called in process or over a socket."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

from app.api.server import configure, create_app
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


@contextmanager
def listening(*, head_seconds: float | None = None, **given: Any) -> Iterator[tuple[int, FakeEngine]]:
    """The application on a socket, as `headline serve` has uvicorn serve it: its port and its model."""
    metrics, engine = Metrics(), FakeEngine()
    service = HeadlineService(fake_model(engine), metrics, max_batch_tokens=8192, max_waiting=64)
    config = configure(create_app(Settings(**given), service, metrics))
    config.port = 0
    if head_seconds is not None:
        config.timeout_keep_alive = head_seconds  # type: ignore[assignment]
    server = Listening(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.listens.wait(30)
        engine.started.acquire()  # the warm-up's batch
        yield server.servers[0].sockets[0].getsockname()[1], engine
    finally:
        server.should_exit = True
        thread.join()


class Listening(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listens.set()


def read_slowly(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Articles are being read until the second event is set; the first one tells that one has begun to be."""
    reading, go_on = threading.Event(), threading.Event()

    def slowly(text: str) -> str:
        reading.set()
        assert go_on.wait(20)
        return text

    monkeypatch.setattr("app.serving.service.clean", slowly)
    return reading, go_on
