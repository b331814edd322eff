"""Calibration on any history: p-values are valid ranks, surprise is monotone and finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftlock_otlp.detection.calibration import Calibration, Tail
from tests.unit.detection.test_calibration import slow_tail

SCORES = st.lists(st.floats(0, 1e6) | st.sampled_from([0.0, 1.0, 2.5]), min_size=6, max_size=120)
EVIDENCE = st.lists(st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0]), min_size=6, max_size=80)


def calibrated(history: list[float]) -> Calibration:
    return Calibration(np.array(history)[:, None], np.array([3.0]), np.array([0.2]))


@given(SCORES, st.floats(-10, 2e6), st.floats(1e-3, 10))
def test_a_tail_agrees_with_its_formula(history: list[float], score: float, least_scale: float) -> None:
    found = float(Tail(np.array(history), least_scale).bits(np.array([score]))[0])
    assert found == pytest.approx(slow_tail(history, score, least_scale), rel=1e-4, abs=1e-6)


@given(SCORES, st.lists(st.floats(-10, 2e6), min_size=2, max_size=20))
def test_surprise_is_finite_never_negative_and_never_falls(history: list[float], scores: list[float]) -> None:
    bits = Tail(np.array(history)).bits(np.array(sorted(scores)))
    assert np.isfinite(bits).all()
    assert (bits >= 0).all()
    assert (np.diff(bits) >= -1e-9).all()


@given(EVIDENCE, st.floats(-1e7, 1e7))
def test_a_p_value_is_the_rank_of_the_window_among_the_past(history: list[float], value: float) -> None:
    calibration = calibrated(history)
    past = [float(x) for x in calibration.column_bits(np.array(history)[:, None])[:, 0]]
    strongest = float(calibration.column_bits(np.array([[value]]))[0, 0])
    p = calibration.p_value(strongest)
    assert p == (1 + sum(x >= strongest for x in past)) / (1 + len(past))
    assert 0 < p <= 1


@given(EVIDENCE)
def test_past_windows_have_p_values_that_are_not_too_small(history: list[float]) -> None:
    # At most k of n past windows can have p <= k / n: the promise of a conformal p-value.
    calibration = calibrated(history)
    past = calibration.past
    p = sorted(calibration.p_value(float(x)) for x in past)
    for k, value in enumerate(p, start=1):
        assert value >= (k + 1) / (len(p) + 1) - 1e-12


@given(EVIDENCE, st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=10))
def test_one_sided_surprise_never_falls_with_the_evidence(history: list[float], values: list[float]) -> None:
    bits = calibrated(history).column_bits(np.array(sorted(values))[:, None])[:, 0]
    assert (np.diff(bits) >= -1e-9).all()


@given(EVIDENCE, st.integers(0, 60))
def test_windows_to_which_a_claim_did_not_apply_do_not_count(history: list[float], gaps: int) -> None:
    full = calibrated(history)
    sparse = calibrated([*history, *[math.nan] * gaps])
    probe = np.array(history)[:, None]
    np.testing.assert_array_equal(sparse.column_bits(probe), full.column_bits(probe))
