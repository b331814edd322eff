"""The suite of labelled single metrics, on series made for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from driftlock_otlp.config.root import Config
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation import metrics
from driftlock_otlp.evaluation.baselines import every_row, ewma_z
from driftlock_otlp.evaluation.metrics import run_metrics

ROWS, FAULT = 260, slice(220, 230)
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An hourly series whose fault lasts ten hours, with a hole in it, and one without."""
    # The others take seconds to load, and have tests of their own.
    monkeypatch.setattr(metrics, "SERIES_BASELINES", {"EWMA z-score": ewma_z, "every row": every_row})
    folder = tmp_path / "ms_cloud" / "made"
    folder.mkdir(parents=True)
    random = np.random.default_rng(3)
    for name, jump in (("fault-01", 50.0), ("calm-01", 0.0)):
        values = 100.0 + random.normal(0.0, 1.0, ROWS)
        values[FAULT] += jump * (1.0 + np.arange(10) / 20.0)
        lines = ["TimeStamp,Value,Label"]
        for row in range(ROWS):
            value = "" if row == 50 else f"{values[row]:.3f}"
            label = int(jump > 0 and FAULT.start <= row < FAULT.stop)
            lines.append(f"{START + timedelta(hours=row):%Y-%m-%d %H:%M:%S},{value},{label}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_fault_is_found_at_its_onset_and_ranked_for_its_length(data: Path) -> None:
    seen: list[str] = []
    result = run_metrics(data, Config(), lambda name, *_: seen.append(name))
    assert seen == ["calm-01", "fault-01"]
    assert result.record_count == 2 * ROWS
    at_the_bar, ranking, _ = result.tables
    recall, precision, *_ = at_the_bar.rows[0].figures
    assert (recall, precision) == (1.0, 1.0)
    figures = {row.detector: row.figures for row in ranking.rows}
    assert figures["Driftlock"][0] == pytest.approx(1.0, abs=0.02)
    assert figures["Driftlock"][3] is not None
    assert figures["Driftlock"][3] > 0.9
    assert figures["every row"][0] == pytest.approx(0.5, abs=0.01)
    assert figures["every row"][3] == pytest.approx(10 / ROWS, rel=0.01)


def test_missing_and_damaged_data_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data"):
        run_metrics(tmp_path / "elsewhere", Config(), lambda *_: None)
    (data / "ms_cloud" / "made" / "calm-01.csv").write_text("TimeStamp,Value\n2026-01-01 00:00:00,1\n")
    with pytest.raises(InputError, match=r"calm-01\.csv"):
        run_metrics(data, Config(), lambda *_: None)
