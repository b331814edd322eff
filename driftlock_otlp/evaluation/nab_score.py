"""The score of the Numenta Anomaly Benchmark: early detections within labelled windows, minus false alarms.

Pure functions of scores and labels. One threshold holds for all files.

References:
    Lavin & Ahmad 2015, "Evaluating Real-Time Anomaly Detection Algorithms: the Numenta Anomaly
    Benchmark", section 3. Its labels are debatable: Wu & Keogh 2020, arXiv 2009.13807.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_PROBATION_SHARE = 0.15
_PROBATION_ROWS = 5000


@dataclass(frozen=True, slots=True)
class Profile:
    """What a hit, a false alarm and a miss weigh.

    Attributes:
        name: As published.
        hit: Credit of a detection at the very beginning of a window.
        false_alarm: Cost of a row far from any window.
        miss: Cost of a window without a detection.
    """

    name: str
    hit: float
    false_alarm: float
    miss: float


PROFILES = (
    Profile("standard", 1.0, 0.11, 1.0),
    Profile("reward_low_FP_rate", 1.0, 0.22, 1.0),
    Profile("reward_low_FN_rate", 1.0, 0.11, 2.0),
)


@dataclass(frozen=True, slots=True)
class ScoredFile:
    """One series with what a detector said of it.

    Attributes:
        scores: float64, (n,): the higher the odder; -inf where the detector says nothing.
        windows: (first, last) row of each labelled window, both within it; sorted, apart.
    """

    scores: Floats
    windows: Sequence[tuple[int, int]]


def probation_rows(row_count: int) -> int:
    """Return how many rows at the beginning do not count."""
    return math.floor(_PROBATION_SHARE * min(row_count, _PROBATION_ROWS))


def position_weight(y: Floats) -> Floats:
    """Return the scaled sigmoid of relative positions: 1 long before the end of a window, -1 long after.

    >>> np.round(position_weight(np.array([-1.0, 0.0, 1.0, 4.0])), 3).tolist()
    [0.987, 0.0, -0.987, -1.0]
    """
    weight: Floats = np.where(y > 3.0, -1.0, 2.0 / (1.0 + np.exp(5.0 * np.minimum(y, 3.0))) - 1.0)
    return weight


@dataclass(frozen=True, slots=True)
class Sweep:
    """Scores of every threshold, over all files.

    Attributes:
        thresholds: float64, (m,), falling: the distinct scores.
        scores: float64, (m,): NAB score at each, when rows at or above it are detections.
    """

    thresholds: Floats
    scores: Floats

    def best(self) -> tuple[float, float]:
        """Return the highest score and the highest threshold that has it; 0 and infinity if silence is best."""
        if not self.scores.size or self.scores.max() < 0.0:
            return 0.0, math.inf
        index = int(np.argmax(self.scores))
        return float(self.scores[index]), float(self.thresholds[index])

    def at(self, threshold: float) -> float:
        """Return the score at a threshold; 0 where nothing reaches it."""
        reached = int(np.searchsorted(-self.thresholds, -threshold, side="right"))
        return float(self.scores[reached - 1]) if reached else 0.0


def sweep(files: Sequence[ScoredFile], profile: Profile) -> Sweep:
    """Return the NAB score at every threshold: 100 for perfect, 0 for silence."""
    pieces = [_changes(file, profile) for file in files]
    thresholds = np.concatenate([piece[0] for piece in pieces]) if pieces else np.zeros(0)
    changes = np.concatenate([piece[1] for piece in pieces]) if pieces else np.zeros(0)
    order = np.argsort(-thresholds, kind="stable")
    thresholds, totals = thresholds[order], np.cumsum(changes[order])
    # All rows of one score become detections together.
    is_last = np.append(thresholds[1:] != thresholds[:-1], True) if thresholds.size else np.zeros(0, bool)
    window_count = sum(len(file.windows) for file in files)
    perfect = max(window_count, 1) * (profile.hit + profile.miss)
    return Sweep(thresholds[is_last], 100.0 * totals[is_last] / perfect)


def _changes(file: ScoredFile, profile: Profile) -> tuple[Floats, Floats]:
    """Return thresholds, and what falling to each adds to the score of silence."""
    rows = np.arange(len(file.scores))
    first_row = probation_rows(len(file.scores))
    in_window = np.zeros(len(file.scores), bool)
    thresholds, changes = [], []
    for first, last in file.windows:
        in_window[first : last + 1] = True
        found = _window_changes(file.scores, max(first, first_row), first, last, profile)
        thresholds.append(found[0])
        changes.append(found[1])
    outside = (rows >= first_row) & ~in_window & np.isfinite(file.scores)
    cost = np.full(len(file.scores), -1.0)
    for index, (first, last) in enumerate(file.windows):
        until = file.windows[index + 1][0] if index + 1 < len(file.windows) else len(file.scores)
        after = rows[last + 1 : until]
        cost[after] = position_weight(((after - last) / max(last - first, 1)).astype(np.float64))
    thresholds.append(file.scores[outside])
    changes.append(profile.false_alarm * cost[outside])
    return np.concatenate(thresholds), np.concatenate(changes)


def _window_changes(scores: Floats, start: int, first: int, last: int, profile: Profile) -> tuple[Floats, Floats]:
    """Return the thresholds at which a window's first detection moves, and by how much the credit grows."""
    rows = np.arange(start, last + 1)
    if not rows.size:
        return np.zeros(0), np.zeros(0)
    seen = scores[rows]
    # The first detection at a threshold is the first row that reaches it: a record of the running maximum.
    before = np.concatenate(([-np.inf], np.maximum.accumulate(seen)[:-1]))
    records = rows[(seen > before) & np.isfinite(seen)]
    y = -(last - records + 1.0) / (last - first + 1.0)
    credit = profile.hit * position_weight(y.astype(np.float64)) / position_weight(np.array([-1.0]))[0]
    # From the highest record, which is the latest, down to the earliest.
    falling, gained = scores[records][::-1], credit[::-1]
    return falling, np.diff(gained, prepend=-profile.miss)
