from __future__ import annotations

from pathlib import Path

import pytest

from driftlock_otlp.config.root import Config
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.loglines import run_loglines


def test_missing_data_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data"):
        run_loglines(tmp_path, Config(), lambda *_: None)


def test_alarms_are_counted_system_by_system_and_told_in_words(tmp_path: Path) -> None:
    usual = [f"served request {10_000 + number} in {number % 7} ms" for number in range(1600)]
    broken = [*usual[:1400], *["disk failed while it wrote"] * 60, *usual[1400:]]
    for system, lines in (("Quiet", usual), ("Broken", broken)):
        (tmp_path / "loghub2k" / system).mkdir(parents=True)
        (tmp_path / "loghub2k" / system / f"{system}_2k.log").write_text("\n".join(lines) + "\n")
    result = run_loglines(tmp_path, Config(), lambda *_: None)
    free, each = result.tables
    alarms = {row.detector: row.figures[0] for row in each.rows}
    assert alarms == {"Broken": 1.0, "Quiet": 0.0}
    assert "disk failed" in next(row.source for row in each.rows if row.detector == "Broken")
    warm_up = (12 + Config().detection.warm_up_windows) * 20
    assert free.rows[0].figures[1] == len(usual) + len(broken) - 2 * warm_up
