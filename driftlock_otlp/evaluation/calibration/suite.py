"""The suite `calibration`: error rates that were promised, on seeded streams and on quiet parts of real ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.evaluation.calibration import lives
from driftlock_otlp.evaluation.calibration.measured import (
    AIMS,
    FULL,
    LONG_FAULT_WINDOWS,
    RANKED,
    Measured,
    Size,
    measure_jobs,
    measure_kind,
    measure_small,
    new_fleet,
    watch_real,
)
from driftlock_otlp.evaluation.calibration.real import real_sets
from driftlock_otlp.evaluation.calibration.streams import DAY_WINDOWS, Stream
from driftlock_otlp.evaluation.calibration.watch import LEVELS, STREAMS, Quiet, Tally, Watch
from driftlock_otlp.evaluation.result import Row, SuiteResult, Table
from driftlock_otlp.windowing.scoring import detector_settings


def run_calibration(
    data: Path | None, config: Config, on_file: Callable[[str, int, int], None], size: Size = FULL
) -> SuiteResult:
    """Measure seeded streams, and quiet parts of real ones if there are any.

    Args:
        data: Directory that holds `nab/`, `smd/` or `ms_cloud/`; None: seeded streams alone.
        config: Settings; one for all streams of a kind.
        on_file: Called before each stream with its name, its number and how many there are.
        size: How much.

    Raises:
        InputError: The data are not as they should be.
    """
    started_s = time.process_time()
    compressor = new_compressor(config.detection.compressor)
    tally = Tally()

    def new_watch(kind: str, stream: Stream | int) -> Watch:
        return Watch(kind, stream, detector_settings(config, kind), compressor, tally)

    count = len(STREAMS) * len(size.seeds) + 4
    number = 0

    def begin(name: str) -> None:
        nonlocal number
        on_file(name, number, count)
        number += 1

    measured = {kind: measure_kind(kind, size, new_watch, begin) for kind in STREAMS}
    begin("jobs")
    jobs = _jobs_tables(measure_jobs(size, new_watch))
    begin("small windows")
    small = _small_tables(measure_small(size, new_watch))
    begin("many streams")
    fleet = _fleet_tables(size, measured)
    begin("real streams")
    real = _real_table(data, new_watch) if data is not None else []
    days = sum(quiet.windows for kind in measured.values() for quiet in kind.quiet) / DAY_WINDOWS
    return SuiteResult(
        suite="calibration",
        data=f"{len(size.seeds)} seeded streams of logs, metrics and traces each, {days:.3g} stream-days clean"
        + (", and quiet parts of real series" if real else ""),
        split="Streaming: each window is judged by those before it; faults are put into copies of the streams",
        settings=", ".join(f"{kind} at significance {config.significance(kind):g}" for kind in STREAMS)
        + f", {compressor.fingerprint}",
        tables=(
            _false_alarms_table(measured),
            _power_table(measured),
            *real,
            *fleet,
            *small,
            *jobs,
            _recovery_table(measured),
            _cold_table(measured),
        ),
        record_count=tally.records,
        cpu_s=time.process_time() - started_s,
    )


_FALSE_ALARM_COLUMNS = (
    "streams",
    *(f"flagged at {level:g}" for level in LEVELS),
    "false alarms a day",
    "95th percentile",
    "of all, in bursts",
    "withheld",
)


def _false_alarms_row(name: str, streams: list[Quiet]) -> Row:
    windows = max(sum(quiet.windows for quiet in streams), 1)
    flagged = np.sum([quiet.flagged for quiet in streams], axis=0) / windows
    alarms = sum(len(quiet.alarms) for quiet in streams)
    return Row(
        name,
        (
            len(streams),
            *flagged.tolist(),
            alarms * DAY_WINDOWS / windows,
            float(np.quantile([quiet.alarms_a_day for quiet in streams], 0.95)),
            sum(quiet.in_bursts for quiet in streams) / alarms if alarms else None,
            sum(quiet.withheld for quiet in streams) / windows,
        ),
    )


def _false_alarms_table(measured: dict[str, Measured]) -> Table:
    return Table(
        "Clean streams: windows flagged, false alarms per 8,640 windows (a day)",
        _FALSE_ALARM_COLUMNS,
        tuple(_false_alarms_row(f"Driftlock, {kind}", found.quiet) for kind, found in measured.items()),
        "Flagged: p-value at or below the level; asked for is at most 1.2 times the level, half a false alarm a day on"
        " average, and two at the 95th percentile of streams. Bursts are real events, but usual ones of the stream.",
    )


def _power_table(measured: dict[str, Measured]) -> Table:
    rows = []
    for kind, found in measured.items():
        for (fault, size), power in found.power.items():
            shares = (power.share(1), power.share(2), power.share(4))
            name = f"Driftlock, {kind}: {fault}" + (f" {size:g}" if size else "")
            aim = AIMS[kind][fault, size]
            rows.append(Row(name, (*shares, aim, power.named_share if power.within[-1] else None, power.trials)))
    return Table(
        "Faults: share alarmed by their first, second and fourth window",
        ("1st", "2nd", "4th", "asked for, 1st", "touched column led", "trials"),
        tuple(rows),
        "Each on a copy of the stream, with what the governor had come to. Shares of records for new_template,"
        " error_burst, errors, new_operation; factors for latency (of one operation), rate, variance; sigmas of one of"
        " three gauges for level.",
    )


def _fleet_tables(size: Size, measured: dict[str, Measured]) -> list[Table]:
    fleet = new_fleet(measured)
    tick = fleet.ticks(size.fleet, size.fleet // 100, size.ticks)
    faults_an_hour = max(size.fleet // 100, 1)
    hours = fleet.hours(size.fleet, size.fleet_hours, faults_an_hour)
    columns = ("false discovery rate", "power", "false ones", "faults")
    single = Row(
        "Driftlock, one tick",
        (tick.shares / tick.ticks, tick.found / tick.faults, None, tick.faults),
    )
    over_time = tuple(
        Row(f"Driftlock, {name}", (found.false_share, found.found / max(found.faults, 1), found.wrong, found.faults))
        for name, found in hours.items()
    )
    note = "Faults are those for which a share is asked for. Streams are re-used pieces of those above: extremes recur."
    return [
        Table(
            f"{size.fleet:,} streams, one in a hundred in the first window of a fault", columns, (single,),
            "Benjamini-Hochberg at the tick. " + note,
        ),
        Table(
            f"{size.fleet:,} streams over {size.fleet_hours} hours, {faults_an_hour} faults an hour",
            columns,
            over_time,
            "Four streams a service; a fault touches two to four of one service. " + note,
        ),
    ]  # fmt: skip


def _small_tables(measured: dict[int, lives.Ranking]) -> list[Table]:
    rows = []
    for records, found in measured.items():
        areas = [found.auc(fault) for fault in RANKED]
        rows.append(Row(f"Driftlock, {records} records", (float(np.mean(areas)), *areas)))
    names = [f"{fault} {amount:g}" if amount else fault for fault, amount in RANKED]
    title = "Small windows of logs: ROC-AUC of one window with a fault against clean ones"
    note = "Asked for is a mean of .85 with windows of 20 records."
    return [Table(title, ("mean", *names), tuple(rows), note)] if rows else []


def _jobs_tables(measured: dict[str, lives.Jobs]) -> list[Table]:
    rows = []
    for name, jobs in measured.items():
        shares = (jobs.share(0, 1), jobs.share(1, 2), jobs.share(2, 3), jobs.share(3, len(jobs.runs)))
        rows.append(Row(f"Driftlock, {name} job", (*shares, sum(jobs.runs))))
    if not rows:
        return []
    return [
        Table(
            "Jobs on schedule: share of runs that were alarmed",
            ("1st run", "2nd", "3rd", "later ones", "runs"),
            tuple(rows),
            "The job writes lines of its own, 30 % of the records of two windows, at a higher rate.",
        )
    ]


def _recovery_table(measured: dict[str, Measured]) -> Table:
    rows = []
    for kind, found in measured.items():
        for name, told, windows, alarms, again, back in (
            (
                f"a fault of {LONG_FAULT_WINDOWS} windows", found.recovery.told, found.recovery.over_after,
                found.recovery.false_alarms, found.recovery.again.share(1), None,
            ),
            (
                "a fault that stays", found.adoption.told, found.adoption.adopted_after,
                found.adoption.false_alarms, None, found.adoption.back_told,
            ),
        ):  # fmt: skip
            if told:
                rows.append(
                    Row(
                        f"Driftlock, {kind}: {name}",
                        (told, float(np.median(windows)), alarms / told, again, None if back is None else back / told),
                    )
                )
    return Table(
        "After long faults",
        ("followed", "windows until over or adopted", "false alarms after", "other fault, 1st", "return told"),
        tuple(rows),
        "Windows: from the fault's end until the anomaly was over, or from its beginning until it was adopted; median."
        " False alarms: in the 120 windows after that, for each fault followed. Return told: within four windows, that"
        " the stream went back to what it was before.",
    )


def _cold_table(measured: dict[str, Measured]) -> Table:
    return Table(
        "Cold start: when the first alarm is possible",
        ("armed after windows", "of them scored", "gross fault then, 1st", "4th"),
        tuple(
            Row(
                f"Driftlock, {kind}",
                (
                    max(found.cold.armed_after),
                    max(found.cold.scored),
                    found.cold.first.share(1),
                    found.cold.first.share(4),
                ),
            )
            for kind, found in measured.items()
        ),
        "Asked for are at most 20 scored windows. The gross fault (a new template or operation in a quarter of the"
        " records, 8 sigmas on one gauge) begins with the first window that can be alarmed.",
    )


def _real_table(data: Path, new_watch: lives.NewWatch) -> list[Table]:
    rows = []
    for real in real_sets(data):
        found = [watch_real(new_watch, stream) for stream in real.streams]
        rows.append(_false_alarms_row(f"Driftlock, {real.name}", found))
    if not rows:
        return []
    return [
        Table(
            "Real series in which nothing is labelled",
            _FALSE_ALARM_COLUMNS,
            tuple(rows),
            "As gauges, four points a window, up to three of a server together. Times are those of the rows: 8,640"
            " windows are then weeks or months of them, with real changes of regime that nobody has labelled.",
        )
    ]
