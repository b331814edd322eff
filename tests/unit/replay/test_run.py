"""Scores of files: one per record, whatever becomes of it, and the same whenever they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from driftlock_otlp.config.file import load
from driftlock_otlp.detection.compressor import ZstdCompressor
from driftlock_otlp.errors import ConfigError
from driftlock_otlp.model import Anomaly
from driftlock_otlp.otlp.anomaly_event import SCOPE_NAME
from driftlock_otlp.replay.fields import FieldOptions
from driftlock_otlp.replay.inputs import InputFile
from driftlock_otlp.replay.run import NO_STREAM, Replay, recognise, replay
from tests.unit.replay.series import FAULT, ROWS, SETTINGS, T0_UNIX_NANO, write_log, write_metric

_CONFIG = load(None, SETTINGS, {})
_SECOND = 10**9


def _replay(*paths: Path, events: list[Anomaly] | None = None, **options: Any) -> Replay:
    files = [InputFile(str(path)) for path in paths]
    fields = FieldOptions(**options)
    on_event = [].append if events is None else events.append
    return replay(files, recognise(files, None, fields), fields, _CONFIG, ZstdCompressor(), on_event)


def test_a_jump_of_a_metric_is_found_where_it_is(tmp_path: Path) -> None:
    events: list[Anomaly] = []
    result = _replay(write_metric(tmp_path / "cpu.csv"), events=events)

    (scores,) = result.files
    assert len(scores.scores) == ROWS
    assert list(scores.times_unix_nano) == [T0_UNIX_NANO + row * 10 * _SECOND for row in range(ROWS)]
    assert max(range(ROWS), key=lambda row: scores.scores[row]) in FAULT
    # Of the window in which it begins one record of three is odd, and the series is young.
    assert all(scores.anomalous[row] for row in FAULT[1:])
    assert not any(scores.anomalous[: FAULT.start - 3])

    (found,) = result.summary.found
    assert events[0].id == found.anomaly.id
    assert events[0].state == "open"
    ((file, first, last),) = found.records
    assert file == 0
    assert first <= FAULT.start + 1 <= FAULT.stop - 1 <= last
    assert str(found.anomaly.stream) == "metrics/cpu/value"


def test_an_anomaly_that_ends_is_told_twice(tmp_path: Path) -> None:
    events: list[Anomaly] = []
    result = _replay(write_metric(tmp_path / "cpu.csv"), events=events)
    assert [event.state for event in events] == ["open", "resolved"]
    assert result.summary.found[0].anomaly == events[1]
    assert events[1].resolved_unix_nano > events[1].detected_unix_nano


def test_new_lines_of_a_log_are_found(tmp_path: Path) -> None:
    result = _replay(write_log(tmp_path / "app.log"))
    assert any(first <= 345 <= last for found in result.summary.found for _, first, last in found.records)
    assert set(result.files[0].times_unix_nano) == {0}


def test_a_file_gets_the_same_scores_whatever_is_beside_it(tmp_path: Path) -> None:
    first = write_metric(tmp_path / "a.csv", rows=150)
    second = write_metric(tmp_path / "b.csv", seed=2, rows=150, has_fault=False)
    together = _replay(first, second)
    for number, path in enumerate((first, second)):
        alone = _replay(path).files[0]
        assert alone.scores == together.files[number].scores
        assert alone.p_values == together.files[number].p_values
    assert together.index(1, 3) == 153


def test_records_without_a_value_keep_their_row_with_score_0(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("value\n1\n\nNaN\n2\n")
    (scores,) = _replay(path).files
    assert len(scores.scores) == 3
    assert list(scores.streams) == [0, NO_STREAM, 0]
    assert (scores.scores[1], scores.p_values[1], scores.anomalous[1]) == (0.0, 1.0, 0)


def _logs(service: str, scope: str, *times_s: int) -> dict[str, Any]:
    records = [{"timeUnixNano": str(time * _SECOND), "body": {"stringValue": "x"}} for time in times_s]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": {"name": scope}, "logRecords": records}]}]}


def test_our_own_events_are_not_scored_but_keep_their_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(msgspec.json.encode(_logs("a", scope, 1_700_000_000)) for scope in ("", SCOPE_NAME)))
    (scores,) = _replay(path).files
    assert list(scores.streams) == [0, NO_STREAM]


def test_otlp_files_are_read_side_by_side_by_time(tmp_path: Path) -> None:
    early, late = tmp_path / "early.jsonl", tmp_path / "late.jsonl"
    early.write_bytes(b"\n".join(msgspec.json.encode(_logs("a", "", 1_700_000_000 + at)) for at in (0, 100)))
    late.write_bytes(b"\n".join(msgspec.json.encode(_logs("b", "", 1_700_000_000 + at)) for at in (50, 150)))

    result = _replay(late, early)

    # Windows of each service close by age, which they could not if one file came after the other.
    assert {str(stream.stream): stream.window_count for stream in result.summary.streams()} == {
        "logs/a": 2,
        "logs/b": 2,
    }
    assert [list(scores.streams) for scores in result.files] == [[1, 1], [0, 0]]


def test_a_session_key_gives_each_value_its_window(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(f"session {number % 7} does this\n" for number in range(21)))
    options = FieldOptions(session_key=r"re:session (\d)")
    config = load(None, [f"windows.logs.session_key={options.session_attribute}"], {})
    files = [InputFile(str(path))]
    result = replay(files, recognise(files, None, options), options, config, ZstdCompressor())
    assert result.summary.streams()[0].window_count == 7


def test_standard_input_can_be_read_only_once() -> None:
    files = [InputFile("-"), InputFile("-")]
    with pytest.raises(ConfigError, match="only once"):
        recognise(files, None, FieldOptions())
