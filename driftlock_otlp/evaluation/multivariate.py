"""Servers with many metrics each: a tick is as odd as its series together.

Data: `asd/*.npz` and `smd/*.npz` with train, test (rows x metrics) and label (test rows), and
`asd/interpretation/*.txt` (first row-last row:metrics, from 1) below the data directory.

The points of a tick go straight to the record scorer of metric streams: as OTLP requests through
`replay` the same points take ten times as long, to the same evidence. Of several series the bits
add: each is the cost of what its own past does not explain.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.columns import Category, Columns, Number
from driftlock_otlp.detection.points import StreamPoints
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.baselines import SERIES_BASELINES, Floats, mean_abs_z, pca_residual
from driftlock_otlp.evaluation.measures import bootstrap_interval, event_f1, flag_everything_f1, pr_auc, roc_auc
from driftlock_otlp.evaluation.result import Row, SuiteResult, Table

_SETS = {"asd": 300.0, "smd": 60.0}
"""Seconds between rows, as the sets' papers say; the rows have no times."""
_TOLERANCE = 5
_DAY_S = 86_400.0
_SEED = 1


@dataclass(frozen=True, slots=True)
class _Server:
    """What was found on the test rows of one server.

    Attributes:
        set_name: The set.
        labels: bool, (n,).
        scores: By detector, float64, (n,).
        alarms: float64, (n,): 1 where a point raised an alarm.
        hits: Of each explained event, whether the oddest metric is one of those named.
        chances: Of each explained event, the share of metrics that are named.
    """

    set_name: str
    labels: Floats
    scores: dict[str, Floats]
    alarms: Floats
    hits: list[bool]
    chances: list[float]


def run_multivariate(data: Path, config: Config, on_file: Callable[[str, int, int], None]) -> SuiteResult:
    """Score every server, ours beside baselines.

    Args:
        data: Directory that holds `asd/` and `smd/`.
        config: Settings; points have none of their own.
        on_file: Called before each server with its name, its number and how many there are.

    Raises:
        InputError: The data are not there, or not as they should be.
    """
    paths = [(name, path) for name in _SETS for path in sorted((data / name).glob("*.npz"))]
    if not paths:
        raise InputError(f"{data}: no asd/*.npz or smd/*.npz there; name the directory that holds them with --data")
    servers, cpu_s, points = [], 0.0, 0
    for number, (name, path) in enumerate(paths):
        on_file(f"{name}/{path.stem}", number, len(paths))
        train, test, labels = _read(path)
        started_s = time.process_time()
        lasting, alarms = score_ticks(np.concatenate([train, test]), _SETS[name])
        cpu_s += time.process_time() - started_s
        points += train.size + test.size
        servers.append(_server(name, path, train, test, labels, lasting[len(train) :], alarms[len(train) :]))
    return SuiteResult(
        suite="multivariate",
        data=", ".join(f"{sum(server.set_name == name for server in servers)} servers of {name}" for name in _SETS),
        split="Streaming over train, then test; test rows are judged, each by the rows before it",
        settings="one for all servers: the points of metric streams, which have no settings",
        tables=(
            *(_ranking(name, [server for server in servers if server.set_name == name]) for name in _SETS),
            _at_the_bar(servers),
        ),
        record_count=points,
        cpu_s=cpu_s,
    )


def score_ticks(values: Floats, interval_s: float) -> tuple[Floats, Floats]:
    """Return how odd each series is at each tick, and where an alarm is raised.

    Args:
        values: float64, (n, d).
        interval_s: Seconds between ticks.

    Returns:
        float64, (n, d): lasting bits of each series; float64, (n,): 1 where a point raised an alarm.
    """
    count, width = values.shape
    points = StreamPoints()
    series = Category(np.arange(width, dtype=np.int32), [str(column + 1) for column in range(width)])
    lasting, alarms = np.zeros(values.shape), np.zeros(count)
    for tick in range(count):
        times = np.full(width, int(tick * interval_s * 1e9), dtype=np.int64)
        columns = Columns(width, times, {"series": series}, {"value": Number(values[tick], "series", False, True)})
        found = points.score_one(columns)
        if found is not None and found.lasting is not None:
            lasting[tick] = found.lasting
            alarms[tick] = float((found.margins >= 0.0).any())
        points.learn_one(columns, found)
    return lasting, alarms


