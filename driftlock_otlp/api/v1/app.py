"""The application of the management API, its description and its errors."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import Counter
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp

from driftlock_otlp.api.access import Access
from driftlock_otlp.api.v1 import (
    actions,
    anomalies,
    documentation,
    events,
    incidents,
    live,
    problems,
    sensitivity,
    streams,
    suppressions,
    usage,
)
from driftlock_otlp.api.v1.backend import Backend, Backing
from driftlock_otlp.api.v1.border import REQUEST_ID, Border
from driftlock_otlp.api.v1.may import Reader
from driftlock_otlp.errors import DriftlockError

OPENAPI_PATH = "/v1/openapi.json"
DOCS_PATH = "/v1/docs"

_DESCRIPTION = """\
What Driftlock has found, and what people do about it. Every error is a problem of RFC 9457; every list is bounded and
goes on where `next_cursor` says; times are RFC 3339 in UTC.

Where API keys are configured, each request needs one, as `Authorization: Bearer dl_…` or `x-api-key: dl_…`, and sees
its own organisation alone. Without keys this machine alone is answered.
"""
_COMMON_ERRORS = (401, 403, 422, 429, 500, 503)

_general = APIRouter(tags=["about"])
ROUTERS = (
    _general,
    live.router,  # its path must be tried before that of one anomaly
    anomalies.router,
    actions.router,
    incidents.router,
    suppressions.router,
    streams.router,
    sensitivity.router,
    usage.router,
    events.router,
)


class Version(BaseModel):
    """Which sidecar answers."""

    version: str


@_general.get("/v1/version", operation_id="get_version", summary="See which version answers")
async def get_version(caller: Reader, backend: Backing) -> Version:
    """The version of the sidecar."""
    return Version(version=backend.version)


def build_v1(backend: Backend, access: Access, errors: Counter) -> ASGIApp:
    """Return the application.

    Args:
        backend: What the routes stand on.
        access: Who may ask.
        errors: Counts what should not have happened, by component.
    """
    app = new_app(backend.version)
    app.state.backend = backend
    app.state.access = access
    return Border(
        app, access, errors, {OPENAPI_PATH, DOCS_PATH, documentation.STYLE_PATH}, {events.PATH: events.MOST_BYTES}
    )


def new_app(version: str) -> FastAPI:
    """Return the routes, with nothing to stand on: enough to describe them."""
    app = FastAPI(
        title="Driftlock OTLP management API",
        version=version,
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=problems.documented(*_COMMON_ERRORS),
        servers=[{"url": "/", "description": "This sidecar: `api.endpoint`"}],
    )
    for router in ROUTERS:
        app.include_router(router)
    _describe(app)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(DriftlockError, _on_driftlock)
    app.add_exception_handler(Exception, _on_unexpected)
    return app


def _describe(app: FastAPI) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            components = schema.setdefault("components", {}).setdefault("schemas", {})
            for model in (problems.Problem, events.EventBody):
                described = model.model_json_schema(ref_template="#/components/schemas/{model}")
                components |= {**described.pop("$defs", {}), model.__name__: described}
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation extends it

    async def described(request: Request) -> Response:
        return Response(msgspec.json.encode(openapi()), media_type="application/json")

    async def page(request: Request) -> Response:
        return HTMLResponse(documentation.page(openapi()))

    async def style(request: Request) -> Response:
        return Response(documentation.STYLE, media_type="text/css")

    for path, endpoint in ((OPENAPI_PATH, described), (DOCS_PATH, page), (documentation.STYLE_PATH, style)):
        app.add_api_route(path, endpoint, include_in_schema=False, response_model=None)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for these
    return problems.of_validation(error, request.scope[REQUEST_ID])


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for these
    answer = problems.of_http(error, request.scope[REQUEST_ID])
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # The framework names those of the first route alone that has the path.
        path = request.scope["path"]
        routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
        methods = {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}
        answer.headers["allow"] = ", ".join(sorted(methods)) or answer.headers["allow"]
    return answer


async def _on_unexpected(request: Request, error: Exception) -> Response:
    return problems.unexpected(request.scope[REQUEST_ID])  # The border, which gets it, too, counts it.


async def _on_driftlock(request: Request, error: Exception) -> Response:
    assert isinstance(error, DriftlockError)  # noqa: S101 - it is registered for these
    return problems.of_error(error, request.scope[REQUEST_ID])
