"""The benchmark's score, against the rule applied row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftlock_otlp.evaluation.nab_score import PROFILES, Profile, ScoredFile, position_weight, probation_rows, sweep

STANDARD = PROFILES[0]


def plain_score(files: list[ScoredFile], profile: Profile, threshold: float) -> float:
    """Return the score at one threshold, as the definition reads."""
    total = 0.0
    for file in files:
        detections = [
            row
            for row, score in enumerate(file.scores)
            if score >= threshold and row >= probation_rows(len(file.scores))
        ]
        for first, last in file.windows:
            within = [row for row in detections if first <= row <= last]
            if within:
                y = -(last - within[0] + 1) / (last - first + 1)
                total += profile.hit * sigmoid(y) / sigmoid(-1.0) + profile.miss
        for row in detections:
            if any(first <= row <= last for first, last in file.windows):
                continue
            past = [window for window in file.windows if window[1] < row]
            weight = sigmoid((row - past[-1][1]) / max(past[-1][1] - past[-1][0], 1)) if past else -1.0
            total += profile.false_alarm * weight
    windows = sum(len(file.windows) for file in files)
    return 100.0 * total / (max(windows, 1) * (profile.hit + profile.miss))


def sigmoid(y: float) -> float:
    return -1.0 if y > 3 else 2 / (1 + math.exp(5 * y)) - 1


@st.composite
def scored_files(draw: st.DrawFn) -> ScoredFile:
    count = draw(st.integers(1, 60))
    values = st.one_of(st.integers(0, 5).map(float), st.just(-math.inf))
    scores = np.array(draw(st.lists(values, min_size=count, max_size=count)))
    edges = sorted(draw(st.sets(st.integers(0, count - 1), max_size=6)))
    windows = [(edges[i], edges[i + 1]) for i in range(0, len(edges) - 1, 2)]
    return ScoredFile(scores, windows)


@given(st.lists(scored_files(), min_size=1, max_size=3), st.sampled_from(PROFILES))
def test_sweep_agrees_with_the_definition_at_every_threshold(files: list[ScoredFile], profile: Profile) -> None:
    found = sweep(files, profile)
    for threshold, score in zip(found.thresholds, found.scores, strict=True):
        assert score == pytest.approx(plain_score(files, profile, threshold), abs=1e-9)
        assert found.at(threshold) == score
    assert found.at(math.inf) == 0.0
    best, threshold = found.best()
    assert best == max([0.0, *found.scores])


def series(detections: list[int], windows: list[tuple[int, int]], count: int = 1000) -> ScoredFile:
    scores = np.zeros(count)
    scores[detections] = 1.0
    return ScoredFile(scores, windows)


def test_a_detection_at_the_beginning_of_each_window_is_perfect_and_silence_is_zero() -> None:
    windows = [(300, 399), (700, 799)]
    assert sweep([series([300, 700], windows)], STANDARD).at(1.0) == pytest.approx(100.0)
    assert sweep([series([], windows)], STANDARD).at(1.0) == 0.0


def test_a_later_detection_counts_less_and_a_second_one_nothing() -> None:
    early, late = (sweep([series([row], [(300, 399)])], STANDARD).at(1.0) for row in (310, 395))
    assert 50.0 < late < early < 100.0
    assert sweep([series([310, 311, 312], [(300, 399)])], STANDARD).at(1.0) == early


def test_a_false_alarm_costs_what_the_profile_says_and_less_just_after_a_window() -> None:
    far, near = (sweep([series([300, row], [(300, 399)])], STANDARD).at(1.0) for row in (900, 405))
    assert far == pytest.approx(100.0 - 100.0 * 0.11 / 2.0)
    assert far < near < 100.0


def test_the_first_rows_are_probation() -> None:
    assert probation_rows(1000) == 150
    assert probation_rows(20_000) == 750
    assert sweep([series([149], [(300, 399)])], STANDARD).at(1.0) == 0.0


def test_position_weight_is_the_benchmarks() -> None:
    assert position_weight(np.array([-1.0]))[0] == pytest.approx(0.98661, abs=1e-5)
