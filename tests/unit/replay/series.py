"""Files with a fault in them, small enough to be scored in a moment."""

from __future__ import annotations

import random
from pathlib import Path

from driftlock_otlp.replay.times import format_time

SETTINGS = [
    "detection.warm_up_windows=20",
    "windows.metrics.size=3",
    "windows.metrics.baseline_records=36",
    "windows.logs.size=5",
    "windows.logs.baseline_records=60",
]
"""With these a stream is warm after about 40 windows."""

T0_UNIX_NANO = 1_767_225_600 * 10**9
ROWS = 240
FAULT = range(200, 215)
_INTERVAL_NANO = 10 * 10**9


def write_metric(path: Path, *, has_fault: bool = True, seed: int = 1, rows: int = ROWS) -> Path:
    """Write a CSV file: a quiet gauge every ten seconds, with a jump at the rows `FAULT`."""
    chance = random.Random(seed)
    lines = ["timestamp,value"]
    for row in range(rows):
        value = 50 + chance.gauss(0, 1) + (40 if has_fault and row in FAULT else 0)
        lines.append(f"{format_time(T0_UNIX_NANO + row * _INTERVAL_NANO)},{value:.3f}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_log(path: Path, *, seed: int = 1, rows: int = 400) -> Path:
    """Write a text file without times: three kinds of lines in turn, and a burst of a fourth."""
    chance = random.Random(seed)
    usual = ("GET /cart took {} ms", "GET /pay took {} ms", "cache hit for user {}")
    lines = []
    for row in range(rows):
        text = "payment gateway refused connection {}" if rows - 60 <= row < rows - 40 else usual[chance.randrange(3)]
        lines.append(text.format(chance.randrange(1000)))
    path.write_text("\n".join(lines) + "\n")
    return path
