"""The management HTTP server on the API port: metrics, health, the live page, the dashboard and the management API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from driftlock_otlp.api import pipelinez
from driftlock_otlp.api.dashboard import Dashboard
from driftlock_otlp.config.operation import ApiConfig
from driftlock_otlp.http_listener import HttpListener
from driftlock_otlp.lifecycle import Readiness
from driftlock_otlp.observability.live import LivePipeline

_LONGEST_STOP_S = 2.0
"""A client that reads slowly must not use up the grace of what stops after this."""


def build_app(
    registry: CollectorRegistry,
    readiness: Readiness,
    version: str,
    look: Callable[[], Awaitable[LivePipeline]],
    v1: ASGIApp,
    may_see_all: Callable[[str | None, str | None, str | None], bool] = lambda peer, host, origin: True,
) -> Starlette:
    """Return the application.

    Args:
        registry: Metrics served at `/metrics`.
        readiness: What `/readyz` asks.
        version: Of the sidecar.
        look: What `/debug/pipelinez` shows.
        v1: The management API, which answers what nothing else does.
        may_see_all: Returns whether the live page, which names every organisation, is for a request with this
            peer, `Host` and `Origin`.
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

    dashboard = Dashboard()

    def index(request: Request) -> Response:
        if dashboard.is_built and "text/html" in request.headers.get("accept", ""):
            return dashboard.page(request)
        paths = "\n".join(("/metrics", "/healthz", "/readyz", "/debug/pipelinez", "/v1/docs"))
        return PlainTextResponse(f"driftlock-otlp {version}\n\n{paths}\n")

    async def live(request: Request) -> Response:
        peer = request.client.host if request.client is not None else None
        if not may_see_all(peer, request.headers.get("host"), request.headers.get("origin")):
            return PlainTextResponse(
                "with API keys this page, which names every organisation, is for this machine\n", 403
            )
        shown = await look()
        if _wants_json(request):
            return Response(msgspec.json.encode(shown), media_type="application/json", headers=pipelinez.HEADERS)
        refreshes = "refresh" in request.query_params
        return HTMLResponse(pipelinez.page(shown, refreshes=refreshes), headers=pipelinez.HEADERS)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/debug/pipelinez", live),
            *dashboard.routes(),
            Mount("/", v1),
        ]
    )


def _wants_json(request: Request) -> bool:
    asked = request.query_params.get("format")
    if asked is not None:
        return asked == "json"
    accepted = request.headers.get("accept", "")
    return "application/json" in accepted and "text/html" not in accepted


class ApiServer:
    """Serves the application; a `Component`.

    Args:
        config: Where to listen.
        app: What answers.
        on_stop: Ends answers that have no end of their own.
    """

    name = "api"

    def __init__(self, config: ApiConfig, app: Starlette, on_stop: Callable[[], None] = lambda: None) -> None:
        self._on_stop = on_stop
        self._listener = HttpListener(self.name, "api.endpoint", config.endpoint, app)

    @property
    def port(self) -> int:
        """The port in use once started."""
        return self._listener.port

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        await self._listener.start()

    async def stop(self, grace_s: float) -> None:
        """Let requests in flight finish, then close."""
        self._on_stop()
        await self._listener.stop(min(grace_s, _LONGEST_STOP_S))
