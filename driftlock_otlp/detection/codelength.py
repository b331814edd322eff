"""Code lengths of counts under the Krichevsky-Trofimov estimator, and the evidence they give.

The Krichevsky-Trofimov (KT) code is what an ideal adaptive arithmetic coder emits that starts
with half a count per symbol; the probability it gives to a sequence depends on its counts
alone. With L(x) = -log2 KT(x),

    evidence(W, B) = L(BW) - L(B) - L(W)

is the number of bits that a window W costs less with a model of its own than with the
baseline's: positive when the two differ by more than chance explains.

References:
    Krichevsky & Trofimov 1981, "The performance of universal encoding".
    Willems, Shtarkov & Tjalkens 1995, "The context-tree weighting method".
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from driftlock_otlp.detection.columns import Floats, Ints

_LN2 = math.log(2.0)


class _LogGammaTable:
    """log2 Gamma(m / 2) for whole m >= 1: counts are whole, so a table serves."""

    def __init__(self) -> None:
        self.values: Floats = np.zeros(0)
        self.grow(1 << 13)

    def grow(self, size: int) -> None:
        # Gamma(x + 1) = x Gamma(x), from Gamma(1/2) for odd m and Gamma(1) for even m.
        steps = np.log2(np.arange(1, size + 1) / 2.0)
        values = np.empty(size + 2)
        values[0] = np.inf
        values[1::2] = math.lgamma(0.5) / _LN2 + np.concatenate(([0.0], np.cumsum(steps[0::2])))[: len(values[1::2])]
        values[2::2] = np.concatenate(([0.0], np.cumsum(steps[1::2])))[: len(values[2::2])]
        self.values = values


_TABLE = _LogGammaTable()


def log2_gamma_half(m: Ints) -> Floats:
    """Return log2 Gamma(m / 2).

    Args:
        m: int64, any shape, >= 1.

    >>> [round(float(x), 6) for x in log2_gamma_half(np.array([2, 4, 6, 8]))]
    [0.0, 0.0, 1.0, 2.584963]
    """
    largest = int(m.max()) if m.size else 0
    if largest >= len(_TABLE.values):
        _TABLE.grow(1 << largest.bit_length())
    result: Floats = _TABLE.values[m]
    return result


def log2_mean_exp2(bits: Floats) -> float:
    """Return log2 of the mean of 2**bits: the evidence of a mixture of equally likely claims.

    >>> log2_mean_exp2(np.array([10.0, 0.0])) < 10
    True
    """
    top = float(bits.max())
    return top + math.log2(float(np.exp2(bits - top).mean()))


def mix(*parts: float) -> float:
    """Return the evidence of an even mixture of a few claims, in bits."""
    return log2_mean_exp2(np.array(parts))


def alphabet_evidence(baseline: Ints, window: Ints, baseline_total: int, alphabet_size: int) -> float:
    """Return L(BW) - L(B) - L(W) over a whole alphabet, in bits.

    Args:
        baseline: int64, (k,): counts in the baseline of the symbols that the window holds.
        window: int64, (k,), >= 1: their counts in the window.
        baseline_total: Count of all symbols in the baseline.
        alphabet_size: Symbols in either, plus one that stands for those never seen.
    """
    n = int(window.sum())
    totals = 2 * np.array([0, n, baseline_total, baseline_total + n], dtype=np.int64) + alphabet_size
    empty, own, base, both = log2_gamma_half(totals)
    symbols = (
        log2_gamma_half(2 * window + 1)
        - log2_gamma_half(np.ones(1, dtype=np.int64))[0]
        - log2_gamma_half(2 * (baseline + window) + 1)
        + log2_gamma_half(2 * baseline + 1)
    )
    return float(symbols.sum() + (empty - own) - (base - both))


def binary_evidence(baseline: Ints, window: Ints, baseline_total: int, window_total: int) -> Floats:
    """Return the evidence of each symbol against all the rest, in bits.

    Args:
        baseline: int64, (k,): counts in the baseline.
        window: int64, (k,): counts in the window.
        baseline_total: All counts in the baseline.
        window_total: All counts in the window.

    Returns:
        float64, (k,).
    """
    own = _log2_kt(window, window_total - window)
    both = _log2_kt(baseline + window, baseline_total + window_total - baseline - window)
    return own - both + _log2_kt(baseline, baseline_total - baseline)


def novelty_evidence(counts: npt.ArrayLike, totals: npt.ArrayLike, novel_rate: float) -> Floats:
    """Return the evidence that a never-seen symbol now arrives at a rate of its own, in bits.

    Args:
        counts: int64, (m,), >= 0: occurrences of the symbol among some records.
        totals: int64, (m,), >= counts: those records.
        novel_rate: Long-run share of records with a never-seen symbol, in (0, 1).

    Returns:
        float64, (m,), >= 0.
    """
    ones: Ints = np.asarray(counts, dtype=np.int64)
    zeros: Ints = np.asarray(totals, dtype=np.int64) - ones
    usual = ones * math.log2(novel_rate) + zeros * math.log2(1.0 - novel_rate)
    # Without any occurrence nothing is new, however many there ought to be.
    result: Floats = np.where(ones > 0, np.maximum(_log2_kt(ones, zeros) - usual, 0.0), 0.0)
    return result


def entropy_bits(counts: npt.NDArray[np.int64]) -> float:
    """Return the empirical entropy of counts, in bits a symbol.

    >>> entropy_bits(np.array([5, 5]))
    1.0
    """
    total = counts.sum()
    if total == 0:
        return 0.0
    share = counts[counts > 0] / total
    return float(-(share * np.log2(share)).sum())


def _log2_kt(ones: Ints, zeros: Ints) -> Floats:
    """log2 of Gamma(a+1/2) Gamma(b+1/2) / (pi Gamma(a+b+1))."""
    return (
        log2_gamma_half(2 * ones + 1)
        + log2_gamma_half(2 * zeros + 1)
        - log2_gamma_half(2 * (ones + zeros) + 2)
        - math.log2(math.pi)
    )
