"""One short measurement for each kind of stream, which all tests here judge.

The same command with other seeds and more windows gives the tables of docs/detection.md. Three
streams of 400 clean windows each are far too few to see a rate of one false alarm a day: the
bounds only catch what makes the detector clearly worse. Streams and faults are seeded, so that
the figures change only when the detector or its compressor does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.calibration.measure import Fault, Power, Quiet, measure

SEEDS = range(100, 103)
WINDOWS = 400
BETWEEN_FAULTS = 100

FAULTS: dict[str, list[Fault]] = {
    "logs": [("new_template", 0.25), ("error_burst", 0.25), ("latency", 4.0), ("rate", 3.0)],
    "metrics": [("level", 8.0)],
    "traces": [("errors", 0.25), ("new_operation", 0.25), ("latency", 4.0)],
}


@dataclass
class Measured:
    """What the streams of one kind came to, pooled over the seeds."""

    quiet: Quiet = field(default_factory=Quiet)
    power: dict[Fault, Power] = field(default_factory=dict)


class Measurements:
    """Measures each kind once, when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Measured] = {}

    def of(self, kind: str) -> Measured:
        """Return the measurement of `logs`, `metrics` or `traces`."""
        if kind not in self._made:
            pooled = Measured(power={fault: Power() for fault in FAULTS[kind]})
            for _, quiet, power in measure(kind, SEEDS, WINDOWS, BETWEEN_FAULTS, FAULTS[kind]):
                pooled.quiet.add(quiet)
                for fault, result in power.items():
                    pooled.power[fault].add(result)
            self._made[kind] = pooled
        return self._made[kind]


@pytest.fixture(scope="session")
def measurements() -> Measurements:
    """Return the measurements of all kinds, made on demand."""
    return Measurements()
