"""What moves slowly is told beside a baseline of long ago; what swings by itself is not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from driftlock_otlp.detection.baseline import Baseline
from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.detection.drift import Drift, DriftWatch
from driftlock_otlp.worker.checkpoint import decode_state, encode_state
from tests.unit.detection.examples import ZSTD, category, number

HOUR = 3_600 * 10**9
START = 1_800_000_000 * 10**9
WINDOWS = 12
CHECK_WINDOWS = 60


class Stream:
    """A stream whose baselines are made up hour by hour: a value with a season, and a mix of two symbols."""

    def __init__(self, seed: int = 1, season: float = 3.0) -> None:
        self.random = np.random.default_rng(seed)
        self.season = season
        self.watch = DriftWatch(ZSTD)
        self.hour = 0

    def baseline(self, level: float = 0.0, share: float = 0.3) -> Baseline:
        made = Baseline(WINDOWS, 1, ZSTD)
        shown = level + self.season * math.sin(2 * math.pi * self.hour / 24)
        for _ in range(WINDOWS):
            symbols = np.where(self.random.random(30) < share, "a", "b").tolist()
            values = number(self.random.standard_normal(30) + 50.0 + shown)
            columns = Columns(30, np.zeros(30, np.int64), {"template": category(symbols)}, {"size": values})
            made.learn(made.prepare(columns, 3.0))
        return made

    def check(self, level: float = 0.0, share: float = 0.3) -> list[Drift | str]:
        """Let an hour pass, and return what it told."""
        self.hour += 1
        baseline = self.baseline(level, share)
        for turn in range(CHECK_WINDOWS):
            self.watch.observe(baseline, START + self.hour * HOUR + turn)
        return self.watch.take_news()

    def learn(self) -> Stream:
        """Take the anchor, and a day of checks."""
        for _ in range(27):
            assert not self.check()
        return self


@pytest.mark.parametrize("seed", range(2))
def test_a_clean_stream_with_a_daily_season_has_no_drift(seed: int) -> None:
    stream = Stream(seed).learn()
    assert not any(stream.check() for _ in range(30))


def test_a_level_that_creeps_is_told_with_what_it_was_and_since_when_and_comes_back() -> None:
    stream = Stream(season=0.0).learn()
    found = [stream.check(level=0.2 * hour) for hour in range(20)]
    (drift,) = [item for news in found for item in news]
    assert isinstance(drift, Drift)
    assert (drift.claim.column, drift.since_unix_nano) == ("size", START + HOUR)
    assert drift.bits > drift.bar_bits
    assert float(drift.change.observed) > float(drift.change.expected)
    assert stream.watch.is_drifting
    # For a whole day, since a season may hide it for part of one.
    assert not any(stream.check() for _ in range(23))
    assert [item for _ in range(3) for item in stream.check()] == ["recovered"]
    assert not stream.watch.is_drifting


def test_a_mix_of_symbols_that_creeps_is_told() -> None:
    stream = Stream().learn()
    found = [item for hour in range(40) for item in stream.check(share=0.3 + 0.015 * hour)]
    assert [item.claim.column for item in found if isinstance(item, Drift)] == ["template"]


def test_one_odd_hour_or_two_are_no_drift() -> None:
    stream = Stream(season=0.0).learn()
    assert not stream.check(level=20.0)
    assert not stream.check(level=20.0)
    assert not any(stream.check() for _ in range(4))


def test_checks_come_by_the_hour_and_after_sixty_windows() -> None:
    stream = Stream()
    baseline = stream.baseline()
    for turn in range(130):
        stream.watch.observe(baseline, START + turn * HOUR // 120)
    assert stream.watch.state()["check_count"] == 1
    for turn in range(50):
        stream.watch.observe(baseline, START + 10 * HOUR + turn * HOUR)
    assert stream.watch.state()["check_count"] == 1


def test_that_a_drift_is_none_freezes_a_new_anchor_and_can_be_taken_back() -> None:
    stream = Stream(season=0.0).learn()
    assert any(stream.check(level=30.0) for _ in range(4))
    stream.watch.anomaly_id = "the drift"
    before = encode_state(stream.watch.state())
    assert stream.watch.judge(is_good=False) is False
    assert encode_state(stream.watch.state()) == before
    assert stream.watch.judge(is_good=True) is True
    assert not stream.watch.is_drifting
    assert stream.watch.anomaly_id == "the drift"
    assert stream.watch.judge(is_good=None) is False
    assert encode_state(stream.watch.state()) == before
    stream.watch.judge(is_good=True)
    assert not any(stream.check(level=30.0) for _ in range(40))
    assert stream.watch.anchored_unix_nano > START + 27 * HOUR


def test_another_regime_has_an_anchor_of_its_own() -> None:
    stream = Stream(season=0.0).learn()
    stream.watch.adopt()
    assert stream.watch.take_news() == []
    assert not any(stream.check(level=30.0) for _ in range(40))
    assert any(stream.check(level=60.0) for _ in range(4))
    stream.watch.adopt()
    assert stream.watch.take_news() == ["adopted"]


def test_a_watch_goes_on_alike_after_a_restart_and_with_a_column_that_came_up() -> None:
    stream, again = Stream(season=0.0).learn(), DriftWatch(ZSTD)
    stream.check(level=30.0)
    again.restore(decode_state(encode_state(stream.watch.state())))
    assert encode_state(again.state()) == encode_state(stream.watch.state())
    for hour in range(29, 33):
        baseline = stream.baseline(level=30.0)
        if hour == 30:
            columns = Columns(30, np.zeros(30, np.int64), {"late": category(["x"] * 30)}, {})
            baseline.learn(baseline.prepare(columns, 3.0))
        for turn in range(CHECK_WINDOWS):
            for watch in (stream.watch, again):
                watch.observe(baseline, START + hour * HOUR + turn)
        assert stream.watch.take_news() == again.take_news()
    assert stream.watch.is_drifting