def _server(
    name: str, path: Path, train: Floats, test: Floats, labels: Floats, lasting: Floats, alarms: Floats
) -> _Server:
    scores = {"Driftlock": lasting.sum(axis=1)}
    rows = np.concatenate([train, test])
    for baseline, judge in SERIES_BASELINES.items():
        scores[baseline] = judge(rows)[len(train) :]
    scores["PCA residual, fitted on train"] = pca_residual(train, test)
    scores["mean |z|, fitted on train"] = mean_abs_z(train, test)
    hits, chances = [], []
    for first, last, named in _explained(path.parent / "interpretation" / f"{path.stem}.txt"):
        hits.append(int(lasting[first : last + 1].max(axis=0).argmax()) + 1 in named)
        chances.append(len(named) / test.shape[1])
    return _Server(name, labels, scores, alarms, hits, chances)


def _ranking(name: str, servers: list[_Server]) -> Table:
    rows = []
    for detector in servers[0].scores if servers else ():
        areas = [pr_auc(server.scores[detector], server.labels) for server in servers]
        interval = bootstrap_interval(areas, _SEED)
        roc = float(np.mean([roc_auc(server.scores[detector], server.labels) for server in servers]))
        rows.append(Row(detector, (interval.estimate, interval.low, interval.high, min(areas), roc)))
    return Table(
        f"{name}: ranking of rows, mean over servers",
        ("PR-AUC", "from", "to", "worst server", "ROC-AUC"),
        tuple(rows),
        "From and to: 95 % bootstrap interval over servers. Every row counts by itself, no point adjustment.",
    )


def _at_the_bar(servers: list[_Server]) -> Table:
    rows = []
    for name, interval_s in _SETS.items():
        chosen = [server for server in servers if server.set_name == name]
        if not chosen:
            continue
        found = [event_f1(server.alarms, server.labels, 0.5, _TOLERANCE) for server in chosen]
        outside = [float(server.alarms[~server.labels.astype(bool)].sum()) for server in chosen]
        days = [len(server.labels) * interval_s / _DAY_S for server in chosen]
        hits = [hit for server in chosen for hit in server.hits]
        chances = [chance for server in chosen for chance in server.chances]
        figures = (
            float(np.mean([f1.recall for f1 in found])),
            float(np.mean([f1.precision for f1 in found])),
            sum(outside) / sum(days),
            float(np.mean([flag_everything_f1(server.labels) for server in chosen])),
            float(np.mean(hits)) if hits else None,
            float(np.mean(chances)) if chances else None,
        )
        rows.append(Row(f"Driftlock, {name}", figures))
    return Table(
        "Threshold fixed beforehand (a point raises an alarm), and the metric named",
        ("event recall", "event precision", "alarms a day outside", "flag everything F1", "metric named", "by chance"),
        tuple(rows),
        "Precision counts runs of alarms. Named: the metric with most bits in an event is one of those involved.",
    )


def _read(path: Path) -> tuple[Floats, Floats, Floats]:
    try:
        with np.load(path) as saved:
            train, test = (np.asarray(saved[key], dtype=np.float64) for key in ("train", "test"))
            return train, test, np.asarray(saved["label"], dtype=np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read as train, test and label: {error}") from None


def _explained(path: Path) -> list[tuple[int, int, set[int]]]:
    """Return the first and last row and the metrics of each explained event; nothing if there is no such file."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").split():
        rows, metrics = line.split(":")
        first, last = rows.split("-")
        events.append((int(first), int(last), {int(metric) for metric in metrics.split(",")}))
    return events
