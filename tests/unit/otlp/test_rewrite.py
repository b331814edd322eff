"""Taking items out of a request, and marking them."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from driftlock_otlp.errors import DecodeError
from driftlock_otlp.model import ItemRange, Signal
from driftlock_otlp.otlp.decode import count_items, decode
from driftlock_otlp.otlp.rewrite import split, tag

UNKNOWN_FIELD = b"\xfa\x3f\x03new"  # Field 1023, three bytes: from a version of OTLP to come.


def at(*indices: int, anomaly_id: str = "a1") -> list[ItemRange]:
    return [ItemRange(index, 1, anomaly_id) for index in indices]


def logs(layout: dict[str, dict[str, list[str]]]) -> bytes:
    """Return a request with these resources, scopes and bodies."""
    request = ExportLogsServiceRequest()
    for service, scopes in layout.items():
        resource_logs = request.resource_logs.add(schema_url=f"https://example.com/{service}")
        resource_logs.resource.attributes.add(key="service.name").value.string_value = service
        for name, bodies in scopes.items():
            scope_logs = resource_logs.scope_logs.add(schema_url=f"https://example.com/{name}")
            scope_logs.scope.name = name
            for body in bodies:
                record = scope_logs.log_records.add(dropped_attributes_count=3)
                record.body.string_value = body
    return request.SerializeToString()


def layout_of(payload: bytes) -> dict[str, dict[str, list[str]]]:
    """Return the reverse of `logs`."""
    request = ExportLogsServiceRequest.FromString(payload)
    layout: dict[str, dict[str, list[str]]] = {}
    for resource_logs in request.resource_logs:
        service = resource_logs.resource.attributes[0].value.string_value
        assert resource_logs.schema_url == f"https://example.com/{service}"
        scopes = layout[service] = {}
        for scope_logs in resource_logs.scope_logs:
            name = scope_logs.scope.name
            assert scope_logs.schema_url == f"https://example.com/{name}"
            assert all(record.dropped_attributes_count == 3 for record in scope_logs.log_records)
            scopes[name] = [record.body.string_value for record in scope_logs.log_records]
    return layout


LAYOUT = {"checkout": {"http": ["0", "1", "2"], "db": ["3"]}, "cart": {"http": ["4", "5"]}}


def metrics() -> bytes:
    """Return a request with every kind of metric: two points of gauge, then one of each other kind."""
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    gauge = scope.metrics.add(name="queue.depth", unit="{item}").gauge
    gauge.data_points.add(as_int=0)
    gauge.data_points.add(as_int=1)
    total: Any = scope.metrics.add(name="requests", description="all of them").sum
    total.is_monotonic = True
    total.aggregation_temporality = 2
    total.data_points.add(as_double=2.0)
    scope.metrics.add(name="duration").histogram.data_points.add(count=3)
    scope.metrics.add(name="size").exponential_histogram.data_points.add(count=4)
    scope.metrics.add(name="latency").summary.data_points.add(count=5)
    return request.SerializeToString()


def metric_names(payload: bytes) -> list[str]:
    request = ExportMetricsServiceRequest.FromString(payload)
    return [metric.name for metric in request.resource_metrics[0].scope_metrics[0].metrics]


def test_items_are_numbered_resource_by_resource_and_scope_by_scope() -> None:
    rest, taken = split(Signal.LOGS, logs(LAYOUT), [ItemRange(2, 3, "a1")])
    assert layout_of(rest) == {"checkout": {"http": ["0", "1"]}, "cart": {"http": ["5"]}}
    assert layout_of(taken) == {"checkout": {"http": ["2"], "db": ["3"]}, "cart": {"http": ["4"]}}


def test_empty_envelopes_are_left_out_of_both_sides() -> None:
    """Conformance 90."""
    rest, taken = split(Signal.LOGS, logs(LAYOUT), [ItemRange(0, 4, "a1")])
    assert layout_of(rest) == {"cart": {"http": ["4", "5"]}}
    assert layout_of(taken) == {"checkout": {"http": ["0", "1", "2"], "db": ["3"]}}


def test_ranges_may_overlap_and_come_in_any_order() -> None:
    rest, taken = split(Signal.LOGS, logs(LAYOUT), [*at(5, 0), ItemRange(4, 2, "a2"), ItemRange(5, 90, "a3")])
    assert layout_of(rest) == {"checkout": {"http": ["1", "2"], "db": ["3"]}}
    assert layout_of(taken) == {"checkout": {"http": ["0"]}, "cart": {"http": ["4", "5"]}}


@pytest.mark.parametrize("ranges", [[], at(6), [ItemRange(0, 0, "a1")], [ItemRange(-4, 3, "a1")]])
def test_nothing_taken_leaves_the_very_bytes(ranges: list[ItemRange]) -> None:
    payload = logs(LAYOUT) + logs({"empty": {}})
    assert split(Signal.LOGS, payload, ranges) == (payload, b"")
    assert tag(Signal.LOGS, payload, ranges) == payload


def test_everything_taken_leaves_the_very_bytes_on_the_other_side() -> None:
    payload = logs(LAYOUT) + logs({"empty": {}})
    assert split(Signal.LOGS, payload, [ItemRange(0, 4, "a1"), ItemRange(4, 2, "a2")]) == (b"", payload)


def test_data_points_of_every_kind_are_items() -> None:
    rest, taken = split(Signal.METRICS, metrics(), at(1, 2, 4))
    assert metric_names(rest) == ["queue.depth", "duration", "latency"]
    assert metric_names(taken) == ["queue.depth", "requests", "size"]
    total: Any = ExportMetricsServiceRequest.FromString(taken).resource_metrics[0].scope_metrics[0].metrics[1]
    assert (total.description, total.sum.is_monotonic, total.sum.aggregation_temporality) == ("all of them", True, 2)


def test_spans_are_items() -> None:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for name in ("GET /", "GET /cart"):
        spans.add(name=name).events.add(name="retried")
    rest, taken = split(Signal.TRACES, request.SerializeToString(), at(0))
    names = []
    for payload in (rest, taken):
        [span] = ExportTraceServiceRequest.FromString(payload).resource_spans[0].scope_spans[0].spans
        assert span.events[0].name == "retried"
        names.append(span.name)
    assert names == ["GET /cart", "GET /"]


def test_fields_of_later_versions_are_kept() -> None:
    """Conformance 12."""
    request = ExportLogsServiceRequest.FromString(logs({"checkout": {"http": ["0", "1"]}}) + UNKNOWN_FIELD)
    resource_logs = request.resource_logs[0]
    for message in (resource_logs, resource_logs.scope_logs[0], *resource_logs.scope_logs[0].log_records):
        message.MergeFromString(UNKNOWN_FIELD)
    payload = request.SerializeToString()
    for side in split(Signal.LOGS, payload, at(0)):
        # On the request, the resource, the scope and the one record of this side.
        assert side.count(UNKNOWN_FIELD) == 4
    assert tag(Signal.LOGS, payload, at(0)).count(UNKNOWN_FIELD) == 5


def test_metric_of_a_kind_to_come_stays_with_the_rest() -> None:
    request = ExportMetricsServiceRequest.FromString(metrics())
    request.resource_metrics[0].scope_metrics[0].metrics.add(name="future").MergeFromString(UNKNOWN_FIELD)
    rest, taken = split(Signal.METRICS, request.SerializeToString(), [ItemRange(0, 5, "a1")])
    assert metric_names(rest) == ["latency", "future"]
    assert "future" not in metric_names(taken)


def test_tag_marks_the_items_of_the_ranges_alone() -> None:
    tagged = tag(Signal.LOGS, logs(LAYOUT), [ItemRange(1, 2, "a1"), *at(2, 4, anomaly_id="a2")])
    assert layout_of(tagged) == LAYOUT
    request = ExportLogsServiceRequest.FromString(tagged)
    marks = [
        {attribute.key: attribute.value.string_value for attribute in record.attributes}.get("driftlock.anomaly.id")
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]
    assert marks == [None, "a1", "a2", None, "a2", None]


def test_tag_replaces_an_older_mark_and_keeps_keys_unique() -> None:
    """Conformance 93."""
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.attributes.add(key="driftlock.anomaly.id").value.int_value = 1
    record.attributes.add(key="http.route").value.string_value = "/cart"
    record.attributes.add(key="driftlock.anomaly.id").value.string_value = "older"
    once = tag(Signal.LOGS, request.SerializeToString(), at(0))
    attributes = ExportLogsServiceRequest.FromString(once).resource_logs[0].scope_logs[0].log_records[0].attributes
    assert [(item.key, item.value.string_value) for item in attributes] == [
        ("driftlock.anomaly.id", "a1"),
        ("http.route", "/cart"),
    ]
    assert tag(Signal.LOGS, once, at(0)) == once


def test_tag_marks_data_points_and_spans() -> None:
    tagged = tag(Signal.METRICS, metrics(), [ItemRange(0, 6, "a1")])
    assert tagged.count(b"driftlock.anomaly.id") == 6
    assert count_items(Signal.METRICS, decode(Signal.METRICS, tagged)) == 6
    traces = ExportTraceServiceRequest()
    traces.resource_spans.add().scope_spans.add().spans.add(name="GET /")
    tagged = tag(Signal.TRACES, traces.SerializeToString(), at(0))
    span = ExportTraceServiceRequest.FromString(tagged).resource_spans[0].scope_spans[0].spans[0]
    assert span.attributes[0].value.string_value == "a1"


@pytest.mark.parametrize("rewrite", [split, tag])
def test_payload_that_is_no_request_is_refused(rewrite: Any) -> None:
    with pytest.raises(DecodeError):
        rewrite(Signal.LOGS, b"\xff\xff", at(0))
