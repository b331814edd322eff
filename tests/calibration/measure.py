"""Measures false alarms and power on the synthetic streams; the tests and docs/detection.md rest on it.

    python -m tests.calibration.measure logs --seeds 0:3 --windows 8640
    python -m tests.calibration.measure traces --seeds 0:3 --windows 1200 --inject 150

A seed gives the same figures on every machine that has the same compressor.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import Compressor, new_compressor
from driftlock_otlp.detection.detector import DetectorSettings, StreamDetector, WindowScore
from driftlock_otlp.detection.explain import explain
from driftlock_otlp.windowing.scoring import detector_settings
from driftlock_otlp.windowing.streams import new_record_scorers
from tests.calibration.synthetic import DAY_WINDOWS, WINDOW_S, LogStream, MetricStream, TraceStream

Stream = LogStream | MetricStream | TraceStream
Fault = tuple[str, float]

STREAMS: dict[str, type[LogStream] | type[MetricStream] | type[TraceStream]] = {
    "logs": LogStream,
    "metrics": MetricStream,
    "traces": TraceStream,
}
FAULTS: dict[str, list[Fault]] = {
    "logs": [
        ("new_template", 0.03),
        ("new_template", 0.1),
        ("new_template", 0.25),
        ("error_burst", 0.1),
        ("error_burst", 0.25),
        ("template_gone", 0.0),
        ("latency", 2.0),
        ("latency", 4.0),
        ("rate", 3.0),
    ],
    "metrics": [("level", 3.0), ("level", 5.0), ("level", 8.0), ("flat", 0.0), ("variance", 3.0)],
    "traces": [
        ("errors", 0.1),
        ("errors", 0.25),
        ("new_operation", 0.1),
        ("new_operation", 0.25),
        ("latency", 2.0),
        ("latency", 4.0),
    ],
}
FAULT_WINDOWS = 4


@dataclass
class Quiet:
    """What a clean stream came to.

    Attributes:
        windows: Windows scored while armed.
        flagged: Of these, flagged.
        withheld: Of these, in an anomaly.
        alarms: (window since the stream began, bits, claim that led, sentence) of each alarm, all of them false.
        in_bursts: Alarms while the stream was in one of its bursts: real events, but usual ones by definition.
    """

    windows: int = 0
    flagged: int = 0
    withheld: int = 0
    alarms: list[tuple[int, float, str, str]] = field(default_factory=list)
    in_bursts: int = 0

    def add(self, other: Quiet) -> None:
        """Add another stream's windows."""
        self.windows += other.windows
        self.flagged += other.flagged
        self.withheld += other.withheld
        self.alarms += other.alarms
        self.in_bursts += other.in_bursts

    @property
    def alarms_a_day(self) -> float:
        """False alarms per 8,640 windows, a day at one window in ten seconds."""
        return len(self.alarms) * DAY_WINDOWS / max(self.windows, 1)


@dataclass
class Power:
    """How soon a fault was alarmed.

    Attributes:
        trials: Times that the fault was put in.
        within: How often an alarm came by its first, second, ... window.
        named: How often the alarm's leading column was in `FAULT_COLUMNS`.
    """

    trials: int = 0
    within: list[int] = field(default_factory=lambda: [0] * FAULT_WINDOWS)
    named: int = 0

    def add(self, other: Power) -> None:
        """Add another stream's trials."""
        self.trials += other.trials
        self.named += other.named
        self.within = [a + b for a, b in zip(self.within, other.within, strict=True)]

    def share(self, windows: int) -> float:
        """Return the share alarmed within so many windows."""
        return self.within[windows - 1] / max(self.trials, 1)

    @property
    def named_share(self) -> float:
        """Share of the alarms that named a column the fault touched."""
        return self.named / max(self.within[-1], 1)


FAULT_COLUMNS: dict[tuple[str, str], set[str]] = {
    ("logs", "new_template"): {"template"},
    ("logs", "error_burst"): {"severity"},
    # What depends on the template is touched with it.
    ("logs", "template_gone"): {"template", "severity", "duration"},
    ("logs", "latency"): {"duration"},
    ("logs", "rate"): {"rate"},
    ("metrics", "level"): {"value"},
    ("metrics", "flat"): {"value"},
    ("metrics", "variance"): {"value"},
    # Status is per operation, so both follow a new operation; so does who called it.
    ("traces", "errors"): {"status"},
    ("traces", "new_operation"): {"operation", "status", "call"},
    ("traces", "latency"): {"duration"},
}


