"""The rate of records."""

from __future__ import annotations

import math

import numpy as np
import pytest

from driftlock_otlp.detection.baseline import log2_rate
from driftlock_otlp.detection.volume import VolumeModel


def model(*rates: float) -> VolumeModel:
    made = VolumeModel()
    for rate in rates:
        made.learn(rate)
    return made


def sigmas(made: VolumeModel, rate: float) -> float:
    bits = float(made.evaluate(rate).values[0])
    # The inverse of sigma_bits.
    return math.sqrt(100.0 * (2.0 ** (2.0 * bits / 101.0) - 1.0))


def test_the_rate_is_measured_in_robust_deviations_on_a_logarithmic_scale() -> None:
    rates = [3.0, 3.4, 2.2, 4.0, 3.1]
    median = np.median(rates)
    deviation = 1.4826 * np.median(np.abs(np.array(rates) - median))
    assert sigmas(model(*rates), 5.0) == pytest.approx((5.0 - median) / deviation)
    assert sigmas(model(*rates), 1.0) == pytest.approx((median - 1.0) / deviation)


def test_a_steady_rate_has_a_least_spread() -> None:
    assert sigmas(model(*[4.0] * 12), 4.15) == pytest.approx(1.0)


def test_unknown_rates_say_nothing_and_teach_nothing() -> None:
    made = model(math.nan, 2.0, math.nan, 2.0, math.inf)
    assert math.isnan(sigmas(made, math.nan))
    assert sigmas(made, 2.0) == 0.0
    assert math.isnan(sigmas(VolumeModel(), 2.0))
    assert sigmas(model(math.nan), 2.0) == 0.0


def test_forgetting_takes_the_oldest_rate() -> None:
    made = model(9.0, 1.0, 1.0)
    made.forget()
    assert sigmas(made, 1.0) == 0.0


def test_the_change_names_both_rates() -> None:
    change = model(1.0, 1.0, 1.0).change(3.0, "spans")
    assert change.text == "spans arrive at 8/s, expected 2/s"
    assert (change.observed, change.expected) == ("8/s", "2/s")


def test_a_restored_model_gives_the_same_evidence() -> None:
    made = VolumeModel()
    made.restore([3.0, 3.5, 2.0])
    assert sigmas(made, 7.0) == sigmas(model(3.0, 3.5, 2.0), 7.0)


def test_the_rate_is_unknown_without_a_duration() -> None:
    assert log2_rate(80, 10.0) == 3.0
    assert math.isnan(log2_rate(80, 0.0))
    assert math.isnan(log2_rate(80, -1.0))
    assert math.isnan(log2_rate(0, 10.0))
