"""Short ways to write OTLP messages in tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from driftlock_otlp.model import Signal
from driftlock_otlp.windowing.batch import StreamBatch
from driftlock_otlp.windowing.streams import split_request

SECOND = 10**9
T0 = 1_700_000_000 * SECOND


def value(plain: Any) -> AnyValue:
    """Return a plain value as an OTLP AnyValue."""
    if plain is None:
        return AnyValue()
    if isinstance(plain, bool):
        return AnyValue(bool_value=plain)
    if isinstance(plain, int):
        return AnyValue(int_value=plain)
    if isinstance(plain, float):
        return AnyValue(double_value=plain)
    if isinstance(plain, bytes):
        return AnyValue(bytes_value=plain)
    if isinstance(plain, list):
        return AnyValue(array_value=ArrayValue(values=[value(item) for item in plain]))
    if isinstance(plain, dict):
        return AnyValue(kvlist_value=KeyValueList(values=pairs(plain)))
    return AnyValue(string_value=plain)


def pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """Return attributes as OTLP KeyValues."""
    return [KeyValue(key=key, value=value(item)) for key, item in attributes.items()]


def resource(service: str | None, **attributes: Any) -> Resource:
    """Return a resource; underscores in names stand for dots."""
    named = {} if service is None else {"service.name": service}
    return Resource(attributes=pairs({**named, **{key.replace("_", "."): item for key, item in attributes.items()}}))


def record(body: Any = None, attributes: Mapping[str, Any] | None = None, **fields: Any) -> LogRecord:
    """Return a log record."""
    return LogRecord(
        time_unix_nano=fields.pop("time", T0),
        body=None if body is None else value(body),
        attributes=pairs(attributes or {}),
        **fields,
    )


def logs(records: list[LogRecord], service: str | None = "shop", scope: str = "") -> ExportLogsServiceRequest:
    """Return a request with one resource and scope."""
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add(resource=resource(service))
    group.scope_logs.add(log_records=records).scope.name = scope
    return request


def span(name: str, attributes: Mapping[str, Any] | None = None, **fields: Any) -> Span:
    """Return a span of 10 ms that ends at T0 unless told otherwise."""
    fields.setdefault("start_time_unix_nano", T0 - SECOND // 100)
    fields.setdefault("end_time_unix_nano", T0)
    return Span(name=name, attributes=pairs(attributes or {}), **fields)


def traces(spans: list[Span], service: str | None = "shop") -> ExportTraceServiceRequest:
    """Return a request with one resource and scope."""
    request = ExportTraceServiceRequest()
    request.resource_spans.add(resource=resource(service)).scope_spans.add(spans=spans)
    return request


def metrics(found: list[Metric], service: str | None = "shop", **attributes: Any) -> ExportMetricsServiceRequest:
    """Return a request with one resource and scope."""
    request = ExportMetricsServiceRequest()
    request.resource_metrics.add(resource=resource(service, **attributes)).scope_metrics.add(metrics=found)
    return request


def only(signal: Signal, request: Any) -> StreamBatch:
    """Return the records of a request that has one stream, whatever their sources."""
    batches = split_request(signal, request, "")
    (key,) = {batch.key for batch in batches}
    whole = StreamBatch(key, resource=batches[0].resource, resource_schema_url=batches[0].resource_schema_url)
    for batch in batches:
        whole.extend(batch, 0, len(batch.items))
    return whole
