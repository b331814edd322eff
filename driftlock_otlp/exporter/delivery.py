"""Delivering one request to one destination for as long as it takes."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import structlog

from driftlock_otlp.config.exporters import RetryConfig
from driftlock_otlp.errors import DownstreamRejectedError, RetryableError
from driftlock_otlp.interfaces import Exporter
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.retry import Backoff

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a delivery ended.

    Attributes:
        dropped_reason: Why it was given up; empty if it was delivered.
        rejected_item_count: Items that the destination took the request without.
    """

    dropped_reason: str = ""
    rejected_item_count: int = 0


class Deliverer:
    """Sends requests to one destination one after the other, retrying what may be retried.

    Args:
        exporter: The destination.
        retry: How to retry.
        metrics: Where retries and rejections are counted.
    """

    def __init__(self, exporter: Exporter, retry: RetryConfig, metrics: Metrics) -> None:
        self.exporter = exporter
        self._backoff = Backoff(retry, random.Random())  # noqa: S311 - jitter
        self._metrics = metrics
        self._is_failing = False

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt failed and will be repeated."""
        return self._is_failing

    async def deliver(self, signal: Signal, payload: bytes) -> Delivery:
        """Send one request; return once it is delivered or given up. Cancelling leaves it undelivered."""
        name = self.exporter.name
        while True:
            try:
                result = await self.exporter.export(signal, payload)
            except DownstreamRejectedError as error:
                _logger.error("export_rejected", exporter=name, signal=signal.plural, error=str(error))
                self._is_failing = False
                self._backoff.reset()
                return Delivery("rejected")
            except RetryableError as error:
                if self._backoff.is_exhausted(time.monotonic()):
                    _logger.error("export_given_up", exporter=name, signal=signal.plural, error=str(error))
                    self._backoff.reset()
                    return Delivery("retries_exhausted")
                delay_s = self._backoff.next_delay_s(error.retry_after_s)
                self._metrics.exporter_retries.labels(name).inc()
                if not self._is_failing:
                    _logger.warning(
                        "export_failing", exporter=name, error=str(error), next_attempt_in_s=round(delay_s, 1)
                    )
                self._is_failing = True
                await asyncio.sleep(delay_s)
            else:
                if self._is_failing:
                    _logger.info("export_recovered", exporter=name)
                self._is_failing = False
                self._backoff.reset()
                if result.rejected_item_count:
                    _logger.warning(
                        "items_rejected", exporter=name, count=result.rejected_item_count, message=result.message
                    )
                    self._metrics.exporter_rejected_items.labels(name, signal.plural).inc(result.rejected_item_count)
                return Delivery(rejected_item_count=result.rejected_item_count)
