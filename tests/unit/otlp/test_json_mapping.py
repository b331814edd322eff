from __future__ import annotations

import json
import math
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from driftlock_otlp.errors import DecodeError
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp import decode
from driftlock_otlp.otlp.json_mapping import request_from_json, request_to_json

TRACE_ID = "5b8efff798038103d269b633813fc60c"
SPAN_ID = "eee19b7ec3c1b174"


def read_record(**fields: Any) -> LogRecord:
    tree = {"resourceLogs": [{"scopeLogs": [{"logRecords": [fields]}]}]}
    request: Any = request_from_json(Signal.LOGS, json.dumps(tree).encode())
    record: LogRecord = request.resource_logs[0].scope_logs[0].log_records[0]
    return record


def read_span(**fields: Any) -> Span:
    tree = {"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}
    request: Any = request_from_json(Signal.TRACES, json.dumps(tree).encode())
    span: Span = request.resource_spans[0].scope_spans[0].spans[0]
    return span


def read_metric(**fields: Any) -> Metric:
    tree = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [fields]}]}]}
    request: Any = request_from_json(Signal.METRICS, json.dumps(tree).encode())
    metric: Metric = request.resource_metrics[0].scope_metrics[0].metrics[0]
    return metric


def write_record(record: LogRecord) -> Any:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.append(record)
    tree = json.loads(request_to_json(Signal.LOGS, request))
    return tree["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]


def test_ids_are_hexadecimal_in_either_case() -> None:
    record = read_record(traceId=TRACE_ID.upper(), spanId=SPAN_ID)
    assert record.trace_id == bytes.fromhex(TRACE_ID)
    assert record.span_id == bytes.fromhex(SPAN_ID)


def test_ids_of_parents_links_and_exemplars_are_hexadecimal_too() -> None:
    span = read_span(parentSpanId=SPAN_ID, links=[{"traceId": TRACE_ID, "spanId": SPAN_ID}])
    assert span.parent_span_id == span.links[0].span_id == bytes.fromhex(SPAN_ID)
    assert span.links[0].trace_id == bytes.fromhex(TRACE_ID)
    metric = read_metric(gauge={"dataPoints": [{"exemplars": [{"traceId": TRACE_ID, "spanId": SPAN_ID}]}]})
    assert metric.gauge.data_points[0].exemplars[0].trace_id == bytes.fromhex(TRACE_ID)


def test_empty_id_is_no_id() -> None:
    assert read_record(traceId="", spanId="").trace_id == b""


def test_other_bytes_are_base64_in_either_alphabet_and_padding() -> None:
    for text in ("-_8=", "+/8=", "-_8"):
        assert read_record(body={"bytesValue": text}).body.bytes_value == b"\xfb\xff"


@pytest.mark.parametrize("value", ["1700000000000000001", 1700000000000000001])
def test_64_bit_integers_are_strings_or_numbers(value: object) -> None:
    assert read_record(timeUnixNano=value).time_unix_nano == 1700000000000000001


def test_integral_floats_are_integers() -> None:
    assert read_record(body={"intValue": 2.0}).body.int_value == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [("Infinity", math.inf), ("-Infinity", -math.inf), ("1.5e3", 1500.0), (2, 2.0), (0.25, 0.25), ("-0.5", -0.5)],
)
def test_doubles_are_numbers_or_strings(value: object, expected: float) -> None:
    assert read_record(body={"doubleValue": value}).body.double_value == expected


def test_nan_is_a_string() -> None:
    assert math.isnan(read_record(body={"doubleValue": "NaN"}).body.double_value)


def test_enums_are_integers_known_or_not() -> None:
    assert read_record(severityNumber=17).severity_number == 17
    assert read_span(kind=77).kind == 77


