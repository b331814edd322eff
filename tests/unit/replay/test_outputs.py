"""The files that a replay writes."""

from __future__ import annotations

import io
import json
import stat
from array import array
from pathlib import Path

import pytest

from driftlock_otlp.errors import InputError
from driftlock_otlp.model import StreamKey
from driftlock_otlp.replay.outputs import event_line, replaced, write_scores
from driftlock_otlp.replay.run import FileScores, Replay
from tests.unit.storage.test_anomalies import ANOMALY


def _scores(*rows: tuple[int, int, float, float, int]) -> FileScores:
    times, streams, scores, p_values, anomalous = zip(*rows, strict=True)
    return FileScores(
        array("Q", times), array("i", streams), array("d", scores), array("d", p_values), bytearray(anomalous)
    )


def test_scores_have_one_line_per_record_over_all_files() -> None:
    replay = Replay(
        files=[
            _scores((0, 0, 0.123456789, 1.0, 0), (1_700_000_000_500_000_000, -1, 0.0, 1.0, 0)),
            _scores((1_700_000_000_000_000_000, 1, 0.9999999, 0.00012345678, 1)),
        ],
        streams=[StreamKey("logs", "a"), StreamKey("metrics", "b", 'size, "net"')],
    )
    stream = io.StringIO()
    write_scores(stream, replay)
    assert stream.getvalue().splitlines() == [
        "index,timestamp,stream,score,p_value,anomalous",
        "0,,logs/a,0.123457,1,0",
        "1,2023-11-14T22:13:20.5Z,,0,1,0",
        '2,2023-11-14T22:13:20Z,"metrics/b/size, ""net""",1,0.000123457,1',
    ]


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("before")
    with pytest.raises(RuntimeError), replaced(path) as stream:
        stream.write("half")
        raise RuntimeError
    assert path.read_text() == "before"
    with replaced(path) as stream:
        stream.write("whole")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="cannot write .*nowhere/scores.csv"),
        replaced(tmp_path / "nowhere/scores.csv"),
    ):
        pass


def test_an_event_is_observed_when_it_happened() -> None:
    line = event_line(ANOMALY, "1.2.3")
    assert line.endswith("\n")
    record = json.loads(line)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    assert record["observedTimeUnixNano"] == record["timeUnixNano"] == str(ANOMALY.detected_unix_nano)
    assert event_line(ANOMALY, "1.2.3") == line
