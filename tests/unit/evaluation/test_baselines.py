"""Baselines: causal, and able to see what nobody could miss."""

from __future__ import annotations

import numpy as np
import pytest

from driftlock_otlp.evaluation.baselines import (
    SERIES_BASELINES,
    ewma_z,
    isolation_forest,
    mean_abs_z,
    ncd_rule,
    pca_residual,
)
from driftlock_otlp.evaluation.measures import roc_auc

ROWS = 600
FAULT = slice(520, 560)


def series() -> np.ndarray:
    random = np.random.default_rng(2)
    values = np.sin(np.arange(ROWS) / 5.0) + random.normal(0.0, 0.1, ROWS)
    values[FAULT] = random.normal(6.0, 2.0, FAULT.stop - FAULT.start)
    return values


ONSET = np.arange(ROWS) >= FAULT.start
"""Which rows have the fault, as long as only those up to a few after its beginning are looked at."""
JUDGED = slice(300, FAULT.start + 32)


@pytest.mark.parametrize("detector", [ncd_rule, isolation_forest])
def test_a_gross_fault_scores_above_the_rest(detector) -> None:  # type: ignore[no-untyped-def]
    assert roc_auc(detector(series())[JUDGED], ONSET[JUDGED]) > 0.75


@pytest.mark.parametrize("name", ["EWMA z-score", "NCD rule", "half-space trees (River)"])
def test_scores_rest_on_the_past_alone(name: str) -> None:
    detector, values = SERIES_BASELINES[name], series()
    np.testing.assert_array_equal(detector(values)[:400], detector(values[:400]))


def test_a_forest_is_fitted_to_what_came_before_the_rows_it_scores() -> None:
    values = series()
    changed = values.copy()
    changed[-1] = 1e6
    # The last of the five stretches has the rows from 490 on.
    np.testing.assert_array_equal(isolation_forest(values)[:490], isolation_forest(changed)[:490])


def test_an_exponential_average_counted_by_hand() -> None:
    # Mean 0, variance 0; then 1 is met with no spread: mean .5, variance .25; then 2 lies 1.5 from it.
    np.testing.assert_allclose(ewma_z(np.array([0.0, 1.0, 2.0]), 0.5), [0.0, 0.0, 3.0])


def test_a_row_off_the_subspace_has_a_residual_and_one_far_out_on_it_has_not() -> None:
    random = np.random.default_rng(4)
    along = random.normal(size=(500, 1))
    train = np.hstack([along, 2.0 * along, -along]) + random.normal(0.0, 0.01, (500, 3))
    on, off = pca_residual(train, np.array([[5.0, 10.0, -5.0], [0.5, -1.0, 0.5]]))
    assert off > 10.0 * on
    assert np.argmax(mean_abs_z(train, np.array([[5.0, 10.0, -5.0], [0.5, -1.0, 0.5]]))) == 0
