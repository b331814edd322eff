"""`replay` as a process: the same file gives the same bytes, whoever counts."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.unit.replay.series import FAULT, ROWS, SETTINGS, write_metric

_SETTINGS = [argument for setting in SETTINGS for argument in ("--set", setting)]


def _replay(*arguments: str, seed: str = "0", stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "driftlock_otlp", "replay", *arguments, *_SETTINGS],
        input=stdin,
        capture_output=True,
        timeout=100,
        check=False,
        env=os.environ | {"PYTHONHASHSEED": seed},
    )


def test_two_replays_give_the_same_bytes(tmp_path: Path) -> None:
    path = write_metric(tmp_path / "cpu.csv")
    runs = []
    for run in ("1", "2"):
        scores, events = tmp_path / f"scores{run}.csv", tmp_path / f"events{run}.jsonl"
        done = _replay(str(path), "--scores", str(scores), "--events", str(events), seed=run)
        assert (done.returncode, done.stderr) == (0, b"")
        runs.append((done.stdout, scores.read_bytes(), events.read_bytes()))
    assert runs[0] == runs[1]

    rows = list(csv.DictReader(runs[0][1].decode().splitlines()))
    assert [row["index"] for row in rows] == [str(index) for index in range(ROWS)]
    assert list(rows[0]) == ["index", "timestamp", "stream", "score", "p_value", "anomalous"]
    assert rows[0]["timestamp"] == "2026-01-01T00:00:00Z"
    assert {row["stream"] for row in rows} == {"metrics/cpu/value"}
    assert all(0 <= float(row["score"]) <= 1 and 0 < float(row["p_value"]) <= 1 for row in rows)
    # Of the window in which it begins one record of three is odd, and the series is young.
    assert all(rows[index]["anomalous"] == "1" for index in FAULT[1:])
    assert float(rows[FAULT.start + 1]["score"]) > 0.5

    events = [json.loads(line) for line in runs[0][2].splitlines()]
    names = [event["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["eventName"] for event in events]
    assert names == ["driftlock.anomaly.detected"] * 2


def test_standard_input_is_scored_and_events_can_go_to_a_pipe(tmp_path: Path) -> None:
    content = write_metric(tmp_path / "cpu.csv").read_bytes()
    done = _replay("--format", "csv", "--events", "/dev/stderr", "-", stdin=content)
    assert done.returncode == 0
    assert b"metrics/stdin/value" in done.stdout
    assert done.stderr.startswith(b'{"resourceLogs"')


def test_a_malformed_file_ends_with_1_and_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"resourceLogs": []}\n{"resourceLogs": {}}\n')
    done = _replay(str(path))
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"a.jsonl:2: not valid OTLP/JSON: resourceLogs: expected a list" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path: Path) -> None:
    path = write_metric(tmp_path / "cpu.csv", rows=30)
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "driftlock_otlp", "replay", str(path)],
            stdout=pipe,
            stderr=subprocess.PIPE,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
