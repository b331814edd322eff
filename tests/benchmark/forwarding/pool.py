"""Varied, realistic requests, every one another: many services, templates, attribute shapes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from driftlock_otlp.model import Signal

SERVICES = 12
START_UNIX_NANO = 1_750_000_000_000_000_000

_VERBS = ("GET", "POST", "PUT", "DELETE")
_TEMPLATES = (
    "{verb} /api/v2/{noun}/{number} finished with {status} in {ms} ms",
    "user {number} opened {noun} {number} from 10.{byte}.{byte}.{byte}",
    "cache miss for {noun}:{number}, loading from replica {byte}",
    "{noun} {hex} queued at position {byte}, {ms} ms behind",
    "connection to {noun}-db-{byte} established after {ms} ms, pool size {byte}",
    "retrying {verb} {noun} {hex}: attempt {byte} of 5",
    "scheduled job {noun}-sync took {ms} ms for {number} rows",
    "payment {hex} authorised for {number}.{byte} EUR",
    "session {hex} expired after {number} s",
    "published {noun}.updated offset {number} partition {byte}",
)
_NOUNS = ("order", "cart", "invoice", "customer", "shipment", "voucher", "catalog", "ledger")


def requests(signal: Signal, record_count: int, per_request: int, seed: int = 1) -> Iterator[bytes]:
    """Yield requests with so many records in all.

    Args:
        signal: Of what.
        record_count: Records in all; a multiple of `per_request`.
        per_request: Records in each.
        seed: What they say.
    """
    draw = random.Random(f"{signal}{seed}")
    make = {Signal.LOGS: _logs, Signal.METRICS: _metrics, Signal.TRACES: _traces}[signal]
    for number in range(record_count // per_request):
        yield make(draw, per_request, START_UNIX_NANO + number * per_request * 1_000_000)


def _resource(draw: random.Random, resource: Any) -> str:
    service = f"{draw.choice(_NOUNS)}-{draw.randrange(SERVICES)}"
    _add(resource.attributes, "service.name", service)
    _add(resource.attributes, "service.version", f"1.{draw.randrange(9)}.{draw.randrange(20)}")
    _add(resource.attributes, "k8s.pod.name", f"{service}-{draw.randrange(1 << 32):08x}")
    _add(resource.attributes, "host.name", f"node-{draw.randrange(40)}")
    return service


def _logs(draw: random.Random, count: int, start: int) -> bytes:
    request = ExportLogsServiceRequest()
    for _ in range(4):
        resource_logs = request.resource_logs.add()
        service = _resource(draw, resource_logs.resource)
        scope = resource_logs.scope_logs.add()
        scope.scope.name = f"{service}.logger"
        for index in range(count // 4):
            time = start + index * 1_000_000
            level = 17 if draw.random() < 0.01 else 9
            record = scope.log_records.add(
                time_unix_nano=time, observed_time_unix_nano=time + 5_000, severity_number=level
            )
            record.severity_text = "ERROR" if level == 17 else "INFO"
            record.body.string_value = _line(draw)
            _add(record.attributes, "http.request.method", draw.choice(_VERBS))
            record.attributes.add(key="http.response.status_code").value.int_value = draw.choice((200, 200, 200, 404))
            record.attributes.add(key="duration_ms").value.double_value = draw.lognormvariate(3.0, 0.6)
            if draw.random() < 0.7:
                _add(record.attributes, "user.id", f"u-{draw.randrange(5000)}")
            if draw.random() < 0.5:
                record.trace_id, record.span_id = draw.randbytes(16), draw.randbytes(8)
    return request.SerializeToString()


def _traces(draw: random.Random, count: int, start: int) -> bytes:
    request = ExportTraceServiceRequest()
    for _ in range(4):
        resource_spans = request.resource_spans.add()
        service = _resource(draw, resource_spans.resource)
        scope = resource_spans.scope_spans.add()
        scope.scope.name = "http.client"
        trace_id, parent = b"", b""
        for index in range(count // 4):
            if index % 5 == 0:
                trace_id, parent = draw.randbytes(16), b""
            begun = start + index * 1_000_000
            span = scope.spans.add(
                trace_id=trace_id,
                span_id=draw.randbytes(8),
                parent_span_id=parent,
                name=f"{draw.choice(_VERBS)} /api/v2/{draw.choice(_NOUNS)}",
                kind=3,
                start_time_unix_nano=begun,
                end_time_unix_nano=begun + int(draw.lognormvariate(16.0, 0.6)),
            )
            parent = parent or span.span_id
            _add(span.attributes, "http.request.method", span.name.split()[0])
            _add(span.attributes, "server.address", f"{service}.internal")
            span.attributes.add(key="http.response.status_code").value.int_value = draw.choice((200, 200, 200, 500))
    return request.SerializeToString()


def _metrics(draw: random.Random, count: int, start: int) -> bytes:
    request = ExportMetricsServiceRequest()
    for _ in range(4):
        resource_metrics = request.resource_metrics.add()
        service = _resource(draw, resource_metrics.resource)
        scope = resource_metrics.scope_metrics.add()
        scope.scope.name = "runtime"
        gauge = scope.metrics.add(name=f"{service}.queue.depth", unit="{item}")
        total = scope.metrics.add(name="http.server.requests", unit="{request}")
        total.sum.aggregation_temporality, total.sum.is_monotonic = 2, True
        histogram = scope.metrics.add(name="http.server.request.duration", unit="s")
        histogram.histogram.aggregation_temporality = 1
        for index in range(count // 4):
            time = start + index * 1_000_000
            if index % 3 == 0:
                point = gauge.gauge.data_points.add(time_unix_nano=time, as_double=draw.gauss(40.0, 4.0))
            elif index % 3 == 1:
                point = total.sum.data_points.add(time_unix_nano=time, start_time_unix_nano=start, as_int=index * 7)
            else:
                counts = [draw.randrange(50) for _ in range(6)]
                point = histogram.histogram.data_points.add(
                    time_unix_nano=time, count=sum(counts), sum=draw.uniform(1.0, 9.0), bucket_counts=counts,
                    explicit_bounds=[0.01, 0.05, 0.1, 0.5, 1.0],
                )  # fmt: skip
            _add(point.attributes, "http.route", f"/api/v2/{draw.choice(_NOUNS)}")
    return request.SerializeToString()


def _line(draw: random.Random) -> str:
    return draw.choice(_TEMPLATES).format(
        verb=draw.choice(_VERBS), noun=draw.choice(_NOUNS), number=draw.randrange(100_000), status=200,
        ms=draw.randrange(900), byte=draw.randrange(256), hex=f"{draw.randrange(1 << 48):012x}",
    )  # fmt: skip


def _add(attributes: Any, key: str, text: str) -> None:
    attributes.add(key=key).value.string_value = text
