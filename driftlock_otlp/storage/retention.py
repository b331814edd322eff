"""What is kept for how long: deletes what nobody needs, and says beforehand when something is to go.

The log lets go of whole segments by itself (`SegmentLog.release`). This is about the state database:
verdicts on what the log has no more, facts of old windows, old anomalies, and the quarantine with its
limits. What was withheld is dropped only after the metrics have said so for a while.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

import structlog

from driftlock_otlp.config.operation import AnomaliesConfig
from driftlock_otlp.interfaces import Clock
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import (
    anomaly_course,
    evidence,
    history,
    incidents,
    quarantine,
    suppressions,
    verdicts,
    windows,
)
from driftlock_otlp.storage.state import StateDatabase

_QUARANTINE_S = 2.0
_PRUNE_S = 60.0
_NOTICE_S = 600.0
"""Age is no reason to drop before the process has run for so long on a clock that did not jump."""
_JUMP_S = 60.0
_MOST_ROWS = 500
_NEARLY = 0.8

_logger = structlog.get_logger(__name__)


class Retention:
    """Keeps the state database within its limits; `keep` is to be called about once a second.

    Args:
        state: The state database.
        max_bytes: Most payload that is withheld.
        max_age_s: Longest that it is.
        kept: How long anomalies and the history are kept, and how many.
        metrics: Where levels are shown and drops are counted.
        clock: The wall clock.
        steady_s: Seconds on a clock that never jumps.
    """

    def __init__(
        self,
        state: StateDatabase,
        max_bytes: int,
        max_age_s: float,
        kept: AnomaliesConfig,
        metrics: Metrics,
        clock: Clock,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._kept = kept
        self._metrics = metrics
        self._clock = clock
        self._steady_s = steady_s
        self._notice_s = min(_NOTICE_S, max_age_s)
        self._clock_offset_s = self._offset_s()
        self._noticed_s = steady_s()
        self._looked_s = self._pruned_s = float("-inf")
        self._is_near = False
        metrics.quarantine_max_bytes.set(max_bytes)
        metrics.quarantine_expires_seconds.set(max_age_s)

    async def keep(self, passed: int) -> None:
        """Do what is due.

        Args:
            passed: The log has nothing before this position any more.

        Raises:
            StorageUnavailableError: The disk does not take it now.
        """
        now_s = self._steady_s()
        if not self._state.is_writable:
            await self._state.probe()
        if now_s - self._looked_s >= _QUARANTINE_S:
            self._looked_s = now_s
            await self._limit_quarantine()
        if now_s - self._pruned_s >= _PRUNE_S:
            self._pruned_s = now_s

            def prune(connection: sqlite3.Connection) -> None:
                verdicts.forget_before(connection, passed)
                windows.prune(connection)
                evidence.expire(connection, self._kept.evidence_max_bytes)

            await self._state.write(prune)
            await self._prune_anomalies()
            self._metrics.state_bytes.set(await self._state.compact())

    async def _prune_anomalies(self) -> None:
        """Let go of what is too old or too much of anomalies, of incidents without any, and of the history."""
        now, kept = self._clock(), self._kept
        oldest = now - int(kept.max_age * 1e9)

        def prune(connection: sqlite3.Connection) -> int:
            count = anomaly_course.prune(connection, before_unix_nano=oldest, most=kept.max_count, most_rows=_MOST_ROWS)
            suppressions.prune(connection, oldest)
            if count:
                incidents.prune(connection)
                history.record(
                    connection,
                    at_unix_nano=now,
                    tenant="",
                    actor=history.SERVICE,
                    action="anomalies_pruned",
                    subject="anomalies",
                    detail={"count": count},
                )
            oldest_history = now - int(kept.history_max_age * 1e9)
            return max(count, history.prune(connection, oldest_history, now, _MOST_ROWS))

        while await self._state.write(prune) >= _MOST_ROWS:
            pass

    async def _limit_quarantine(self) -> None:
        now, steady_s = self._clock(), self._steady_s()
        if abs(self._offset_s() - self._clock_offset_s) > _JUMP_S:
            # A wall clock that has jumped makes nothing older; if it is right now, it still is in a while.
            self._clock_offset_s, self._noticed_s = self._offset_s(), steady_s
        level = await self._state.read(quarantine.level)
        too_old = now - int(self._max_age_s * 1e9)
        is_noticed = steady_s - self._noticed_s >= self._notice_s
        before = too_old if is_noticed else None
        has_old = before is not None and level.oldest_unix_nano is not None and level.oldest_unix_nano < before
        # However fast it came to this: nothing goes before it was said.
        while self._is_near and (level.payload_bytes > self._max_bytes or has_old):
            dropped = await self._state.write(
                lambda connection: quarantine.expire(
                    connection, before_unix_nano=before, max_bytes=self._max_bytes, most_rows=_MOST_ROWS
                )
            )
            self._count(dropped)
            if len(dropped) < _MOST_ROWS:
                break
        if damaged := await self._state.write(lambda connection: quarantine.drop_damaged(connection, _MOST_ROWS)):
            self._count(damaged)
        self._show(await self._state.read(quarantine.level), now)

    def _show(self, level: quarantine.Level, now_unix_nano: int) -> None:
        left_s = self._max_age_s
        if level.oldest_unix_nano is not None:
            left_s -= (now_unix_nano - level.oldest_unix_nano) / 1e9
        left_s = max(left_s, self._notice_s - (self._steady_s() - self._noticed_s), 0.0)
        left_s = min(left_s, self._max_age_s)
        self._metrics.quarantine_items.set(level.item_count)
        self._metrics.quarantine_bytes.set(level.payload_bytes)
        self._metrics.quarantine_expires_seconds.set(left_s)
        is_near = level.payload_bytes > _NEARLY * self._max_bytes or left_s < (1 - _NEARLY) * self._max_age_s
        if is_near and not self._is_near:
            _logger.warning(
                "quarantine_expires_soon",
                items=level.item_count,
                size_bytes=level.payload_bytes,
                max_bytes=self._max_bytes,
                oldest_expires_in_s=round(left_s),
                remedy="release or drop what is withheld (driftlock-otlp quarantine), or raise forward.quarantine",
            )
        self._is_near = is_near

    def _count(self, dropped: list[quarantine.DroppedRow]) -> None:
        for row in dropped:
            self._metrics.quarantine_dropped_items.labels(row.signal.plural, row.reason).inc(row.item_count)
        if dropped:
            _logger.warning(
                "quarantine_dropped",
                items=sum(row.item_count for row in dropped),
                reasons=sorted({row.reason for row in dropped}),
            )

    def _offset_s(self) -> float:
        return self._clock() / 1e9 - self._steady_s()
