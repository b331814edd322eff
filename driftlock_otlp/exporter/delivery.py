"""Delivering one request to one destination for as long as it takes, in parts if it must be."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

import structlog

from driftlock_otlp.config.exporters import RetryConfig
from driftlock_otlp.config.values import DEFAULT_REQUEST_LIMIT_BYTES
from driftlock_otlp.errors import DecodeError, DownstreamRejectedError, DownstreamTooLargeError, RetryableError
from driftlock_otlp.interfaces import Exporter, ExportResult
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.otlp import rewrite
from driftlock_otlp.retry import Backoff

_LEAST_LIMIT_BYTES = 64 << 10
"""No destination is believed to want less in one request: parts stay worth sending."""

_MOST_PARTS = 64  # At once; each looks at all envelopes of the request.

_MOST_SINGLE = 8
"""Small items refused one by one as too large, before a destination that took nothing is no longer asked."""

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a delivery ended.

    Attributes:
        dropped: Items that the destination is without, by reason; the others it has taken.
    """

    dropped: Mapping[str, int] = field(default_factory=dict)


class Deliverer:
    """Sends requests to one destination, retrying what may be retried and dividing what is too large.

    Several may be under way at once; each ends on its own. What the destination says of its pace
    and of its size limits holds for all of them.

    Args:
        exporter: The destination.
        retry: How to retry.
        metrics: Where retries and rejections are counted.
        max_request_bytes: Larger requests are divided without asking the destination.
        random: Source of the jitter.
    """

    def __init__(
        self,
        exporter: Exporter,
        retry: RetryConfig,
        metrics: Metrics,
        max_request_bytes: Mapping[Signal, int] | None = None,
        random: Random | None = None,
    ) -> None:
        self.exporter = exporter
        self._retry = retry
        self._metrics = metrics
        self._limits_bytes = dict(max_request_bytes or dict.fromkeys(Signal, DEFAULT_REQUEST_LIMIT_BYTES))
        self._random = random or Random()  # noqa: S311 - jitter
        self._in_flight = metrics.exporter_in_flight_requests.labels(exporter.name)
        self._not_before_s = 0.0
        self._failing_count = 0
        self._last_warning = ""
        self._last_error = ""

    @property
    def is_failing(self) -> bool:
        """Whether an attempt failed and will be repeated."""
        return self._failing_count > 0

    @property
    def last_error(self) -> str:
        """What the destination last failed with; empty if it never did."""
        return self._last_error

    async def deliver(self, signal: Signal, payload: bytes, item_count: int) -> Delivery:
        """Send one request; return once every item is delivered or given up.

        A request that is too large is sent in parts, in order. What is delivered of it is not
        sent again. Cancelling leaves undelivered what is not yet delivered.

        Args:
            signal: What the request holds.
            payload: The request as OTLP protobuf.
            item_count: Items in it, at least 1.
        """
        dropped: Counter[str] = Counter()
        refused_bytes = 0  # Size of the smallest part that was found too large.
        has_delivered = False
        left = [(payload, item_count)]  # The next one last.
        while left:
            part, count = left.pop()
            size_bytes, limit_bytes = len(part), self._limits_bytes[signal]
            piece_count = size_bytes // limit_bytes + 1 if count > 1 and size_bytes > limit_bytes else 1
            reason = ""
            if piece_count == 1:
                try:
                    result = await self._send(signal, part)
                except DownstreamTooLargeError as error:
                    refused_bytes = min(refused_bytes or size_bytes, size_bytes)
                    if count > 1:
                        piece_count = 2
                    else:
                        reason = "too_large"
                        if not dropped[reason]:
                            self._say_dropped("item_too_large", signal, error)
                        if (
                            size_bytes < _LEAST_LIMIT_BYTES
                            and not has_delivered
                            and dropped[reason] + 1 >= _MOST_SINGLE
                        ):
                            # This is no limit of size but a quota, say; what is left would be refused as well.
                            dropped["rejected"] += sum(others for _, others in left)
                            left.clear()
                except DownstreamRejectedError as error:
                    reason = "rejected"
                    self._say_dropped("export_rejected", signal, error)
                except RetryableError as error:
                    reason = "retries_exhausted"
                    self._say_dropped("export_given_up", signal, error)
                else:
                    has_delivered = True
                    if refused_bytes:
                        self._learn_limit(signal, refused_bytes, taken_bytes=size_bytes)
                    if result.rejected_item_count or result.message:
                        dropped["partial_success"] += self._rejected_count(signal, result, count)
            if piece_count > 1:
                try:
                    left += rewrite.divide(signal, part, min(piece_count, _MOST_PARTS))[::-1]
                except DecodeError as error:
                    # Receivers decode before they append: only damage can bring this here.
                    reason = "undecodable"
                    self._say_dropped("request_undecodable", signal, error)
            if reason:
                dropped[reason] += count
        return Delivery(+dropped)

    def _learn_limit(self, signal: Signal, refused_bytes: int, taken_bytes: int) -> None:
        """Spare the destination what it would refuse.

        Only a size next to which a smaller one was taken says something of a limit: who has used
        up a quota may refuse in the same words whatever the size.
        """
        limit_bytes = max(refused_bytes // 2, taken_bytes, _LEAST_LIMIT_BYTES)
        if limit_bytes < self._limits_bytes[signal]:
            self._limits_bytes[signal] = limit_bytes
            _logger.info(
                "request_limit_learned", exporter=self.exporter.name, signal=signal.plural, limit_bytes=limit_bytes
            )

    async def _send(self, signal: Signal, payload: bytes) -> ExportResult:
        """Send one part until it is taken.

        Raises:
            DownstreamRejectedError: It is refused for good.
            RetryableError: It is given up.
        """
        backoff = Backoff(self._retry, self._random)
        is_failing = False
        self._in_flight.inc()
        try:
            while True:
                await self._hold_off()
                try:
                    result = await self.exporter.export(signal, payload)
                except RetryableError as error:
                    self._last_error = str(error)
                    now_s = time.monotonic()
                    delay_s = backoff.next_delay_s(error.retry_after_s)
                    if error.retry_after_s is not None:
                        # Said to one, meant for all (OTLP specification, "OTLP/gRPC Throttling").
                        self._not_before_s = max(self._not_before_s, now_s + delay_s)
                    if backoff.is_exhausted(now_s, delay_s):
                        raise
                    self._metrics.exporter_retries.labels(self.exporter.name).inc()
                    if not is_failing:
                        is_failing = True
                        self._failing_count += 1
                        if self._failing_count == 1:
                            self._say_failing(error, delay_s)
                    await asyncio.sleep(delay_s)
                else:
                    if is_failing:
                        _logger.info("export_recovered", exporter=self.exporter.name)
                    return result
        finally:
            self._in_flight.dec()
            self._failing_count -= is_failing

    async def _hold_off(self) -> None:
        """Wait until the destination wants to hear of us again."""
        while (wait_s := self._not_before_s - time.monotonic()) > 0:
            # What waits here has not failed, but will take as long: whoever stops us should know.
            self._failing_count += 1
            try:
                await asyncio.sleep(wait_s)
            finally:
                self._failing_count -= 1

    def _rejected_count(self, signal: Signal, result: ExportResult, item_count: int) -> int:
        """Count and say what a destination took the request without; return how many items."""
        name = self.exporter.name
        rejected = min(result.rejected_item_count, item_count)
        if rejected:
            _logger.warning("items_rejected", exporter=name, count=rejected, message=result.message)
            self._metrics.exporter_rejected_items.labels(name, signal.plural).inc(rejected)
        elif result.message and result.message != self._last_warning:
            # Everything was taken. Destinations repeat such words with every answer: once is enough.
            self._last_warning = result.message
            _logger.warning("export_warned", exporter=name, message=result.message)
        return rejected

    def _say_failing(self, error: RetryableError, delay_s: float) -> None:
        _logger.warning(
            "export_failing", exporter=self.exporter.name, error=str(error), next_attempt_in_s=round(delay_s, 1)
        )

    def _say_dropped(self, event: str, signal: Signal, error: Exception) -> None:
        self._last_error = str(error)
        _logger.error(event, exporter=self.exporter.name, signal=signal.plural, error=str(error))
