"""The Collector's health check, over a real socket."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiohttp
import pytest

from driftlock_otlp.api.health_check import HealthCheck
from driftlock_otlp.config.operation import HealthCheckConfig
from driftlock_otlp.config.values import Endpoint
from driftlock_otlp.errors import ConfigError
from driftlock_otlp.lifecycle import Readiness


class Bench:
    """A health check, whether it is to be ready, and a client."""

    def __init__(self, path: str) -> None:
        self.is_ready = True
        readiness = Readiness()
        readiness.add("everything", lambda: self.is_ready)
        config = HealthCheckConfig(endpoint=Endpoint(host="127.0.0.1", port=0), path=path)
        self.check = HealthCheck(config, readiness)

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str, bytes]:
        url = f"http://127.0.0.1:{self.check.port}{path}"
        async with aiohttp.ClientSession() as session, session.request(method, url) as response:
            return response.status, response.headers["content-type"], await response.read()


@asynccontextmanager
async def health_check(path: str = "/") -> AsyncIterator[Bench]:
    bench = Bench(path)
    await bench.check.start()
    try:
        yield bench
    finally:
        await bench.check.stop(5.0)


async def test_it_answers_as_a_collector_while_it_is_available() -> None:
    async with health_check() as bench:
        status, content_type, body = await bench.ask("/")
        assert (status, content_type) == (200, "application/json")
        answer = json.loads(body)
        assert list(answer) == ["status", "upSince", "uptime"]
        assert answer["status"] == "Server available"
        assert datetime.fromisoformat(answer["upSince"]).tzinfo is not None
        assert answer["uptime"].endswith("s")


async def test_it_answers_as_a_collector_while_it_is_not() -> None:
    async with health_check() as bench:
        bench.is_ready = False
        status, content_type, body = await bench.ask("/")
        assert (status, content_type) == (503, "application/json")
        assert body == b'{"status":"Server not available","upSince":"0001-01-01T00:00:00Z","uptime":""}'
        bench.is_ready = True
        assert (await bench.ask("/"))[0] == 200


async def test_up_since_is_when_it_became_available_not_when_it_was_asked() -> None:
    async with health_check() as bench:
        await asyncio.sleep(0.3)
        asked = datetime.now(UTC)
        first = json.loads((await bench.ask("/"))[2])
        assert (asked - datetime.fromisoformat(first["upSince"])).total_seconds() >= 0.25
        assert json.loads((await bench.ask("/"))[2])["upSince"] == first["upSince"]


@pytest.mark.parametrize(
    ("path", "asked", "status"),
    [
        ("/", "/", 200),
        ("/", "/any/thing", 200),
        ("/health", "/health", 200),
        ("/health", "/health?full=1", 200),
        ("/health", "/", 404),
        ("/health", "/health/", 404),
        ("/health", "/healthy", 404),
        ("/health/", "/health/live", 200),
    ],
)
async def test_paths_match_as_they_do_in_a_collector(path: str, asked: str, status: int) -> None:
    async with health_check(path) as bench:
        assert (await bench.ask(asked))[0] == status


async def test_every_method_is_answered_and_head_without_a_body() -> None:
    async with health_check() as bench:
        assert (await bench.ask("/", "POST"))[0] == 200
        assert (await bench.ask("/", "HEAD"))[::2] == (200, b"")


async def test_an_address_that_is_taken_is_named_by_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = Endpoint(host="127.0.0.1", port=taken.getsockname()[1])
        check = HealthCheck(HealthCheckConfig(endpoint=endpoint), Readiness())
        with pytest.raises(ConfigError, match="extensions.health_check.endpoint: cannot listen on"):
            await check.start()
        await check.stop(1.0)


async def test_it_lets_go_of_its_address_when_it_stops() -> None:
    async with health_check() as bench:
        port = bench.check.port
    with socket.create_server(("127.0.0.1", port)):
        pass
