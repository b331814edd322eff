"""Parts that routes and senders stand on: a state database, a clock that stands, a destination that obeys."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driftlock_otlp.config.exporters import RetryConfig
from driftlock_otlp.errors import DownstreamTooLargeError
from driftlock_otlp.exporter.delivery import Deliverer
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage.state import StateDatabase

NOW = 1_800_000_000_000_000_000


class FakeExporter:
    """Keeps what it is given; answers as told, then with success.

    Attributes:
        answers: Results to return or errors to raise, in turn.
        gate: While not set, `export` does not return.
        max_bytes: Larger requests are refused for their size.
    """

    def __init__(self, name: str = "otlp_grpc") -> None:
        self.name = name
        self.answers: deque[ExportResult | Exception] = deque()
        self.gate = asyncio.Event()
        self.gate.set()
        self.attempts: list[tuple[Signal, bytes]] = []
        self.taken: list[tuple[Signal, bytes]] = []
        self.is_closed = False
        self.max_bytes = 1 << 30

    async def export(self, signal: Signal, payload: bytes) -> ExportResult:
        self.attempts.append((signal, payload))
        await self.gate.wait()
        if len(payload) > self.max_bytes:
            raise DownstreamTooLargeError(f"{len(payload)} bytes are too many")
        answer = self.answers.popleft() if self.answers else ExportResult()
        if isinstance(answer, Exception):
            raise answer
        self.taken.append((signal, payload))
        return answer

    async def close(self) -> None:
        self.is_closed = True

    def deliverer(self, metrics: Metrics, max_request_bytes: int = 64 << 20, **retry: float | bool) -> Deliverer:
        """Return a deliverer to here that retries at once."""
        quick = {"initial_interval": 0.001, "max_interval": 0.002, "randomization_factor": 0.0, **retry}
        return Deliverer(self, RetryConfig(**quick), metrics, dict.fromkeys(Signal, max_request_bytes))


class HeldClock:
    """A wall clock that moves when told."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


async def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Return when a condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDatabase]:
    database = StateDatabase(tmp_path / "state.db", durability="os")
    database.open()
    yield database
    database.close()
