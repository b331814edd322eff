"""The suite of servers with many metrics, on one made for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driftlock_otlp.config.root import Config
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation import multivariate
from driftlock_otlp.evaluation.baselines import every_row
from driftlock_otlp.evaluation.multivariate import run_multivariate, score_ticks

ROWS, WIDTH, FAULT = 200, 4, slice(120, 126)


def rows(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.5, 0.05, (ROWS, WIDTH)).astype(np.float32)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server two of whose four metrics leave their range for a while."""
    # The others take seconds to load, and have tests of their own.
    monkeypatch.setattr(multivariate, "SERIES_BASELINES", {"every row": every_row})
    (tmp_path / "asd" / "interpretation").mkdir(parents=True)
    test, label = rows(2), np.zeros(ROWS, bool)
    test[FAULT, 1:3] += np.linspace(0.6, 1.5, 6, dtype=np.float32)[:, None]
    label[FAULT] = True
    np.savez(tmp_path / "asd" / "one.npz", train=rows(1), test=test, label=label)
    (tmp_path / "asd" / "interpretation" / "one.txt").write_text(f"{FAULT.start}-{FAULT.stop - 1}:2,3\n")
    return tmp_path


def test_the_fault_ranks_first_and_its_metric_is_named(data: Path) -> None:
    result = run_multivariate(data, Config(), lambda *_: None)
    assert result.record_count == 2 * ROWS * WIDTH
    asd, smd, bar = result.tables
    assert not smd.rows
    figures = {row.detector: row.figures for row in asd.rows}
    assert figures["Driftlock"][0] is not None
    assert figures["Driftlock"][0] > 0.8
    assert figures["every row"][0] == pytest.approx(6 / ROWS)
    recall, _, _, _, named, chance = bar.rows[0].figures
    assert (recall, named, chance) == (1.0, 1.0, 0.5)


def test_ticks_rest_on_the_past_alone_and_series_do_not_disturb_each_other() -> None:
    values = rows(3).astype(np.float64)
    lasting, _ = score_ticks(values, 60.0)
    np.testing.assert_array_equal(score_ticks(values[:150], 60.0)[0], lasting[:150])
    np.testing.assert_array_equal(score_ticks(values[:, :2], 60.0)[0], lasting[:, :2])


def test_missing_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data"):
        run_multivariate(tmp_path, Config(), lambda *_: None)
    (tmp_path / "smd").mkdir()
    np.savez(tmp_path / "smd" / "one.npz", train=rows(1))
    with pytest.raises(InputError, match=r"one\.npz"):
        run_multivariate(tmp_path, Config(), lambda *_: None)
