"""Numbers by the symbol on which they depend: sorted once, asked many times.

A window of a busy service gives numbers of dozens of operations. All of them are compared with
their baselines at once here; a group at a time costs twenty times as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from driftlock_otlp.detection.codelength import log2_gamma_half
from driftlock_otlp.detection.columns import Codes, Floats, Ints

_BINS = 16
_STEPS = (1, 2, 4, 8)
"""Every edge, every second, ...: 16, 8, 4 and 2 bins."""


@dataclass(slots=True)
class Group:
    """Baseline values of one symbol.

    Attributes:
        values: float64, (m,), sorted, m >= 1.
        median: The upper one of an even number.
        spread: Robust standard deviation, > 0.
    """

    values: Floats
    median: float
    spread: float


class SortedGroups:
    """Values by group, each group sorted.

    Args:
        codes: int32, (n,), in [0, 32,768): the group of each value.
        values: float64, (n,), finite.
        group_count: Groups; some may be empty.
    """

    def __init__(self, codes: Codes, values: Floats, group_count: int) -> None:
        # Values come as runs that are sorted already, or fall and then rise: a stable sort merges them. Small
        # integers are then sorted by their digits.
        self.starts: Ints
        if group_count == 1:
            self.codes, self.values = codes, np.sort(values, kind="stable")
            self.starts = np.array([0, len(values)], dtype=np.int64)
        else:
            order = np.argsort(values, kind="stable")
            order = order[np.argsort(codes[order].astype(np.int16), kind="stable")]
            self.codes, self.values = codes[order], values[order]
            self.starts = np.searchsorted(self.codes, np.arange(group_count + 1)).astype(np.int64)
        self.counts: Ints = np.diff(self.starts)
        self._keys: npt.NDArray[np.complex128] | None = None

    def group(self, code: int) -> Floats:
        """Return one group's values, sorted; float64, (m,)."""
        return self.values[self.starts[code] : self.starts[code + 1]]

    def upper_medians(self) -> Floats:
        """Return the median of each group, the upper one of an even number; float64, (groups,), NaN if empty."""
        return self._at(self.counts // 2)

    def medians(self) -> Floats:
        """Return the median of each group; float64, (groups,), NaN if empty."""
        result: Floats = (self._at(self.counts // 2) + self._at((self.counts - 1) // 2)) / 2.0
        return result

    def cut_means(self, spreads: Floats, farthest: float) -> Floats:
        """Return the mean of each group, values far from its median cut off: one step of Huber's M-estimator.

        Args:
            spreads: float64, (groups,), > 0.
            farthest: Spreads from the median at which a value is cut off.

        Returns:
            float64, (groups,); NaN if empty.
        """
        medians = self.medians()
        cut = np.clip((self.values - medians[self.codes]) / spreads[self.codes], -farthest, farthest)
        sums = np.bincount(self.codes, cut, len(self.counts))
        result: Floats = medians + spreads * sums / np.maximum(self.counts, 1)
        return result

    def edges(self, chosen: Ints) -> Floats:
        """Return the interior quantiles of the chosen groups, none empty; float64, (groups, 15)."""
        position = (self.counts[chosen, None] - 1) / _BINS * np.arange(1, _BINS)
        low = position.astype(np.int64)
        fraction = position - low
        first = self.starts[chosen, None]
        above = np.minimum(low + 1, self.counts[chosen, None] - 1)
        result: Floats = self.values[first + low] * (1 - fraction) + self.values[first + above] * fraction
        return result

    def bins(self, chosen: Ints, edges: Floats) -> Ints:
        """Return how many values of each chosen group lie below, at, between, ... its edges.

        Args:
            chosen: int64, (g,): the groups.
            edges: float64, (g, k), ascending: a value equal to an edge falls into a bin of its
                own, so that ties are told from what lies beside them.

        Returns:
            int64, (g, 2 k + 2): number of values before each bound; the first is 0, the last all.
        """
        bounds = np.empty((len(chosen), 2 * edges.shape[1] + 2), dtype=np.int64)
        bounds[:, 0], bounds[:, -1] = 0, self.counts[chosen]
        if len(self.counts) == 1:
            bounds[:, 1:-1:2] = np.searchsorted(self.values, edges, "left")
            bounds[:, 2:-1:2] = np.searchsorted(self.values, edges, "right")
            return bounds
        # Complex numbers are ordered by their real part first: one search serves all groups.
        if self._keys is None:
            self._keys = self.codes + 1j * self.values
        keys = chosen[:, None] + 1j * edges
        bounds[:, 1:-1:2] = np.searchsorted(self._keys, keys, "left") - self.starts[chosen, None]
        bounds[:, 2:-1:2] = np.searchsorted(self._keys, keys, "right") - self.starts[chosen, None]
        return bounds

    def _at(self, offsets: Ints) -> Floats:
        held = self.counts > 0
        result = np.full(len(self.counts), np.nan)
        result[held] = self.values[self.starts[:-1][held] + offsets[held]]
        return result


class BaselineGroups(SortedGroups):
    """The groups of a baseline, with what every window asks of them.

    Attributes:
        numbers: Each label's number.
        median, spread: float64, (groups,); NaN for a group without values.
    """

    def __init__(self, codes: Codes, values: Floats, numbers: dict[str, int]) -> None:
        super().__init__(codes, values, len(numbers))
        self.numbers = numbers
        self.median = self.upper_medians()
        deviations = np.abs(self.values - self.median[self.codes])
        spread = 1.4826 * _medians(self.codes, deviations, len(numbers))
        with np.errstate(invalid="ignore"):
            # More than half of the values are equal; a flat baseline has no spread at all, and a
            # hundredth of its level stands in.
            flat = spread <= 1e-6 * np.abs(self.median)
        totals = np.bincount(self.codes, deviations, len(numbers))
        stand_in = np.maximum(totals / np.maximum(self.counts, 1), np.maximum(0.01 * np.abs(self.median), 1e-9))
        self.spread: Floats = np.where(flat, stand_in, spread)

    def get(self, label: str) -> Group | None:
        """Return one label's group; None if the baseline has no value of it."""
        code = self.numbers.get(label, -1)
        if code < 0 or not self.counts[code]:
            return None
        return Group(self.group(code), float(self.median[code]), float(self.spread[code]))

    def codes_of(self, labels: list[str]) -> Ints:
        """Return the number of each label; int64, (k,), -1 for one without values in the baseline."""
        codes = np.array([self.numbers.get(label, -1) for label in labels], dtype=np.int64)
        codes[codes >= 0] = np.where(self.counts[codes[codes >= 0]] > 0, codes[codes >= 0], -1)
        return codes

    def shift_evidence(self, codes: Ints, window: SortedGroups, chosen: Ints) -> Floats:
        """Return the evidence that groups of a window are distributed otherwise than in the baseline.

        Args:
            codes: int64, (g,): the groups' numbers here, none empty.
            window: The window's values.
            chosen: int64, (g,): the same groups' numbers in the window.

        Returns:
            float64, (g,), bits: averaged over 16, 8, 4 and 2 bins.
        """
        if not len(codes):
            return np.zeros(0)
        edges = self.edges(codes)
        base, own = self.bins(codes, edges), window.bins(chosen, edges)
        bits = np.empty((len(_STEPS), len(codes)))
        for i, step in enumerate(_STEPS):
            bits[i] = _evidence(_counts(base, step), _counts(own, step))
        top = bits.max(axis=0)
        result: Floats = top + np.log2(np.exp2(bits - top).mean(axis=0))
        return result


def _medians(codes: Codes, values: Floats, group_count: int) -> Floats:
    """Return the median of each group; float64, (groups,), NaN if empty."""
    if group_count > 1 or not len(values):
        return SortedGroups(codes, values, group_count).medians()
    middle = (len(values) - 1) // 2, len(values) // 2
    parted = np.partition(values, middle)
    return np.array([(parted[middle[1]] + parted[middle[0]]) / 2.0])


def group_edges(values: Floats) -> Floats:
    """Return the interior quantiles of sorted values, one or more; float64, (15,)."""
    one = SortedGroups(np.zeros(len(values), dtype=np.int32), values, 1)
    result: Floats = one.edges(np.zeros(1, dtype=np.int64))[0]
    return result


def _counts(bounds: Ints, step: int) -> Ints:
    """Return the counts between the bounds of every step-th edge; int64, (g, bins)."""
    inner = bounds[:, 1:-1]
    pairs = inner.reshape(len(bounds), -1, 2)[:, step - 1 :: step].reshape(len(bounds), -1)
    kept = np.concatenate((bounds[:, :1], pairs, bounds[:, -1:]), axis=1)
    # Equal edges repeat their bounds: what a repeated edge would count again is cut off.
    result: Ints = np.maximum(np.diff(np.maximum.accumulate(kept, axis=1), axis=1), 0)
    return result


def _evidence(base: Ints, own: Ints) -> Floats:
    """Return L(BW) - L(B) - L(W) of each row of counts; float64, (g,), bits."""
    alphabet = np.maximum(np.count_nonzero(base + own, axis=1), 2)
    base_total, own_total = base.sum(axis=1), own.sum(axis=1)
    # Bins that the window leaves empty cancel.
    bits: Any = (
        log2_gamma_half(2 * own + 1)
        - log2_gamma_half(np.ones(1, dtype=np.int64))[0]
        - log2_gamma_half(2 * (base + own) + 1)
        + log2_gamma_half(2 * base + 1)
    ).sum(axis=1)
    bits += log2_gamma_half(alphabet) - log2_gamma_half(2 * own_total + alphabet)
    bits -= log2_gamma_half(2 * base_total + alphabet) - log2_gamma_half(2 * (base_total + own_total) + alphabet)
    result: Floats = bits
    return result


def weighted_median(values: Floats, weights: Floats) -> float:
    """Return the least value that has half of the weight at or below it.

    >>> weighted_median(np.array([3.0, 1.0, 2.0]), np.array([5.0, 1.0, 1.0]))
    3.0
    """
    order = np.argsort(values, kind="stable")
    passed = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(passed, passed[-1] / 2.0)])
