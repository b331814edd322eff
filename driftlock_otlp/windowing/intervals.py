"""What each data point says about its own interval: rates, means and bucket counts.

A cumulative point counts from the start of its process; only its difference to the point
before it says what happened meanwhile. This module remembers the last point of each series and
takes the difference, with restarts, late points and gaps (OpenTelemetry metrics data model,
"Resets and Gaps").
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

MAX_SERIES = 1_000
"""Series of a stream whose last point is remembered; the longest unused goes first."""

Bin = tuple[float, float]
"""A bucket of a histogram: above its lower bound, up to and with its upper one."""

_STALE_SOURCE_NANO = 300 * 10**9
_MAX_SOURCES = 64
# Exponents of the ladder on which exponential histograms are compared: 2^-64 to 2^64.
_MAX_EXPONENT = 64
# Finer and coarser scales than these say no more about doubles (metrics data model, exponential scale).
_MIN_SCALE, _MAX_SCALE = -11, 20


@dataclass(slots=True)
class Interval:
    """What one point says.

    Attributes:
        series: Label of its time series.
        is_rate: Whether a sum is told as a rate.
        numbers: Values by column name; a column that is not there is unknown.
        buckets: Observations of the interval per bucket.
    """

    series: str
    is_rate: bool = False
    numbers: dict[str, float] = field(default_factory=dict)
    buckets: dict[Bin, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Counted:
    """What a histogram or summary has counted, in buckets of its own resolution.

    The buckets are keyed by number: of the explicit bucket, or of the exponential one, with
    its sign: (1, index), (-1, index), (0, 0).
    """

    count: float
    sum: float | None
    layout: list[float]
    buckets: dict[tuple[int, int], float]


class SeriesMemory:
    """The last points of the series of one stream.

    A series is a set of attributes at one source (resource and scope). Two sources with the same
    attributes, such as two replicas, are two series; the second is told by a number that passes
    on to another source when its own has been silent for five minutes, so that a rolling
    restart does not make ever new series.
    """

    def __init__(self) -> None:
        self.late_points = 0
        self.gap_points = 0
        self.resets = 0
        # [time, start time, value] or [time, start time, count, sum, layout, bucket numbers, counts]
        # of cumulative points; [time] of others
        self._last: OrderedDict[str, list[Any]] = OrderedDict()
        self._sources: dict[str, list[int]] = {}  # source -> [number, time last seen]

    def take(self, point: dict[str, Any], time: int) -> Interval:
        """Return what a point says about its interval, and remember it.

        Args:
            point: Fields of a data point, as `metrics.extract` names them.
            time: Its time, Unix nanoseconds; 0 if unknown.
        """
        kind = point["type"]
        is_cumulative = point["temporality"] == "cumulative"
        is_rate = kind == "sum" and (not is_cumulative or bool(point["monotonic"]))
        if kind == "sum" and not point["temporality"]:
            is_rate = False  # without temporality there is nothing to relate the value to
        series = self._label(point, time)
        interval = Interval(series, is_rate)
        key = f"{point['source']}\0{kind}\0{point['series']}"
        last = self._last.get(key)
        if point["no_recorded_value"]:
            self.gap_points += 1
            return interval
        if last is not None and time < last[0]:
            self.late_points += 1
            return interval
        if kind in ("gauge", "sum"):
            self._take_number(interval, point, time, key, last, is_cumulative)
        else:
            # Summaries have no temporality in OTLP: they are cumulative.
            self._take_counted(interval, point, time, key, last, is_cumulative or kind == "summary")
        return interval

    def _label(self, point: dict[str, Any], time: int) -> str:
        source = point["source"]
        seen = self._sources.get(source)
        if seen is None:
            taken = {number for number, _ in self._sources.values()}
            free = [name for name, (_, last) in self._sources.items() if last < time - _STALE_SOURCE_NANO]
            if free:
                number = min(self._sources[name][0] for name in free)
                self._sources = {name: entry for name, entry in self._sources.items() if entry[0] != number}
            else:
                number = next((n for n in range(_MAX_SOURCES) if n not in taken), _MAX_SOURCES)
            if number < _MAX_SOURCES:
                self._sources[source] = [number, time]
        else:
            number = seen[0]
            seen[1] = max(seen[1], time)
        series: str = point["series"]
        return f"{series} #{number + 1}".lstrip() if number else series

    def _take_number(
        self,
        interval: Interval,
        point: dict[str, Any],
        time: int,
        key: str,
        last: list[Any] | None,
        is_cumulative: bool,
    ) -> None:
        value, start = point["value"], point["start_time_unix_nano"]
        if value is None or not math.isfinite(value):
            return
        if not interval.is_rate:
            interval.numbers["value"] = float(value)
            self._remember(key, [time])
        elif not is_cumulative:
            interval.numbers["rate"] = value / _seconds(start, time)
            self._remember(key, [time])
        else:
            self._remember(key, [time, start, value])
            if last is None or len(last) == 1:  # the last point was not cumulative
                return
            restarted = _is_restart(start, last[1]) or value < last[2]
            seconds = self._since(last, start, time, restarted)
            if seconds is not None:
                interval.numbers["rate"] = (value if restarted else value - last[2]) / seconds

    def _take_counted(
        self,
        interval: Interval,
        point: dict[str, Any],
        time: int,
        key: str,
        last: list[Any] | None,
        is_cumulative: bool,
    ) -> None:
        counted = _counted(point)
        is_exponential = point["type"] == "exponential_histogram"
        start = point["start_time_unix_nano"]
        for quantile, value in zip(point.get("quantiles") or (), point.get("quantile_values") or (), strict=True):
            interval.numbers[f"quantile_{quantile:g}"] = value
        if is_cumulative:
            numbers = [number for pair in counted.buckets for number in pair]
            counts = list(counted.buckets.values())
            self._remember(key, [time, start, counted.count, counted.sum, counted.layout, numbers, counts])
            if last is None or len(last) == 1:  # the last point was not cumulative
                return
            before = _Counted(last[2], last[3], last[4], _pairs(last[5], last[6]))
            if is_exponential:
                counted, before = _same_scale(counted, before)
            restarted = (
                _is_restart(start, last[1])
                or counted.count < before.count
                or counted.layout != before.layout
                or any(counted.buckets.get(bucket, 0) < count for bucket, count in before.buckets.items())
            )
            seconds = self._since(last, start, time, restarted)
            if seconds is None:
                return
            if not restarted:
                counted = _difference(counted, before)
        else:
            seconds = _seconds(start, time)
            self._remember(key, [time])
        interval.numbers["count_rate"] = counted.count / seconds
        if counted.count > 0 and counted.sum is not None:
            interval.numbers["mean"] = counted.sum / counted.count
        if counted.buckets:
            fine = {_bin(bucket, counted.layout, is_exponential): count for bucket, count in counted.buckets.items()}
            p95 = quantile_of(fine, 0.95)
            if p95 is not None:
                interval.numbers["p95"] = p95
            interval.buckets = on_ladder(fine) if is_exponential else {b: c for b, c in fine.items() if c}

    def _since(self, last: list[Any], start: int, time: int, restarted: bool) -> float | None:
        """Return the seconds that the difference to the last point covers; None if unknown."""
        if time <= last[0]:
            self.late_points += 1  # as old as the last one: a repetition
            return None
        if not restarted:
            return float(time - last[0]) / 1e9
        self.resets += 1
        # Since a restart it counts from its start; a counter that fell but says that it has not
        # restarted must have done so after the last point.
        return _seconds(max(start, last[0]), time) if start else None

    def _remember(self, key: str, entry: list[Any]) -> None:
        self._last[key] = entry
        self._last.move_to_end(key)
        if len(self._last) > MAX_SERIES:
            self._last.popitem(last=False)

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values."""
        return {
            "counters": [self.late_points, self.gap_points, self.resets],
            "last": [[key, list(entry)] for key, entry in self._last.items()],
            "sources": {source: list(entry) for source, entry in self._sources.items()},
        }

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> SeriesMemory:
        """Return the memory that had this state."""
        memory = cls()
        memory.late_points, memory.gap_points, memory.resets = state["counters"]
        memory._last = OrderedDict((key, list(entry)) for key, entry in state["last"])
        memory._sources = {source: list(entry) for source, entry in state["sources"].items()}
        return memory


