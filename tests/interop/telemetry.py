"""Telemetry that uses everything OTLP has, as requests and as OTLP JSON files."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList

from driftlock_otlp.model import Signal

START_UNIX_NANO = 1_764_000_000_000_000_000
_IDS = {"traceId", "spanId", "parentSpanId"}


def varied(signal: Signal, rounds: int = 8) -> list[Message]:
    """Return requests that hold every kind of value and every field; no two records are equal."""
    return [_MAKERS[signal](number) for number in range(rounds)]


def as_json(request: Message) -> bytes:
    """Return a request in OTLP's JSON, written by protobuf's own mapping.

    OTLP differs from it in one thing: ids are hexadecimal (OTLP specification, "JSON Protobuf Encoding").
    """
    return json.dumps(_with_hex_ids(json_format.MessageToDict(request, use_integers_for_enums=True))).encode()


def _with_hex_ids(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_with_hex_ids(item) for item in tree]
    if isinstance(tree, dict):
        return {
            key: base64.b64decode(value).hex() if key in _IDS and isinstance(value, str) else _with_hex_ids(value)
            for key, value in tree.items()
        }
    return tree


def _attributes(number: int) -> list[KeyValue]:
    values = [
        ("a.string", AnyValue(string_value=f"größe ✓ {number}")),
        ("a.string.empty", AnyValue(string_value="")),
        ("a.bool", AnyValue(bool_value=number % 2 == 0)),
        ("a.int", AnyValue(int_value=(-1) ** number * (2**63 - 1 - number))),
        ("an.int.zero", AnyValue(int_value=0)),
        ("a.double", AnyValue(double_value=math.pi * number)),
        ("a.double.whole", AnyValue(double_value=3.0)),
        ("some.bytes", AnyValue(bytes_value=bytes(range(number, number + 40)))),
        ("an.empty.value", AnyValue()),
    ]
    attributes = [KeyValue(key=key, value=value) for key, value in values]
    array = AnyValue()
    array.array_value.values.extend(value for _, value in values)
    nested = AnyValue(kvlist_value=KeyValueList(values=attributes))
    return [
        *attributes,
        KeyValue(key="an.array", value=array),
        KeyValue(key="a.map", value=nested),
        KeyValue(key="a.map.in.a.map", value=AnyValue(kvlist_value={"values": [{"key": "m", "value": nested}]})),
    ]


def _name(resource: Any, number: int) -> None:
    resource.schema_url = "https://opentelemetry.io/schemas/1.37.0"
    resource.resource.attributes.extend(
        [KeyValue(key="service.name", value=AnyValue(string_value=f"shop-{number % 3}")), *_attributes(number)]
    )
    resource.resource.dropped_attributes_count = number


def _name_scope(scope: Any, number: int) -> None:
    scope.schema_url = "https://opentelemetry.io/schemas/1.36.0"
    scope.scope.name = "shop"
    scope.scope.version = f"1.{number}"
    scope.scope.attributes.extend(_attributes(number))
    scope.scope.dropped_attributes_count = 1 + number


def _trace_id(number: int) -> bytes:
    return (0xA0000000_00000000_00000000_00000000 + number).to_bytes(16, "big")


def _span_id(number: int) -> bytes:
    return (0xB0000000_00000000 + number).to_bytes(8, "big")


def _logs(number: int) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    _name(resource, number)
    scope = resource.scope_logs.add()
    _name_scope(scope, number)
    for index, attribute in enumerate(_attributes(number)):
        scope.log_records.add(
            time_unix_nano=START_UNIX_NANO + number * 1000 + index,
            observed_time_unix_nano=START_UNIX_NANO + number * 1000 + index + 1,
            severity_number=1 + index % 24,
            severity_text=f"LEVEL {index}",
            body=attribute.value,
            attributes=_attributes(index),
            dropped_attributes_count=index,
            flags=0x1,
            trace_id=_trace_id(number),
            span_id=_span_id(index),
            event_name="shop.event" if index % 2 else "",
        )
    # What says nothing is a record too; so is one of a source without a name.
    scope.log_records.add(time_unix_nano=START_UNIX_NANO + number)
    request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=START_UNIX_NANO + number)
    return request


def _traces(number: int) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    _name(resource, number)
    scope = resource.scope_spans.add()
    _name_scope(scope, number)
    for index in range(6):
        span = scope.spans.add(
            trace_id=_trace_id(number),
            span_id=_span_id(index),
            parent_span_id=_span_id(index - 1) if index else b"",
            trace_state="vendor=1,other=2",
            flags=0x301,
            name=f"step {index}",
            kind=index,
            start_time_unix_nano=START_UNIX_NANO + number,
            end_time_unix_nano=START_UNIX_NANO + number + 1000 * index,
            attributes=_attributes(index),
            dropped_attributes_count=3,
            dropped_events_count=4,
            dropped_links_count=5,
        )
        span.status.code = index % 3
        span.status.message = "as said" if index % 3 == 2 else ""
        span.events.add(
            time_unix_nano=START_UNIX_NANO, name="event", attributes=_attributes(index), dropped_attributes_count=6
        )
        span.links.add(
            trace_id=_trace_id(number + 1), span_id=_span_id(99), trace_state="vendor=3", flags=0x100,
            attributes=_attributes(index), dropped_attributes_count=7,
        )  # fmt: skip
    return request


def _metrics(number: int) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    _name(resource, number)
    scope = resource.scope_metrics.add()
    _name_scope(scope, number)
    common = {
        "attributes": _attributes(number),
        "start_time_unix_nano": START_UNIX_NANO,
        "time_unix_nano": START_UNIX_NANO + number + 1,
    }
    exemplar = {
        "time_unix_nano": START_UNIX_NANO, "trace_id": _trace_id(number), "span_id": _span_id(number),
        "filtered_attributes": _attributes(number),
    }  # fmt: skip
    exemplars = [{**exemplar, "as_double": 0.5}, {**exemplar, "as_int": -3}]

    def metric(kind: str) -> Any:
        return scope.metrics.add(
            name=f"shop.{kind}", description=f"A {kind}", unit="{order}", metadata=_attributes(number)
        )

    gauge = metric("gauge").gauge
    for value in (0.0, -0.1, 1e300, 5e-324, math.inf, -math.inf):
        gauge.data_points.add(**common, as_double=value, exemplars=exemplars)
    gauge.data_points.add(**common, as_int=-(2**63) + number)
    gauge.data_points.add(**common, as_int=0)
    # FLAG_NO_RECORDED_VALUE
    gauge.data_points.add(**common, flags=1)
    for temporality, is_monotonic in ((1, True), (2, True), (2, False)):
        total = metric("sum").sum
        total.aggregation_temporality, total.is_monotonic = temporality, is_monotonic
        total.data_points.add(**common, as_int=number, exemplars=exemplars)
        total.data_points.add(**common, as_double=number / 7)
    histogram = metric("histogram").histogram
    histogram.aggregation_temporality = 2
    histogram.data_points.add(
        **common, count=6, sum=12.5, bucket_counts=[1, 2, 3], explicit_bounds=[0.5, 1.5], min=-1.0, max=9.0,
        exemplars=exemplars,
    )  # fmt: skip
    histogram.data_points.add(**common, count=2**40)
    exponential = metric("exponential").exponential_histogram
    exponential.aggregation_temporality = 1
    exponential.data_points.add(
        **common, count=10, sum=-3.5, scale=-4, zero_count=2, zero_threshold=0.25, min=-8.0, max=8.0,
        positive={"offset": -2, "bucket_counts": [1, 0, 3]}, negative={"offset": 5, "bucket_counts": [4]},
        exemplars=exemplars, flags=0,
    )  # fmt: skip
    summary = metric("summary").summary
    summary.data_points.add(
        **common, count=3, sum=6.0, quantile_values=[{"quantile": 0.0, "value": 1.0}, {"quantile": 0.99, "value": 3.0}]
    )
    return request


_MAKERS = {Signal.LOGS: _logs, Signal.METRICS: _metrics, Signal.TRACES: _traces}
