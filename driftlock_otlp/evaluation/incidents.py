"""Injected faults: where they came from (PetShop), and whether they are found at all (Nezha, `nezha.py`).

Data: `petshop/<traffic>/<part>/<issue>/metrics.csv` and `target.json`, `petshop/<traffic>/graph.csv`, and
`nezha/<day>/` below the data directory. In PetShop a fault's file holds 25 minutes, too few for a stream to warm
up; so what is judged there is the ranking of an incident, given that there is one, and no detection.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.incidents import rank_origins
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.measures import bootstrap_interval, pr_auc, roc_auc
from driftlock_otlp.evaluation.nezha import FAULT_S, find_faults
from driftlock_otlp.evaluation.result import Row, SuiteResult, Table

Floats = npt.NDArray[np.float64]

_STATISTIC = "Average"
_HEADER_ROWS = 4
_PRIOR_SPREAD = {"latency": 0.3, "availability": 0.5}
"""Spread of a component that has no past: octaves of latency, percent of availability."""
_PRIOR_VALUES = 4.0
_TOP = 3
_RANDOM_SEED = 1


@dataclass(frozen=True, slots=True)
class Fault:
    """One injected fault.

    Attributes:
        name: Its folder.
        traffic: Kind of traffic; histories and calls are of one kind.
        metric: The metric that alarmed at the entry.
        root_cause: The component at fault.
        alarmed_s: When the entry alarmed, seconds since the epoch.
        times_s: float64, (n,).
        values: Of each component, by metric: float64, (n,), higher being worse; NaN where nothing was measured.
    """

    name: str
    traffic: str
    metric: str
    root_cause: str
    alarmed_s: float
    times_s: Floats
    values: Mapping[str, Mapping[str, Floats]]


def run_incidents(data: Path, config: Config, on_file: Callable[[str, int, int], None]) -> SuiteResult:
    """Rank the components of every fault, ours beside the largest z and chance.

    Args:
        data: Directory that holds `petshop/`.
        config: Settings; the ranking has none.
        on_file: Called before each fault with its name, its number and how many there are.

    Raises:
        InputError: The data are not there, or not as they should be.
    """
    root = data / "petshop"
    paths = sorted(root.glob("*/*/*/target.json"))
    if not paths:
        raise InputError(f"{root}: holds no faults; name the directory that holds petshop/ with --data")
    calls = {path.parent.name: read_calls(path) for path in sorted(root.glob("*/graph.csv"))}
    faults = []
    for number, path in enumerate(paths):
        on_file(str(path.parent.relative_to(root)), number, len(paths))
        faults.append(read_fault(path))
    started_s = time.process_time()
    days = sorted(path.parent for path in (data / "nezha").glob("*/faults.csv"))
    found_tables, replayed = [], 0
    for day in days:
        on_file(f"nezha/{day.name}", len(paths), len(paths) + len(days))
        table, count = _found(day, config)
        found_tables.append(table)
        replayed += count
    past: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    ranks: dict[str, list[float]] = {"Driftlock": [], "largest z": []}
    candidates: list[int] = []
    for fault in sorted(faults, key=lambda fault: (fault.traffic, fault.alarmed_s)):
        bits = _bits(fault, past)
        ours = [name for name, _ in rank_origins(bits, calls.get(fault.traffic, {}))]
        largest = sorted(bits, key=lambda name: (-bits[name], name))
        ranks["Driftlock"].append(_rank(fault.root_cause, ours))
        ranks["largest z"].append(_rank(fault.root_cause, largest))
        candidates.append(len(bits))
        for metric, components in fault.values.items():
            for name, values in components.items():
                before = values[fault.times_s < fault.alarmed_s]
                past[fault.traffic, metric, name] += before[np.isfinite(before)].tolist()
    rows = []
    for name, found in ranks.items():
        placed = np.array(found)
        interval = bootstrap_interval((placed < _TOP).astype(float), _RANDOM_SEED)
        top = float(np.mean(placed < 1)), float(np.mean(placed < _TOP))
        rows.append(Row(name, (*top, interval.low, interval.high)))
    counts = np.array(candidates)
    rows.append(Row("random", (float(np.mean(1 / counts)), float(np.mean(np.minimum(_TOP / counts, 1.0))), None, None)))
    return SuiteResult(
        suite="incidents",
        data=f"{len(faults)} of 68 faults of PetShop, {len(days)} days of Nezha",
        split="By time: a component is compared with what it was before this fault and before the earlier ones; Nezha"
        " is streamed from its first minute on",
        settings="one for all faults; the ranking has no settings",
        tables=(
            Table(
                "PetShop: the component at fault, of those with a metric",
                ("top 1", "top 3", "top 3 from", "top 3 to"),
                tuple(rows),
                "From and to: 95 % bootstrap interval over faults.",
            ),
            *found_tables,
        ),
        record_count=replayed + sum(len(c) * len(f.times_s) for f in faults for c in f.values.values()),
        cpu_s=time.process_time() - started_s,
    )


def _found(day: Path, config: Config) -> tuple[Table, int]:
    """Return what was found of one day's faults, and how many records were replayed."""
    injected, found = find_faults(day, config)
    ranks = [rank for rank in found.ranks if rank is not None]
    rate = found.false_alarms / found.hours
    ours = (
        len(ranks) / len(injected),
        rate,
        float(np.mean([rank < 1 for rank in ranks])) if ranks else None,
        float(np.mean([rank < _TOP for rank in ranks])) if ranks else None,
        roc_auc(found.minute_scores, found.minute_labels),
        pr_auc(found.minute_scores, found.minute_labels),
    )
    # As many incidents as false ones, strewn at random, begin in so many stretches as long as a fault.
    chance = 1.0 - math.exp(-rate * FAULT_S / 3600.0)
    share = float(found.minute_labels.mean())
    return (
        Table(
            f"Nezha, {day.name}: {len(injected)} faults, thresholds fixed beforehand",
            ("found in 5 min", "false alarms/h", "service top 1", "service top 3", "minute ROC-AUC", "minute PR-AUC"),
            (
                Row("Driftlock, logs and metrics", ours),
                Row("as many incidents at random", (chance, rate, None, None, 0.5, share)),
                Row(
                    "z-score on metrics",
                    (None, None, None, None, 0.706, 0.268),
                    "measured beforehand, not by this suite",
                ),
            ),
            "Of the faults found: the faulty service's rank in the strongest incident while the fault is on.",
        ),
        found.record_count,
    )


