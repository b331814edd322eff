"""The Collector's health check, for probes that expect it: `extensions.health_check`.

Answers as the Collector's `health_check` extension does; `/readyz` says the same with reasons.
"""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from driftlock_otlp.config.operation import HealthCheckConfig
from driftlock_otlp.http_listener import HttpListener
from driftlock_otlp.lifecycle import Readiness

_KEY = "extensions.health_check.endpoint"
_LOOK_S = 0.5
_LONGEST_STOP_S = 2.0
_NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time, which a Collector shows while it is not available."""


class HealthCheck:
    """Serves the health check; a `Component`.

    It starts before and stops after everything else, so that a probe is answered 503 rather than
    not at all while the sidecar starts and stops.

    Args:
        config: Address and path. As in a Collector, a path that ends in a slash stands for all below it.
        readiness: What is asked.
    """

    name = "health_check"

    def __init__(self, config: HealthCheckConfig, readiness: Readiness) -> None:
        self._path = config.path
        self._readiness = readiness
        self._available_since_unix_nano = 0
        self._watching: asyncio.Task[None] | None = None
        self._listener = HttpListener(self.name, _KEY, config.endpoint, self._serve)

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
        self._watching = asyncio.create_task(self._watch())

    async def stop(self, grace_s: float) -> None:
        """Answer what was asked, then close."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        await self._listener.stop(min(grace_s, _LONGEST_STOP_S))

    async def _watch(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(_LOOK_S)

    def _look(self) -> bool:
        """Return whether it is available; keep since when."""
        if self._readiness.missing():
            self._available_since_unix_nano = 0
        elif not self._available_since_unix_nano:
            self._available_since_unix_nano = time.time_ns()
        return self._available_since_unix_nano > 0

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = Request(scope).url.path
        is_here = path == self._path or (self._path.endswith("/") and path.startswith(self._path))
        answer = self._answer() if is_here else PlainTextResponse("404 page not found\n", status_code=404)
        await answer(scope, receive, send)

    def _answer(self) -> Response:
        if not self._look():
            return _json(503, "Server not available", _NEVER, "")
        since = self._available_since_unix_nano
        return _json(200, "Server available", rfc3339(since), go_duration(max(time.time_ns() - since, 0)))


def _json(status: int, text: str, up_since: str, uptime: str) -> Response:
    body = json.dumps({"status": text, "upSince": up_since, "uptime": uptime}, separators=(",", ":"))
    return Response(body, status_code=status, media_type="application/json")


def rfc3339(unix_nano: int) -> str:
    """Return a time as Go writes it into JSON.

    >>> rfc3339(1_800_000_000_120_000_000)
    '2027-01-15T08:00:00.12Z'
    """
    seconds, nanoseconds = divmod(unix_nano, 10**9)
    fraction = f".{nanoseconds:09}".rstrip("0").rstrip(".")
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def go_duration(nanoseconds: int) -> str:
    """Return a duration as Go writes it.

    >>> [go_duration(n) for n in (0, 1_500, 2_000_000, 3_723_000_000_004)]
    ['0s', '1.5µs', '2ms', '1h2m3.000000004s']
    """
    for unit, digits in (("ns", 0), ("µs", 3), ("ms", 6)):
        if 0 < nanoseconds < 10 ** (digits + 3):
            return _scaled(nanoseconds, digits) + unit
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    before = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{before}{_scaled(rest, 9)}s"


def _scaled(value: int, digits: int) -> str:
    whole, fraction = divmod(value, 10**digits)
    return f"{whole}.{fraction:0{digits}}".rstrip("0").rstrip(".") if fraction else str(whole)
