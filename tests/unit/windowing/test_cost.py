"""What reading, shaping and scoring may cost: counted in calls, which do not depend on the machine.

Time is measured by `python -m tests.benchmark.hot_path`. A call of Python costs a tenth of a microsecond or more,
so a path that makes one per record shows here at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.detection.detector import StreamDetector
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp import scanning
from driftlock_otlp.windowing.scoring import detector_settings
from driftlock_otlp.windowing.streams import new_record_scorers, new_shaper, read_request
from tests.benchmark.telemetry import REQUESTS


def calls_of(work: Callable[[], object]) -> int:
    """Return how many functions are called, of Python and of C."""
    count = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def _payload(signal: Signal, records: int, seed: int) -> bytes:
    return REQUESTS[signal](1, records, seed)[0]


@pytest.mark.parametrize(("signal", "most"), [(Signal.LOGS, 0.1), (Signal.METRICS, 2.1), (Signal.TRACES, 0.1)])
@pytest.mark.skipif(scanning.scan is None, reason="the scanner is not compiled here")
def test_reading_a_request_calls_hardly_any_python_per_record(signal: Signal, most: float) -> None:
    payloads = [_payload(signal, records, 1) for records in (300, 1200)]
    for payload in payloads:
        read_request(signal, payload, "")  # fills what is remembered of names and attributes
    few, many = (calls_of(partial(read_request, signal, payload, "")) for payload in payloads)
    assert many - few < most * 900


@pytest.mark.parametrize(("signal", "most"), [(Signal.LOGS, 0.1), (Signal.METRICS, 20.0), (Signal.TRACES, 7.5)])
def test_shaping_a_window_calls_little_python_per_record(signal: Signal, most: float) -> None:
    windows = [read_request(signal, _payload(signal, records, 2), "")[0] for records in (300, 1200)]
    shaper = new_shaper(signal.plural)
    for window in windows:
        shaper.shape(window)
    few, many = (calls_of(partial(shaper.shape, window)) for window in windows)
    assert many - few < most * (len(windows[1].items) - len(windows[0].items))


@pytest.mark.parametrize(("signal", "most"), [(Signal.LOGS, 11_500), (Signal.TRACES, 18_000)])
def test_scoring_a_window_takes_as_many_calls_however_large_it_is(signal: Signal, most: int) -> None:
    """The bounds leave a fifth for what a stream may still learn to say; a young one, which recalibrates each time."""
    kind = signal.plural
    detector = StreamDetector(detector_settings(Config(), kind), new_compressor("auto"), new_record_scorers(kind))
    shaper = new_shaper(kind)
    counts = {}
    for number in range(36):
        records = 1_200 if number % 2 else 300
        columns = shaper.shape(read_request(signal, _payload(signal, records, number), "")[0])
        counts[records] = calls_of(partial(_judge, detector, columns, number * 10**10))
    assert detector.is_warm
    assert counts[300] < most
    assert counts[1200] < 1.1 * counts[300]


def _judge(detector: StreamDetector, columns: Columns, clock_unix_nano: int) -> None:
    detector.learn_one(detector.score_one(columns, clock_unix_nano, 10.0))
