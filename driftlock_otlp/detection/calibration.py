"""From evidence to calibrated surprise, by the stream's own past.

A window yields a vector of evidence, one number per claim about a column. What is large for
one claim is ordinary for another, and real telemetry is bursty, so each is measured by its
own history: robust z, then the tail probability of that z (rank inside the history, a
generalised Pareto tail of fixed shape beyond it), in bits. The strongest claim is the
window's; it owes the logarithm of how many independent claims the past shows there to be. A
claim whose tail is heavy does not blunt the others by that, as a common tail of the strongest
claims would.

Everything here is a pure function of the stored vectors: an auditor can compute it again.

References:
    Coles 2001, "An Introduction to Statistical Modeling of Extreme Values", chapter 4.
    Vovk, Gammerman & Shafer 2005, "Algorithmic Learning in a Random World" (conformal p).
"""

from __future__ import annotations

import math

import numpy as np

from driftlock_otlp.detection.columns import Floats

_LN2 = math.log(2.0)
_TAIL_SHARE = 0.05
"""Share of the history that shapes the tail."""
_PRIOR_WEIGHT = 5.0
"""Excesses that the prior on the tail's scale is worth; without it 60 windows do not calibrate."""
_PRIOR_RATIO = 0.6
_FEWEST_IN_TAIL = 5
_CROWD_BITS = (4.0, 5.0, 6.0)
"""Levels at which claims are counted that are strong together; beyond them too few windows tell."""
_CROWD_WINDOWS = 50.0
"""History that weighs as much as the assumption that all claims are independent."""


class Tail:
    """Surprise of a score against a sample: -log2 P(score at least this large).

    Args:
        scores: float64, (n,), n >= 6: the history.
        least_scale: Smallest prior scale of the tail, in the scores' unit; keeps columns that
            are zero almost always from calling everything else impossible.
        shape: Generalised Pareto shape, in (0, 1).
    """

    def __init__(self, scores: Floats, least_scale: float = 1e-3, shape: float = 0.2) -> None:
        self.shape = shape
        self.sorted = np.sort(scores)
        n = len(self.sorted)
        k = max(int(_TAIL_SHARE * n), _FEWEST_IN_TAIL)
        self.threshold = float(self.sorted[n - k - 1])
        excess = self.sorted[n - k :] - self.threshold
        beyond = int((excess > 0).sum())
        self.base_bits = -math.log2((beyond + 1) / (n + 1))
        prior = max(_PRIOR_RATIO * (self.threshold - float(self.sorted[n // 2])), least_scale)
        self.scale = (float(excess.sum()) * (1 - shape) + _PRIOR_WEIGHT * prior) / (beyond + _PRIOR_WEIGHT) + 1e-9

    def bits(self, scores: Floats) -> Floats:
        """Return the surprise of each score, in bits, >= 0; float64, (m,)."""
        n = len(self.sorted)
        ranks = n - np.searchsorted(self.sorted, scores, side="left")
        inside = np.minimum(-np.log2((ranks + 1) / (n + 1)), self.base_bits)
        excess = np.maximum(scores - self.threshold, 0.0)
        outside = self.base_bits + np.log1p(self.shape * excess / self.scale) / (self.shape * _LN2)
        result: Floats = np.where(scores > self.threshold, outside, inside)
        return result


class Calibration:
    """What a history of evidence vectors says about a new one.

    A claim that does not apply to a window (NaN) is calibrated on the windows to which it did,
    and is silent until there are enough of them: a column that comes up late must not be
    measured against a past that had none.

    Args:
        history: float64, (n, d), n >= 6: past evidence vectors, oldest first; NaN where a
            claim did not apply.
        units: float64, (d,): what counts as little evidence in each column: 3 for bits, 0.2 for
            bits a record.
        shapes: float64, (d,): shape of each column's tail, in (0, 1).
        fewest: Windows to which a claim must have applied before it is heard; >= 6.
    """

    def __init__(self, history: Floats, units: Floats, shapes: Floats, fewest: int = 6) -> None:
        width = history.shape[1]
        self.median, self.spread = np.full(width, np.nan), np.full(width, np.nan)
        self.tails: list[Tail | None] = []
        for j in range(width):
            applied = history[:, j][np.isfinite(history[:, j])]
            if len(applied) < fewest:
                self.tails.append(None)
                continue
            self.median[j], self.spread[j] = _centre(applied, least=0.5 * min(float(units[j]), 1.0))
            z = self._z(applied, j)
            self.tails.append(Tail(z, float(units[j] / self.spread[j]), float(shapes[j])))
        self.past: Floats = np.sort(self.column_bits(history).max(axis=1))
        self.crowd_bits = self._crowd_bits()

    def column_bits(self, vectors: Floats) -> Floats:
        """Return the surprise of each column of each vector; float64, (m, d), bits, 0 where silent."""
        bits = np.zeros(vectors.shape)
        for j, tail in enumerate(self.tails):
            if tail is not None:
                z = self._z(vectors[:, j], j)
                bits[:, j] = np.where(np.isfinite(z), tail.bits(z), 0.0)
        return bits

    def window_bits(self, strongest: float) -> float:
        """Return the calibrated surprise of a window whose strongest column has these bits."""
        return max(strongest - self.crowd_bits, 0.0)

    def p_value(self, strongest: float) -> float:
        """Return the conformal p-value of a window, in (0, 1]: never 0, ties count."""
        return float((1 + np.count_nonzero(self.past >= strongest)) / (1 + self.past.size))

    def _crowd_bits(self) -> float:
        """Return log2 of the number of independent claims, between 0 and that of all that are heard.

        Of m independent claims one or another has b bits in about m 2^-b of all windows.
        """
        heard, n = sum(tail is not None for tail in self.tails), len(self.past)
        if heard < 2:
            return 0.0
        seen = [np.count_nonzero(self.past >= bits) / (n * 2.0**-bits) for bits in _CROWD_BITS]
        effective = (n * float(np.mean(seen)) + _CROWD_WINDOWS * heard) / (n + _CROWD_WINDOWS)
        return math.log2(min(max(effective, 1.0), heard))

    def _z(self, values: Floats, j: int) -> Floats:
        result: Floats = np.maximum((values - self.median[j]) / self.spread[j], 0.0)
        return result


def _centre(values: Floats, least: float) -> tuple[float, float]:
    """Return the median and a robust standard deviation of the upper side, not below what is little."""
    median = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - median)))
    upper = (float(np.quantile(values, 0.9)) - median) / 1.2816
    return median, max(spread, upper, 1e-3 * abs(median) + least)
