"""One short measurement for each kind of stream, which all tests here judge.

`driftlock-otlp evaluate calibration` measures the same with more streams, for whole days. Three
streams of 400 clean windows each are far too few to see a rate of one false alarm a day: the
bounds only catch what makes the detector clearly worse. Streams and faults are seeded, so that
the figures change only when the detector or its compressor does.
"""

from __future__ import annotations

import pytest

from driftlock_otlp.evaluation.calibration.fleet import Fleet
from driftlock_otlp.evaluation.calibration.measured import SHORT, Measured, measure_kind, new_fleet
from driftlock_otlp.evaluation.calibration.watch import STREAMS, Watch


class Measurements:
    """Measures each kind once, when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Measured] = {}

    def of(self, kind: str) -> Measured:
        """Return the measurement of `logs`, `metrics` or `traces`."""
        if kind not in self._made:
            self._made[kind] = measure_kind(kind, SHORT, Watch)
        return self._made[kind]

    def fleet(self) -> Fleet:
        """Return many streams made of those of all kinds."""
        return new_fleet({kind: self.of(kind) for kind in STREAMS})


@pytest.fixture(scope="session")
def measurements() -> Measurements:
    """Return the measurements of all kinds, made on demand."""
    return Measurements()
