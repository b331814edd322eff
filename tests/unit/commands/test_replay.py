"""What `replay` prints, and its exit codes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from driftlock_otlp.__main__ import main
from tests.unit.replay.series import SETTINGS, write_log, write_metric

_SETTINGS = [argument for setting in SETTINGS for argument in ("--set", setting)]


def test_streams_and_anomalies_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(write_metric(tmp_path / "cpu.csv")), *_SETTINGS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["STREAM", "RECORDS", "WINDOWS"]
    assert lines[1].split()[:3] == ["metrics/cpu/value", "240", "80"]
    assert "1 anomaly:" in lines
    text = "\n".join(lines)
    assert "resolved (recovered)" in text
    assert "records 201 to " in text
    assert "BITS  COLUMN  KIND" in text


def test_a_calm_file_has_no_anomalies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_metric(tmp_path / "cpu.csv", has_fault=False)
    assert main(["replay", str(path), *_SETTINGS]) == 0
    assert capsys.readouterr().out.endswith("\nNo anomalies.\n")


def test_too_little_data_is_said_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_log(tmp_path / "app.log", rows=1000)
    assert main(["replay", str(path)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "Every stream was still warming up when its data ended" in output
    assert "A stream of logs needs about 32 windows before it can alarm: 12 for its baseline" in output
    remedy = output.partition("Use smaller windows: ")[2].partition(";")[0]
    assert remedy.startswith("--set windows.logs.size=")
    assert main(["replay", str(path), *remedy.split()]) == 0
    assert "warming up when" not in capsys.readouterr().out


def test_a_handful_of_records_is_too_little_for_any_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_log(tmp_path / "app.log", rows=100)
    assert main(["replay", str(path)]) == 0
    assert "too little data" in capsys.readouterr().out


def test_only_the_most_anomalous_streams_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for number in range(23):
        path = tmp_path / f"app{number:02}.log"
        path.write_text("one\ntwo\n")
        paths.append(str(path))
    assert main(["replay", *paths]) == 0
    output = capsys.readouterr().out
    assert output.count("logs/app") == 20
    assert "and 3 streams more" in output


def test_an_empty_file_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.log").write_text("")
    assert main(["replay", str(tmp_path / "a.log")]) == 0
    assert "No records were read" in capsys.readouterr().out


def test_a_file_of_blank_lines_has_nothing_to_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.log").write_text("\n\n")
    assert main(["replay", str(tmp_path / "a.log")]) == 0
    assert "2 records, none of which can be scored." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "options", "code", "message"),
    [
        ("a.jsonl", '{"resourceLogs": []}\n{oops', [], 1, "a.jsonl:2: not valid JSON"),
        ("a.csv", "1,2\n", [], 1, "add a header line"),
        ("a.dat", "x", [], 2, "add --format"),
        ("a.log", "x", ["--session-key", "user"], 2, "lines of text have no fields"),
        ("a.log", "x", ["--set", "windows.logs.sise=1"], 2, "did you mean 'size'?"),
        ("a.log", "x", ["--scores", "/nowhere/at/all.csv"], 1, "cannot write /nowhere/at/all.csv"),
    ],
)
def test_failures_say_what_and_where(
    tmp_path: Path,
    name: str,
    content: str,
    options: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / name).write_text(content)
    assert main(["replay", str(tmp_path / name), *options]) == code
    assert message in capsys.readouterr().err


def test_events_are_not_left_half_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"msg": "a"}\n{oops')
    assert main(["replay", str(path), "--events", str(tmp_path / "events.jsonl")]) == 1
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_a_column_tells_the_sessions_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"msg": "step {number}", "user.id": "u{number % 4}"}}\n' for number in range(12)))
    assert main(["replay", str(path), "--session-key", "user.id"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["logs/a", "12", "4"]


def test_what_another_significance_would_have_alarmed_can_be_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_metric(tmp_path / "cpu.csv"))
    for significance, is_calm in (("0.01", False), ("1e-300", True)):
        assert main(["replay", path, *_SETTINGS, "--significance", significance]) == 0
        assert capsys.readouterr().out.endswith("\nNo anomalies.\n") == is_calm
    assert main(["replay", path, "--significance", "0.7"]) == 2
    assert "significance" in capsys.readouterr().err
