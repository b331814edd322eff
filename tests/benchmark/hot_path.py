"""What one record costs on its way from bytes to a verdict, step by step, in microseconds of CPU.

python -m tests.benchmark.hot_path [--records 1000] [--rounds 5] [--protobuf]

One process, no network, seeded requests of one service (`telemetry.py`). Each step is measured by
itself over all requests of a round, which are new in each; the figure is that of the quickest round,
since other work on the machine only adds.
`check` is what a receiver does before it appends, `whole` what a worker does, checking included.
"""

from __future__ import annotations

import argparse
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
from tests.benchmark.telemetry import REQUESTS, SERVICES, START_UNIX_NANO

_WARM_REQUESTS = 230
"""So many that the calibration is no longer made anew with every window."""
_MEASURED_REQUESTS = 30


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--records", type=int, default=1000, help="records in a request and in a window")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--protobuf", action="store_true", help="without the scanner, as where it is not compiled")
    given = arguments.parse_args()
    if given.protobuf:
        scanning.scan = None
    for signal in Signal:
        print(f"{signal.plural}, {given.records} a request and a window")
        for step, cost_us in costs(signal, given.records, given.rounds).items():
            print(f"  {step:<10}{cost_us:8.2f} us a record")


def costs(signal: Signal, records: int, rounds: int) -> dict[str, float]:
    """Return the microseconds of CPU a record of each step."""
    config = Config.model_validate({"windows": {signal.plural: {"size": records}}})
    scoring = StreamScoring(config, new_compressor(config.detection.compressor))
    kept = Kept(config)
    clock = START_UNIX_NANO
    found: dict[str, list[float]] = {}

    def run(seed: int, count: int) -> None:
        nonlocal clock
        # New ones each time: what was seen before is partly remembered.
        payloads = REQUESTS[signal](count, records, seed, SERVICES[:1])
        items = sum(decode.count_items(signal, decode.decode(signal, payload)) for payload in payloads)
        batches: list[list[StreamBatch]] = []

        def whole() -> None:
            nonlocal clock
            for payload in payloads:
                clock += 10**9
                scoring.feed(signal, payload, 1, clock)

        steps: dict[str, Callable[[], object]] = {
            "check": lambda: _check(signal, payloads),
            "extract": lambda: batches.extend(read_request(signal, payload, "") for payload in payloads),
            "window": lambda: kept.window(batches),
            "shape": kept.shape,
            "detect": kept.detect,
            "whole": whole,
        }
        for name, step in steps.items():
            begun = time.process_time()
            step()
            found.setdefault(name, []).append((time.process_time() - begun) / items * 1e6)

    run(0, _WARM_REQUESTS)
    found.clear()
    for seed in range(1, rounds + 1):
        run(seed, _MEASURED_REQUESTS)
    return {name: min(values) for name, values in found.items()}


def _check(signal: Signal, payloads: list[bytes]) -> None:
    for payload in payloads:
        if scanning.check(signal, payload) is None:
            message = decode.decode(signal, payload)
            decode.count_items(signal, message)
            malformed_items(signal, message)


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
