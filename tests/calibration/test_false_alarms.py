"""Clean streams are left alone: bounds on flags and alarms, written down, that may not worsen.

Measured when written, over the 1,200 windows of the three seeds: flagged 1.2 % of logs, 0.5 %
of metrics, 1.0 % of traces; no false alarm. Figures over whole days are in
docs/detection.md.
"""

from __future__ import annotations

import pytest

from driftlock_otlp.evaluation.calibration.measured import SHORT
from driftlock_otlp.evaluation.calibration.watch import LEVELS
from tests.calibration.conftest import Measurements

pytestmark = pytest.mark.timeout(400)
"""The first test of a kind measures it: a quarter of a minute, much more on a busy machine."""
KINDS = ("logs", "metrics", "traces")


@pytest.mark.parametrize("kind", KINDS)
def test_every_window_of_a_warm_stream_is_judged(kind: str, measurements: Measurements) -> None:
    assert measurements.of(kind).pooled().windows == len(SHORT.seeds) * SHORT.windows


@pytest.mark.parametrize("kind", KINDS)
def test_a_clean_stream_is_flagged_about_as_often_as_each_level_says(kind: str, measurements: Measurements) -> None:
    quiet = measurements.of(kind).pooled()
    shares = [flagged / quiet.windows for flagged in quiet.flagged]
    # 1.2 times the level is promised for whole days; a young calibration and a wandering stream make it a bit more.
    assert [share <= 1.6 * level for share, level in zip(shares, LEVELS, strict=True)] == [True] * 3, shares
    # A p-value that is never small would pass the above.
    assert shares[0] >= 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_clean_stream_is_alarmed_seldom(kind: str, measurements: Measurements) -> None:
    quiet = measurements.of(kind).pooled()
    assert len(quiet.alarms) <= 2, quiet.alarms
    assert quiet.withheld / quiet.windows <= 0.01


def test_all_clean_streams_together_have_few_false_alarms(measurements: Measurements) -> None:
    # One a day would be 0.4 in these 3,600 windows; none was measured.
    found = [alarm for kind in KINDS for alarm in measurements.of(kind).pooled().alarms]
    assert len(found) <= 2, found


def test_of_what_stands_out_among_many_streams_at_once_few_are_false(measurements: Measurements) -> None:
    found = measurements.fleet().ticks(SHORT.fleet, SHORT.fleet // 100, SHORT.ticks)
    assert found.shares / found.ticks <= 0.1
    # One in a hundred has the first window of a fault; .66 were found when this was written.
    assert found.found / found.faults >= 0.4
