"""Sends what was released from the quarantine to the downstream."""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from driftlock_otlp import fault_points
from driftlock_otlp.errors import RetryableError
from driftlock_otlp.exporter.delivery import Deliverer, Delivery
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import quarantine
from driftlock_otlp.storage.state import StateDatabase

_POLL_S = 1.0
_BATCH = 32

_logger = structlog.get_logger(__name__)


class QuarantineRelease:
    """Watches for released rows; a `Component`.

    Args:
        deliverers: The exporters of clean data; a row is sent to each, then deleted.
        state: Where the quarantine is.
        metrics: Where released items are counted.
    """

    name = "quarantine"

    def __init__(self, deliverers: list[Deliverer], state: StateDatabase, metrics: Metrics) -> None:
        self._deliverers = deliverers
        self._state = state
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._run())

    async def stop(self, grace_s: float) -> None:
        """Stop watching; what is not sent yet stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for deliverer in self._deliverers:
            await deliverer.exporter.close()

    async def _run(self) -> None:
        while True:
            try:
                withheld = await self._state.read(quarantine.withheld_items)
                self._metrics.quarantine_items.set(withheld)
                if self._deliverers and await self._send_some():
                    continue
            except RetryableError as error:
                _logger.error("quarantine_waiting", error=str(error))
            except Exception:
                self._metrics.errors.labels("quarantine").inc()
                _logger.exception("quarantine_failed")
            await asyncio.sleep(_POLL_S)

    async def _send_some(self) -> bool:
        rows = await self._state.read(lambda connection: quarantine.released(connection, _BATCH))
        for row in rows:
            for deliverer in self._deliverers:
                delivery = await deliverer.deliver(row.signal, row.payload, row.item_count)
                self._count(deliverer.exporter.name, row, delivery)
            fault_points.reach("quarantine.delivered")
            await self._state.write(partial(quarantine.delete, ids=[row.id]))
        return bool(rows)

    def _count(self, exporter: str, row: quarantine.ReleasedRow, delivery: Delivery) -> None:
        counts = [("dropped", reason, count) for reason, count in delivery.dropped.items()]
        counts.append(("released", "", row.item_count - sum(delivery.dropped.values())))
        for outcome, reason, count in counts:
            if count:
                self._metrics.forward_items.labels(exporter, row.signal.plural, outcome, reason).inc(count)
