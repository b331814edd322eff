"""Watches a stream with a detector of its own: what it is accused of while clean, and how soon faults are told."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import Compressor, new_compressor
from driftlock_otlp.detection.detector import StreamDetector
from driftlock_otlp.detection.explain import explain
from driftlock_otlp.detection.scores import DetectorSettings, WindowScore
from driftlock_otlp.evaluation.calibration.streams import (
    DAY_WINDOWS,
    WINDOW_S,
    Fault,
    LogStream,
    MetricStream,
    Stream,
    TraceStream,
)
from driftlock_otlp.windowing.scoring import detector_settings
from driftlock_otlp.windowing.streams import new_record_scorers

STREAMS: dict[str, type[LogStream] | type[MetricStream] | type[TraceStream]] = {
    "logs": LogStream,
    "metrics": MetricStream,
    "traces": TraceStream,
}
LEVELS = (0.1, 0.05, 0.01)
"""Significance levels at which flags are counted."""
FAULT_WINDOWS = 4
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
"""Columns that each fault touches."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A false alarm.

    Attributes:
        window: Windows since the stream began.
        bits: Calibrated bits of the window.
        claim: `column/claim` that led, `records` if single records alone alarmed.
        sentence: What people are told.
        in_burst: Whether the stream was in one of its bursts: a real event, but a usual one by definition.
    """

    window: int
    bits: float
    claim: str
    sentence: str
    in_burst: bool


@dataclass(slots=True)
class Quiet:
    """What a clean stream came to.

    Attributes:
        windows: Windows scored while armed.
        flagged: Of these, with a p-value at or below each of `LEVELS`.
        withheld: Of these, in an anomaly.
        alarms: All of them false.
        bits: Calibrated bits of each window.
        alarmed: Whether each window raised an alarm.
    """

    windows: int = 0
    flagged: list[int] = field(default_factory=lambda: [0] * len(LEVELS))
    withheld: int = 0
    alarms: list[Alarm] = field(default_factory=list)
    bits: list[float] = field(default_factory=list)
    alarmed: list[bool] = field(default_factory=list)

    def take(self, score: WindowScore) -> None:
        """Count a window."""
        self.windows += score.is_warm
        self.flagged = [n + (score.p_value <= level) for n, level in zip(self.flagged, LEVELS, strict=True)]
        self.withheld += score.is_anomalous
        self.bits.append(score.bits)
        self.alarmed.append(score.is_alarm)

    def add(self, other: Quiet) -> None:
        """Add windows that came after these, or another stream's."""
        self.windows += other.windows
        self.flagged = [a + b for a, b in zip(self.flagged, other.flagged, strict=True)]
        self.withheld += other.withheld
        self.alarms += other.alarms
        self.bits += other.bits
        self.alarmed += other.alarmed

    @property
    def in_bursts(self) -> int:
        """Alarms while the stream was in one of its bursts."""
        return sum(alarm.in_burst for alarm in self.alarms)

    @property
    def alarms_a_day(self) -> float:
        """False alarms per 8,640 windows, a day at one window in ten seconds."""
        return len(self.alarms) * DAY_WINDOWS / max(self.windows, 1)


@dataclass(slots=True)
class Power:
    """How soon a fault was alarmed.

    Attributes:
        trials: Times that the fault was put in.
        within: How often an alarm came by its first, second, ... window.
        named: How often the alarm's leading column was in `FAULT_COLUMNS`.
        bits: Of each trial, the calibrated bits of each window.
        alarmed_at: Of each trial, the index of the window that raised the alarm; -1: none did.
    """

    trials: int = 0
    within: list[int] = field(default_factory=lambda: [0] * FAULT_WINDOWS)
    named: int = 0
    bits: list[list[float]] = field(default_factory=list)
    alarmed_at: list[int] = field(default_factory=list)

    def add(self, other: Power) -> None:
        """Add another stream's trials."""
        self.trials += other.trials
        self.named += other.named
        self.within = [a + b for a, b in zip(self.within, other.within, strict=True)]
        self.bits += other.bits
        self.alarmed_at += other.alarmed_at

    def share(self, windows: int) -> float:
        """Return the share alarmed within so many windows."""
        return self.within[windows - 1] / max(self.trials, 1)

    @property
    def named_share(self) -> float:
        """Share of the alarms that named a column the fault touched."""
        return self.named / max(self.within[-1], 1)


