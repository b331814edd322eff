"""The management HTTP server: Prometheus metrics and health, on the API port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from driftlock_otlp.config.operation import ApiConfig
from driftlock_otlp.errors import ConfigError
from driftlock_otlp.lifecycle import Readiness

_LONGEST_STOP_S = 2.0
"""A client that reads slowly must not use up the grace of what stops after this."""


def build_app(registry: CollectorRegistry, readiness: Readiness, version: str) -> Starlette:
    """Return the application.

    Args:
        registry: Metrics served at `/metrics`.
        readiness: What `/readyz` asks.
        version: Of the sidecar.
    """

    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": content_type})

    def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    def readyz(request: Request) -> Response:
        missing = readiness.missing()
        status = 503 if missing else 200
        return JSONResponse({"ready": not missing, "waiting_for": missing}, status_code=status)

    def index(request: Request) -> Response:
        return PlainTextResponse(f"driftlock-otlp {version}\n\n/metrics\n/healthz\n/readyz\n")

    return Starlette(
        routes=[
            Route("/", index),
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ]
    )


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handling: the service decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ApiServer:
    """Serves the application; a `Component`."""

    name = "api"

    def __init__(self, config: ApiConfig, app: Starlette) -> None:
        self._config = config
        self._server = _Server(
            uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", server_header=False)
        )
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port in use once started."""
        return int(self._socket.getsockname()[1]) if self._socket else 0

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        endpoint = self._config.endpoint
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((endpoint.host, endpoint.port))
        except OSError as error:
            self._socket.close()
            raise ConfigError(
                f"api.endpoint: cannot listen on {endpoint}: {error.strerror}; choose another with --set api.endpoint=…"
            ) from None
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.005)
        if self._task.done():
            self._task.result()

    async def stop(self, grace_s: float) -> None:
        """Let requests in flight finish, then close."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=min(grace_s, _LONGEST_STOP_S))
            self._server.force_exit = True
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
