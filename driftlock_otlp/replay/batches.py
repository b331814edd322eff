"""Rows of a file as OTLP requests, each holding rows that happened at about the same time.

Windows age by the clock that comes with each request. A request whose rows lay further apart
than a window may be old would put into one window what belongs into several.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import encode

MAX_BATCH_ROWS = 256
"""Rows in one request at most."""

Scalar = str | int | float | bool

_INT64 = range(-(1 << 63), 1 << 63)


@dataclass(slots=True)
class Batch:
    """One OTLP request, and the rows of the file that it was made from.

    Attributes:
        signal: The request's signal.
        payload: OTLP protobuf; empty when none of the rows can be scored.
        clock_unix_nano: Latest event time in the file up to here; 0 while there was none.
        row_times_unix_nano: Event time of each row that is new with this batch, 0 where it has
            none. Rows count over the whole file, in its order.
        item_rows: Row in the file of each item of the request.
    """

    signal: Signal
    payload: bytes
    clock_unix_nano: int
    row_times_unix_nano: list[int]
    item_rows: list[int]


@dataclass(slots=True)
class Row:
    """One record of a file that is not OTLP.

    Attributes:
        time_unix_nano: Event time; 0 if it has none.
        body: A log record's text; None if it has none.
        value: A data point's value; None if it has none.
        severity: A log record's severity, as written.
        trace_id: Trace of a log record, 16 bytes or empty.
        span_id: Its span, 8 bytes or empty.
        attributes: Further fields.
    """

    time_unix_nano: int = 0
    body: str | None = None
    value: float | None = None
    severity: str = ""
    trace_id: bytes = b""
    span_id: bytes = b""
    attributes: dict[str, Scalar] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to score."""
        return self.body is None and self.value is None and not self.attributes


def batches(rows: Iterable[Row], signal: Signal, service: str, metric: str, span_nano: int) -> Iterator[Batch]:
    """Yield the rows as requests.

    Args:
        rows: In the order of the file.
        signal: Logs or metrics.
        service: `service.name` of their resource.
        metric: Name of the metric; for logs it has no meaning.
        span_nano: How far apart rows of one request may be, nanoseconds.
    """
    resource = Resource(attributes=[_attribute("service.name", service)])
    clock = first_row = 0
    pending: list[Row] = []

    def batch() -> Batch:
        return _batch(pending, first_row, clock, signal, resource, metric)

    for row in rows:
        if pending and (
            len(pending) >= MAX_BATCH_ROWS or abs(row.time_unix_nano - pending[0].time_unix_nano) > span_nano
        ):
            yield batch()
            first_row += len(pending)
            pending = []
        pending.append(row)
        clock = max(clock, row.time_unix_nano)
    if pending:
        yield batch()


def _batch(
    rows: list[Row], first_row: int, clock_unix_nano: int, signal: Signal, resource: Resource, metric: str
) -> Batch:
    # A row of metrics without a value is no point; a log record without any text may have attributes.
    scored = [
        (first_row + place, row)
        for place, row in enumerate(rows)
        if (not row.is_empty if signal is Signal.LOGS else row.value is not None)
    ]
    payload = b""
    if scored and signal is Signal.LOGS:
        logs = ExportLogsServiceRequest()
        logs.resource_logs.add(resource=resource).scope_logs.add().log_records.extend(
            _log_record(row) for _, row in scored
        )
        payload = encode(logs)
    elif scored:
        metrics = ExportMetricsServiceRequest()
        gauge = metrics.resource_metrics.add(resource=resource).scope_metrics.add().metrics.add(name=metric).gauge
        gauge.data_points.extend(_data_point(row) for _, row in scored)
        payload = encode(metrics)
    return Batch(signal, payload, clock_unix_nano, [row.time_unix_nano for row in rows], [place for place, _ in scored])


def _log_record(row: Row) -> LogRecord:
    record = LogRecord(
        time_unix_nano=row.time_unix_nano,
        severity_text=row.severity,
        trace_id=row.trace_id,
        span_id=row.span_id,
        attributes=[_attribute(key, value) for key, value in row.attributes.items()],
    )
    if row.body is not None:
        record.body.string_value = row.body
    return record


def _data_point(row: Row) -> NumberDataPoint:
    return NumberDataPoint(
        time_unix_nano=row.time_unix_nano,
        as_double=math.nan if row.value is None else row.value,
        attributes=[_attribute(key, value) for key, value in row.attributes.items()],
    )


def _attribute(key: str, value: Scalar) -> KeyValue:
    if isinstance(value, bool):
        return KeyValue(key=key, value=AnyValue(bool_value=value))
    if isinstance(value, int) and value in _INT64:
        return KeyValue(key=key, value=AnyValue(int_value=value))
    if isinstance(value, float):
        return KeyValue(key=key, value=AnyValue(double_value=value))
    return KeyValue(key=key, value=AnyValue(string_value=str(value)))
