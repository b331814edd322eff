"""The management application, called without a socket, and its server."""

from __future__ import annotations

import json
import socket
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import PlainTextResponse

from driftlock_otlp.api.app import ApiServer, build_app
from driftlock_otlp.config.operation import ApiConfig
from driftlock_otlp.config.values import Endpoint
from driftlock_otlp.errors import ConfigError
from driftlock_otlp.lifecycle import Readiness
from driftlock_otlp.observability.live import LivePipeline
from driftlock_otlp.observability.metrics import Metrics


async def get(app: Any, path: str, accept: str = "", peer: str = "127.0.0.1") -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a GET."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"accept", accept.encode())] if accept else []
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": headers,
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "client": (peer, 4321),
    }
    await app(scope, receive, send)
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], answered, b"".join(message.get("body", b"") for message in sent[1:])


def application(metrics: Metrics | None = None, readiness: Readiness | None = None) -> Any:
    async def look() -> LivePipeline:
        raise AssertionError("nobody asks for it here")

    return build_app(
        (metrics or Metrics()).registry,
        readiness or Readiness(),
        "1.2.3",
        look,
        PlainTextResponse("v1", status_code=404),
    )


async def test_health_says_ok_whatever_readiness_says() -> None:
    readiness = Readiness()
    readiness.add("detection", lambda: False)
    assert (await get(application(readiness=readiness), "/healthz"))[::2] == (200, b"ok\n")


async def test_readiness_is_503_with_reasons_until_every_condition_holds() -> None:
    readiness, is_up = Readiness(), False
    readiness.add("receivers", lambda: True)
    readiness.add("detection", lambda: is_up)
    app = application(readiness=readiness)
    status, _, body = await get(app, "/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "waiting_for": ["detection"]})
    is_up = True
    status, _, body = await get(app, "/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "waiting_for": []})


@pytest.mark.parametrize("accept", ["", "text/plain", "application/openmetrics-text; version=1.0.0"])
async def test_metrics_are_served_in_the_format_that_is_asked_for(accept: str) -> None:
    metrics = Metrics()
    metrics.receiver_items.labels("logs", "grpc", "accepted").inc(7)
    status, headers, body = await get(application(metrics), "/metrics", accept)
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics" if "openmetrics" in accept else "text/plain")
    assert b'driftlock_receiver_items_total{outcome="accepted",signal="logs",transport="grpc"} 7.0' in body
    if "openmetrics" not in accept:
        assert list(text_string_to_metric_families(body.decode()))


async def test_the_index_names_the_version_and_the_paths() -> None:
    status, _, body = await get(application(), "/")
    assert status == 200
    assert b"driftlock-otlp 1.2.3" in body
    assert body.splitlines()[2:] == [b"/metrics", b"/healthz", b"/readyz", b"/debug/pipelinez", b"/v1/docs"]


async def test_an_unknown_path_is_404() -> None:
    assert (await get(application(), "/nothing"))[0] == 404


async def test_the_server_listens_once_started_and_lets_go_when_stopped() -> None:
    server = ApiServer(ApiConfig(endpoint=Endpoint(host="127.0.0.1", port=0)), application())
    assert server.port == 0
    await server.start()
    port = server.port
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/healthz") as response:
        assert (response.status, await response.text()) == (200, "ok\n")
    await server.stop(5.0)
    await server.stop(5.0)
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_a_port_that_is_taken_is_a_configuration_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = ApiServer(ApiConfig(endpoint=Endpoint(host="127.0.0.1", port=port)), application())
        with pytest.raises(ConfigError, match=f"api.endpoint: cannot listen on 127.0.0.1:{port}"):
            await server.start()
        await server.stop(1.0)