def test_every_kind_of_any_value_is_read() -> None:
    values = [
        {}, {"stringValue": ""}, {"boolValue": False}, {"intValue": "-9"}, {"doubleValue": 0.5}, {"bytesValue": "AA=="},
        {"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "mixed"}]}},
        {"kvlistValue": {"values": [{"key": "k", "value": {"boolValue": True}}]}},
    ]  # fmt: skip
    read = read_record(body={"arrayValue": {"values": values}}).body.array_value.values
    assert [value.WhichOneof("value") for value in read] == [
        None, "string_value", "bool_value", "int_value", "double_value", "bytes_value", "array_value", "kvlist_value",
    ]  # fmt: skip


def test_null_leaves_a_field_unset() -> None:
    record = read_record(severityText=None, attributes=None, body={"stringValue": None}, timeUnixNano=None)
    assert record == LogRecord(body={})


def test_unknown_fields_are_ignored_and_snake_case_names_are_unknown() -> None:
    assert read_record(severity_text="lost", newField={"deep": [1]}, severityText="kept") == LogRecord(
        severity_text="kept"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"traceId": "abcd"}, "logRecords[0].traceId: expected 32 hexadecimal digits"),
        ({"traceId": "z" * 32}, "logRecords[0].traceId: expected 32 hexadecimal digits"),
        ({"traceId": "ab " * 10 + "ab"}, "logRecords[0].traceId: expected 32 hexadecimal digits"),
        ({"spanId": TRACE_ID}, "logRecords[0].spanId: expected 16 hexadecimal digits"),
        ({"traceId": 7}, "logRecords[0].traceId: expected 32 hexadecimal digits"),
        ({"severityNumber": "SEVERITY_NUMBER_INFO"}, "does not take the names of SeverityNumber"),
        ({"severityNumber": 2**31}, "severityNumber: expected a signed 32-bit integer"),
        ({"timeUnixNano": "-1"}, "timeUnixNano: expected an unsigned 64-bit integer"),
        ({"timeUnixNano": 2**64}, "timeUnixNano: expected an unsigned 64-bit integer"),
        ({"timeUnixNano": "1_0"}, "timeUnixNano: expected"),
        ({"timeUnixNano": "9" * 5000}, "timeUnixNano: expected"),
        ({"timeUnixNano": True}, "timeUnixNano: expected"),
        ({"timeUnixNano": 1.5}, "timeUnixNano: expected"),
        ({"flags": -1}, "flags: expected an unsigned 32-bit integer"),
        ({"severityText": 5}, "severityText: expected a string, got 5"),
        ({"body": "text"}, "body: expected an object (AnyValue), got \"text\""),
        ({"body": {"boolValue": "true"}}, "body.boolValue: expected true or false"),
        ({"body": {"bytesValue": "***"}}, "body.bytesValue: expected base64"),
        ({"body": {"doubleValue": "nan"}}, "body.doubleValue: expected a number"),
        ({"body": {"doubleValue": "1e999"}}, "body.doubleValue: expected a number"),
        ({"body": {"doubleValue": 10**400}}, "body.doubleValue: expected a number"),
        ({"body": {"intValue": 1, "stringValue": "x"}}, "body: int_value and string_value exclude each other"),
        ({"attributes": {}}, "attributes: expected a list, got an object"),
        ({"attributes": [{}, None]}, "attributes[1]: expected an object (KeyValue), got null"),
        ({"attributes": [{"value": {"arrayValue": {"values": [{"intValue": "x"}]}}}]},
         "resourceLogs[0].scopeLogs[0].logRecords[0].attributes[0].value.arrayValue.values[0].intValue: expected"),
    ],
)  # fmt: skip
def test_value_that_does_not_fit_is_refused_with_its_path(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read_record(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'"\xff"', "not valid JSON"),
        (b"[]", "expected an object (ExportLogsServiceRequest), got a list"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_body_that_is_no_json_object_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        request_from_json(Signal.LOGS, body)
    assert message in str(caught.value)


@pytest.mark.parametrize("levels", [60, 250])
def test_any_value_nested_beyond_the_limit_is_refused(levels: int) -> None:
    nested = '{"arrayValue":{"values":[' * levels + "{}" + "]}}" * levels
    body = '{"resourceLogs":[{"resource":{"attributes":[{"value":' + nested + "}]}}]}"
    with pytest.raises(DecodeError, match=r"within one another|nested too deeply"):
        request_from_json(Signal.LOGS, body.encode())


def test_deepest_json_that_is_taken_is_taken_by_protobuf_too() -> None:
    body: dict[str, Any] = {}
    for _ in range(47):
        body = {"arrayValue": {"values": [body]}}
    tree = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": body}]}]}]}
    request = request_from_json(Signal.LOGS, json.dumps(tree).encode())
    assert decode.decode(Signal.LOGS, decode.encode(request)) == request


def test_output_follows_the_otlp_mapping() -> None:
    record = LogRecord(
        time_unix_nano=1700000000000000001,
        severity_number=9,
        dropped_attributes_count=3,
        trace_id=bytes.fromhex(TRACE_ID),
        span_id=bytes.fromhex(SPAN_ID),
        body={"array_value": {"values": [{"int_value": -1}, {"double_value": math.inf}, {"bytes_value": b"\xfb"}]}},
    )
    assert write_record(record) == {
        "timeUnixNano": "1700000000000000001",
        "severityNumber": 9,
        "droppedAttributesCount": 3,
        "traceId": TRACE_ID,
        "spanId": SPAN_ID,
        "body": {"arrayValue": {"values": [{"intValue": "-1"}, {"doubleValue": "Infinity"}, {"bytesValue": "+w=="}]}},
    }


def test_default_values_are_left_out_but_chosen_ones_are_not() -> None:
    assert write_record(LogRecord(severity_number=0, body={"int_value": 0})) == {"body": {"intValue": "0"}}


def test_writing_a_message_of_another_signal_is_an_error() -> None:
    with pytest.raises(TypeError, match="expected ExportTraceServiceRequest"):
        request_to_json(Signal.TRACES, ExportLogsServiceRequest())


def test_large_body_of_empty_objects_is_refused_before_it_is_unfolded() -> None:
    body = b'{"resourceLogs":[' + b"{}," * (1 << 20) + b"{}]}"
    with pytest.raises(DecodeError, match="consists of empty messages"):
        request_from_json(Signal.LOGS, body)
