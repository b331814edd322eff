"""Sends anomaly events from the outbox, each destination on its own."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import structlog

from driftlock_otlp import fault_points
from driftlock_otlp.errors import RetryableError
from driftlock_otlp.exporter.delivery import Deliverer
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import outbox
from driftlock_otlp.storage.state import StateDatabase

_POLL_S = 0.1
_BATCH = 64

_logger = structlog.get_logger(__name__)


class EventSender:
    """Sends the events of one destination; a `Component`.

    Args:
        deliverer: The destination.
        state: Where the outbox is.
        metrics: Where events are counted.
    """

    def __init__(self, deliverer: Deliverer, state: StateDatabase, metrics: Metrics) -> None:
        self.name = f"events:{deliverer.exporter.name}"
        self._deliverer = deliverer
        self._state = state
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def is_failing(self) -> bool:
        """Whether the destination fails; what failed will be repeated."""
        return self._deliverer.is_failing

    @property
    def last_error(self) -> str:
        """What the destination last failed with; empty if it never did."""
        return self._deliverer.last_error

    async def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run())

    async def stop(self, grace_s: float) -> None:
        """Make one last pass within the grace, then let go; what is not sent stays in the outbox."""
        self._stopping.set()
        is_failing = False
        if self._task is not None:
            # An event that is under way is not cut off: it would be sent again.
            await asyncio.wait({self._task}, timeout=0.1 if self._deliverer.is_failing else _last_pass_s(grace_s))
            is_failing = self._deliverer.is_failing
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if not is_failing:
            with contextlib.suppress(TimeoutError, RetryableError):
                await asyncio.wait_for(self._send_some(), _last_pass_s(grace_s))
        await self._deliverer.exporter.close()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if await self._send_some():
                    continue
            except RetryableError as error:
                _logger.error("events_waiting", destination=self.name, error=str(error))
                await asyncio.sleep(1.0)
            except Exception:
                self._metrics.errors.labels("events").inc()
                _logger.exception("events_failed", destination=self.name)
                await asyncio.sleep(1.0)
            await asyncio.sleep(_POLL_S)

    async def _send_some(self) -> bool:
        name = self._deliverer.exporter.name
        rows = await self._state.read(lambda connection: outbox.pending(connection, name, _BATCH))
        for row in rows:
            fault_points.reach("events.chosen")
            delivery = await self._deliverer.deliver(Signal.LOGS, row.payload, item_count=1)
            fault_points.reach("events.delivered")
            reason = next(iter(delivery.dropped), "")
            if reason:
                await self._state.write(partial(outbox.mark_dropped, ids=[row.id], reason=reason))
            else:
                await self._state.write(partial(outbox.mark_sent, ids=[row.id]))
            fault_points.reach("events.marked")
            self._metrics.events.labels(name, "dropped" if reason else "sent").inc()
        return bool(rows)


def _last_pass_s(grace_s: float) -> float:
    return max(min((grace_s - 1.0) / 2, 5.0), 0.1)
