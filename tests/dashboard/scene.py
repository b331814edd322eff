"""A shop whose payment breaks, and a sidecar that has noticed: what the pages are looked at with."""

from __future__ import annotations

import json
import time

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
    """

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
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
        for _ in range(_FAULTY_WINDOWS * WINDOW // _REQUEST):
            await self._sidecar.send(Signal.LOGS, self._services["checkout"].logs(_REQUEST, 0.75))
        await self._found(Signal.LOGS)

    async def slow_down(self) -> None:
        """Let the cart's spans take twelve times as long."""
        for _ in range(_FAULTY_WINDOWS * WINDOW // _REQUEST):
            await self._sidecar.send(Signal.TRACES, self._services["cart"].traces(_REQUEST, 12.0))
        await self._found(Signal.TRACES)

    async def recover(self) -> None:
        """Let everything be as it was."""
        for _ in range(20 * WINDOW // _REQUEST):
            await self._calm()
        await self._sidecar.settle()

    async def _calm(self) -> None:
        for name, signal in (("checkout", Signal.LOGS), ("cart", Signal.TRACES), ("warehouse", Signal.METRICS)):
            await self._sidecar.send(signal, self._services[name].request(signal, _REQUEST))

    async def _found(self, signal: Signal) -> None:
        path = f"/v1/anomalies?signal={signal.plural}"
        found = lambda: bool(json.loads(self._sidecar.get(path))["anomalies"])  # noqa: E731
        await self._sidecar.wait_until(found, f"nothing is found in {signal.plural}")