@dataclass(slots=True)
class Tally:
    """Counts what is scored, over watches.

    Attributes:
        records: Records of the windows.
    """

    records: int = 0


class Watch:
    """A stream with its detector.

    Args:
        kind: `logs`, `metrics` or `traces`.
        stream: The stream, or the seed of one of `STREAMS`.
        settings: What to compare with, and when to call it odd; the defaults unless given.
        compressor: Judges order and structure; the default one unless given.
        tally: Counts what is scored by this one and its copies.
    """

    def __init__(
        self,
        kind: str,
        stream: Stream | int,
        settings: DetectorSettings | None = None,
        compressor: Compressor | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.kind = kind
        self.stream: Stream = STREAMS[kind](stream) if isinstance(stream, int) else stream
        self.settings = settings or detector_settings(Config(), kind)
        self.compressor = compressor or new_compressor("auto")
        self.tally = tally or Tally()
        self.detector = self.new_detector()
        self.clock_unix_nano = 0

    @property
    def window_count(self) -> int:
        """Windows so far; one closes every ten seconds."""
        return round(self.clock_unix_nano / (WINDOW_S * 1e9))

    def new_detector(self) -> StreamDetector:
        """Return a detector like its own that remembers nothing."""
        return StreamDetector(self.settings, self.compressor, new_record_scorers(self.kind))

    def score(self, fault: str = "", size: float = 0.0) -> WindowScore:
        """Draw the next window and score it."""
        self.clock_unix_nano += int(WINDOW_S * 1e9)
        columns, duration_s = self.stream.window(fault, size)
        self.tally.records += columns.record_count
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
        other = copy.copy(self)
        other.stream = copy.deepcopy(self.stream)
        other.detector = self.new_detector()
        other.detector.restore(copy.deepcopy(self.detector.state()))
        return other


def watch_quietly(watch: Watch, windows: int) -> Quiet:
    """Let a stream run clean for so many windows and count what it was accused of."""
    found = Quiet()
    for _ in range(windows):
        score = watch.score()
        found.take(score)
        if score.is_alarm:
            sentence = explain(watch.detector, score, watch.kind, watch.kind, 80).sentence
            claim, in_burst = _leading_claim(score), watch.stream.in_burst
            found.alarms.append(Alarm(watch.window_count, score.bits, claim, sentence, in_burst))
        watch.detector.learn_one(score)
    return found


def inject(watch: Watch, fault: Fault, power: Power) -> None:
    """Put a fault into a copy of the stream and note how soon it is alarmed."""
    trial = watch.branch()
    power.trials += 1
    bits, alarmed_at = [], -1
    for number in range(FAULT_WINDOWS):
        score = trial.score(*fault)
        bits.append(score.bits)
        if score.is_alarm:
            alarmed_at = number
            top = explain(trial.detector, score, trial.kind, trial.kind, 80).evidence[0].column
            power.named += top in FAULT_COLUMNS[trial.kind, fault[0]]
        trial.detector.learn_one(score)
    power.bits.append(bits)
    power.alarmed_at.append(alarmed_at)
    power.within = [n + (0 <= alarmed_at <= at) for at, n in enumerate(power.within)]


def measure(
    watches: list[Watch], windows: int, every: int, faults: list[Fault]
) -> Iterator[tuple[Quiet, dict[Fault, Power]]]:
    """Yield, stream by stream, what it was accused of while clean and the power against faults put in.

    Args:
        watches: Streams that have just begun.
        windows: Clean windows after warm-up.
        every: Clean windows from one injection to the next; each is made into copies, fault by fault,
            unless a (false) anomaly is going on.
        faults: What to put in.
    """
    for watch in watches:
        watch.warm_up()
        quiet, power = Quiet(), {fault: Power() for fault in faults}
        for start in range(0, windows, every):
            quiet.add(watch_quietly(watch, min(every, windows - start)))
            if not watch.detector.has_open_anomaly:
                for fault, result in power.items():
                    inject(watch, fault, result)
        yield quiet, power


def _leading_claim(score: WindowScore) -> str:
    if score.record_margin_bits >= score.margin_bits:
        return "records"
    claim = score.claims[int(np.argmax(score.column_bits))]
    return f"{claim.column}/{claim.name}"
