"""Every file format, as the requests it becomes."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from driftlock_otlp.config.root import Config
from driftlock_otlp.errors import ConfigError, InputError
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import decode
from driftlock_otlp.replay.batches import Batch
from driftlock_otlp.replay.fields import FieldOptions
from driftlock_otlp.replay.formats import Format, detect, read, signals
from driftlock_otlp.replay.inputs import InputFile
from driftlock_otlp.zstandard import zstd

_CONFIG = Config()
_SECOND = 10**9
_T0 = 1_700_000_000


def _write(path: Path, text: str | bytes) -> InputFile:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return InputFile(str(path))


def _read(file: InputFile, format_: Format | None = None, **options: Any) -> list[Batch]:
    return list(read(file, format_ or detect(file), FieldOptions(**options), _CONFIG))


def _records(batches: list[Batch]) -> list[Any]:
    return [
        record
        for batch in batches
        if batch.payload
        for resource in decode(Signal.LOGS, batch.payload).resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def _points(batches: list[Batch]) -> list[Any]:
    return [
        point
        for batch in batches
        if batch.payload
        for resource in decode(Signal.METRICS, batch.payload).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.gauge.data_points
    ]


def _attributes(item: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in item.attributes}


def _log_request(*times_s: int) -> dict[str, Any]:
    records = [{"timeUnixNano": str(time * _SECOND), "body": {"stringValue": f"at {time}"}} for time in times_s]
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}


# Which format a file has.


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "x", Format.CSV),
        ("a.CSV.gz", gzip.compress(b"x", mtime=0), Format.CSV),
        ("a.log", "x", Format.TEXT),
        ("a.txt", "x", Format.TEXT),
        ("a.pb", "x", Format.OTLP_PROTO),
        ("a.jsonl", '{"message": "paid"}\n', Format.JSONL),
        ("a.ndjson", '\n{"resourceLogs": []}\n', Format.OTLP_JSON),
        ("a.json", '{\n  "resourceSpans": [\n', Format.OTLP_JSON),
        ("a.json", '{"schema": 1, "resourceMetrics": []}', Format.OTLP_JSON),
        ("a.json", "{ broken", Format.JSONL),
        ("a.jsonl", '{"message": "\\"resourceLogs\\": []"}', Format.JSONL),
    ],
)
def test_the_format_is_told_by_suffix_and_beginning(
    tmp_path: Path, name: str, content: str | bytes, expected: Format
) -> None:
    assert detect(_write(tmp_path / name, content)) is expected


def test_an_unknown_suffix_asks_for_the_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="add --format with one of otlp-json, otlp-proto, csv, text, jsonl"):
        detect(_write(tmp_path / "a.dat", "x"))


def test_standard_input_asks_for_the_format() -> None:
    with pytest.raises(ConfigError, match="add --format"):
        detect(InputFile("-"))


def test_a_directory_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory: name the files in it"):
        InputFile(str(tmp_path))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match="nowhere.csv: No such file"):
        InputFile("nowhere.csv")


@pytest.mark.parametrize(
    ("format_", "options", "message"),
    [
        (Format.CSV, {"signal": Signal.TRACES}, "hold no spans"),
        (Format.TEXT, {"signal": Signal.METRICS}, "no numbers to score"),
        (Format.OTLP_JSON, {"time_column": "t"}, "--time-column is for csv"),
        (Format.OTLP_PROTO, {"value_column": "v"}, "--value-column is for csv"),
        (Format.OTLP_JSON, {"session_key": "re:x"}, "searches lines of text"),
        (Format.CSV, {"session_key": "re:x"}, "for metrics name a column"),
    ],
)
def test_options_that_do_not_go_with_the_format_are_refused(
    format_: Format, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        signals(format_, FieldOptions(**options))


# CSV


def test_csv_rows_are_data_points_of_a_metric_named_after_the_column(tmp_path: Path) -> None:
    file = _write(tmp_path / "cpu.csv", "timestamp,value\n2026-01-01 00:00:00,1.5\n2026-01-01 00:05:00,2\n")

    batches = _read(file)

    request = ExportMetricsServiceRequest.FromString(batches[0].payload)
    assert request.resource_metrics[0].resource.attributes[0].value.string_value == "cpu"
    assert request.resource_metrics[0].scope_metrics[0].metrics[0].name == "value"
    assert [point.as_double for point in _points(batches)] == [1.5, 2.0]
    assert [batch.clock_unix_nano for batch in batches] == [1767225600 * _SECOND, 1767225900 * _SECOND]
    assert [batch.item_rows for batch in batches] == [[0], [1]]


def test_rows_of_the_same_second_share_a_request(tmp_path: Path) -> None:
    rows = "".join(f"{_T0 + place / 10},1\n" for place in range(25))
    batches = _read(_write(tmp_path / "a.csv", f"ts,value\n{rows}"))
    assert [len(batch.item_rows) for batch in batches] == [11, 11, 3]
    assert batches[0].clock_unix_nano == (_T0 + 1) * _SECOND


def test_rows_without_a_time_have_no_clock(tmp_path: Path) -> None:
    batches = _read(_write(tmp_path / "a.csv", "value\n" + "1\n" * 300))
    assert [len(batch.item_rows) for batch in batches] == [256, 44]
    assert {batch.clock_unix_nano for batch in batches} == {0}


def test_the_clock_never_runs_backwards(tmp_path: Path) -> None:
    batches = _read(_write(tmp_path / "a.csv", f"time,value\n{_T0 + 60},1\n{_T0},2\n{_T0 + 90},3\n"))
    assert [batch.clock_unix_nano // _SECOND - _T0 for batch in batches] == [60, 60, 90]


def test_rows_without_a_value_are_kept_but_not_scored(tmp_path: Path) -> None:
    batches = _read(_write(tmp_path / "a.csv", f"time,value\n{_T0},1\n{_T0},\n{_T0},NaN\n{_T0},4\n"))
    assert [batch.item_rows for batch in batches] == [[0, 3]]
    assert batches[0].row_times_unix_nano == [_T0 * _SECOND] * 4


def test_the_only_column_of_numbers_is_the_metric(tmp_path: Path) -> None:
    batches = _read(_write(tmp_path / "a.csv", f"Time;host;load\n{_T0};web;0.5\n"))
    request = ExportMetricsServiceRequest.FromString(batches[0].payload)
    assert request.resource_metrics[0].scope_metrics[0].metrics[0].name == "load"


def test_several_columns_of_numbers_need_a_name(tmp_path: Path) -> None:
    file = _write(tmp_path / "a.csv", f"time,cpu,memory\n{_T0},1,2\n")
    with pytest.raises(ConfigError, match="Name it with --value-column; there are time, cpu, memory"):
        _read(file)
    assert [point.as_double for point in _points(_read(file, value_column="Memory"))] == [2.0]


def test_a_csv_file_without_a_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a.csv:1: .* add a header line such as timestamp,value"):
        _read(_write(tmp_path / "a.csv", "1,2\n3,4\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"time,value\n{_T0},1\nsoon,2\n", "a.csv:3: 'soon' is not a time.*--time-column none"),
        (f"time,value\n{_T0},high\n", "a.csv:2: 'high' in column 'value' is not a number"),
        (f"time,value\n{_T0},1,2\n", "a.csv:2: 3 cells, but the header has 2"),
        ("", "a CSV file starts with a line of column names"),
        ("a,a\n1,2\n", "two columns have the same name"),
    ],
)
def test_a_bad_csv_row_is_named_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _read(_write(tmp_path / "a.csv", content))


def test_times_can_be_ignored(tmp_path: Path) -> None:
    batches = _read(_write(tmp_path / "a.csv", "time,value\nsoon,1\n"), time_column="none")
    assert batches[0].clock_unix_nano == 0


def test_a_time_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--time-column when: .* has the columns time, value"):
        _read(_write(tmp_path / "a.csv", "time,value\n1,1\n"), time_column="when")


def test_csv_rows_can_be_log_records(tmp_path: Path) -> None:
    content = f'Timestamp,Level,Content,port,took,id\n{_T0},WARN,"slow, very",80,1.5,007\n'
    (record,) = _records(_read(_write(tmp_path / "a.csv", content), signal=Signal.LOGS))
    assert record.body.string_value == "slow, very"
    assert record.severity_text == "WARN"
    assert record.time_unix_nano == _T0 * _SECOND
    assert _attributes(record) == {"port": 80, "took": 1.5, "id": "007"}


def test_csv_log_records_need_a_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which column holds the text"):
        _read(_write(tmp_path / "a.csv", "time,value\n1,1\n"), signal=Signal.LOGS)


def test_a_metric_carries_its_session_column_only(tmp_path: Path) -> None:
    file = _write(tmp_path / "a.csv", "time,run,label,value\n1,r1,0,5\n")
    (point,) = _points(_read(file, session_key="run"))
    assert _attributes(point) == {"run": "r1"}
    with pytest.raises(ConfigError, match="--session-key lap: .* has the columns"):
        _read(file, session_key="lap")


# Text


def test_lines_of_text_are_log_records_of_a_service_named_after_the_file(tmp_path: Path) -> None:
    batches = _read(_write(tmp_path / "app.log.gz", gzip.compress(b"one\n\n  two \xff\n")))
    assert [record.body.string_value for record in _records(batches)] == ["one", "  two �"]
    assert batches[0].item_rows == [0, 2]
    assert len(batches[0].row_times_unix_nano) == 3
    request = ExportLogsServiceRequest.FromString(batches[0].payload)
    assert request.resource_logs[0].resource.attributes[0].value.string_value == "app"


def test_the_time_field_of_a_line_is_read_and_taken_out(tmp_path: Path) -> None:
    file = _write(tmp_path / "a.log", f"- {_T0} node  up\n- 2026-01-01T00:00:00Z node down\n")
    batches = _read(file, time_column="2")
    assert [record.body.string_value for record in _records(batches)] == ["- node  up", "- node down"]
    assert [time // _SECOND for batch in batches for time in batch.row_times_unix_nano] == [_T0, 1767225600]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"time_column": "2"}, InputError, "a.log:1: 'b' is not a time"),
        ({"time_column": "9"}, InputError, "a.log:1: no field 9"),
        ({"time_column": "ts"}, ConfigError, "give the number of the field"),
        ({"session_key": "block"}, ConfigError, "lines of text have no fields"),
        ({"session_key": "re:("}, ConfigError, "not a regular expression"),
        ({"session_key": "re:(a)(b)"}, ConfigError, "at most one group"),
        ({"value_column": "b"}, ConfigError, "lines of text have no columns"),
    ],
)
def test_options_that_do_not_fit_text_are_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _read(_write(tmp_path / "a.log", "a b c\n"), **options)


def test_a_pattern_finds_the_session_in_a_line(tmp_path: Path) -> None:
    file = _write(tmp_path / "a.log", "got blk_-12 from a\nnothing\n")
    first, second = _records(_read(file, session_key=r"re:blk_(-?\d+)"))
    assert _attributes(first) == {"session": "-12"}
    assert _attributes(second) == {}


# JSON lines


def test_lines_of_json_are_log_records(tmp_path: Path) -> None:
    line = {
        "ts": _T0,
        "level": "error",
        "msg": "paid",
        "amount": 5,
        "ok": True,
        "nested": {"a": 1},
        "nothing": None,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
    }
    (record,) = _records(_read(_write(tmp_path / "a.jsonl", msgspec.json.encode(line) + b"\n\n")))
    assert (record.body.string_value, record.severity_text) == ("paid", "error")
    assert record.time_unix_nano == _T0 * _SECOND
    assert record.trace_id.hex() == line["trace_id"]
    assert record.span_id.hex() == line["span_id"]
    assert _attributes(record) == {"amount": 5, "ok": True}


def test_lines_of_json_can_be_a_metric(tmp_path: Path) -> None:
    file = _write(tmp_path / "a.jsonl", f'{{"time": {_T0}, "cpu": 0.5}}\n{{"time": {_T0}, "cpu": null}}\n')
    batches = _read(file, signal=Signal.METRICS, value_column="cpu")
    assert [point.as_double for point in _points(batches)] == [0.5]
    assert len(batches[0].row_times_unix_nano) == 2


def test_numbers_beyond_64_bits_are_kept_as_text(tmp_path: Path) -> None:
    (record,) = _records(_read(_write(tmp_path / "a.jsonl", f'{{"msg": "x", "n": {1 << 70}}}')))
    assert _attributes(record) == {"n": str(1 << 70)}


@pytest.mark.parametrize(
    ("content", "options", "error", "message"),
    [
        ('{"msg": "a"}\n{"msg": \n', {}, InputError, "a.jsonl:2: not valid JSON"),
        ("[1]\n", {}, InputError, "a.jsonl:1: not a JSON object"),
        ('{"time": "soon"}\n', {}, InputError, "a.jsonl:1: 'soon' is not a time"),
        ('{"msg": "a"}\n', {"time_column": "when"}, InputError, "a.jsonl:1: no field 'when'"),
        ('{"msg": "a"}\n', {"session_key": "user"}, ConfigError, "no line of .* has that field"),
        ('{"cpu": 1}\n', {"signal": Signal.METRICS}, ConfigError, "no field 'value'"),
    ],
)
def test_a_bad_json_line_is_named(
    tmp_path: Path, content: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _read(_write(tmp_path / "a.jsonl", content), Format.JSONL, **options)


# OTLP


def test_otlp_json_lines_tell_their_signal(tmp_path: Path) -> None:
    metric = {"name": "m", "gauge": {"dataPoints": [{"timeUnixNano": str(_T0 * _SECOND), "asDouble": 1}]}}
    lines = [_log_request(_T0), {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}]
    file = _write(tmp_path / "a.jsonl", b"\n".join(map(msgspec.json.encode, lines)))
    batches = _read(file)
    assert [batch.signal for batch in batches] == [Signal.LOGS, Signal.METRICS]
    assert [batch.item_rows for batch in batches] == [[0], [1]]


@pytest.mark.parametrize(
    ("name", "compress"),
    [("a.json", bytes), ("a.json.gz", gzip.compress), ("a.json.xz", lzma.compress), ("a.json.zst", zstd.compress)],
)
def test_a_printed_document_is_one_request_however_compressed(tmp_path: Path, name: str, compress: Any) -> None:
    document = msgspec.json.format(msgspec.json.encode(_log_request(_T0, _T0)), indent=2)
    batches = _read(_write(tmp_path / name, compress(document)))
    assert [batch.item_rows for batch in batches] == [[0, 1]]


def test_a_long_request_is_divided_by_time_and_keeps_its_rows(tmp_path: Path) -> None:
    request = _log_request(_T0 + 60, _T0, _T0 + 60, _T0 + 120)
    request["resourceLogs"][0]["resource"] = {"attributes": [{"key": "service.name", "value": {"stringValue": "pay"}}]}
    batches = _read(_write(tmp_path / "a.json", msgspec.json.encode(request)))
    assert [batch.item_rows for batch in batches] == [[1], [0, 2], [3]]
    assert [len(batch.row_times_unix_nano) for batch in batches] == [4, 0, 0]
    assert [record.body.string_value for record in _records(batches)] == [
        f"at {_T0}",
        f"at {_T0 + 60}",
        f"at {_T0 + 60}",
        f"at {_T0 + 120}",
    ]
    for batch in batches:
        (resource,) = ExportLogsServiceRequest.FromString(batch.payload).resource_logs
        assert resource.resource.attributes[0].value.string_value == "pay"


def test_a_long_request_of_counters_keeps_what_they_are(tmp_path: Path) -> None:
    points = [{"timeUnixNano": str((_T0 + 60 * place) * _SECOND), "asInt": str(place)} for place in range(3)]
    metric = {
        "name": "m",
        "unit": "By",
        "sum": {"dataPoints": points, "aggregationTemporality": 2, "isMonotonic": True},
    }
    request = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
    batches = _read(_write(tmp_path / "a.json", msgspec.json.encode(request)))
    assert len(batches) == 3
    for batch in batches:
        (resource,) = ExportMetricsServiceRequest.FromString(batch.payload).resource_metrics
        (divided,) = resource.scope_metrics[0].metrics
        assert (divided.name, divided.unit) == ("m", "By")
        assert (divided.sum.aggregation_temporality, divided.sum.is_monotonic) == (2, True)
        assert len(divided.sum.data_points) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"resourceLogs": []}\n{"resourceLogs": \n', "a.json:2: not valid JSON"),
        ('{"resourceLogs": []}\n{"other": 1}\n', "a.json:2: .*none of resourceLogs"),
        ('{"resourceLogs": {}}', "a.json:1: not valid OTLP/JSON: resourceLogs: expected a list"),
        ('{\n  "resourceLogs": [\n  oops\n]}', "a.json:3: not valid JSON"),
    ],
)
def test_a_bad_otlp_line_is_named_with_the_reason(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _read(_write(tmp_path / "a.json", content))


def test_a_signal_that_the_file_contradicts_is_refused(tmp_path: Path) -> None:
    file = _write(tmp_path / "a.json", msgspec.json.encode(_log_request(_T0)))
    with pytest.raises(InputError, match="a.json:1: holds logs; leave --signal out"):
        _read(file, signal=Signal.TRACES)


def _protobuf(*times_s: int) -> bytes:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for time in times_s:
        records.add(time_unix_nano=time * _SECOND)
    return request.SerializeToString()


def _framed(*messages: bytes) -> bytes:
    return b"".join(len(message).to_bytes(4, "big") + message for message in messages)


@pytest.mark.parametrize(
    "content",
    [
        _framed(_protobuf(_T0), _protobuf(_T0)),
        _framed(zstd.compress(_protobuf(_T0)), zstd.compress(_protobuf(_T0))),
        _protobuf(_T0) + _protobuf(_T0),
    ],
    ids=["length-delimited", "length-delimited and compressed", "one request"],
)
def test_otlp_protobuf_is_read_in_the_collectors_forms(tmp_path: Path, content: bytes) -> None:
    batches = _read(_write(tmp_path / "a.pb", content), signal=Signal.LOGS)
    assert [row for batch in batches for row in batch.item_rows] == [0, 1]


def test_otlp_json_is_read_in_the_collectors_compressed_form(tmp_path: Path) -> None:
    message = zstd.compress(msgspec.json.encode(_log_request(_T0)))
    assert len(_read(_write(tmp_path / "a.json.zst", _framed(message, message)))) == 2


@pytest.mark.parametrize(
    ("content", "options", "error", "message"),
    [
        (_protobuf(_T0), {}, ConfigError, "protobuf does not tell what it holds: add --signal"),
        (_protobuf(_T0)[:-1], {"signal": Signal.LOGS}, InputError, "a.pb: .*is it logs?"),
        (_framed(_protobuf(_T0))[:-1], {"signal": Signal.LOGS}, InputError, "message at byte 0 .* cut off"),
        (b"hello, world", {"signal": Signal.LOGS}, InputError, "neither an OTLP request"),
        (b"\x0a\x00", {"signal": Signal.TRACES}, InputError, "holds no spans; is it traces?"),
    ],
)
def test_bad_protobuf_is_named_with_the_remedy(
    tmp_path: Path, content: bytes, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _read(_write(tmp_path / "a.pb", content), **options)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a.log.gz: cannot be decompressed"):
        _read(_write(tmp_path / "a.log.gz", gzip.compress(b"line\n" * 1000)[:-10]))


def test_progress_counts_the_bytes_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.log.gz"
    path.write_bytes(gzip.compress(b"line\n" * 1000))
    counts: list[int] = []
    file = InputFile(str(path), counts.append)
    _read(file)
    assert sum(counts) == file.size_bytes == path.stat().st_size