class Watch:
    """A synthetic stream with its detector."""

    def __init__(
        self, kind: str, seed: int, settings: DetectorSettings | None = None, compressor: Compressor | None = None
    ) -> None:
        self.kind = kind
        self.stream: Stream = STREAMS[kind](seed)
        self.settings = settings or detector_settings(Config(), kind)
        self.compressor = compressor or new_compressor("auto")
        self.detector = self.new_detector()
        self.clock_unix_nano = 0

    def new_detector(self) -> StreamDetector:
        """Return a detector like its own that remembers nothing."""
        return StreamDetector(self.settings, self.compressor, new_record_scorers(self.kind))

    def score(self, fault: str = "", size: float = 0.0) -> WindowScore:
        """Draw the next window and score it."""
        self.clock_unix_nano += int(WINDOW_S * 1e9)
        columns, duration_s = self.stream.window(fault, size)
        return self.detector.score_one(columns, self.clock_unix_nano, duration_s)

    def step(self, fault: str = "", size: float = 0.0) -> WindowScore:
        """Draw the next window, score it and learn it."""
        score = self.score(fault, size)
        self.detector.learn_one(score)
        return score

    def warm_up(self, armed_windows: int = 0) -> Watch:
        """Go on until the detector is armed, and for so many windows more."""
        while not self.detector.is_warm:
            self.step()
        for _ in range(armed_windows):
            self.step()
        return self

    def branch(self) -> Watch:
        """Return an independent copy, which goes on from the same hidden state and memory."""
        other = Watch.__new__(Watch)
        other.kind, other.settings, other.compressor = self.kind, self.settings, self.compressor
        other.stream = copy.deepcopy(self.stream)
        other.detector = other.new_detector()
        other.detector.restore(copy.deepcopy(self.detector.state()))
        other.clock_unix_nano = self.clock_unix_nano
        return other


def watch_quietly(watch: Watch, windows: int) -> Quiet:
    """Let a stream run clean for so many windows and count what it was accused of."""
    found = Quiet()
    first = round(watch.clock_unix_nano / (WINDOW_S * 1e9))
    for number in range(first, first + windows):
        score = watch.score()
        found.windows += score.is_warm
        found.flagged += score.is_flagged
        found.withheld += score.is_anomalous
        if score.is_alarm:
            sentence = explain(watch.detector, score, watch.kind, watch.kind, 80).sentence
            found.alarms.append((number, score.bits, leading_claim(score), sentence))
            found.in_bursts += watch.stream.in_burst
        watch.detector.learn_one(score)
    return found


def inject(watch: Watch, fault: Fault, power: Power) -> None:
    """Put a fault into a copy of the stream and note how soon it is alarmed."""
    trial = watch.branch()
    power.trials += 1
    for number in range(FAULT_WINDOWS):
        score = trial.score(*fault)
        if score.is_alarm:
            top = explain(trial.detector, score, trial.kind, trial.kind, 80).evidence[0].column
            power.named += top in FAULT_COLUMNS[trial.kind, fault[0]]
            for later in range(number, FAULT_WINDOWS):
                power.within[later] += 1
            return
        trial.detector.learn_one(score)


def leading_claim(score: WindowScore) -> str:
    """Return `column/claim` of the strongest claim, `points` if a point alone alarmed."""
    if score.record_margin_bits >= score.margin_bits:
        return "points"
    claim = score.claims[int(score.column_bits.argmax())]
    return f"{claim.column}/{claim.name}"


def measure(
    kind: str, seeds: Iterable[int], windows: int, every: int = 0, faults: list[Fault] | None = None
) -> Iterator[tuple[int, Quiet, dict[Fault, Power]]]:
    """Yield, seed by seed, the clean stream's false alarms and the power of faults put in.

    Args:
        kind: `logs`, `metrics` or `traces`.
        seeds: One stream each.
        windows: Clean windows after warm-up.
        every: Clean windows from one injection to the next; 0: none.
        faults: What to put in; None: all of the kind.
    """
    for seed in seeds:
        watch = Watch(kind, seed).warm_up()
        quiet, power = Quiet(), {fault: Power() for fault in faults or FAULTS[kind]}
        for _ in range(0, windows, every or windows):
            quiet.add(watch_quietly(watch, every or windows))
            if every and not watch.detector.has_open_anomaly:
                for fault, result in power.items():
                    inject(watch, fault, result)
        yield seed, quiet, power


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=STREAMS)
    parser.add_argument("--seeds", default="0:3", help="first:end, default %(default)s")
    parser.add_argument("--windows", type=int, default=DAY_WINDOWS, help="per seed, default %(default)s")
    parser.add_argument("--inject", type=int, default=0, metavar="N", help="put every fault in after each N windows")
    parser.add_argument("--verbose", action="store_true", help="show each false alarm")
    arguments = parser.parse_args()
    first, end = map(int, arguments.seeds.split(":"))
    total = Quiet()
    powers = {fault: Power() for fault in FAULTS[arguments.kind]}
    for seed, quiet, power in measure(arguments.kind, range(first, end), arguments.windows, arguments.inject):
        total.add(quiet)
        print(f"seed {seed}: {len(quiet.alarms)} false alarms in {quiet.windows} windows", flush=True)
        if arguments.verbose:
            for number, bits, claim, sentence in quiet.alarms:
                print(f"  window {number}, {bits:.1f} bits, {claim}: {sentence}")
        for fault, result in power.items():
            powers[fault].add(result)
    print(
        f"{arguments.kind}: {total.windows} windows, {total.alarms_a_day:.2f} false alarms per {DAY_WINDOWS} windows"
        f" ({total.in_bursts} of {len(total.alarms)} in bursts), {total.flagged / total.windows:.2%} flagged,"
        f" {total.withheld / total.windows:.2%} in a false anomaly"
    )
    for fault, result in powers.items():
        if result.trials:
            shares = " ".join(f"{result.share(n + 1):.2f}" for n in range(FAULT_WINDOWS))
            print(
                f"  {fault[0]} {fault[1]:g}: alarmed within 1-{FAULT_WINDOWS} windows {shares},"
                f" touched column named {result.named_share:.2f}, {result.trials} trials"
            )


if __name__ == "__main__":
    main()
