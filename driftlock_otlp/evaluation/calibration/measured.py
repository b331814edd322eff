"""How much is measured, and everything that streams came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from driftlock_otlp.evaluation.calibration import lives
from driftlock_otlp.evaluation.calibration.fleet import Fleet
from driftlock_otlp.evaluation.calibration.real import ArrayStream
from driftlock_otlp.evaluation.calibration.streams import DAY_WINDOWS, HOUR_WINDOWS, Fault
from driftlock_otlp.evaluation.calibration.watch import Power, Quiet, measure, watch_quietly

AIMS: dict[str, dict[Fault, float | None]] = {
    "logs": {
        ("new_template", 0.03): None,
        ("new_template", 0.1): 0.97,
        ("new_template", 0.25): None,
        ("error_burst", 0.1): None,
        ("error_burst", 0.25): 0.98,
        ("template_gone", 0.0): None,
        ("latency", 2.0): None,
        ("latency", 4.0): 0.85,
        ("rate", 3.0): None,
    },
    "metrics": {
        ("level", 3.0): None,
        ("level", 5.0): 0.7,
        ("level", 8.0): None,
        ("flat", 0.0): None,
        ("variance", 3.0): None,
    },
    "traces": {
        ("errors", 0.1): None,
        ("errors", 0.25): 0.5,
        ("new_operation", 0.1): None,
        ("new_operation", 0.25): None,
        ("latency", 2.0): None,
        ("latency", 4.0): 0.85,
    },
}
"""Faults of each kind of stream, and which share is to be alarmed with their first window."""
RANKED: list[Fault] = [fault for fault in AIMS["logs"] if fault[0] != "rate"]
"""Faults of logs that single records show."""
LONG_FAULT_WINDOWS = 30
_RECORDS = (20, 100)
_QUIET_ARMED = 300
"""Clean windows before a long fault or a new regime."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        seeds: Streams of each kind.
        windows: Clean windows of each, after warm-up.
        every: Clean windows from one injection of all faults to the next.
        lives: Streams of each kind that are given long faults, regimes, jobs and small windows.
        trials: Windows of each size with each fault, per stream; 0: they are left out.
        days: Days of a daily job; 0: it is left out.
        hours: Hours of an hourly job.
        fleet: Streams at once.
        fleet_hours: Hours that they run.
        ticks: Single ticks that are looked at.
    """

    seeds: range
    windows: int
    every: int
    lives: int
    trials: int
    days: int
    hours: int
    fleet: int
    fleet_hours: int
    ticks: int


FULL = Size(
    seeds=range(100, 103), windows=DAY_WINDOWS, every=240, lives=2, trials=30, days=2, hours=12,
    fleet=1000, fleet_hours=4, ticks=200,
)  # fmt: skip
SHORT = Size(
    seeds=range(100, 103), windows=400, every=135, lives=1, trials=6, days=0, hours=0,
    fleet=100, fleet_hours=1, ticks=50,
)  # fmt: skip
"""What tests run: it sees what makes the detector clearly worse, and no rate of one a day."""


@dataclass(slots=True)
class Measured:
    """What the streams of one kind came to.

    Attributes:
        quiet: Stream by stream.
        power: Fault by fault, pooled over the streams.
        cold: How they came to their first alarm.
        recovery: After long faults.
        adoption: Of faults that stay.
    """

    quiet: list[Quiet]
    power: dict[Fault, Power]
    cold: lives.ColdStart
    recovery: lives.Recovery
    adoption: lives.Adoption

    def pooled(self) -> Quiet:
        """Return what all streams came to together."""
        total = Quiet()
        for quiet in self.quiet:
            total.add(quiet)
        return total


def measure_kind(
    kind: str, size: Size, new_watch: lives.NewWatch, on_stream: Callable[[str], None] = lambda _: None
) -> Measured:
    """Measure the streams of one kind.

    Args:
        kind: `logs`, `metrics` or `traces`.
        size: How much.
        new_watch: Makes a watch of a kind and a seed.
        on_stream: Called with a name before each stream.
    """
    found = Measured([], {}, lives.ColdStart(), lives.Recovery(), lives.Adoption())
    for number, seed in enumerate(size.seeds):
        on_stream(f"{kind} {seed}")
        lives.cold_start(kind, new_watch(kind, seed), found.cold)
        ((quiet, power),) = measure([new_watch(kind, seed)], size.windows, size.every, list(AIMS[kind]))
        found.quiet.append(quiet)
        for fault, result in power.items():
            found.power.setdefault(fault, Power()).add(result)
        if number < size.lives:
            watch = new_watch(kind, seed + 1000).warm_up(_QUIET_ARMED)
            lives.recover(kind, watch, LONG_FAULT_WINDOWS, found.recovery)
            lives.adopt(kind, watch, found.adoption)
    return found


def measure_small(size: Size, new_watch: lives.NewWatch) -> dict[int, lives.Ranking]:
    """Return how windows of so many log records with faults rank among clean ones."""
    found = {records: lives.Ranking() for records in _RECORDS if size.trials}
    for records, ranking in found.items():
        for seed in size.seeds[: size.lives]:
            lives.rank_windows(new_watch, seed, records, size.trials, RANKED, ranking)
    return found


def measure_jobs(size: Size, new_watch: lives.NewWatch) -> dict[str, lives.Jobs]:
    """Return the alarms on jobs of each schedule that the size has room for."""
    found = {}
    for name, every, runs, streams in (
        ("hourly", HOUR_WINDOWS, size.hours, size.lives),
        ("daily", DAY_WINDOWS, size.days, 1),
    ):
        if not runs:
            continue
        jobs = found[name] = lives.Jobs()
        for seed in size.seeds[:streams]:
            lives.run_jobs(new_watch("logs", seed + 2000).warm_up(), every, runs, jobs)
    return found


def new_fleet(measured: Mapping[str, Measured]) -> Fleet:
    """Return many streams, made of those measured, with the faults for which a share is asked for."""
    told = [power for kind, found in measured.items() for fault, power in found.power.items() if AIMS[kind][fault]]
    return Fleet([quiet for found in measured.values() for quiet in found.quiet], told, seed=1)


def watch_real(new_watch: lives.NewWatch, stream: ArrayStream) -> Quiet:
    """Watch a recorded stream to its end."""
    watch = new_watch("metrics", stream).warm_up()
    return watch_quietly(watch, stream.window_count - watch.window_count)
