"""An anomaly as an OTLP event."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from driftlock_otlp.model import Anomaly, Evidence, StreamKey
from driftlock_otlp.otlp.anomaly_event import anomaly_event, is_own


def source() -> Resource:
    resource = Resource(dropped_attributes_count=2)
    for key, value in (("service.name", "checkout"), ("service.instance.id", "pod-7")):
        resource.attributes.add(key=key).value.string_value = value
    return resource


ANOMALY = Anomaly(
    id="0123456789abcdef0123456789abcdef",
    stream=StreamKey("logs", "checkout"),
    state="open",
    severity="high",
    detected_unix_nano=1_000,
    window_start_unix_nano=400,
    window_end_unix_nano=900,
    record_count=50,
    score=0.93,
    p_value=0.0007,
    bits=31.5,
    ncd=0.62,
    compression_ratio=4.0,
    baseline_compression_ratio=9.5,
    entropy_bits=5.25,
    baseline_entropy_bits=2.5,
    baseline_windows=12,
    baseline_records=600,
    explanation="checkout: 41 of 50 log records follow a new pattern",
    evidence=(
        Evidence("template", "pattern", 20.25, "41 records follow a new template"),
        Evidence("severity", "pattern", 8.0, "ERROR rose from 1% to 80%"),
        Evidence("template", "sequence", 3.0, "templates follow one another in a new order"),
    ),
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    related_trace_ids=("1" * 32, "2" * 32),
    template="payment gateway timeout after <*> ms",
    resource=source().SerializeToString(),
    resource_schema_url="https://opentelemetry.io/schemas/1.44.0",
    fingerprint="openzl-0.3/1/9f2c",
    compressor="openzl 0.3.0",
)


def event_of(anomaly: Anomaly) -> LogRecord:
    request = ExportLogsServiceRequest.FromString(anomaly_event(anomaly, 2_000, "1.2.3"))
    record: LogRecord = request.resource_logs[0].scope_logs[0].log_records[0]
    return record


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    assert kind is not None
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return getattr(value, kind)


def attributes_of(anomaly: Anomaly) -> dict[str, Any]:
    return {attribute.key: plain(attribute.value) for attribute in event_of(anomaly).attributes}


def test_event_carries_the_resource_of_its_source() -> None:
    """Conformance 97, 98."""
    request = ExportLogsServiceRequest.FromString(anomaly_event(ANOMALY, 2_000, "1.2.3"))
    [resource_logs] = request.resource_logs
    assert resource_logs.resource == source()
    assert resource_logs.schema_url == "https://opentelemetry.io/schemas/1.44.0"
    [scope_logs] = resource_logs.scope_logs
    assert (scope_logs.scope.name, scope_logs.scope.version) == ("driftlock.cbad", "1.2.3")
    assert len(scope_logs.log_records) == 1


@pytest.mark.parametrize("resource", [b"", b"\xff\xff"])
def test_unknown_source_is_named_after_the_stream(resource: bytes) -> None:
    anomaly = replace(ANOMALY, resource=resource)
    request = ExportLogsServiceRequest.FromString(anomaly_event(anomaly, 2_000, "1.2.3"))
    [attribute] = request.resource_logs[0].resource.attributes
    assert (attribute.key, attribute.value.string_value) == ("service.name", "checkout")


def test_event_says_what_happened_and_when() -> None:
    """Conformance 91, 92, 96."""
    record = event_of(ANOMALY)
    assert record.event_name == "driftlock.anomaly.detected"
    assert (record.time_unix_nano, record.observed_time_unix_nano) == (1_000, 2_000)
    assert plain(record.body) == ANOMALY.explanation


@pytest.mark.parametrize(
    ("severity", "number", "text"),
    [("low", 9, "INFO"), ("medium", 13, "WARN"), ("high", 17, "ERROR"), ("critical", 21, "FATAL")],
)
def test_severity_has_its_number_and_text(severity: str, number: int, text: str) -> None:
    record = event_of(replace(ANOMALY, severity=severity))
    assert (record.severity_number, record.severity_text) == (number, text)


def test_attributes_are_flat_unique_and_complete() -> None:
    """Conformance 93."""
    attributes = attributes_of(ANOMALY)
    assert len(event_of(ANOMALY).attributes) == len(attributes)
    assert attributes == {
        "log.record.uid": "0123456789abcdef0123456789abcdef-open",
        "driftlock.anomaly.id": "0123456789abcdef0123456789abcdef",
        "driftlock.anomaly.state": "open",
        "driftlock.anomaly.signal": "logs",
        "driftlock.anomaly.type": "pattern",
        "driftlock.anomaly.severity": "high",
        "driftlock.anomaly.score": 0.93,
        "driftlock.anomaly.p_value": 0.0007,
        "driftlock.anomaly.bits": 31.5,
        "driftlock.anomaly.ncd": 0.62,
        "driftlock.anomaly.compression_ratio": 4.0,
        "driftlock.anomaly.baseline_compression_ratio": 9.5,
        "driftlock.anomaly.entropy_bits": 5.25,
        "driftlock.anomaly.baseline_entropy_bits": 2.5,
        "driftlock.anomaly.level": "notice",
        "driftlock.anomaly.windows": 1,
        "driftlock.anomaly.window.start_time_unix_nano": 400,
        "driftlock.anomaly.window.end_time_unix_nano": 900,
        "driftlock.anomaly.window.size": 50,
        "driftlock.anomaly.baseline.windows": 12,
        "driftlock.anomaly.baseline.records": 600,
        "driftlock.anomaly.fields": ["template", "severity"],
        "driftlock.anomaly.explanations": [
            "41 records follow a new template (20.2 bits)",
            "ERROR rose from 1% to 80% (8.0 bits)",
            "templates follow one another in a new order (3.0 bits)",
        ],
        "driftlock.anomaly.related_trace_ids": ["1" * 32, "2" * 32],
        "log.record.template": "payment gateway timeout after <*> ms",
        "driftlock.stream": "logs/checkout",
        "driftlock.detector.fingerprint": "openzl-0.3/1/9f2c",
        "driftlock.compressor": "openzl 0.3.0",
    }


def test_what_an_anomaly_lacks_is_left_out() -> None:
    attributes = attributes_of(replace(ANOMALY, evidence=(), related_trace_ids=(), template=""))
    absent = {"type", "fields", "explanations", "related_trace_ids", "resolution"}
    assert attributes.keys().isdisjoint({f"driftlock.anomaly.{name}" for name in absent} | {"log.record.template"})


def test_end_of_an_anomaly_is_an_event_of_its_own() -> None:
    ended = replace(ANOMALY, state="resolved", resolved_unix_nano=1_500, resolution="recovered")
    attributes = attributes_of(ended)
    assert event_of(ended).time_unix_nano == 1_500
    assert attributes["driftlock.anomaly.id"] == ANOMALY.id
    assert attributes["log.record.uid"] == f"{ANOMALY.id}-resolved"
    assert attributes["driftlock.anomaly.resolution"] == "recovered"


def test_update_says_until_when_it_goes_on_and_is_an_event_of_its_own() -> None:
    later = replace(ANOMALY, state="ongoing", window_count=9, last_unix_nano=7_000, level="page", incident_id="ee")
    attributes = attributes_of(later)
    assert event_of(later).time_unix_nano == 7_000
    assert attributes["log.record.uid"] == f"{ANOMALY.id}-ongoing-9"
    assert attributes["driftlock.anomaly.id"] == ANOMALY.id
    assert (attributes["driftlock.anomaly.level"], attributes["driftlock.anomaly.windows"]) == ("page", 9)
    assert attributes["driftlock.incident.id"] == "ee"


def test_same_anomaly_gives_the_same_bytes() -> None:
    assert anomaly_event(ANOMALY, 2_000, "1.2.3") == anomaly_event(replace(ANOMALY), 2_000, "1.2.3")


@pytest.mark.parametrize(
    ("trace_id", "span_id", "expected"),
    [
        ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", (16, 8)),
        ("0af7651916cd43dd8448eb211c80319c", "", (16, 0)),
        ("0af7651916cd43dd8448eb211c80319c", "0" * 16, (16, 0)),
        ("", "b7ad6b7169203331", (0, 0)),
        ("0" * 32, "b7ad6b7169203331", (0, 0)),
        ("abcd", "b7ad6b7169203331", (0, 0)),
        ("not hexadecimal", "", (0, 0)),
    ],
)
def test_only_valid_ids_are_set(trace_id: str, span_id: str, expected: tuple[int, int]) -> None:
    """Conformance 94."""
    record = event_of(replace(ANOMALY, trace_id=trace_id, span_id=span_id))
    assert (len(record.trace_id), len(record.span_id)) == expected
    assert record.trace_id.hex() in (trace_id, "")


def test_trace_of_a_span_is_known_to_be_sampled() -> None:
    """Conformance 95."""
    assert event_of(ANOMALY).flags == 0
    assert event_of(replace(ANOMALY, stream=StreamKey("traces", "checkout"))).flags == 1


def test_text_that_utf8_cannot_hold_is_replaced() -> None:
    assert plain(event_of(replace(ANOMALY, explanation="new word \udcff")).body) == "new word ?"


@pytest.mark.parametrize(
    ("scope_name", "event_name", "expected"),
    [
        ("driftlock.cbad", "", True),
        ("", "driftlock.anomaly.detected", True),
        ("driftlock.cbad.example", "", False),
        ("checkout", "driftlocked", False),
        ("", "", False),
    ],
)
def test_own_events_are_recognised(scope_name: str, event_name: str, expected: bool) -> None:
    assert is_own(scope_name, event_name) is expected


def test_events_recognise_themselves() -> None:
    request = ExportLogsServiceRequest.FromString(anomaly_event(ANOMALY, 2_000, "1.2.3"))
    scope_logs = request.resource_logs[0].scope_logs[0]
    assert is_own(scope_logs.scope.name, "")
    assert is_own("", scope_logs.log_records[0].event_name)