def quantile_of(buckets: dict[Bin, float], quantile: float) -> float | None:
    """Return a quantile of what a histogram has counted, interpolated within its bucket.

    In the outermost buckets, which have no end, it is the bound that they have. None when there
    are no observations.

    >>> quantile_of({(0.0, 10.0): 90, (10.0, 20.0): 10}, 0.95)
    15.0
    """
    rank = quantile * sum(buckets.values())
    if rank <= 0:
        return None
    for bin_ in sorted(buckets):
        lower, upper = bin_
        count = buckets[bin_]
        if count and rank <= count:
            if math.isinf(upper):
                return lower if math.isfinite(lower) else None
            return upper if math.isinf(lower) else lower + (upper - lower) * rank / count
        rank -= count
    return max(upper for _, upper in buckets)


def on_ladder(buckets: dict[Bin, float]) -> dict[Bin, float]:
    """Return buckets of any exponential scale on one ladder of powers of two.

    A finer bucket lies within one rung; a coarser one is spread evenly over those it covers.
    """
    rungs: dict[Bin, float] = {}
    for (lower, upper), count in buckets.items():
        if not count:
            continue
        sign = 1 if upper > 0 else -1
        near, far = sorted((abs(lower), abs(upper)))
        if far == 0:
            rungs[(0.0, 0.0)] = rungs.get((0.0, 0.0), 0.0) + count
            continue
        # Rounded: bounds of fine scales are powers of two up to the last digit only.
        first = math.floor(round(_log2(near), 9))
        last = max(first + 1, math.ceil(round(_log2(far), 9)))
        for exponent in range(first, last):
            rung = min(max(exponent, -_MAX_EXPONENT), _MAX_EXPONENT - 1)
            ends = (sign * 2.0**rung, sign * 2.0 ** (rung + 1))
            bin_ = (min(ends), max(ends))
            rungs[bin_] = rungs.get(bin_, 0.0) + count / (last - first)
    return rungs


