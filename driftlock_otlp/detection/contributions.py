"""What each record of a window contributes to its oddness."""

from __future__ import annotations

import math

import numpy as np

from driftlock_otlp.detection.baseline import Baseline
from driftlock_otlp.detection.columns import Floats
from driftlock_otlp.detection.scores import WindowScore


def record_margins(score: WindowScore, baseline: Baseline, bar_bits: float) -> Floats:
    """Return how odd each record of a window is, as bits beyond the alarm bar; float64, (n,).

    Args:
        score: The window's verdict.
        baseline: What it was compared with.
        bar_bits: Bar of an immediate alarm.
    """
    n = score.columns.record_count
    saved = record_bits(score, baseline)
    top = float(saved.max()) if n else 0.0
    if score.is_sparse:
        margins = np.full(n, -np.inf)
    elif score.is_warm:
        share = saved / top if top > 0 else np.ones(n)
        margins = score.bits * share - bar_bits
    elif score.evaluation is not None:
        # Raw bits are not calibrated ones; a quarter of them is about what they turn out to be.
        margins = np.minimum(0.25 * saved - bar_bits, -1.0)
    else:
        margins = np.full(n, -np.inf)
    for found in score.records:
        if found is not None:
            margins = np.maximum(margins, np.minimum(found.margins, math.inf if score.is_warm else -1.0))
    result: Floats = margins
    return result


def record_bits(score: WindowScore, baseline: Baseline) -> Floats:
    """Return what each record contributes to the window's oddness; float64, (n,), bits, >= 0.

    Args:
        score: The window's verdict.
        baseline: What it was compared with.
    """
    weights: dict[str, float] = {}
    if score.evaluation is None:
        pass
    elif score.is_warm:
        top = float(score.column_bits.max())
        for claim, bits in zip(score.claims, score.column_bits, strict=True):
            if claim.column and claim.name != "rate" and bits > 0.25 * top:
                weights[claim.column] = max(weights.get(claim.column, 0.0), float(bits / max(top, 1e-9)))
    else:
        weights = {claim.column: 1.0 for claim in score.claims if claim.column and claim.name != "rate"}
    saved = baseline.record_bits(score.prepared, weights)
    if score.kept_rows is not None:
        of_kept, saved = saved, np.zeros(score.columns.record_count)
        saved[score.kept_rows] = of_kept
    for found in score.records:
        if found is not None:
            saved = np.maximum(saved, found.bits)
    return saved