def read_fault(target: Path) -> Fault:
    """Return the fault that a `target.json` and the `metrics.csv` beside it describe.

    Raises:
        InputError: They cannot be read, or are not as described.
    """
    try:
        told = json.loads(target.read_text(encoding="utf-8"))
        with (target.parent / "metrics.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        names, metrics, statistics = (row[1:] for row in rows[:3])
        table = np.array([[float(cell) if cell else math.nan for cell in row] for row in rows[_HEADER_ROWS:]])
        values: dict[str, dict[str, Floats]] = {metric: {} for metric in _PRIOR_SPREAD}
        for column, (name, metric, statistic) in enumerate(zip(names, metrics, statistics, strict=True), start=1):
            if statistic == _STATISTIC and metric in values:
                measured = table[:, column]
                values[metric][name] = np.log2(1e-3 + measured) if metric == "latency" else -measured
        return Fault(
            target.parent.name,
            target.parents[2].name,
            told["target"]["metric"],
            told["root_cause"]["node"],
            float(told["target"]["timestamp"]),
            table[:, 0],
            values,
        )
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"{target.parent}: cannot be read as a fault: {error}") from None


def read_calls(graph: Path) -> dict[str, list[str]]:
    """Return what each component calls, from a table with a row for each caller.

    Raises:
        InputError: It cannot be read.
    """
    try:
        with graph.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        return {
            row[0]: [name for name, cell in zip(header[1:], row[1:], strict=True) if float(cell) > 0] for row in rows
        }
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{graph}: cannot be read as a table of calls: {error}") from None


def _bits(fault: Fault, past: Mapping[tuple[str, str, str], list[float]]) -> dict[str, float]:
    """Return how odd each component is from the alarm on, in the metric that alarmed."""
    prior = _PRIOR_SPREAD[fault.metric]
    is_before = fault.times_s < fault.alarmed_s
    bits = {}
    for name, values in fault.values[fault.metric].items():
        usual = np.array([*past.get((fault.traffic, fault.metric, name), ()), *values[is_before]])
        usual, seen = usual[np.isfinite(usual)], values[~is_before & np.isfinite(values)]
        if not usual.size or not seen.size:
            continue
        middle = float(np.median(usual))
        spread = 1.4826 * float(np.median(np.abs(usual - middle)))
        # The component's own spread, shrunk towards what any component may have.
        shrunk = (_PRIOR_VALUES * prior**2 + usual.size * spread**2) / (_PRIOR_VALUES + usual.size)
        bits[name] = max(float(seen.max()) - middle, 0.0) / math.sqrt(shrunk) / math.log(2.0)
    return bits


def _rank(name: str, order: list[str]) -> float:
    return float(order.index(name)) if name in order else math.inf
