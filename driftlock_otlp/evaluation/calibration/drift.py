"""Measures slow drift on the synthetic streams: how often a clean one is said to drift, and how soon a drifting one.

    python -m driftlock_otlp.evaluation.calibration.drift --seeds 4:8 --days 7

Of a stream only the windows before each hourly check are looked at, as the baseline then holds no others; what
moves is one gauge by a standard deviation a day, one operation by a tenth a day, or a tenth of the log records a
day to one template. A seed gives the same figures everywhere.
"""

from __future__ import annotations

import argparse

import numpy as np

from driftlock_otlp.detection.baseline import Baseline, log2_rate
from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.detection.compressor import ZstdCompressor
from driftlock_otlp.detection.drift import Drift, DriftWatch
from driftlock_otlp.evaluation.calibration.streams import DAY_WINDOWS, WINDOW_S, LogStream, MetricStream, TraceStream

_STREAMS: dict[str, type[LogStream] | type[MetricStream] | type[TraceStream]] = {
    "logs": LogStream,
    "metrics": MetricStream,
    "traces": TraceStream,
}
_HOUR_WINDOWS = 360
_BASELINE_WINDOWS = 12
_CHECK_WINDOWS = 60


def days_to_drift(kind: str, seed: int, days: int, *, drifts: bool) -> list[float]:
    """Return after how many days each drift of a stream was told.

    Args:
        kind: `logs`, `metrics` or `traces`.
        seed: The stream.
        days: How long it is followed.
        drifts: Whether it moves.
    """
    stream, random, compressor = _STREAMS[kind](seed), np.random.default_rng(seed), ZstdCompressor()
    watch, baseline = DriftWatch(compressor), Baseline(_BASELINE_WINDOWS, 1, compressor)
    found = []
    for hour in range(days * 24 + 1):
        for turn in range(_HOUR_WINDOWS):
            columns, duration_s = stream.window()
            if turn < _HOUR_WINDOWS - _BASELINE_WINDOWS:
                continue
            if drifts:
                _move(stream, columns, (hour * _HOUR_WINDOWS + turn) / DAY_WINDOWS, random)
            baseline.learn(baseline.prepare(columns, log2_rate(columns.record_count, duration_s)))
        for turn in range(_CHECK_WINDOWS):
            watch.observe(baseline, int((hour + 1) * _HOUR_WINDOWS * WINDOW_S * 1e9) + turn)
        found += [(hour + 1) / 24 for news in watch.take_news() if isinstance(news, Drift)]
    return found


def _move(
    stream: LogStream | MetricStream | TraceStream, columns: Columns, day: float, random: np.random.Generator
) -> None:
    if isinstance(stream, MetricStream):
        columns.numbers["value"].values[columns.categories["series"].codes == 0] += day * stream.sigma[0]
    elif isinstance(stream, TraceStream):
        operations = columns.categories["operation"].codes
        columns.numbers["duration"].values[operations == operations[0]] *= 1.1**day
    else:
        templates = columns.categories["template"].codes
        templates[random.random(len(templates)) < min(0.1 * day, 0.9)] = 0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="4:8", help="first:end, default %(default)s")
    parser.add_argument("--days", type=int, default=7, help="per stream, default %(default)s")
    arguments = parser.parse_args()
    first, end = map(int, arguments.seeds.split(":"))
    for kind in _STREAMS:
        for drifts in (False, True):
            told = [days_to_drift(kind, seed, arguments.days, drifts=drifts) for seed in range(first, end)]
            after = ", ".join(f"{days[0]:.1f}" if days else "never" for days in told)
            what = "drifting" if drifts else "clean"
            print(f"{kind}, {what}: told in {sum(map(bool, told))} of {len(told)} streams (day {after})", flush=True)


if __name__ == "__main__":
    main()
