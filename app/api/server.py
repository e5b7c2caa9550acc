"""create_app wires the service to HTTP; Server runs it, and stops it without losing a request."""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware
from starlette.routing import Route

from app.api import document, errors, guard
from app.api.protocol import Protocol
from app.api.routes import build_router
from app.serving.metrics import Metrics
from app.serving.service import HeadlineService
from app.settings import Settings, SettingsError

log = logging.getLogger(__name__)
TITLE = "Headline service"
HEAD_SECONDS = 20  # from a connection's start, or its last answer, to the end of the next request's head


def create_app(settings: Settings, service: HeadlineService, metrics: Metrics) -> FastAPI:
    """The ASGI application around `service`, which runs as long as the application does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            log.info("ready")
            yield

    keys = settings.keys()
    open_paths = guard.HEALTH | ({"/metrics"} if settings.metrics_open else set())
    router = build_router(
        service,
        metrics,
        max_article_chars=settings.max_article_chars,
        open_paths=open_paths if keys else None,
    )
    with_body = {route.path for route in router.routes if isinstance(route, Route) and "POST" in (route.methods or ())}
    routes: set[str] = set()
    app: FastAPI = FastAPIOffline(  # whose /docs needs nothing from outside
        redoc_url=None,
        redirect_slashes=False,
        title=TITLE,
        description="Headlines from articles, written on this machine.",
        lifespan=lifespan,
        middleware=[
            Middleware(guard.OriginForm),
            Middleware(guard.Record, metrics=metrics, routes=routes),
            Middleware(guard.ApiKeys, keys=keys, open_paths=open_paths),
            Middleware(
                guard.BodyRules,
                paths=with_body,
                max_bytes=settings.max_body_bytes,
                request_timeout=settings.request_timeout_ms / 1000,
            ),
        ],
    )
    app.state.metrics = metrics
    app.openapi = document.with_problems_alone(app.openapi)  # type: ignore[method-assign]
    errors.add_handlers(app)
    app.include_router(router)
    # FastAPI keeps an included router as one; beside it stand /docs and its like.
    routes.update(route.path for route in (*app.routes, *router.routes) if isinstance(route, Route))
    return app


def configure(app: FastAPI) -> uvicorn.Config:
    """How uvicorn serves `app`."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        http=Protocol,
        ws="none",
        server_header=False,
        timeout_keep_alive=HEAD_SECONDS,
        timeout_graceful_shutdown=1,  # behind our own grace, in which all was answered
    )


class Server(uvicorn.Server):
    """uvicorn, but at SIGTERM it first finishes what was accepted, says 503 to what is new, then exits with 0."""

    def __init__(self, config: uvicorn.Config, service: HeadlineService, *, grace: float) -> None:
        super().__init__(config)
        self._service = service
        self._grace = grace
        self._stopping: asyncio.Task[None] | None = None
        self.failed = False

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or []:
            host, port = listening.getsockname()[:2]
            log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Signals arrive here, between two byte codes of the main thread."""
        self._loop.call_soon_threadsafe(self._stop, sig)

    def give_up(self) -> None:
        """Stop with a non-zero exit: the device has failed."""
        self.failed = True
        self._stop(signal.SIGTERM)

    def _stop(self, sig: int) -> None:
        if self._stopping is None:
            log.info("stopping: %s", signal.Signals(sig).name)
            self._stopping = asyncio.create_task(self._finish())
        elif sig == signal.SIGINT:
            self.force_exit = True  # asked twice

    async def _finish(self) -> None:
        self._service.close()
        try:
            async with asyncio.timeout(self._grace):
                await self._service.drained()
        except TimeoutError:
            log.error("not all requests were answered within %s s", self._grace)
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A socket that has its address but does not listen yet: a taken port is known before a model is loaded.

    Raises SettingsError.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, UnicodeError) as error:  # the latter where `host` is no name that could be looked up
        raise SettingsError(f"cannot listen on {host}:{port}: {getattr(error, 'strerror', error)}") from error
    return bound


def run(
    settings: Settings, bound: socket.socket, build: Callable[[Metrics, Callable[[], None]], HeadlineService]
) -> int:
    """Serve on `bound` until a signal; the exit code. `build` makes the service, given what to call if it is lost."""
    metrics = Metrics()
    server: Server
    service = build(metrics, lambda: server.give_up())
    server = Server(configure(create_app(settings, service, metrics)), service, grace=settings.shutdown_grace_s)
    server.run([bound])
    return 1 if server.failed else 0