def _log2(bound: float) -> float:
    if bound <= 0:
        return -_MAX_EXPONENT
    return min(max(math.log2(bound), -_MAX_EXPONENT), _MAX_EXPONENT) if math.isfinite(bound) else _MAX_EXPONENT


def _is_restart(start: int, last_start: int) -> bool:
    return bool(start and last_start and start != last_start)


def _seconds(start: int, time: int) -> float:
    """Return the length of an interval; 1 where it is unknown, so that a rate is per point."""
    return (time - start) / 1e9 if 0 < start < time else 1.0


def _counted(point: dict[str, Any]) -> _Counted:
    total = point["sum"]
    if total is not None and not math.isfinite(total):
        total = None
    if point["type"] == "histogram":
        buckets = {(1, place): count for place, count in enumerate(point["bucket_counts"])}
        return _Counted(point["count"], total, list(point["explicit_bounds"]), buckets)
    if point["type"] == "summary":
        return _Counted(point["count"], total, [], {})
    buckets = {(0, 0): point["zero_count"]} if point["zero_count"] else {}
    for sign, offset, counts in (
        (1, point["positive_offset"], point["positive_counts"]),
        (-1, point["negative_offset"], point["negative_counts"]),
    ):
        buckets.update({(sign, offset + place): count for place, count in enumerate(counts) if count})
    counted = _Counted(point["count"], total, [max(point["scale"], _MIN_SCALE)], buckets)
    return _coarser(counted, _MAX_SCALE)


def _coarser(counted: _Counted, scale: int) -> _Counted:
    """Return exponential buckets at a scale that is at most their own: 2^k neighbours merge into one."""
    shift = int(counted.layout[0]) - scale
    if shift <= 0:
        return counted
    merged: dict[tuple[int, int], float] = {}
    for (sign, index), count in counted.buckets.items():
        bucket = (sign, index >> shift)
        merged[bucket] = merged.get(bucket, 0) + count
    return _Counted(counted.count, counted.sum, [scale], merged)


def _same_scale(counted: _Counted, before: _Counted) -> tuple[_Counted, _Counted]:
    """Return exponential buckets, both at the coarser of their scales."""
    scale = int(min(counted.layout[0], before.layout[0]))
    return _coarser(counted, scale), _coarser(before, scale)


def _difference(counted: _Counted, before: _Counted) -> _Counted:
    total = None if counted.sum is None or before.sum is None else counted.sum - before.sum
    return _Counted(
        counted.count - before.count,
        total,
        counted.layout,
        {bucket: count - before.buckets.get(bucket, 0) for bucket, count in counted.buckets.items()},
    )


def _pairs(numbers: list[int], counts: list[float]) -> dict[tuple[int, int], float]:
    return {(numbers[2 * place], numbers[2 * place + 1]): count for place, count in enumerate(counts)}


def _bin(bucket: tuple[int, int], layout: list[float], is_exponential: bool) -> Bin:
    sign, index = bucket
    if not is_exponential:
        lower = layout[index - 1] if 0 < index <= len(layout) else -math.inf
        return lower, layout[index] if index < len(layout) else math.inf
    if sign == 0:
        return 0.0, 0.0
    near, far = _power(index, layout[0]), _power(index + 1, layout[0])
    return (near, far) if sign > 0 else (-far, -near)


def _power(index: int, scale: float) -> float:
    exponent = min(max(index * 2.0**-scale, -1074.0), 1023.0)
    return math.exp2(exponent)
