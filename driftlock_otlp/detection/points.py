"""Point novelty over all time series of a stream."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np

from driftlock_otlp.detection.claims import Change, Claim
from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.detection.novelty import PointSeries
from driftlock_otlp.detection.records import RecordEvidence

_MOST_SERIES = 1000
"""Series followed per stream; the least recently seen one makes room."""
_ARMED_AFTER_POINTS = 150
_CALM_POINTS_PER_DAY = 288.0
"""One point per five minutes: the pace at which the budget alone keeps false alarms rare."""
_PACE_WEIGHT = 2.0
"""Bits owed for each doubling beyond that pace: the tail of real noise is heavier than exponential, so
one bit each would let the alarms of a fast series multiply."""
_DAY_S = 86_400.0


class _Pace:
    """How often a series has a point."""

    __slots__ = ("interval_s", "last_s")

    def __init__(self, last_s: float = math.nan, interval_s: float = math.nan) -> None:
        self.last_s, self.interval_s = last_s, interval_s

    def extra_bits(self) -> float:
        """Return what a point owes for being one of many a day."""
        if not self.interval_s > 0:
            return 0.0
        return _PACE_WEIGHT * max(0.0, math.log2(_DAY_S / self.interval_s / _CALM_POINTS_PER_DAY))

    def learn(self, time_s: float) -> None:
        gap = time_s - self.last_s
        if gap > 0:
            self.interval_s = gap if math.isnan(self.interval_s) else self.interval_s + 0.05 * (gap - self.interval_s)
        self.last_s = time_s


class StreamPoints:
    """The point series of one stream, by column and symbol."""

    claim = Claim("", "point", "value")

    def __init__(self) -> None:
        self._series: OrderedDict[tuple[str, str], tuple[PointSeries, _Pace]] = OrderedDict()

    def score_one(self, columns: Columns) -> RecordEvidence | None:
        """Return the surprise of each record of a window; None if it holds no point series."""
        scores: RecordEvidence | None = None
        naming_bits = math.log2(max(len(self._series), 1))
        for row, key, time_s, value in _points(columns):
            if scores is None:
                scores = RecordEvidence(np.zeros(columns.record_count), np.full(columns.record_count, -math.inf))
            series, pace = self._series.get(key, (None, None))
            if series is None or pace is None:
                continue
            bits = max(series.score_one(time_s, value) - naming_bits, 0.0)
            margin = series.margin_bits(bits, pace.extra_bits())
            if series.count < _ARMED_AFTER_POINTS:
                margin = min(margin, -1.0)
            scores.bits[row] = max(scores.bits[row], bits)
            scores.margins[row] = max(scores.margins[row], margin)
        return scores

    def learn_one(self, columns: Columns, scores: RecordEvidence | None) -> None:
        """Take a window's points as seen. A value is novel only once, whatever the verdict."""
        for row, key, time_s, value in _points(columns):
            known = self._series.get(key)
            if known is None:
                known = self._series[key] = (PointSeries(), _Pace())
                if len(self._series) > _MOST_SERIES:
                    self._series.popitem(last=False)
            else:
                self._series.move_to_end(key)
            alarmed = scores is not None and scores.margins[row] >= 0
            bits = float(scores.bits[row]) if scores is not None and alarmed else None
            known[0].learn_one(time_s, value, alarmed_with_bits=bits)
            known[1].learn(time_s)

    def explain(self, columns: Columns, row: int) -> tuple[str, Change]:
        """Return the column of a record's most surprising point, and the point in words."""
        best: tuple[str, Change] | None = None
        best_bits = -1.0
        for _, (name, label), time_s, value in _points(columns, row):
            series, _ = self._series.get((name, label), (None, None))
            bits = series.score_one(time_s, value) if series else 0.0
            if bits > best_bits:
                nearest = series.nearest(value) if series else math.nan
                of = " of {label}" if label else ""
                text = f"{name}{of} is {value:.5g}; the nearest value seen before is {nearest:.5g}"
                best, best_bits = (name, Change(label, text, f"{value:.5g}", f"{nearest:.5g}")), bits
        return best or ("value", Change("", "a value unlike any seen before", "", ""))

    def state(self) -> list[Any]:
        """Return everything remembered, as plain values and arrays."""
        return [
            [list(key), series.state(), pace.last_s, pace.interval_s] for key, (series, pace) in self._series.items()
        ]

    def restore(self, state: list[Any]) -> None:
        """Become the points that gave this state."""
        self._series = OrderedDict(
            ((key[0], key[1]), (PointSeries.of_state(series), _Pace(last_s, interval_s)))
            for key, series, last_s, interval_s in state
        )


def _points(columns: Columns, only: int | None = None) -> list[tuple[int, tuple[str, str], float, float]]:
    """Return (row, (column, symbol), seconds, value) of every finite point, or of one row's, in the window's order."""
    found = []
    seconds = columns.time_unix_nano / 1e9
    for name, number in columns.numbers.items():
        if not number.is_point_series:
            continue
        given = columns.categories[number.given] if number.given else None
        rows = np.flatnonzero(np.isfinite(number.values)) if only is None else [only]
        for row in rows:
            if not math.isfinite(number.values[row]):
                continue
            label = given.labels[given.codes[row]] if given is not None and given.codes[row] >= 0 else ""
            found.append((int(row), (name, label), float(seconds[row]), float(number.values[row])))
    return found
