"""A shop whose payment breaks, and a sidecar that has noticed: what the pages are looked at with."""

from __future__ import annotations

import asyncio
import time
import urllib.request

from driftlock_otlp.model import Signal
from tests.e2e.sidecar import Sidecar
from tests.e2e.traffic import START_UNIX_NANO, STEP_NANO, Traffic

WINDOW = 50
_REQUEST = 25
_CALM_WINDOWS = 48
_FAULTY_WINDOWS = 4


class Shop:
    """Telemetry of three services, whose time is that of the wall clock.

    Args:
        sidecar: Where it is sent.
        key: API key to send with; empty for none.
    """

    def __init__(self, sidecar: Sidecar, key: str = "") -> None:
        self._sidecar = sidecar
        self._headers = {"content-type": "application/x-protobuf", **({"x-api-key": key} if key else {})}
        # Event times end about now.
        now = (time.time_ns() - START_UNIX_NANO) // STEP_NANO - 2 * _CALM_WINDOWS * WINDOW
        names = ("checkout", "cart", "warehouse")
        self._services = {name: Traffic(seed, now, name) for seed, name in enumerate(names, 1)}

    async def open(self) -> None:
        """Let every stream learn what is normal."""
        for _ in range(_CALM_WINDOWS * WINDOW // _REQUEST):
            await self._calm()

    async def break_payment(self) -> None:
        """Let checkout log timeouts, in three windows of four."""
        before = len(self._sidecar.logged("anomaly_detected"))
        for _ in range(_FAULTY_WINDOWS * WINDOW // _REQUEST):
            await self._send(Signal.LOGS, self._services["checkout"].logs(_REQUEST, 0.75))
        await self._found(before)

    async def slow_down(self) -> None:
        """Let the cart's spans take twelve times as long."""
        before = len(self._sidecar.logged("anomaly_detected"))
        for _ in range(_FAULTY_WINDOWS * WINDOW // _REQUEST):
            await self._send(Signal.TRACES, self._services["cart"].traces(_REQUEST, 12.0))
        await self._found(before)

    async def recover(self) -> None:
        """Let everything be as it was."""
        for _ in range(20 * WINDOW // _REQUEST):
            await self._calm()
        logged = self._sidecar.logged
        await self._sidecar.wait_until(
            lambda: len(logged("anomaly_resolved")) >= len(logged("anomaly_detected")), "some anomaly does not end"
        )

    async def _calm(self) -> None:
        for name, signal in (("checkout", Signal.LOGS), ("cart", Signal.TRACES), ("warehouse", Signal.METRICS)):
            await self._send(signal, self._services[name].request(signal, _REQUEST))

    async def _send(self, signal: Signal, payload: bytes) -> None:
        url = f"http://127.0.0.1:{self._sidecar.http_port}{signal.http_path}"

        def post() -> None:
            with urllib.request.urlopen(urllib.request.Request(url, payload, self._headers), timeout=20.0):
                pass

        await asyncio.to_thread(post)

    async def _found(self, before: int) -> None:
        logged = self._sidecar.logged
        await self._sidecar.wait_until(lambda: len(logged("anomaly_detected")) > before, "nothing new is found")
