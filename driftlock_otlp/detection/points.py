"""Point novelty over all time series of a stream."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from driftlock_otlp.detection.claims import Change, Claim
from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.detection.novelty import Lasting, PointSeries
from driftlock_otlp.detection.records import RecordEvidence

_MOST_SERIES = 1000
"""Series followed per stream; the least recently seen one makes room."""
_ARMED_AFTER_POINTS = 150
_CALM_POINTS_PER_DAY = 288.0
"""One point per five minutes: the pace at which the budget alone keeps false alarms rare."""
_PACE_WEIGHT = 3.0
"""Bits owed for each doubling beyond that pace: the tail of real noise is heavier than exponential, so
one bit each would let the alarms of a fast series multiply."""
_MOST_ODD = 1_000
"""Points of a window of which people may say what they were."""
_LEAST_GRADE_BITS = 16.0
"""How far below an alarm a point is graded whose series is as usual."""
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


@dataclass(slots=True)
class PointEvidence(RecordEvidence):
    """Evidence of a window's points, and what learning them needs.

    Attributes:
        points: Every point that was judged, in the window's order.
    """

    points: list[_Judged] = field(default_factory=list)


@dataclass(slots=True)
class _Judged:
    """One point: where it stands, and what it costs by the series' own past."""

    row: int
    key: tuple[str, str]
    time_s: float
    value: float
    bits: float = 0.0
    is_alarm: bool = False
    learned: list[float] = field(default_factory=list)


class StreamPoints:
    """The point series of one stream, by column and symbol.

    A point raises an alarm when it is novel beyond its budget. A value is novel only once, but its
    departure lasts: below the alarm, points are graded by how odd the last ones of the series were.
    """

    claim = Claim("", "point", "value")

    def __init__(self) -> None:
        self._series: OrderedDict[tuple[str, str], tuple[PointSeries, _Pace]] = OrderedDict()

    def score_one(self, columns: Columns) -> PointEvidence | None:
        """Return the surprise of each record of a window; None if it holds no point series."""
        points = _points(columns)
        if not points:
            return None
        n = columns.record_count
        all_bits, margins, all_lasting = np.zeros(n), np.full(n, -math.inf), np.zeros(n)
        windows_to_warm = _ARMED_AFTER_POINTS
        naming_bits = math.log2(max(len(self._series), 1))
        lasting: dict[tuple[str, str], Lasting] = {}
        for point in points:
            series, pace = self._series.get(point.key, (None, None))
            if series is None or pace is None:
                continue
            point.bits = series.score_one(point.time_s, point.value)
            now = lasting[point.key] = lasting.get(point.key, series.lasting).after(point.bits)
            is_bad = series.is_bad(point.value)
            margin = series.margin_bits(point.bits, naming_bits + pace.extra_bits(), is_bad=is_bad)
            to_arm = max(_ARMED_AFTER_POINTS - series.count, 0)
            point.is_alarm = margin >= 0 and to_arm == 0
            if not point.is_alarm:
                margin = -_LEAST_GRADE_BITS / (1.0 + 0.5 * now.bits)
            windows_to_warm = min(windows_to_warm, to_arm)
            row = point.row
            all_bits[row] = max(all_bits[row], point.bits - naming_bits)
            margins[row] = max(margins[row], margin)
            all_lasting[row] = max(all_lasting[row], now.bits)
        return PointEvidence(all_bits, margins, all_lasting, windows_to_warm, points)

    def learn_one(self, columns: Columns, evidence: RecordEvidence | None) -> None:
        """Take a window's points as seen. A value is novel only once, whatever the verdict."""
        if not isinstance(evidence, PointEvidence):
            return
        for point in evidence.points:
            known = self._series.get(point.key)
            if known is None:
                known = self._series[point.key] = (PointSeries(), _Pace())
                if len(self._series) > _MOST_SERIES:
                    self._series.popitem(last=False)
            else:
                self._series.move_to_end(point.key)
            point.learned = known[0].learn_one(point.time_s, point.value, point.bits, is_alarm=point.is_alarm)
            known[1].learn(point.time_s)

    def odd(self, columns: Columns, evidence: RecordEvidence | None) -> list[list[Any]]:
        """Return what the window's points were learned as: column, symbol and values of each."""
        points = evidence.points[:_MOST_ODD] if isinstance(evidence, PointEvidence) else []
        return [[*point.key, point.learned] for point in points]

    def judge(self, odd: list[list[Any]], *, is_good: bool | None) -> None:
        """Take what people say of points. Good ones need nothing more: they have been learned."""
        by_series: dict[tuple[str, str], list[list[float]]] = {}
        for name, label, learned in odd:
            by_series.setdefault((name, label), []).append(learned)
        for key, learned in by_series.items():
            if key in self._series and is_good is False:
                self._series[key][0].confirm(learned)
            elif key in self._series:
                self._series[key][0].withdraw(learned)

    def set_aside(self, columns: Columns) -> None:
        """Return None: a point that is good is like others."""

    def explain(self, columns: Columns, row: int) -> tuple[str, Change]:
        """Return the column of a record's most surprising point, and the point in words."""
        best: tuple[str, Change] | None = None
        best_bits = -1.0
        for point in _points(columns, row):
            (name, label), value = point.key, point.value
            series, _ = self._series.get(point.key, (None, None))
            bits = series.score_one(point.time_s, value) if series else 0.0
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


def _points(columns: Columns, only: int | None = None) -> list[_Judged]:
    """Return every finite point, or those of one row, in the window's order."""
    found = []
    seconds = columns.time_unix_nano / 1e9
    for name, number in columns.numbers.items():
        if not number.is_point_series:
            continue
        given = columns.categories[number.given] if number.given else None
        for row in np.flatnonzero(np.isfinite(number.values)).tolist():
            if only is not None and row != only:
                continue
            label = given.labels[given.codes[row]] if given is not None and given.codes[row] >= 0 else ""
            found.append(_Judged(row, (name, label), float(seconds[row]), float(number.values[row])))
    return found
