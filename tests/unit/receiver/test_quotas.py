"""Quotas: said at 70, 90 and 100 %, once a month; then continued or refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from driftlock_otlp.config.receivers import AuthConfig, LimitsConfig
from driftlock_otlp.errors import RateLimitedError
from driftlock_otlp.model import LogEntry, NewEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.receiver.gate import Gate
from driftlock_otlp.receiver.quotas import Quotas
from driftlock_otlp.storage import history, usage
from driftlock_otlp.storage.state import StateDatabase

NOVEMBER = int(datetime(2026, 11, 30, 23, 30, tzinfo=UTC).timestamp()) * 1_000_000_000
HOUR = 3_600_000_000_000


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDatabase]:
    opened = StateDatabase(tmp_path / "state.db", durability="os")
    opened.open()
    yield opened
    opened.close()


class Watched:
    """Quotas of one organisation, with a clock of its own."""

    def __init__(self, state: StateDatabase, limits: LimitsConfig) -> None:
        self.now = NOVEMBER
        self.limits = limits
        self._state = state
        self._position = 0
        self.quotas = Quotas(lambda: {"acme": self.limits}, state, Metrics(), lambda: self.now)

    async def receive(self, items: int, tenant: str = "acme") -> None:
        self._position += 1
        stored = LogEntry(self._position, self._position + 1, 0, NewEntry(Signal.LOGS, b"", items, self.now, tenant))
        await self._state.write(partial(usage.count, entries=[stored]))
        await self.quotas.look()

    async def said(self) -> list[int]:
        found = await self._state.read(lambda c: history.entries(c, tenant="acme", limit=50))
        return [entry.detail["percent"] for entry in reversed(found)]


async def test_each_threshold_is_said_once_a_month(state: StateDatabase) -> None:
    watched = Watched(state, LimitsConfig(items_per_month=100))
    for items, said in ((69, []), (1, [70]), (5, [70]), (25, [70, 90, 100]), (900, [70, 90, 100])):
        await watched.receive(items)
        assert await watched.said() == said
    # After a restart as well.
    again = Watched(state, LimitsConfig(items_per_month=100))
    await again.quotas.look()
    assert await again.said() == [70, 90, 100]
    again.now += HOUR  # December
    await again.receive(70)
    assert await again.said() == [70, 90, 100, 70]


async def test_who_blocks_beyond_the_quota_is_refused_until_the_month_ends(state: StateDatabase) -> None:
    watched = Watched(state, LimitsConfig(items_per_month=100, over_quota="block"))
    await watched.receive(99)
    assert watched.quotas.refusal("acme") is None
    await watched.receive(1)
    refusal = watched.quotas.refusal("acme")
    assert refusal is not None
    assert refusal.retry_after_s == 1800.0
    assert watched.quotas.refusal("other") is None
    watched.now += HOUR
    await watched.quotas.look()
    assert watched.quotas.refusal("acme") is None


async def test_who_continues_is_not_refused_and_a_raised_quota_counts_at_once(state: StateDatabase) -> None:
    watched = Watched(state, LimitsConfig(items_per_month=10))
    await watched.receive(1_000)
    assert watched.quotas.refusal("acme") is None
    watched.limits = LimitsConfig(items_per_month=10, over_quota="block")
    await watched.quotas.look()
    assert watched.quotas.refusal("acme") is not None
    watched.limits = LimitsConfig(items_per_month=10_000, over_quota="block")
    await watched.quotas.look()
    assert watched.quotas.refusal("acme") is None


async def test_a_plan_that_is_used_up_elsewhere_blocks_without_a_quota_here(state: StateDatabase) -> None:
    watched = Watched(state, LimitsConfig())
    await watched.receive(1_000)
    assert await watched.said() == []
    watched.quotas.block({"acme"})
    assert watched.quotas.refusal("acme") is not None
    watched.quotas.block(())
    assert watched.quotas.refusal("acme") is None


async def test_others_usage_is_not_counted(state: StateDatabase) -> None:
    watched = Watched(state, LimitsConfig(items_per_month=10, over_quota="block"))
    await watched.receive(1_000, tenant="bolt")
    assert watched.quotas.refusal("acme") is None


def test_the_gate_refuses_who_is_over_quota() -> None:
    refusal = RateLimitedError("used up", 60.0)
    gate = Gate(AuthConfig(), 1 << 20, Metrics(), over_quota=lambda organization: refusal)
    with pytest.raises(RateLimitedError, match="used up"):
        gate.admit(gate.tenant(""), 10)
