"""The bar of sessions and of new templates: what it rests on, and what moves it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from driftlock_otlp.detection.bars import Bar

DAY_S = 86_400.0


def learned(bar: Bar, cases: list[float], seconds: float = 30.0, start_s: float = 1e9) -> Bar:
    """The bar after these cases, one every so many seconds."""
    for number, bits in enumerate(cases):
        bar.learn([bits], start_s + number * seconds)
    return bar


def usual(count: int, seed: int = 1) -> list[float]:
    return np.random.default_rng(seed).exponential(2.0, count).tolist()


def test_a_bar_that_has_seen_nothing_is_out_of_reach() -> None:
    assert Bar(learns_alarms=True).bits == math.inf


@pytest.mark.parametrize("learns_alarms", [True, False])
def test_about_one_case_in_two_days_is_above_it(learns_alarms: bool) -> None:
    bar = learned(Bar(learns_alarms=learns_alarms), usual(2_000))
    later = usual(int(20 * DAY_S / 30.0), seed=2)
    assert 1 <= sum(bits >= bar.bits for bits in later) <= 30


def test_anomalies_in_plenty_do_not_raise_a_bar_that_does_not_learn_them() -> None:
    mixed = usual(2_000)
    rng = np.random.default_rng(3)
    for place in rng.choice(np.arange(500, 2_000), 300, replace=False).tolist():
        mixed[place] = 60.0 + float(rng.exponential(20.0))
    clean = learned(Bar(learns_alarms=False), usual(2_000)).bits
    assert learned(Bar(learns_alarms=False), mixed).bits == pytest.approx(clean, rel=0.15)
    assert learned(Bar(learns_alarms=True), mixed).bits > 1.5 * clean


def test_what_has_become_usual_is_followed_also_by_a_bar_that_does_not_learn_alarms() -> None:
    bar = learned(Bar(learns_alarms=False), usual(500))
    before = bar.bits
    shifted = [40.0 + bits for bits in usual(2_000, seed=4)]
    learned(bar, shifted, start_s=1e9 + 500 * 30.0)
    assert before < 40.0 < bar.bits
    assert sum(bits >= bar.bits for bits in shifted[-500:]) <= 5


@pytest.mark.parametrize("learns_alarms", [True, False])
def test_a_restored_bar_goes_on_as_the_one_before(learns_alarms: bool) -> None:
    bar = learned(Bar(learns_alarms=learns_alarms), [*usual(200), *([90.0] * 20)])
    again = Bar.of_state(bar.state(), learns_alarms=learns_alarms)
    further = [*usual(100, seed=5), 90.0]
    assert learned(bar, further, start_s=2e9).bits == learned(again, further, start_s=2e9).bits
