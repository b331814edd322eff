"""Point novelty: the bits to code a value as "the nearest value ever seen, plus a residual".

For single metrics this beats prediction error: a value is cheap if something like it has been
seen, however long ago, and is charged by its distance to the nearest known value if not. Two
channels look at the level and at the residual from the hour-of-day mean. Bits are calibrated
by the series' own history (rank inside, exponential tail beyond) and must exceed a budget that
grows with the series' age.

References:
    Ziv & Lempel 1978, "Compression of individual sequences via variable-rate coding" (a value
    as a pointer into what was seen, plus what is new).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np

_RESIDUAL_WEIGHT = 0.5
_TAIL_SHARE = 0.02
_FEWEST_IN_TAIL = 5
_PRIOR_WEIGHT = 5.0
_PRIOR_EXCESS = 0.05
_LEARNING_POINTS = 50
"""Points before the first tail is fitted."""
_CAPACITY = 32_768
"""Values and novelties remembered per channel; beyond it every second one is forgotten."""
_SEASON_RATES = (0.03, 0.1, 0.3)
_BUDGET_BITS = 0.9
"""Middle of the plateau on which the benchmark's score does not depend on it, 0.8 to 1.05."""
_HELD_POINTS = 50
_HELD_SHARE = 0.03
_RISE_BITS = 5.0
_ORDINARY_BITS = 2.0
"""What a point costs that is as novel as the most novel quarter."""
_LASTING_RATES = (0.3, 0.03)
"""A short and a long memory: what three points and what thirty points add up to."""
_DAY_S = 86_400
_HOURS = 24
_LN2 = math.log(2.0)


class _Channel:
    """Novelty code of one real-valued sequence, with the tail that calibrates it."""

    __slots__ = ("bad", "count", "deviation", "mean", "novelties", "seen", "tail_sum")

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.bad: list[float] = []  # values that people have called bad, ascending; seen like others
        self.novelties: list[float] = []
        self.tail_sum = 0.0
        self.count = 0
        self.mean = 0.0
        self.deviation = 0.0

    def novelty(self, value: float) -> float:
        """Return log2(1 + c d / m): d to the nearest value seen, m the mean deviation."""
        seen = self.seen
        if not seen:
            return 0.0
        place = bisect_left(seen, value)
        if self.bad:
            distance = self._distance(value, self.bad)
        else:
            distance = math.inf if place == len(seen) else seen[place] - value
            if place and value - seen[place - 1] < distance:
                distance = value - seen[place - 1]
        if distance == 0.0:
            return 0.0
        # A constant series has no deviation of its own: a thousandth of its level stands in.
        scale = max(self.deviation, 1e-3 * abs(self.mean), 1e-9)
        return math.log2(1.0 + _RESIDUAL_WEIGHT * distance / scale)

    def _distance(self, value: float, left_out: list[float]) -> float:
        """Return the distance to the nearest value seen that is not among some, ascending; 0 if there is none."""
        seen = self.seen
        above = bisect_left(seen, value)
        below = above - 1
        while above < len(seen) and _holds(left_out, seen[above]):
            above += 1
        while below >= 0 and _holds(left_out, seen[below]):
            below -= 1
        found = [seen[above] - value] if above < len(seen) else []
        if below >= 0:
            found.append(value - seen[below])
        return min(found, default=0.0)

    def is_bad(self, value: float) -> bool:
        """Return whether a value is nearer to one that was called bad than to any other."""
        if not self.bad:
            return False
        place = bisect_left(self.bad, value)
        nearest = min(abs(value - bad) for bad in self.bad[max(0, place - 1) : place + 1])
        return nearest < self._distance(value, self.bad)

    def novel_among(self, values: list[float], least_bits: float) -> set[float]:
        """Return those of some values that have at least so many bits if none of them had been seen."""
        own = sorted({*values, *self.bad})
        scale = max(self.deviation, 1e-3 * abs(self.mean), 1e-9)
        distances = {value: self._distance(value, own) for value in set(values)}
        return {
            value
            for value, distance in distances.items()
            if self.bits(math.log2(1.0 + _RESIDUAL_WEIGHT * distance / scale)) >= least_bits
        }

    def bits(self, novelty: float) -> float:
        """Return -log2 P(a novelty at least this large), by this channel's past."""
        past, n = self.novelties, len(self.novelties)
        if n < _LEARNING_POINTS:
            return 0.0
        k = _tail_size(n)
        threshold = past[n - k - 1]
        if novelty > threshold:
            excess = self.tail_sum - k * threshold
            scale = (excess + _PRIOR_WEIGHT * _PRIOR_EXCESS) / (k + _PRIOR_WEIGHT) + 1e-12
            return math.log2(n / k) + (novelty - threshold) / (scale * _LN2)
        return -math.log2((n - bisect_left(past, novelty) + 1) / (n + 1))

    def learn(self, value: float, novelty: float) -> None:
        """Take the value as seen, and its novelty as past; nothing of a value that is bad."""
        if self.is_bad(value):
            return
        place = bisect_left(self.seen, value)
        if place == len(self.seen) or self.seen[place] != value:
            self.seen.insert(place, value)
        if self.deviation == 0.0:
            novelty = 0.0  # measured against a stand-in, it would be the largest of the tail for ever
        if self.count == 0:
            self.mean = value
        self.count += 1
        self.mean += (value - self.mean) / self.count
        self.deviation += (abs(value - self.mean) - self.deviation) / self.count
        self._learn_novelty(novelty)
        if len(self.seen) > _CAPACITY:
            del self.seen[1::2]
        if len(self.novelties) > _CAPACITY:
            del self.novelties[1::2]
            self._sum_tail()

    def _learn_novelty(self, novelty: float) -> None:
        """Insert a novelty, and carry the sum of the largest ones on."""
        past, n = self.novelties, len(self.novelties)
        place = bisect_left(past, novelty)
        past.insert(place, novelty)
        if n < _LEARNING_POINTS:
            self._sum_tail()
            return
        k = _tail_size(n)
        if place > n - k:
            self.tail_sum += novelty - past[n - k]
        if _tail_size(n + 1) > k:
            self.tail_sum += past[n - k]

    def _sum_tail(self) -> None:
        self.tail_sum = sum(self.novelties[-_tail_size(len(self.novelties)) :])

    def state(self) -> dict[str, Any]:
        return {
            "seen": np.array(self.seen),
            "novelties": np.array(self.novelties),
            "tail_sum": self.tail_sum,
            "count": self.count,
            "mean": self.mean,
            "deviation": self.deviation,
            "bad": np.array(self.bad),
        }

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> _Channel:
        channel = cls()
        channel.seen = state["seen"].tolist()
        channel.novelties = state["novelties"].tolist()
        channel.tail_sum = state["tail_sum"]
        channel.count, channel.mean, channel.deviation = state["count"], state["mean"], state["deviation"]
        channel.bad = state["bad"].tolist()
        return channel


