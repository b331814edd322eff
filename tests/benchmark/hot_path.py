"""What one record costs on its way from bytes to a verdict, step by step, in microseconds of CPU.

python -m tests.benchmark.hot_path [--records 1000] [--rounds 5]

One process, no network, seeded requests (`telemetry.py`). Each step is measured by itself over all
requests; the figure is the median of the rounds. `whole` is what a worker does, `check` what a
receiver does before it appends.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.detection.detector import StreamDetector
from driftlock_otlp.model import Signal, StreamKey
from driftlock_otlp.otlp import decode, scanning
from driftlock_otlp.otlp.identifiers import malformed_items
from driftlock_otlp.windowing.assembler import Window, WindowAssembler
from driftlock_otlp.windowing.batch import Shaper, StreamBatch
from driftlock_otlp.windowing.scoring import StreamScoring, detector_settings
from driftlock_otlp.windowing.streams import new_record_scorers, new_shaper, read_request
from tests.benchmark.telemetry import REQUESTS, START_UNIX_NANO

_WARM_REQUESTS = 150
_MEASURED_REQUESTS = 30


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--records", type=int, default=1000, help="records in a request and in a window")
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    for signal in Signal:
        print(f"{signal.plural}, {given.records} a request and a window")
        for step, cost_us in costs(signal, given.records, given.rounds).items():
            print(f"  {step:<10}{cost_us:8.2f} us a record")


def costs(signal: Signal, records: int, rounds: int) -> dict[str, float]:
    """Return the microseconds of CPU a record of each step."""
    config = Config.model_validate({"windows": {signal.plural: {"size": records}}})
    make = REQUESTS[signal]
    payloads = make(_MEASURED_REQUESTS, records)
    items = sum(decode.count_items(signal, decode.decode(signal, payload)) for payload in payloads)
    steps: dict[str, Callable[[], object]] = {}

    def check() -> None:
        for payload in payloads:
            if scanning.check(signal, payload) is None:
                message = decode.decode(signal, payload)
                decode.count_items(signal, message)
                malformed_items(signal, message)

    def extract() -> list[list[StreamBatch]]:
        return [read_request(signal, payload, "") for payload in payloads]

    steps["check"] = check
    steps["extract"] = extract
    warm = make(_WARM_REQUESTS, records)
    scoring = StreamScoring(config, new_compressor(config.detection.compressor))
    clock = START_UNIX_NANO
    for position, payload in enumerate(warm):
        clock += 10**9
        scoring.feed(signal, payload, position, clock)
    kept = Kept(config)
    kept.take([read_request(signal, payload, "") for payload in warm])
    batches = extract()
    steps["window"] = lambda: kept.window(batches)
    kept.window(batches)
    steps["shape"] = kept.shape
    kept.shape()
    steps["detect"] = kept.detect

    def whole() -> None:
        nonlocal clock
        for payload in payloads:
            clock += 10**9
            scoring.feed(signal, payload, 10**6, clock)

    steps["whole"] = whole
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            begun = time.process_time()
            step()
            found[name].append((time.process_time() - begun) / items * 1e6)
    return {name: statistics.median(values) for name, values in found.items()}


class Kept:
    """The steps of scoring one by one, each with what the one before has left."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._assembler = WindowAssembler(config.windows)
        self._compressor = new_compressor(config.detection.compressor)
        self._streams: dict[StreamKey, tuple[Shaper, StreamDetector]] = {}
        self._clock = START_UNIX_NANO
        self._windows: list[Window] = []
        self._columns: list[tuple[StreamDetector, Columns, int]] = []

    def take(self, batches: list[list[StreamBatch]]) -> None:
        """Warm up on these requests."""
        self.window(batches)
        self.shape()
        self.detect()

    def window(self, batches: list[list[StreamBatch]]) -> None:
        """Assemble windows from what was read of requests."""
        self._windows = []
        for parts in batches:
            self._clock += 10**9
            self._windows.extend(self._assembler.advance(self._clock))
            for batch in parts:
                self._windows.extend(self._assembler.add(batch, 1))

    def shape(self) -> None:
        """Make typed columns of the windows."""
        self._columns = []
        for window in self._windows:
            stream = self._streams.get(window.key)
            if stream is None:
                kind = window.key.kind
                detector = StreamDetector(
                    detector_settings(self._config, kind), self._compressor, new_record_scorers(kind)
                )
                stream = self._streams[window.key] = (new_shaper(kind), detector)
            self._columns.append((stream[1], stream[0].shape(window.batch), window.closed_unix_nano))

    def detect(self) -> None:
        """Score and learn the columns."""
        for detector, columns, closed_unix_nano in self._columns:
            detector.learn_one(detector.score_one(columns, closed_unix_nano, 1.0))


if __name__ == "__main__":
    main()
