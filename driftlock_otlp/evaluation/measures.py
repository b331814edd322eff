"""How well scores tell what is labelled from what is not.

Pure functions of scores and labels, higher scores being odder. Equal scores are one step of every
curve, so that a detector gains nothing by the order in which it happens to list them. There is no
point adjustment: with it a random score can look good (Kim et al. 2022, "Towards a Rigorous
Evaluation of Time-Series Anomaly Detection").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def roc_auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the chance that something labelled scores above something that is not; ties count half.

    Args:
        scores: (n,), without NaN; -inf where the detector says nothing.
        labels: (n,), truthy where labelled.

    Returns:
        [0, 1], .5 for a score that knows nothing; NaN unless both kinds are there.

    >>> roc_auc([0.1, 0.4, 0.4, 0.9], [0, 0, 1, 1])
    0.875
    """
    curve = _Curve.of(scores, labels)
    if not curve.positives or not curve.negatives:
        return math.nan
    hits = np.concatenate(([0.0], curve.hits)) / curve.positives
    alarms = np.concatenate(([0.0], curve.false_alarms)) / curve.negatives
    return float(np.trapezoid(hits, alarms))


def pr_auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the average precision: precision at each threshold, weighted by the recall it adds.

    Args:
        scores: (n,), without NaN; -inf where the detector says nothing.
        labels: (n,), truthy where labelled.

    Returns:
        (0, 1], the share of labels for a score that knows nothing; NaN if nothing is labelled.

    >>> round(pr_auc([0.1, 0.4, 0.4, 0.9], [0, 0, 1, 1]), 4)
    0.8333
    """
    curve = _Curve.of(scores, labels)
    if not curve.positives:
        return math.nan
    precision = curve.hits / (curve.hits + curve.false_alarms)
    return float(np.sum(precision * np.diff(curve.hits, prepend=0.0)) / curve.positives)


@dataclass(frozen=True, slots=True)
class F1:
    """The harmonic mean of precision and recall, and where it is reached.

    Attributes:
        f1: [0, 1].
        precision: [0, 1].
        recall: [0, 1].
        threshold: What scores at or above it is found.
    """

    f1: float
    precision: float
    recall: float
    threshold: float


def best_f1(scores: npt.ArrayLike, labels: npt.ArrayLike) -> F1:
    """Return the highest F1 of any threshold; of several, that of the highest threshold.

    The threshold is chosen on the data that is judged: say so beside the figure.

    >>> best_f1([0.1, 0.4, 0.4, 0.9], [0, 0, 1, 1])
    F1(f1=0.8, precision=0.6666666666666666, recall=1.0, threshold=0.4)
    """
    curve = _Curve.of(scores, labels)
    if not curve.positives:
        return F1(0.0, 0.0, 0.0, math.inf)
    values = 2.0 * curve.hits / (curve.hits + curve.false_alarms + curve.positives)
    best = int(np.argmax(values))
    hits, found = float(curve.hits[best]), float(curve.hits[best] + curve.false_alarms[best])
    return F1(float(values[best]), hits / found, hits / curve.positives, float(curve.thresholds[best]))


def f1_at(scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float) -> F1:
    """Return F1 at a threshold that was fixed beforehand.

    >>> f1_at([0.1, 0.4, 0.4, 0.9], [0, 0, 1, 1], 0.5)
    F1(f1=0.6666666666666666, precision=1.0, recall=0.5, threshold=0.5)
    """
    found = np.asarray(scores, dtype=np.float64) >= threshold
    labelled = np.asarray(labels, dtype=bool)
    hits, all_found, positives = int((found & labelled).sum()), int(found.sum()), int(labelled.sum())
    f1 = 2.0 * hits / max(all_found + positives, 1)
    return F1(f1, hits / max(all_found, 1), hits / max(positives, 1), threshold)


def flag_everything_f1(labels: npt.ArrayLike) -> float:
    """Return the F1 of calling everything odd: what any detector has to beat.

    >>> round(flag_everything_f1([0, 0, 0, 1]), 3)
    0.4
    """
    labelled = np.asarray(labels, dtype=bool)
    positives = int(labelled.sum())
    return 2.0 * positives / max(positives + labelled.size, 1)


def events(labels: npt.ArrayLike) -> list[tuple[int, int]]:
    """Return the first and the last index of each run of what is labelled.

    >>> events([0, 1, 1, 0, 1])
    [(1, 2), (4, 4)]
    """
    steps = np.diff(np.asarray(labels, dtype=np.int8), prepend=0, append=0)
    return list(zip(np.flatnonzero(steps == 1).tolist(), (np.flatnonzero(steps == -1) - 1).tolist(), strict=True))


def event_f1(scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float, tolerance: int) -> F1:
    """Return F1 by events: labelled runs that are met, and found runs that meet one.

    An event is met if anything from its first index to `tolerance` after its last is found. Found
    runs no more than `tolerance` apart are one; a run is right if it meets any event.

    Args:
        scores: (n,), in time order.
        labels: (n,), truthy where labelled.
        threshold: What scores at or above it is found.
        tolerance: Indices of delay that are forgiven, >= 0.

    Returns:
        Recall over events, precision over runs of alarms.
    """
    found = events(np.asarray(scores, dtype=np.float64) >= threshold)
    labelled = events(np.asarray(labels, dtype=bool))
    runs: list[tuple[int, int]] = []
    for first, last in found:
        if runs and first - runs[-1][1] - 1 <= tolerance:
            runs[-1] = (runs[-1][0], last)
        else:
            runs.append((first, last))
    met = sum(any(a <= last + tolerance and b >= first for a, b in found) for first, last in labelled)
    right = sum(any(a <= last + tolerance and b >= first for first, last in labelled) for a, b in runs)
    precision, recall = right / max(len(runs), 1), met / max(len(labelled), 1)
    f1 = 2.0 * precision * recall / (precision + recall) if right and met else 0.0
    return F1(f1, precision, recall, threshold)


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure, and between which bounds others of its kind would probably lie.

    Attributes:
        estimate: The statistic of the values themselves.
        low: Lower end.
        high: Upper end.
    """

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} ({self.low:.3f}-{self.high:.3f})"


