"""Point novelty, held against its equations written out without sorted lists."""

from __future__ import annotations

import math

import numpy as np
import pytest

from driftlock_otlp.detection import novelty
from driftlock_otlp.detection.novelty import Lasting, PointSeries
from driftlock_otlp.worker.checkpoint import decode_state, encode_state


class SlowChannel:
    """The bits of a value as the nearest one seen plus a residual, ranked among all before."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.novelties: list[float] = []
        self.mean = self.deviation = 0.0

    def novelty(self, y: float) -> float:
        distance = min((abs(y - value) for value in self.values), default=0.0)
        scale = max(self.deviation, 1e-3 * abs(self.mean), 1e-9)
        return math.log2(1 + 0.5 * distance / scale)

    def bits(self, a: float) -> float:
        past = sorted(self.novelties, reverse=True)
        n = len(past)
        if n < 50:
            return 0.0
        k = max(int(0.02 * n), 5)
        u = past[k]
        if a > u:
            beta = (sum(x - u for x in past[:k]) + 5 * 0.05) / (k + 5)
            return math.log2(n / k) + (a - u) / (beta * math.log(2))
        return -math.log2((sum(x >= a for x in past) + 1) / (n + 1))

    def learn(self, y: float) -> None:
        self.novelties.append(self.novelty(y) if self.deviation else 0.0)
        self.values.append(y)
        n = len(self.values)
        self.mean = y if n == 1 else self.mean + (y - self.mean) / n
        self.deviation += (abs(y - self.mean) - self.deviation) / n


class SlowSeries:
    """Level and the residual from three exponentially weighted hour-of-day means."""

    def __init__(self) -> None:
        self.level = SlowChannel()
        self.seasons = [(rate, SlowChannel(), {}) for rate in (0.03, 0.1, 0.3)]
        self.visits = [0] * 24

    def step(self, time_s: float, x: float) -> float:
        hour = int(time_s // 3600) % 24
        level = self.level.bits(self.level.novelty(x))
        self.level.learn(x)
        self.visits[hour] += 1
        seasonal = []
        for rate, channel, means in self.seasons:
            residual = x - means[hour] if hour in means else 0.0
            seasonal.append(channel.bits(channel.novelty(residual)))
            channel.learn(residual)
            old = means.get(hour, 0.0)
            means[hour] = old + max(rate, 1 / self.visits[hour]) * (x - old)
        return max(level, sum(seasonal) / 3)


def day(n: int, seed: int = 0, step_s: float = 300.0) -> list[tuple[float, float]]:
    """Points five minutes apart with a daily swing."""
    random = np.random.default_rng(seed)
    times = np.arange(n) * step_s
    values = 100 + 20 * np.sin(times / 86_400 * 2 * np.pi) + random.standard_normal(n) * 2
    return [(float(t), float(v)) for t, v in zip(times, values, strict=True)]


def taught(points: list[tuple[float, float]]) -> PointSeries:
    series = PointSeries()
    for time_s, value in points:
        series.learn_one(time_s, value, 0.0)
    return series


def test_every_point_costs_what_the_equations_say() -> None:
    points = day(700)
    points[500] = (points[500][0], 250.0)
    points[600:650] = [(time_s, 60.0) for time_s, _ in points[600:650]]
    fast, slow = PointSeries(), SlowSeries()
    for time_s, value in points:
        bits = fast.score_one(time_s, value)
        fast.learn_one(time_s, value, bits)
        assert bits == pytest.approx(slow.step(time_s, value), abs=1e-6)


def test_scoring_changes_nothing() -> None:
    series = taught(day(300))
    before = encode_state(series.state())
    series.score_one(1e6, 1e6)
    series.nearest(5.0)
    series.margin_bits(30.0, 0.0)
    assert encode_state(series.state()) == before


def test_a_value_is_novel_only_once() -> None:
    series = taught(day(400))
    assert series.score_one(120_000.0, 300.0) > 10
    series.learn_one(120_000.0, 300.0, 0.0)
    assert series.nearest(290.0) == 300.0
    assert series._level.bits(series._level.novelty(300.0)) < 1.0


def test_the_first_fifty_points_cost_nothing() -> None:
    series = taught(day(49))
    assert series.score_one(49 * 300.0, 1e9) == 0.0
    series.learn_one(49 * 300.0, 100.0, 0.0)
    assert series.score_one(50 * 300.0, 1e9) > 0.0


def test_a_value_odd_for_its_hour_is_found_though_it_is_usual_for_the_day() -> None:
    series = taught(day(288 * 8))
    trough = 288 * 8 * 300.0 + 18 * 3600.0
    crest_value = 118.0
    assert series.score_one(trough, crest_value) > series.score_one(trough - 12 * 3600.0, crest_value) + 5


def test_a_constant_series_notices_its_first_change() -> None:
    series = taught([(300.0 * i, 42.0) for i in range(200)])
    bits = series.score_one(60_000.0, 43.0)
    assert series.margin_bits(bits, 0.0) > 0
    assert series.score_one(60_000.0, 42.0) < 1.0


def test_the_budget_grows_half_a_bit_with_every_doubling_of_age() -> None:
    series = PointSeries()
    series.count = 1022
    young = series.budget_bits()
    series.count = 4094
    assert (young, series.budget_bits()) == (5.9, 6.9)


def test_what_a_point_owes_for_its_pace_is_taken_off() -> None:
    series = taught(day(200))
    assert series.margin_bits(20.0, 3.0) == pytest.approx(series.margin_bits(20.0, 0.0) - 3.0)


def test_after_an_alarm_only_a_distinctly_higher_surprise_counts_for_a_while() -> None:
    series = taught(day(200))
    series.learn_one(60_000.0, 500.0, 20.0, is_alarm=True)
    assert series.margin_bits(20.0, 0.0) == -1.0
    assert series.margin_bits(26.0, 0.0) > 0
    for i in range(50):
        assert series.margin_bits(20.0, 0.0) == -1.0
        series.learn_one(60_300.0 + i, 100.0, 0.0)
    assert series.margin_bits(20.0, 0.0) > 0


def test_the_hold_grows_with_age() -> None:
    series = PointSeries()
    series.count = 10_000
    series.last_alarm, series.alarm_height = 9_701, 10.0
    assert series.margin_bits(15.0, 0.0) == -1.0
    series.last_alarm = 9_699
    assert series.margin_bits(15.0, 0.0) > 0


def test_memory_is_bounded_and_keeps_the_extremes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "_CAPACITY", 100)
    values = np.random.default_rng(2).permutation(np.arange(1000.0))
    series = taught([(60.0 * i, float(value)) for i, value in enumerate(values)])
    state = series.state()["level"]
    assert len(state["seen"]) <= 101
    assert len(state["novelties"]) <= 101
    assert state["seen"].min() < 20
    assert state["seen"].max() > 980
    assert state["count"] == 1000


def test_a_restored_series_goes_on_alike() -> None:
    points = day(400)
    series = taught(points[:300])
    series.learn_one(points[300][0], 500.0, 18.0, is_alarm=True)
    again = PointSeries.of_state(decode_state(encode_state(series.state())))
    for time_s, value in points[301:]:
        bits = series.score_one(time_s, value)
        assert again.score_one(time_s, value) == bits
        assert again.margin_bits(bits, 1.0) == series.margin_bits(bits, 1.0)
        for one in (series, again):
            one.learn_one(time_s, value, bits)
    assert encode_state(again.state()) == encode_state(series.state())


def test_the_first_change_of_a_constant_series_does_not_hide_the_second() -> None:
    constant = [(300.0 * i, 42.0) for i in range(100)]
    random = np.random.default_rng(1)
    noisy = [(300.0 * i, 42.0 + float(random.standard_normal())) for i in range(100, 400)]
    series = taught([*constant, (30_000.0, 60.0), *noisy])
    assert series.margin_bits(series.score_one(120_300.0, 80.0), 0.0) > 5


def test_departures_last_longer_than_novelty() -> None:
    series = taught(day(400))
    assert series.lasting.bits == 0.0
    for i in range(3):
        series.learn_one(120_000.0 + 300 * i, 300.0, series.score_one(120_000.0 + 300 * i, 300.0))
    after_onset = series.lasting.bits
    assert after_onset > 5
    for i in range(3, 40):
        series.learn_one(120_000.0 + 300 * i, 100.0, 0.0)
    assert 0.0 < series.lasting.bits < 0.2 * after_onset


def test_ordinary_points_add_nothing_to_what_lasts() -> None:
    lasting = Lasting().after(2.0).after(1.0)
    assert lasting.bits == 0.0
    # One point 10 bits beyond what is ordinary: 0.3 and 0.03 of it, then 0.7 and 0.97 of that.
    assert lasting.after(12.0).bits == pytest.approx(3.3)
    assert lasting.after(12.0).after(0.0).bits == pytest.approx(2.1 + 0.291)


def test_nothing_is_nearest_before_the_first_value() -> None:
    assert math.isnan(PointSeries().nearest(1.0))
