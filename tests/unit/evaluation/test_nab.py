"""The suite on series made for it; the real ones are not part of the project."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from driftlock_otlp.__main__ import main
from driftlock_otlp.config.root import Config
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation import nab
from driftlock_otlp.evaluation.baselines import every_row
from driftlock_otlp.evaluation.nab import run_nab

ROWS = 320
FAULT_ROW = 280
START = datetime(2026, 1, 1, tzinfo=UTC)


def moment(row: int) -> str:
    return f"{START + timedelta(minutes=5 * row):%Y-%m-%d %H:%M:%S}"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A series with one fault that nobody could miss, and one without."""
    # The others take seconds to load, and have tests of their own.
    monkeypatch.setattr(nab, "SERIES_BASELINES", {"every row": every_row})
    folder = tmp_path / "nab" / "data" / "made"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(5).normal(0.0, 1.0, ROWS)
    for name, fault in (("fault.csv", 60.0), ("calm.csv", 0.0)):
        lines = ["timestamp,value"]
        for row in range(ROWS):
            value = 100.0 + 10.0 * math.sin(row / 46.0) + noise[row] + (fault if row == FAULT_ROW else 0.0)
            lines.append(f"{moment(row)},{value:.3f}")
        (folder / name).write_text("\n".join(lines) + "\n")
    labels = {"made/fault.csv": [[moment(FAULT_ROW - 20), moment(FAULT_ROW + 20)]], "made/calm.csv": []}
    (tmp_path / "nab" / "combined_windows.json").write_text(json.dumps(labels))
    scores = {"standard": 50.0, "reward_low_FP_rate": 40.0, "reward_low_FN_rate": 60.0, "files": 58}
    published = {"somebody": {"dev": {**scores, "files": 34}, "all": scores}}
    (tmp_path / "nab" / "published_detectors.json").write_text(json.dumps(published))
    return tmp_path


def test_the_fault_is_found_with_the_threshold_that_was_fixed_beforehand(data: Path) -> None:
    seen: list[str] = []
    result = run_nab(data, Config(), lambda name, number, count: seen.append(f"{number + 1}/{count} {name}"))
    assert seen == ["1/2 made/calm.csv", "2/2 made/fault.csv"]
    assert result.record_count == 2 * ROWS
    fixed, chosen = result.tables
    assert all(figure is not None and figure > 60.0 for figure in fixed.rows[0].figures)
    by_name = {row.detector: row for row in chosen.rows}
    assert by_name["somebody"].figures == (50.0, 40.0, 60.0)
    assert by_name["somebody"].source == "published results on all 58 files"
    ours, every_row = by_name["Driftlock"].figures, by_name["every row"].figures
    assert all(
        mine is not None and flat is not None and mine > flat for mine, flat in zip(ours, every_row, strict=True)
    )


def test_the_command_prints_writes_and_repeats_itself(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = []
    for run in ("one", "two"):
        report = tmp_path / run
        assert main(["evaluate", "nab", "--data", str(data), "--report", str(report)]) == 0
        files = {path.name: path.read_text() for path in report.iterdir()}
        figures = json.loads(files.pop("nab.json"))
        assert figures.pop("cpu_s") > 0.0
        files["nab.md"] = re.sub(r"^Cost: .*$", "", files["nab.md"], flags=re.MULTILINE)
        written.append((figures, files))
    assert written[0] == written[1]
    captured = capsys.readouterr()
    assert "Threshold fixed beforehand" in captured.out
    assert "nab: 2 of 2: made/fault.csv" in captured.err
    files = written[0][1]
    assert "| somebody | 50.0 | 40.0 | 60.0 | published results on all 58 files |" in files["nab.md"]
    for drawn in re.findall(r"\]\((.*\.svg)\)", files["nab.md"]):
        assert "Driftlock" in files[drawn]
    assert "## [nab](nab.md)" in files["README.md"]


def test_missing_and_damaged_data_are_named_with_the_remedy(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"combined_windows\.json: is not there; .* --data"):
        run_nab(tmp_path / "elsewhere", Config(), lambda *_: None)
    (data / "nab" / "data" / "made" / "calm.csv").write_text("timestamp,value\n2026-01-01 00:00:00,x\n")
    with pytest.raises(InputError, match=r"calm\.csv"):
        run_nab(data, Config(), lambda *_: None)
