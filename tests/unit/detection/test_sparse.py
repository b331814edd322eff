"""Streams whose windows hold a point or two: judged point by point alone."""

from __future__ import annotations

import numpy as np

from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.detection.detector import StreamDetector
from driftlock_otlp.detection.points import StreamPoints
from driftlock_otlp.detection.scores import DetectorSettings, WindowScore
from driftlock_otlp.worker.checkpoint import decode_state, encode_state
from tests.unit.detection.examples import category, number

STEP_S = 300


def new_detector() -> StreamDetector:
    return StreamDetector(DetectorSettings(), new_compressor("zstd"), [StreamPoints()])


def step(detector: StreamDetector, place: int, value: float) -> tuple[WindowScore, float]:
    """One window of one point; its verdict and the margin of its record."""
    time_ns = place * STEP_S * 10**9
    columns = Columns(
        1,
        np.array([time_ns]),
        {"series": category(["a"])},
        {"value": number([value], "series", is_point_series=True)},
    )
    score = detector.score_one(columns, time_ns, float(STEP_S))
    margin = float(detector.record_margins(score)[0])
    detector.learn_one(score)
    return score, margin


def taught(count: int) -> StreamDetector:
    random = np.random.default_rng(7)
    detector = new_detector()
    for place in range(count):
        step(detector, place, 50.0 + float(random.standard_normal()))
    return detector


def test_it_is_armed_by_its_points_and_needs_no_baseline() -> None:
    detector = taught(149)
    assert (detector.is_warm, detector.windows_to_warm) == (False, 2)
    score, _ = step(detector, 149, 50.0)
    assert not score.is_warm
    score, _ = step(detector, 150, 50.0)
    assert score.is_warm
    assert (detector.is_warm, detector.windows_to_warm) == (True, 0)
    assert detector.baseline.window_count == 0


def test_before_it_is_armed_nothing_reaches_the_bar() -> None:
    detector = taught(120)
    score, margin = step(detector, 120, 1e6)
    assert (score.is_flagged, score.is_alarm, score.score) == (False, False, 0.0)
    assert margin < 0.0


def test_an_anomaly_lasts_as_long_as_the_departure_and_is_over_after_it() -> None:
    detector = taught(300)
    score, margin = step(detector, 300, 500.0)
    assert score.is_alarm
    assert margin == score.margin_bits > 0.0
    assert score.p_value < 0.001
    during = [step(detector, 301 + i, 500.0 + 40.0 * i) for i in range(10)]
    assert all(score.is_anomalous and not score.is_alarm for score, _ in during)
    assert all(-5.0 < margin < 0.0 for _, margin in during)
    after = [step(detector, 311 + i, 50.0)[0] for i in range(60)]
    assert sum(score.is_resolved for score in after) == 1
    assert not after[-1].is_anomalous
    assert not any(score.is_alarm for score in after)


def test_it_goes_on_alike_after_a_restart() -> None:
    detector = taught(200)
    again = new_detector()
    again.restore(decode_state(encode_state(detector.state())))
    for place, value in enumerate([50.0, 500.0, 510.0, 50.0, 51.0], start=200):
        one, other = step(detector, place, value), step(again, place, value)
        assert one[1] == other[1]
        assert (one[0].bits, one[0].is_alarm, one[0].is_anomalous) == (
            other[0].bits,
            other[0].is_alarm,
            other[0].is_anomalous,
        )
    assert encode_state(again.state()) == encode_state(detector.state())
