"""Seeded faults are found: bounds on how many, and how soon, written down, that may not worsen.

Twelve trials of each fault, in streams of up to 400 windows; older ones find more (docs/detection.md). Measured when
written, share alarmed by the 1st / 2nd / 4th window:

    logs     new_template 25 %   1.00 / 1.00 / 1.00     error_burst 25 %  1.00 / 1.00 / 1.00
             rate x 3            1.00 / 1.00 / 1.00     latency x 4        .83 /  .92 /  .92
    metrics  level + 8 sigma      .50 /  .67 /  .75
    traces   new_operation 25 %  1.00 / 1.00 / 1.00     errors 25 %        .42 /  .67 /  .75
             latency x 4          .58 /  .83 / 1.00
"""

from __future__ import annotations

import pytest

from tests.calibration.conftest import Measurements
from tests.calibration.measure import Fault

OVERWHELMING: list[tuple[str, Fault]] = [
    ("logs", ("new_template", 0.25)),
    ("logs", ("error_burst", 0.25)),
    ("logs", ("rate", 3.0)),
    ("traces", ("new_operation", 0.25)),
]
PLAIN: list[tuple[str, Fault, float]] = [
    ("logs", ("latency", 4.0), 0.8),
    ("traces", ("errors", 0.25), 0.7),
    ("traces", ("latency", 4.0), 0.8),
    # One of three gauges, four points a window, bars a bit higher by default: the hardest of these.
    ("metrics", ("level", 8.0), 0.6),
]


@pytest.mark.parametrize(("kind", "fault"), OVERWHELMING)
def test_an_overwhelming_fault_is_alarmed_in_its_first_window(
    kind: str, fault: Fault, measurements: Measurements
) -> None:
    power = measurements.of(kind).power[fault]
    assert power.trials >= 9
    assert power.share(1) >= 0.8
    assert power.share(4) == 1.0


@pytest.mark.parametrize(("kind", "fault", "least"), PLAIN)
def test_a_plain_fault_is_alarmed_within_four_windows(
    kind: str, fault: Fault, least: float, measurements: Measurements
) -> None:
    power = measurements.of(kind).power[fault]
    assert power.trials >= 9
    assert power.share(4) >= least


@pytest.mark.parametrize("kind", ["logs", "metrics", "traces"])
def test_alarms_lead_with_a_column_that_the_fault_touched(kind: str, measurements: Measurements) -> None:
    powers = measurements.of(kind).power.values()
    alarms = sum(power.within[-1] for power in powers)
    assert sum(power.named for power in powers) >= 0.9 * alarms
