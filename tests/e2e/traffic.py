"""Seeded telemetry of a small shop, as Export requests; every item is known by its time.

Times are made up and unique, so that they serve as ids which no detector takes for a column.
"""

from __future__ import annotations

import random
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from driftlock_otlp.model import Signal

START_UNIX_NANO = 1_700_000_000_000_000_000
STEP_NANO = 10_000_000


class Traffic:
    """A shop's logs, metrics and traces, each request continuing where the one before ended.

    Args:
        seed: What it says.
        first_item: Number of the first item, to keep the times of several senders apart.
        service: Resource attribute `service.name`.

    Attributes:
        service: The same; what follows may be another's.
    """

    def __init__(self, seed: int = 1, first_item: int = 0, service: str = "shop") -> None:
        self._random = random.Random(seed)
        self.service = service
        self._count = first_item

    def request(self, signal: Signal, item_count: int) -> bytes:
        """Return an ordinary request of a signal."""
        return {Signal.LOGS: self.logs, Signal.METRICS: self.metrics, Signal.TRACES: self.traces}[signal](item_count)

    def logs(self, item_count: int, fault_share: float = 0.0) -> bytes:
        """Return a request of log records, a share of which speak of a fault never seen before."""
        request = ExportLogsServiceRequest()
        resource_logs = request.resource_logs.add(schema_url="https://opentelemetry.io/schemas/1.30.0")
        self._name(resource_logs.resource)
        scope_logs = resource_logs.scope_logs.add()
        scope_logs.scope.name = "shop.log"
        for _ in range(item_count):
            record = scope_logs.log_records.add(time_unix_nano=self._next_time(), severity_number=9)
            record.severity_text = "INFO"
            draw, number = self._random.random(), self._random.randrange(1000)
            if self._random.random() < fault_share:
                record.severity_number, record.severity_text = 17, "ERROR"
                text = f"payment gateway timeout after {number} ms"
            elif draw < 0.5:
                text = f"GET /cart/{number} took {self._random.randrange(10, 90)} ms"
            elif draw < 0.8:
                text = f"user {number} added item {self._random.randrange(1000)} to cart"
            elif draw < 0.95:
                text = f"checkout finished for order {self._random.randrange(100_000)}"
            else:
                text = f"cache miss for key {number}"
            record.body.string_value = text
        return request.SerializeToString()

    def traces(self, item_count: int, slow_factor: float = 1.0) -> bytes:
        """Return a request of spans."""
        request = ExportTraceServiceRequest()
        resource_spans = request.resource_spans.add()
        self._name(resource_spans.resource)
        scope_spans = resource_spans.scope_spans.add()
        scope_spans.scope.name = "shop.http"
        for _ in range(item_count):
            end = self._next_time()
            duration_s = self._random.lognormvariate(-4.0, 0.5) * slow_factor
            span = scope_spans.spans.add(
                trace_id=self._random.randbytes(16),
                span_id=self._random.randbytes(8),
                name=self._random.choice(["GET /cart", "GET /cart", "POST /order"]),
                kind=2,
                start_time_unix_nano=end - int(duration_s * 1e9),
                end_time_unix_nano=end,
            )
            _add(span.attributes, "http.request.method", span.name.split()[0])
        return request.SerializeToString()

    def metrics(self, item_count: int, level: float = 0.0) -> bytes:
        """Return a request of data points: a gauge and a cumulative counter."""
        request = ExportMetricsServiceRequest()
        resource_metrics = request.resource_metrics.add()
        self._name(resource_metrics.resource)
        scope_metrics = resource_metrics.scope_metrics.add()
        scope_metrics.scope.name = "shop.meter"
        gauge = scope_metrics.metrics.add(name="queue.depth", unit="{item}")
        counter = scope_metrics.metrics.add(name="orders", unit="{order}")
        counter.sum.aggregation_temporality = 2
        counter.sum.is_monotonic = True
        for index in range(item_count):
            time = self._next_time()
            if index % 2:
                counter.sum.data_points.add(
                    time_unix_nano=time, start_time_unix_nano=START_UNIX_NANO, as_int=3 * self._count
                )
            else:
                gauge.gauge.data_points.add(time_unix_nano=time, as_double=level + self._random.gauss(50.0, 2.0))
        return request.SerializeToString()

    def _next_time(self) -> int:
        self._count += 1
        return START_UNIX_NANO + self._count * STEP_NANO

    def _name(self, resource: Any) -> None:
        _add(resource.attributes, "service.name", self.service)


def times(signal: Signal, message: Any) -> list[int]:
    """Return the times, which are the ids, of the items of a decoded request."""
    if signal is Signal.LOGS:
        return [
            record.time_unix_nano
            for resource in message.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]
    if signal is Signal.TRACES:
        return [
            span.end_time_unix_nano
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
    return [
        point.time_unix_nano
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in (*metric.gauge.data_points, *metric.sum.data_points)
    ]


def _add(attributes: Any, key: str, text: str) -> None:
    attributes.add(key=key).value.string_value = text
