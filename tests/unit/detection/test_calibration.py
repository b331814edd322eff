"""Calibration, held against the formulas of docs/detection.md written out plainly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from driftlock_otlp.detection.calibration import Calibration, Tail

RANDOM = np.random.default_rng(11)


def slow_tail(history: Sequence[float], score: float, least_scale: float = 1e-3, shape: float = 0.2) -> float:
    """Rank inside the history, generalised Pareto beyond its 95 % point; bits."""
    v = sorted(history)
    n = len(v)
    k = max(int(0.05 * n), 5)
    u = v[n - k - 1]
    beyond = [x for x in v if x > u]
    share = (len(beyond) + 1) / (n + 1)
    prior = max(0.6 * (u - v[n // 2]), least_scale)
    beta = ((1 - shape) * sum(x - u for x in beyond) + 5 * prior) / (len(beyond) + 5)
    if score > u:
        return -math.log2(share) + math.log2(1 + shape * (score - u) / beta) / shape
    rank = sum(x >= score for x in v)
    return min(-math.log2((rank + 1) / (n + 1)), -math.log2(share))


def one_sided(*columns: Sequence[float], units: Sequence[float] = (3.0,), fewest: int = 6) -> Calibration:
    history = np.column_stack([np.array(column, dtype=float) for column in columns])
    width = history.shape[1]
    return Calibration(history, np.resize(np.array(units), width), np.full(width, 0.2), fewest)


@pytest.mark.parametrize("size", [40, 99, 100, 200, 2000])
@pytest.mark.parametrize("least_scale", [1e-3, 2.0])
def test_a_tail_is_what_the_formula_says(size: int, least_scale: float) -> None:
    for history, shape in ((RANDOM.exponential(2.0, size), 0.2), (np.maximum(RANDOM.standard_normal(size), 0.0), 0.5)):
        tail = Tail(history, least_scale, shape)
        scores = np.r_[history[:20], -1.0, 0.0, 3.0, 10.0, 1000.0, tail.threshold]
        expected = [slow_tail(list(history), float(score), least_scale, shape) for score in scores]
        np.testing.assert_allclose(tail.bits(scores), expected, rtol=1e-6, atol=1e-9)


def test_a_tail_never_falls_and_never_goes_below_zero() -> None:
    tail = Tail(RANDOM.exponential(1.0, 300))
    bits = tail.bits(np.linspace(-5, 50, 2000))
    assert (np.diff(bits) >= 0).all()
    assert bits[0] == 0.0


def test_a_column_that_is_almost_always_zero_does_not_make_everything_else_impossible() -> None:
    sparse = np.zeros(500)
    sparse[::100] = 2.0
    assert Tail(sparse, least_scale=6.0).bits(np.array([3.0]))[0] < 9.0
    assert Tail(sparse, least_scale=6.0).bits(np.array([0.0]))[0] == 0.0


def test_the_conformal_p_value_is_never_zero_and_ties_count() -> None:
    calibration = one_sided(RANDOM.exponential(1.0, 99))
    assert calibration.p_value(math.inf) == pytest.approx(1 / 100)
    assert calibration.p_value(-1.0) == 1.0
    past = calibration.past
    for strongest in (past[0], past[50], past[-1]):
        assert calibration.p_value(strongest) == (1 + sum(x >= strongest for x in past)) / 100
    assert calibration.p_value(float(past[-1])) == 2 / 100


def test_a_window_owes_what_it_costs_to_choose_its_strongest_claim() -> None:
    columns = [RANDOM.exponential(1.0, 150), RANDOM.standard_normal(150) * 5 + 20]
    calibration = one_sided(*columns, units=(3.0, 1.0))

    def bits(j: int, value: float) -> float:
        x = columns[j]
        median = float(np.median(x))
        mad = 1.4826 * float(np.median(np.abs(x - median)))
        upper = (float(np.quantile(x, 0.9)) - median) / 1.2816
        spread = max(mad, upper, 1e-3 * abs(median) + 0.5)
        z = [max(0.0, (v - median) / spread) for v in x]
        return slow_tail(z, max(0.0, (value - median) / spread), (3.0, 1.0)[j] / spread)

    past = np.array([max(bits(0, a), bits(1, b)) for a, b in zip(*columns, strict=True)])
    seen = np.mean([(past >= level).sum() / (150 * 2.0**-level) for level in (4.0, 5.0, 6.0)])
    claims = min(max((150 * seen + 50 * 2) / 200, 1.0), 2.0)
    new = np.array([4.0, 61.0])
    strongest = max(bits(0, 4.0), bits(1, 61.0))
    assert calibration.column_bits(new[None, :])[0] == pytest.approx([bits(0, 4.0), bits(1, 61.0)], rel=1e-6)
    assert calibration.window_bits(strongest) == pytest.approx(max(strongest - math.log2(claims), 0.0), rel=1e-6)


def test_too_little_evidence_is_not_odd() -> None:
    calibration = one_sided(RANDOM.standard_normal(200))
    low, high = calibration.column_bits(np.array([[-9.0], [9.0]]))[:, 0]
    assert low == pytest.approx(0.0, abs=1.1)  # at most the rank of a value below the median
    assert high > 8.0


def test_a_claim_in_bits_a_record_may_be_much_steadier_than_one_in_bits() -> None:
    steady = 2.0 + 0.03 * RANDOM.standard_normal(200)
    calibration = Calibration(np.column_stack([steady, steady]), np.array([0.2, 3.0]), np.full(2, 0.2))
    fine, coarse = calibration.column_bits(np.array([[2.4, 2.4]]))[0]
    assert fine > coarse


def test_a_claim_is_silent_until_it_has_applied_often_enough() -> None:
    steady = RANDOM.exponential(1.0, 100)
    late = np.r_[np.full(61, np.nan), RANDOM.exponential(1.0, 39)]
    calibration = one_sided(steady, late, fewest=40)
    assert calibration.column_bits(np.array([[0.0, 1e9]]))[0].tolist() == [0.0, 0.0]
    assert math.isnan(calibration.median[1])
    late[60] = 1.0
    calibration = one_sided(steady, late, fewest=40)
    assert calibration.column_bits(np.array([[0.0, 1e9]]))[0, 1] > 10.0
    assert calibration.median[1] == np.median(late[60:])


def test_a_claim_is_calibrated_on_the_windows_to_which_it_applied() -> None:
    values = RANDOM.exponential(1.0, 100)
    sparse = np.full(400, np.nan)
    sparse[::4] = values
    alone, among = one_sided(values), one_sided(sparse, RANDOM.exponential(1.0, 400))
    probe = np.array([0.5, 3.0, 30.0])
    np.testing.assert_array_equal(
        among.column_bits(np.column_stack([probe, np.zeros(3)]))[:, 0], alone.column_bits(probe[:, None])[:, 0]
    )


def test_a_claim_that_does_not_apply_to_a_window_says_nothing() -> None:
    calibration = one_sided(RANDOM.exponential(1.0, 100), RANDOM.exponential(1.0, 100))
    assert calibration.column_bits(np.array([[math.nan, 0.0]]))[0].tolist() == [0.0, 0.0]


def test_a_history_without_variation_calls_the_usual_usual() -> None:
    calibration = one_sided([7.0] * 60)
    strongest = float(calibration.column_bits(np.array([[7.0]]))[0, 0])
    assert calibration.window_bits(strongest) == 0.0
    assert calibration.p_value(strongest) == 1.0


def test_claims_that_are_strong_together_count_as_one() -> None:
    one = RANDOM.exponential(1.0, 2000)
    together = one_sided(one, one, one, one)
    apart = one_sided(*(RANDOM.exponential(1.0, 2000) for _ in range(4)))
    assert together.crowd_bits < 0.6
    assert 1.6 < apart.crowd_bits <= 2.0


def test_a_claim_with_a_heavy_tail_does_not_blunt_another() -> None:
    steady = RANDOM.exponential(1.0, 500)
    bursty = np.where(RANDOM.random(500) < 0.02, RANDOM.pareto(1.0, 500) * 100, RANDOM.exponential(1.0, 500))
    alone, beside = one_sided(steady), one_sided(steady, bursty)
    probe = np.array([[60.0]])
    alone_bits = alone.window_bits(float(alone.column_bits(probe).max()))
    beside_bits = beside.window_bits(float(beside.column_bits(np.array([[60.0, 0.0]])).max()))
    assert alone_bits - beside_bits <= 1.0
