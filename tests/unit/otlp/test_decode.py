from __future__ import annotations

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from driftlock_otlp.errors import DecodeError
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp import decode


def _length_delimited(number: int, content: bytes) -> bytes:
    length = len(content)
    encoded = b""
    while length > 127:
        encoded += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + encoded + bytes([length]) + content


@pytest.mark.parametrize("signal", list(Signal))
def test_request_class_is_the_one_of_the_signals_service(signal: Signal) -> None:
    package, _, service = signal.grpc_service.rpartition(".")
    descriptor = decode.request_class(signal).DESCRIPTOR
    assert descriptor.full_name == f"{package}.Export{service}Request"


@pytest.mark.parametrize("signal", list(Signal))
def test_empty_payload_is_a_request_without_items(signal: Signal) -> None:
    assert decode.count_items(signal, decode.decode(signal, b"")) == 0


def test_log_records_are_counted_over_all_resources_and_scopes() -> None:
    request = decode.request_class(Signal.LOGS)()
    for records in (2, 0, 3):
        request.resource_logs.add().scope_logs.add().log_records.extend([LogRecord()] * records)
    request.resource_logs[0].scope_logs.add().log_records.add()
    assert decode.count_items(Signal.LOGS, request) == 6


def test_spans_are_counted_and_their_events_are_not() -> None:
    request = decode.request_class(Signal.TRACES)()
    scope = request.resource_spans.add().scope_spans.add()
    scope.spans.add().events.add()
    scope.spans.add().links.add()
    assert decode.count_items(Signal.TRACES, request) == 2


def test_data_points_of_every_metric_kind_are_counted() -> None:
    request = decode.request_class(Signal.METRICS)()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    for kind in ("gauge", "sum", "histogram", "exponential_histogram", "summary"):
        points = getattr(metrics.add(), kind).data_points
        points.add()
        points.add()
    metrics.add(name="without data")
    assert decode.count_items(Signal.METRICS, request) == 10


@pytest.mark.parametrize("payload", [b"\xff\xff", b"\x0a\x05abc", b"\x0b", b"\x0a\x04\x12\x02\x12\xff"])
def test_malformed_protobuf_is_refused_and_the_request_named(payload: bytes) -> None:
    with pytest.raises(DecodeError, match="not a valid ExportLogsServiceRequest in protobuf"):
        decode.decode(Signal.LOGS, payload)


def test_string_that_is_not_utf8_is_refused() -> None:
    record = _length_delimited(3, b"\xff")
    payload = _length_delimited(1, _length_delimited(2, _length_delimited(2, record)))
    with pytest.raises(DecodeError, match="UTF-8"):
        decode.decode(Signal.LOGS, payload)


def test_nesting_beyond_the_parsers_depth_is_refused() -> None:
    value = AnyValue(string_value="deep").SerializeToString()
    for _ in range(200):
        value = _length_delimited(5, _length_delimited(1, value))
    payload = _length_delimited(1, _length_delimited(2, _length_delimited(2, _length_delimited(5, value))))
    with pytest.raises(DecodeError, match="nest too deeply"):
        decode.decode(Signal.LOGS, payload)


def test_unknown_fields_survive_decoding_and_encoding() -> None:
    record = LogRecord(severity_text="INFO").SerializeToString() + b"\xca\x3e\x03new"  # field 1001
    payload = _length_delimited(1, _length_delimited(2, _length_delimited(2, record))) + b"\xd0\x3e\x07"
    assert decode.encode(decode.decode(Signal.LOGS, payload)) == payload


@pytest.mark.parametrize("signal", list(Signal))
def test_request_of_millions_of_empty_messages_is_refused_before_it_is_unfolded(signal: Signal) -> None:
    for empty in (b"\n\x00", b"\n\x02\x12\x00"):
        with pytest.raises(DecodeError, match="consists of empty messages"):
            decode.decode(signal, empty * (1 << 20))
    decode.decode(signal, b"\n\x00" * 1000)


@pytest.mark.parametrize("signal", list(Signal))
def test_more_envelopes_than_are_allowed_are_refused(signal: Signal) -> None:
    schema_url = b"\x1a\x0fhttps://a.b/cde"
    for scopes in (1, decode.MOST_ENVELOPES + 1):
        resource = b"".join(_length_delimited(2, schema_url) for _ in range(scopes))
        resources = decode.MOST_ENVELOPES + 1 if scopes == 1 else 1
        request = decode.decode(signal, _length_delimited(1, resource) * resources)
        with pytest.raises(DecodeError, match=f"{decode.MOST_ENVELOPES} are allowed"):
            decode.count_items(signal, request)


def test_large_request_with_many_empty_values_is_taken() -> None:
    record = LogRecord(body=AnyValue(string_value="x" * 40))
    record.attributes.add(key="empty").value.string_value = ""
    payload = _length_delimited(1, _length_delimited(2, _length_delimited(2, record.SerializeToString()) * 30_000))
    assert len(payload) > 1 << 20
    assert decode.count_items(Signal.LOGS, decode.decode(Signal.LOGS, payload)) == 30_000
