"""An anomaly as an OTLP event, and how to know our own events again.

An event is a log record with an event name. It carries the resource of the source, so that it
is found beside the telemetry it speaks of; the body is one sentence for people, everything else
is a flat attribute.

References:
    OpenTelemetry specification, "Logs Data Model"; semantic conventions, "Events". No convention
    for anomalies exists, hence names of our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.message import DecodeError as ProtobufDecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from driftlock_otlp.model import Anomaly, AnomalySeverity, AnomalyState, StreamKind

EVENT_NAME = "driftlock.anomaly.detected"
"""Event name of every anomaly, in whichever state."""

SCOPE_NAME = "driftlock.cbad"
"""Instrumentation scope of every event."""

_EVENT_NAMESPACE = "driftlock."
_TRACE_FLAG_SAMPLED = 0x01
_SEVERITIES = {severity.label: severity for severity in AnomalySeverity}

_Value = str | int | float | Sequence[str]


def anomaly_event(anomaly: Anomaly, observed_unix_nano: int, version: str) -> bytes:
    """Return an Export request with one event about an anomaly.

    The same anomaly in the same state, with as many windows, always has the same `log.record.uid`, so
    that a repeat can be recognised.

    Args:
        anomaly: What to tell.
        observed_unix_nano: Wall clock now.
        version: Version of the sidecar, for the instrumentation scope.

    Returns:
        An `ExportLogsServiceRequest` in OTLP protobuf.
    """
    request = ExportLogsServiceRequest()
    resource_logs = request.resource_logs.add(schema_url=_text(anomaly.resource_schema_url))
    resource_logs.resource.CopyFrom(_resource(anomaly))
    scope_logs = resource_logs.scope_logs.add()
    scope_logs.scope.name = SCOPE_NAME
    scope_logs.scope.version = version
    record = scope_logs.log_records.add(
        event_name=EVENT_NAME,
        time_unix_nano=_occurred_unix_nano(anomaly),
        observed_time_unix_nano=observed_unix_nano,
        body=AnyValue(string_value=_text(anomaly.explanation)),
    )
    severity = _SEVERITIES[anomaly.severity]
    record.severity_number = severity.severity_number  # type: ignore[assignment]
    record.severity_text = severity.severity_text
    _set_trace(record, anomaly)
    record.attributes.extend(KeyValue(key=key, value=_any_value(value)) for key, value in _attributes(anomaly).items())
    return request.SerializeToString()


def event_uid(anomaly: Anomaly) -> str:
    """Return the `log.record.uid` of the event that tells how an anomaly is: the same whenever it is made."""
    if anomaly.state == AnomalyState.ONGOING.value:
        return f"{anomaly.id}-{anomaly.state}-{anomaly.window_count}"
    return f"{anomaly.id}-{anomaly.state}"


def is_own(scope_name: str, event_name: str) -> bool:
    """Return True for a log record that we wrote ourselves, which must not be scored again.

    >>> is_own("driftlock.cbad", ""), is_own("checkout", "checkout.paid")
    (True, False)
    """
    return scope_name == SCOPE_NAME or event_name.startswith(_EVENT_NAMESPACE)


def _attributes(anomaly: Anomaly) -> Mapping[str, _Value]:
    """Return the event's attributes; facts that the anomaly lacks are left out."""
    attributes: dict[str, _Value] = {
        "log.record.uid": event_uid(anomaly),
        "driftlock.anomaly.id": anomaly.id,
        "driftlock.anomaly.state": anomaly.state,
        "driftlock.anomaly.signal": anomaly.stream.kind,
        "driftlock.anomaly.severity": anomaly.severity,
        "driftlock.anomaly.level": anomaly.level,
        "driftlock.anomaly.windows": anomaly.window_count,
        "driftlock.anomaly.score": anomaly.score,
        "driftlock.anomaly.p_value": anomaly.p_value,
        "driftlock.anomaly.bits": anomaly.bits,
        "driftlock.anomaly.ncd": anomaly.ncd,
        "driftlock.anomaly.compression_ratio": anomaly.compression_ratio,
        "driftlock.anomaly.baseline_compression_ratio": anomaly.baseline_compression_ratio,
        "driftlock.anomaly.entropy_bits": anomaly.entropy_bits,
        "driftlock.anomaly.baseline_entropy_bits": anomaly.baseline_entropy_bits,
        "driftlock.anomaly.window.start_time_unix_nano": anomaly.window_start_unix_nano,
        "driftlock.anomaly.window.end_time_unix_nano": anomaly.window_end_unix_nano,
        "driftlock.anomaly.window.size": anomaly.record_count,
        "driftlock.anomaly.baseline.windows": anomaly.baseline_windows,
        "driftlock.anomaly.baseline.records": anomaly.baseline_records,
        "driftlock.stream": str(anomaly.stream),
        "driftlock.detector.fingerprint": anomaly.fingerprint,
        "driftlock.compressor": anomaly.compressor,
    }
    optional: dict[str, _Value] = {
        "driftlock.anomaly.type": anomaly.evidence[0].kind if anomaly.evidence else "",
        # One column may give evidence of several kinds.
        "driftlock.anomaly.fields": list(dict.fromkeys(evidence.column for evidence in anomaly.evidence)),
        "driftlock.anomaly.explanations": [f"{item.text} ({item.bits:.1f} bits)" for item in anomaly.evidence],
        "driftlock.anomaly.related_trace_ids": anomaly.related_trace_ids,
        "driftlock.anomaly.resolution": anomaly.resolution,
        "driftlock.incident.id": anomaly.incident_id,
        "log.record.template": anomaly.template,
    }
    return attributes | {key: value for key, value in optional.items() if value}


def _occurred_unix_nano(anomaly: Anomaly) -> int:
    """Return when it happened: that it began, went on, or ended."""
    if anomaly.state == AnomalyState.RESOLVED.value and anomaly.resolved_unix_nano:
        return anomaly.resolved_unix_nano
    if anomaly.state == AnomalyState.ONGOING.value and anomaly.last_unix_nano:
        return anomaly.last_unix_nano
    return anomaly.detected_unix_nano


def _resource(anomaly: Anomaly) -> Resource:
    if anomaly.resource:
        try:
            return Resource.FromString(anomaly.resource)
        except ProtobufDecodeError:
            pass  # An event from a source we cannot quote is still worth sending.
    name = KeyValue(key="service.name", value=AnyValue(string_value=_text(anomaly.stream.service)))
    return Resource(attributes=[name])


def _set_trace(record: LogRecord, anomaly: Anomaly) -> None:
    """Set the ids that are valid: a span belongs to a trace, and zeros are no id."""
    trace_id = _id_bytes(anomaly.trace_id, 16)
    if not trace_id:
        return
    record.trace_id = trace_id
    record.span_id = _id_bytes(anomaly.span_id, 8)
    if anomaly.stream.kind == StreamKind.TRACES.value:
        # Only sampled spans are exported; of a log record's trace we do not know it.
        record.flags = _TRACE_FLAG_SAMPLED


def _id_bytes(digits: str, size: int) -> bytes:
    try:
        identifier = bytes.fromhex(digits)
    except ValueError:
        return b""
    return identifier if len(identifier) == size and any(identifier) else b""


def _any_value(value: _Value) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=_text(value))
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    array = AnyValue()
    array.array_value.values.extend(AnyValue(string_value=_text(item)) for item in value)
    return array


def _text(text: str) -> str:
    """Return `text` without lone surrogates, which UTF-8, and so protobuf, cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
