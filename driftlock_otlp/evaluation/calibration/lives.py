"""What happens to one stream over its life: it warms up, has jobs, long faults, new regimes, small windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from driftlock_otlp.evaluation.calibration.streams import Fault, LogStream
from driftlock_otlp.evaluation.calibration.watch import Power, Watch, inject
from driftlock_otlp.evaluation.measures import roc_auc

NewWatch = Callable[..., Watch]
"""Makes a watch of a kind and a stream or a seed."""

GROSS: dict[str, Fault] = {"logs": ("new_template", 0.25), "metrics": ("level", 8.0), "traces": ("new_operation", 0.25)}
"""One plain fault of each kind of stream."""
OTHER: dict[str, Fault] = {"logs": ("error_burst", 0.25), "metrics": ("variance", 8.0), "traces": ("errors", 0.25)}
"""Another one, to see what the first has left of the detector."""
JOB: Fault = ("job", 0.3)
_JOB_WINDOWS = 2
_AFTER_WINDOWS = 120
_REST_WINDOWS = 12


@dataclass(slots=True)
class ColdStart:
    """How a young stream comes to its first alarm.

    Attributes:
        armed_after: Of each stream, windows until one can be alarmed.
        scored: Of each stream, those of them that had evidence.
        first: A gross fault in the first window that can be alarmed, and those that follow.
    """

    armed_after: list[int] = field(default_factory=list)
    scored: list[int] = field(default_factory=list)
    first: Power = field(default_factory=Power)


def cold_start(kind: str, watch: Watch, found: ColdStart) -> None:
    """Follow a stream that has just begun until it is armed, and put a gross fault in at once."""
    scored = 0
    while not watch.detector.is_warm:
        scored += watch.step().vector.size > 0
    found.armed_after.append(watch.window_count)
    found.scored.append(scored)
    inject(watch, GROSS[kind], found.first)


@dataclass(slots=True)
class Recovery:
    """What a long fault leaves behind.

    Attributes:
        told: Long faults that were alarmed; only they are followed.
        over_after: Clean windows until the anomaly was over.
        false_alarms: Alarms in the 120 clean windows after that.
        again: Another fault, after all that.
    """

    told: int = 0
    over_after: list[int] = field(default_factory=list)
    false_alarms: int = 0
    again: Power = field(default_factory=Power)


def recover(kind: str, watch: Watch, fault_windows: int, found: Recovery) -> None:
    """Give a warm stream a fault of so many windows, and follow what comes after."""
    trial = watch.branch()
    for _ in range(fault_windows):
        trial.step(*GROSS[kind])
    if not trial.detector.has_open_anomaly:
        return
    found.told += 1
    over_after = next((n for n in range(1, _AFTER_WINDOWS + 1) if trial.step().is_resolved), _AFTER_WINDOWS)
    found.over_after.append(over_after)
    found.false_alarms += sum(trial.step().is_alarm for _ in range(_AFTER_WINDOWS))
    inject(trial, OTHER[kind], found.again)


@dataclass(slots=True)
class Adoption:
    """What becomes of a fault that stays.

    Attributes:
        told: Regimes whose beginning was alarmed; only they are followed.
        adopted_after: Windows from its beginning until it became the baseline.
        false_alarms: Alarms in the 120 windows of the regime after that.
        back_told: How often it was told within four windows that the stream went back to what it was.
    """

    told: int = 0
    adopted_after: list[int] = field(default_factory=list)
    false_alarms: int = 0
    back_told: int = 0


def adopt(kind: str, watch: Watch, found: Adoption) -> None:
    """Give a warm stream a fault that stays, until it is adopted, and 120 windows more of it."""
    trial = watch.branch()
    limit = 2 * trial.settings.adopt_after_windows
    adopted_after = next((n for n in range(1, limit + 1) if trial.step(*GROSS[kind]).is_adopted), 0)
    if not adopted_after:
        return
    found.told += 1
    found.adopted_after.append(adopted_after)
    for _ in range(_AFTER_WINDOWS):
        found.false_alarms += trial.step(*GROSS[kind]).is_alarm
    back = trial.branch()
    found.back_told += any(back.step().is_alarm for _ in range(4))


@dataclass(slots=True)
class Jobs:
    """Alarms on what comes back on schedule.

    Attributes:
        runs: Of each time, counted from 0, how many streams had the job.
        alarms: Of each time, how many were alarmed.
    """

    runs: list[int] = field(default_factory=list)
    alarms: list[int] = field(default_factory=list)

    def share(self, first: int, end: int) -> float | None:
        """Return the share of the runs numbered `first` to `end` - 1 that were alarmed; None if there are none."""
        runs = sum(self.runs[first:end])
        return sum(self.alarms[first:end]) / runs if runs else None

    def take(self, number: int, *, is_alarmed: bool) -> None:
        """Count a run."""
        while len(self.runs) <= number:
            self.runs.append(0)
            self.alarms.append(0)
        self.runs[number] += 1
        self.alarms[number] += is_alarmed


def run_jobs(watch: Watch, every_windows: int, runs: int, jobs: Jobs) -> None:
    """Let a stream of logs have a job of two windows so often."""
    for number in range(runs):
        for _ in range(every_windows - _JOB_WINDOWS):
            watch.step()
        was_open = watch.detector.has_open_anomaly
        scores = [watch.step(*JOB) for _ in range(_JOB_WINDOWS)]
        if not was_open:
            jobs.take(number, is_alarmed=any(score.is_alarm for score in scores))


@dataclass(slots=True)
class Ranking:
    """Windows with a fault beside clean ones.

    Attributes:
        clean: Margins of clean windows.
        faulty: Margins of windows with the fault, the first of each trial.
    """

    clean: list[float] = field(default_factory=list)
    faulty: dict[Fault, list[float]] = field(default_factory=dict)

    def auc(self, fault: Fault) -> float:
        """Return the chance that a window with the fault scores above a clean one."""
        scores = [*self.clean, *self.faulty[fault]]
        return roc_auc(scores, [0] * len(self.clean) + [1] * len(self.faulty[fault]))


def rank_windows(
    new_watch: NewWatch, seed: int, records: int, trials: int, faults: list[Fault], found: Ranking
) -> None:
    """Score clean windows of so few records, and after each twelve of them one with each fault."""
    watch = new_watch("logs", LogStream(seed, records)).warm_up(_REST_WINDOWS)
    for _ in range(trials):
        found.clean += [watch.step().margin_bits for _ in range(_REST_WINDOWS)]
        for fault in faults:
            found.faulty.setdefault(fault, []).append(watch.branch().score(*fault).margin_bits)
