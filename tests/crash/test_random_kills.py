"""Killed at random moments, ten times in a row; `make crash N=100` does it more often."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.report import table
from tests.crash.run import run

SEED = 20_260_101
KILLS = 10


@pytest.mark.timeout(300)
async def test_ten_kills_at_random_moments_lose_nothing_and_repeat_nothing_in_effect(tmp_path: Path) -> None:
    report = await run(KILLS, SEED, tmp_path, print)
    print(table(report))
    assert not report.faults, f"seed {SEED}: " + "\n".join(report.faults)
    assert report.kills.total() >= KILLS
    assert report.anomalies, "without anomalies nothing is shown of them"
