"""Quotas: how much of its month's volume each organisation has used, and what follows.

At 70, 90 and 100 % the history says so, once each a month. Beyond 100 % an organisation goes on, or is
refused until the month ends, as its limits say. What is used is what the usage table holds, which
follows the log: a quota takes hold within seconds, not at the very item.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime

import structlog

from driftlock_otlp.config.receivers import LimitsConfig
from driftlock_otlp.errors import RateLimitedError, RetryableError
from driftlock_otlp.interfaces import Clock
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import history, usage
from driftlock_otlp.storage.state import StateDatabase

QUOTA_REACHED = "quota_reached"
"""What the history calls it."""

PERCENTS = (70, 90, 100)

_LOOK_S = 2.0
_LONGEST_RETRY_S = 3600.0

_logger = structlog.get_logger(__name__)


class Quotas:
    """What organisations have used of their quotas; a `Component`. For one event loop.

    Args:
        limits: Returns the limits of every organisation that may send.
        state: Where usage and history are.
        metrics: Where failures are counted.
        clock: The wall clock.
    """

    name = "quotas"

    def __init__(
        self, limits: Callable[[], Mapping[str, LimitsConfig]], state: StateDatabase, metrics: Metrics, clock: Clock
    ) -> None:
        self._limits = limits
        self._state = state
        self._metrics = metrics
        self._clock = clock
        self._used_up: frozenset[str] = frozenset()
        self._used_up_elsewhere: frozenset[str] = frozenset()
        self._told: set[tuple[str, str, int]] = set()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once, then go on looking."""
        await self.look()
        self._watching = asyncio.create_task(self._watch())

    async def stop(self, grace_s: float) -> None:
        """Look no more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    def refusal(self, organization: str) -> RateLimitedError | None:
        """Return why an organisation may send nothing further this month; None if it may."""
        if organization not in self._used_up and organization not in self._used_up_elsewhere:
            return None
        return RateLimitedError(
            f"organisation {organization!r} has used up its volume of this month",
            # At most an hour: the quota may be raised, or the month end.
            retry_after_s=min(_month_end_s(self._clock()) - self._clock() / 1e9, _LONGEST_RETRY_S),
        )

    def block(self, organizations: Collection[str]) -> None:
        """Refuse these organisations as well, until told otherwise: those whose plan is used up."""
        self._used_up_elsewhere = frozenset(organizations)

    async def look(self) -> None:
        """Find out who has used how much.

        Raises:
            StorageUnavailableError: The state cannot be read, or not be written.
        """
        quotas = {name: limits for name, limits in self._limits().items() if limits.items_per_month is not None}
        if not quotas:
            self._used_up = frozenset()
            return
        now = self._clock()
        month = datetime.fromtimestamp(now // 1_000_000_000, UTC).replace(day=1, hour=0, minute=0, second=0)
        totals = await self._state.read(lambda connection: usage.totals(connection, int(month.timestamp())))
        used = dict.fromkeys(quotas, 0)
        for total in totals:
            if total.tenant in used:
                used[total.tenant] += total.item_count
        subject = f"quota:{month:%Y-%m}"
        reached = {
            (name, subject, percent)
            for name, limits in quotas.items()
            for percent in PERCENTS
            if used[name] * 100 >= (limits.items_per_month or 0) * percent
        }
        if reached - self._told:
            await self._state.write(lambda connection: _tell(connection, sorted(reached - self._told), used, now))
            self._told = reached
        self._used_up = frozenset(
            name for name, limits in quotas.items() if limits.over_quota == "block" and (name, subject, 100) in reached
        )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.look()
            except RetryableError as error:
                _logger.error("quotas_waiting", error=str(error))
            except Exception:
                self._metrics.errors.labels("quotas").inc()
                _logger.exception("quotas_failed")


def _tell(
    connection: sqlite3.Connection, reached: list[tuple[str, str, int]], used: Mapping[str, int], now_unix_nano: int
) -> None:
    """Write into the history what is not there yet."""
    for name, subject, percent in reached:
        known = history.entries(connection, tenant=name, subject=subject, limit=len(PERCENTS))
        if all(entry.detail.get("percent") != percent for entry in known):
            history.record(
                connection,
                at_unix_nano=now_unix_nano,
                tenant=name,
                actor=history.SERVICE,
                action=QUOTA_REACHED,
                subject=subject,
                detail={"percent": percent, "items": used[name]},
            )


def _month_end_s(now_unix_nano: int) -> float:
    now = datetime.fromtimestamp(now_unix_nano // 1_000_000_000, UTC)
    year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp()