@dataclass(frozen=True, slots=True)
class Lasting:
    """How odd the last points of a series were: a value is novel only once, its departure lasts.

    Exponential averages of the bits beyond what ordinary points cost, over a short and a long
    memory. They grade the points of a series, and add over series.

    Attributes:
        means: One average for each memory.
    """

    means: tuple[float, ...] = (0.0,) * len(_LASTING_RATES)

    def after(self, bits: float) -> Lasting:
        """Return what it is once a point with this surprise has come."""
        excess = max(bits - _ORDINARY_BITS, 0.0)
        return Lasting(
            tuple(mean + rate * (excess - mean) for mean, rate in zip(self.means, _LASTING_RATES, strict=True))
        )

    @property
    def bits(self) -> float:
        """Sum of the averages, bits, >= 0."""
        return sum(self.means)


class PointSeries:
    """Point novelty of one time series; one value at a time, no look-ahead.

    `score_one` changes nothing; `learn_one` takes the point in.
    """

    def __init__(self) -> None:
        self.count = 0
        self.last_alarm = -(1 << 60)
        self.alarm_height = 0.0
        self.lasting = Lasting()
        self._level = _Channel()
        self._seasons = [_Channel() for _ in _SEASON_RATES]
        self._hourly_means = [[0.0] * _HOURS for _ in _SEASON_RATES]
        self._hourly_counts = [0] * _HOURS

    def score_one(self, time_s: float, value: float) -> float:
        """Return the surprise of a point in bits, >= 0; 0 for the first 50 points."""
        if self.count < _LEARNING_POINTS:
            return 0.0
        level = self._level.bits(self._level.novelty(value))
        hour = _hour(time_s)
        seasonal = 0.0
        for channel, means in zip(self._seasons, self._hourly_means, strict=True):
            residual = value - means[hour] if self._hourly_counts[hour] else 0.0
            seasonal += channel.bits(channel.novelty(residual))
        return max(level, seasonal / len(self._seasons))

    def budget_bits(self) -> float:
        """Return the bits that a point must exceed: half a bit for every doubling of its age."""
        return _BUDGET_BITS + 0.5 * math.log2(self.count + 2)

    def margin_bits(self, bits: float, extra_bits: float, *, is_bad: bool = False) -> float:
        """Return the bits beyond the budget; below zero means no alarm.

        For some points after an alarm only a distinctly higher surprise counts: the same
        departure is not told twice, unless people have called it bad.
        """
        margin = bits - self.budget_bits() - extra_bits
        if is_bad:
            return margin
        held = self.count - self.last_alarm <= max(_HELD_POINTS, int(_HELD_SHARE * self.count))
        if margin >= 0 and held and bits - 0.5 * math.log2(self.count + 2) <= self.alarm_height + _RISE_BITS:
            return -1.0
        return margin

    def is_bad(self, value: float) -> bool:
        """Return whether people have called a value like this one bad."""
        return self._level.is_bad(value)

    def confirm(self, learned: list[list[float]]) -> None:
        """Never learn again what was odd in points, and forget that it was seen.

        Args:
            learned: What `learn_one` returned for each of them.
        """
        for channel, values in zip(self._channels, zip(*learned, strict=True), strict=True):
            channel.bad = sorted({*channel.bad, *channel.novel_among(list(values), self.budget_bits())})

    def withdraw(self, learned: list[list[float]]) -> None:
        """Take back what `confirm` was told."""
        for channel, values in zip(self._channels, zip(*learned, strict=True), strict=True):
            channel.bad = sorted(set(channel.bad).difference(values))

    @property
    def _channels(self) -> list[_Channel]:
        return [self._level, *self._seasons]

    def learn_one(self, time_s: float, value: float, bits: float, *, is_alarm: bool = False) -> list[float]:
        """Take the point as seen; return the values that its channels have learned.

        Args:
            time_s: Event time, seconds since the epoch.
            value: The value, finite.
            bits: Its surprise, as `score_one` gave it.
            is_alarm: Whether it raised an alarm.
        """
        if is_alarm:
            self.last_alarm = self.count
            self.alarm_height = bits - 0.5 * math.log2(self.count + 2)
        self.lasting = self.lasting.after(bits)
        learned = [value]
        self._level.learn(value, self._level.novelty(value))
        hour = _hour(time_s)
        self._hourly_counts[hour] += 1
        for rate, channel, means in zip(_SEASON_RATES, self._seasons, self._hourly_means, strict=True):
            first = self._hourly_counts[hour] == 1
            residual = 0.0 if first else value - means[hour]
            channel.learn(residual, channel.novelty(residual))
            learned.append(residual)
            means[hour] += max(rate, 1.0 / self._hourly_counts[hour]) * (value - means[hour])
        self.count += 1
        return learned

    def nearest(self, value: float) -> float:
        """Return the value seen before that is nearest to this one; NaN if none was."""
        seen = self._level.seen
        if not seen:
            return math.nan
        place = bisect_left(seen, value)
        return min(seen[max(0, place - 1) : place + 1], key=lambda known: abs(known - value))

    def state(self) -> dict[str, Any]:
        """Return everything remembered."""
        return {
            "count": self.count,
            "last_alarm": self.last_alarm,
            "alarm_height": self.alarm_height,
            "lasting": list(self.lasting.means),
            "level": self._level.state(),
            "seasons": [channel.state() for channel in self._seasons],
            "hourly_means": self._hourly_means,
            "hourly_counts": self._hourly_counts,
        }

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> PointSeries:
        """Return the series that gave this state."""
        series = cls()
        series.count, series.last_alarm = state["count"], state["last_alarm"]
        series.alarm_height = state["alarm_height"]
        series.lasting = Lasting(tuple(state["lasting"]))
        series._level = _Channel.of_state(state["level"])
        series._seasons = [_Channel.of_state(item) for item in state["seasons"]]
        series._hourly_means = [list(means) for means in state["hourly_means"]]
        series._hourly_counts = list(state["hourly_counts"])
        return series


def _holds(values: list[float], value: float) -> bool:
    """Return whether ascending values hold one."""
    place = bisect_left(values, value)
    return place < len(values) and values[place] == value


def _tail_size(n: int) -> int:
    """Return how many of n novelties shape the tail."""
    return max(int(_TAIL_SHARE * n), _FEWEST_IN_TAIL)


def _hour(time_s: float) -> int:
    return int(time_s % _DAY_S * _HOURS // _DAY_S)
