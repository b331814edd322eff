"""What a replay says about each stream."""

from __future__ import annotations

from driftlock_otlp.model import StreamKey, WindowFacts
from driftlock_otlp.replay.summary import Found, Summary
from tests.unit.storage.test_anomalies import ANOMALY


def _facts(outcome: str, stream: StreamKey = ANOMALY.stream, p_value: float = 1.0, ratio: float = 2.0) -> WindowFacts:
    return WindowFacts(stream, 0, 1, 10, outcome, 0.5, p_value, 1.0, 0.8, ratio, 2.0, 1.0, 1.0)


def test_windows_are_counted_by_outcome() -> None:
    summary = Summary()
    summary.add_window(_facts("warming_up", ratio=0.0))
    summary.add_window(_facts("clean"))
    summary.add_window(_facts("flagged", p_value=0.01))
    summary.add_window(_facts("anomalous", p_value=0.02, ratio=4.0))
    summary.add_anomaly(ANOMALY)
    (stream,) = summary.streams()
    assert (stream.window_count, stream.record_count, stream.warming_up_count) == (4, 40, 1)
    assert (stream.flagged_count, stream.anomalous_count, stream.anomaly_count) == (2, 1, 1)
    assert stream.least_p_value == 0.01
    assert stream.mean_ncd == (0.8 + 0.8 + 0.8) / 3
    assert stream.mean_compression_ratio == (2 + 2 + 4) / 3


def test_the_most_anomalous_stream_comes_first() -> None:
    summary = Summary()
    quiet, odd = StreamKey("logs", "a"), StreamKey("logs", "b")
    summary.add_window(_facts("clean", quiet))
    summary.add_window(_facts("flagged", odd, 0.01))
    assert [stream.stream for stream in summary.streams()] == [odd, quiet]
    summary.add_window(_facts("clean", ANOMALY.stream))
    summary.add_anomaly(ANOMALY)
    assert summary.streams()[0].stream == ANOMALY.stream


def test_a_replay_that_never_got_warm_says_so() -> None:
    summary = Summary()
    assert not summary.is_all_warming_up
    summary.add_window(_facts("warming_up"))
    assert summary.is_all_warming_up
    summary.add_window(_facts("clean", StreamKey("logs", "b")))
    assert not summary.is_all_warming_up


def test_neighbouring_windows_of_an_anomaly_are_one_stretch() -> None:
    found = Found(ANOMALY)
    found.add_records(0, 10, 19)
    found.add_records(0, 20, 29)
    found.add_records(0, 50, 59)
    found.add_records(1, 60, 69)
    assert found.records == [(0, 10, 29), (0, 50, 59), (1, 60, 69)]
