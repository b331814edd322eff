"""What anybody could use instead: simple and well-known detectors of numeric series.

Each takes values in time order and scores every row by the rows before it alone, so that it can be
put beside a detector that streams. Settings are those of the libraries, or the usual ones; none is
tuned. Libraries are loaded when they are asked for: they are installed for evaluation only.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from driftlock_otlp.errors import InputError

Floats = npt.NDArray[np.float64]

EWMA_RATE = 0.02
_SEED = 1
_NCD_WINDOW, _NCD_BASELINE, _NCD_STEP = 32, 256, 8
_NCD_LEVEL = 6
_FOREST_REFITS = 5
_FOREST_MOST_ROWS = 4096
_FOREST_FEWEST_ROWS = 50


def ewma_z(values: Floats, rate: float = EWMA_RATE) -> Floats:
    """Return how far each row lies from an exponential average of those before it, in its own spread.

    Args:
        values: float64, (n,) or (n, d).
        rate: Weight of the newest value, (0, 1].

    Returns:
        float64, (n,), >= 0: mean over the d columns.
    """
    table = _table(values)
    scores = np.zeros(len(table))
    if not len(table):
        return scores
    mean, variance = table[0].copy(), np.zeros(table.shape[1])
    for index, row in enumerate(table):
        deviation = row - mean
        spread = np.sqrt(variance)
        scores[index] = np.divide(np.abs(deviation), spread, out=np.zeros_like(spread), where=spread > 0).mean()
        mean += rate * deviation
        variance = (1.0 - rate) * (variance + rate * deviation * deviation)
    return scores


def ncd_rule(values: Floats) -> Floats:
    """Return the normalised compression distance of the last 32 rows from the 256 before them.

    Values are bytes of their place in the range of the 256 rows. It is measured at every eighth row.

    References:
        Cilibrasi & Vitanyi 2005, "Clustering by Compression".
    """
    table = _table(values)
    scores = np.zeros(len(table))
    for end in range(_NCD_WINDOW + _NCD_BASELINE, len(table) + 1, _NCD_STEP):
        past = table[end - _NCD_WINDOW - _NCD_BASELINE : end]
        low, high = past[:_NCD_BASELINE].min(axis=0), past[:_NCD_BASELINE].max(axis=0)
        coded = np.clip((past - low) / np.where(high > low, high - low, 1.0) * 128.0 + 64.0, 0.0, 255.0).astype(
            np.uint8
        )
        baseline, window = coded[:_NCD_BASELINE].T.tobytes(), coded[_NCD_BASELINE:].T.tobytes()
        together = coded.T.tobytes()
        sizes = [len(zlib.compress(data, _NCD_LEVEL)) for data in (baseline, window, together)]
        scores[end - 1 : end - 1 + _NCD_STEP] = (sizes[2] - min(sizes[:2])) / max(sizes[:2])
    return scores


def half_space_trees(values: Floats) -> Floats:
    """Return the scores of River's half-space trees, on values scaled by the range so far.

    References:
        Tan, Ting & Liu 2011, "Fast Anomaly Detection for Streaming Data".
    """
    try:
        from river import anomaly, preprocessing  # noqa: PLC0415 - for evaluation only
    except ImportError:
        raise _missing("river") from None
    model = preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=_SEED)
    scores = np.zeros(len(values))
    for index, row in enumerate(_table(values).tolist()):
        point = dict(enumerate(row))
        scores[index] = model.score_one(point)
        model.learn_one(point)
    return scores


def isolation_forest(values: Floats) -> Floats:
    """Return the scores of an isolation forest that is fitted anew five times, always to past rows.

    References:
        Liu, Ting & Zhou 2008, "Isolation Forest".
    """
    table = _table(values)
    # The value and its step: a forest has no other idea of time.
    table = np.hstack([table, np.diff(table, axis=0, prepend=table[:1])])
    scores = np.zeros(len(table))
    bounds = np.unique(np.linspace(_FOREST_FEWEST_ROWS, len(table), _FOREST_REFITS + 1).astype(int))
    for start, stop in itertools.pairwise(bounds):
        past = table[:start]
        if len(past) > _FOREST_MOST_ROWS:
            past = past[np.random.default_rng(_SEED).choice(len(past), _FOREST_MOST_ROWS, replace=False)]
        forest = fitted_forest(past)
        scores[start:stop] = -forest.score_samples(table[start:stop])
    return scores


def fitted_forest(rows: Floats) -> Any:
    """Return scikit-learn's isolation forest, fitted to rows; float64, (n, d).

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import IsolationForest  # noqa: PLC0415 - for evaluation only
    except ImportError:
        raise _missing("scikit-learn") from None
    return IsolationForest(random_state=_SEED).fit(rows)


def pca_residual(train: Floats, test: Floats, share: float = 0.9) -> Floats:
    """Return the squared distance of each test row from the subspace that holds most of the training rows.

    Args:
        train: float64, (n, d).
        test: float64, (m, d).
        share: Share of the variance that the subspace holds.

    Returns:
        float64, (m,), >= 0.

    References:
        Jackson & Mudholkar 1979, "Control Procedures for Residuals Associated with Principal
        Component Analysis".
    """
    mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-6
    scaled = (train - mean) / spread
    _, sizes, axes = np.linalg.svd(scaled, full_matrices=False)
    held = np.cumsum(sizes**2) / np.sum(sizes**2)
    kept = axes[: int(np.searchsorted(held, share)) + 1]
    rows = (test - mean) / spread
    residual: Floats = ((rows - rows @ kept.T @ kept) ** 2).sum(axis=1)
    return residual


def mean_abs_z(train: Floats, test: Floats) -> Floats:
    """Return the mean over columns of how far each test row lies from the mean of the training rows."""
    scores: Floats = np.abs((test - train.mean(axis=0)) / (train.std(axis=0) + 1e-6)).mean(axis=1)
    return scores


def at_random(values: Floats) -> Floats:
    """Return scores that know nothing."""
    return np.random.default_rng(_SEED).random(len(values))


def every_row(values: Floats) -> Floats:
    """Return one score for all: everything is flagged, or nothing."""
    return np.ones(len(values))


SERIES_BASELINES: dict[str, Callable[[Floats], Floats]] = {
    "EWMA z-score": ewma_z,
    "NCD rule": ncd_rule,
    "half-space trees (River)": half_space_trees,
    "isolation forest (scikit-learn)": isolation_forest,
    "random": at_random,
    "every row": every_row,
}
"""Baselines of numeric series by name, in the order of the tables."""


def _table(values: Floats) -> Floats:
    return values.reshape(len(values), -1)


def _missing(library: str) -> InputError:
    return InputError(f"{library} is not installed: pip install 'driftlock-otlp[evaluation]'")