def bootstrap_interval(
    values: npt.ArrayLike,
    seed: int,
    *,
    statistic: Callable[[Floats], float] | None = None,
    draws: int = 2000,
    coverage: float = 0.95,
) -> Interval:
    """Return a percentile bootstrap interval over units that are drawn anew with replacement.

    The units are what is independent: files, machines or faults, never single points of a series.

    Args:
        values: (n,) or (n, k), one row for each unit; NaN rows are left out.
        seed: Seed of the draws.
        statistic: Of an array of units; the mean unless given.
        draws: How many samples are drawn.
        coverage: Share of the draws between the bounds, (0, 1).

    References:
        Efron 1979, "Bootstrap Methods: Another Look at the Jackknife".
    """
    units = np.asarray(values, dtype=np.float64)
    units = units[~np.isnan(units).any(axis=tuple(range(1, units.ndim)))]
    if not len(units):
        return Interval(math.nan, math.nan, math.nan)
    chosen = np.random.default_rng(seed).integers(len(units), size=(draws, len(units)))
    if statistic is None:
        estimate, drawn = float(units.mean()), units[chosen].mean(axis=1)
    else:
        estimate, drawn = statistic(units), np.array([statistic(units[rows]) for rows in chosen])
    low, high = np.quantile(drawn, [(1.0 - coverage) / 2.0, (1.0 + coverage) / 2.0])
    return Interval(estimate, float(low), float(high))


@dataclass(frozen=True, slots=True)
class _Curve:
    """What is found at each distinct score, from the highest down.

    Attributes:
        thresholds: float64, (m,), falling.
        hits: float64, (m,): labelled ones at or above.
        false_alarms: float64, (m,): others at or above.
        positives: Labelled ones in all.
        negatives: Others in all.
    """

    thresholds: Floats
    hits: Floats
    false_alarms: Floats
    positives: int
    negatives: int

    @classmethod
    def of(cls, scores: npt.ArrayLike, labels: npt.ArrayLike) -> _Curve:
        values = np.asarray(scores, dtype=np.float64)
        labelled = np.asarray(labels, dtype=bool)
        if values.shape != labelled.shape or values.ndim != 1:
            raise ValueError(f"scores {values.shape} and labels {labelled.shape} must be one row each, equally long")
        if np.isnan(values).any():
            raise ValueError("a score is NaN; write -inf where a detector says nothing")
        order = np.argsort(-values, kind="stable")
        values, labelled = values[order], labelled[order]
        is_last = np.append(values[1:] != values[:-1], True) if values.size else np.zeros(0, bool)
        hits = np.cumsum(labelled, dtype=np.float64)[is_last]
        seen = np.flatnonzero(is_last) + 1.0
        positives = int(labelled.sum())
        return cls(values[is_last], hits, seen - hits, positives, labelled.size - positives)
