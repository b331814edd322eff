"""Single service metrics with a label for every point, replayed file by file.

Data: `ms_cloud/<kind>/<series>.csv` with TimeStamp, Value, Label below the data directory (Microsoft's
cloud monitoring dataset).
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import Compressor, new_compressor
from driftlock_otlp.detection.scores import ALARM_SCORE
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.baselines import SERIES_BASELINES, Floats
from driftlock_otlp.evaluation.measures import bootstrap_interval, event_f1, events, pr_auc, roc_auc
from driftlock_otlp.evaluation.result import Row, SuiteResult, Table
from driftlock_otlp.replay.fields import FieldOptions
from driftlock_otlp.replay.formats import Format
from driftlock_otlp.replay.inputs import InputFile
from driftlock_otlp.replay.run import replay

_TOLERANCE_S = 7200.0
"""An event counts as found up to two hours after its last point: two points of the slow series."""
_SEED = 1
_DAY_S = 86_400.0
_COLUMNS = ("ROC-AUC", "from", "to", "PR-AUC", "from", "to")


@dataclass(frozen=True, slots=True)
class _Series:
    """One file: its points that have a value, and what each detector said of them."""

    seconds: Floats
    values: Floats
    labels: Floats
    scores: dict[str, Floats]


def run_metrics(data: Path, config: Config, on_file: Callable[[str, int, int], None]) -> SuiteResult:
    """Replay every series, and score ours beside baselines.

    Args:
        data: Directory that holds `ms_cloud/`.
        config: Settings; one for all files.
        on_file: Called before each file with its name, its number and how many there are.

    Raises:
        InputError: The data are not there, or not as they should be.
    """
    root = data / "ms_cloud"
    paths = sorted(root.glob("*/*.csv"))
    if not paths:
        raise InputError(f"{root}: no */*.csv there; name the directory that holds ms_cloud/ with --data")
    compressor = new_compressor(config.detection.compressor)
    found: list[_Series] = []
    cpu_s = 0.0
    for number, path in enumerate(paths):
        on_file(path.stem, number, len(paths))
        started_s = time.process_time()
        ours, seconds = _replayed(path, config, compressor)
        cpu_s += time.process_time() - started_s
        found.append(_read(path, ours, seconds))
    labelled = [series for series in found if series.labels.any()]
    points = sum(len(series.values) for series in found)
    return SuiteResult(
        suite="metrics",
        data=f"{len(paths)} series of Microsoft's cloud monitoring dataset, {len(labelled)} of them with labels",
        split="Streaming: each point is judged by those before it; all labelled points count, also the first",
        settings=f"one for all files, significance {config.significance('metrics'):g}, {compressor.fingerprint}",
        tables=(
            Table(
                "Threshold fixed beforehand (the bar of an immediate alarm)",
                ("event recall", "event precision", "event F1", "false alarms a day", "95th percentile"),
                (_at_the_bar(found),),
                "Events are runs of labelled points, found up to two hours after their end. Alarms tell of onsets: what"
                " follows within the hold is part of the same anomaly. The percentile is over series.",
            ),
            Table(
                "Ranking of points, mean over series",
                _COLUMNS,
                tuple(_ranking(name, labelled) for name in found[0].scores),
                "From and to: 95 % bootstrap interval over series. No threshold, no point adjustment.",
            ),
            Table(
                "Ranking of points, halves of the series",
                ("ROC-AUC, even", "PR-AUC, even", "ROC-AUC, odd", "PR-AUC, odd"),
                tuple(_halves(name, labelled) for name in ("Driftlock", "EWMA z-score")),
                "Every other series, in order of their names.",
            ),
        ),
        record_count=points,
        cpu_s=cpu_s,
    )


def _replayed(path: Path, config: Config, compressor: Compressor) -> tuple[Floats, Floats]:
    """Return the score and the time of every row of a file."""
    file = InputFile(str(path), lambda _: None)
    scored = replay([file], [Format.CSV], FieldOptions(value_column="Value"), config, compressor).files[0]
    return np.array(scored.scores), np.array(scored.times_unix_nano, dtype=np.float64) / 1e9


def _read(path: Path, ours: Floats, seconds: Floats) -> _Series:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        values = np.array([float(row["Value"]) if row["Value"] else np.nan for row in rows])
        labels = np.array([float(row["Label"] or 0) for row in rows]) > 0
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read as TimeStamp,Value,Label: {error}") from None
    if len(values) != len(ours):
        raise InputError(f"{path}: {len(values)} rows, but {len(ours)} were scored")
    is_point = np.isfinite(values)
    scores = {"Driftlock": np.where(is_point, ours, -np.inf)}
    for name, judge in SERIES_BASELINES.items():
        scores[name] = np.full(len(values), -np.inf)
        scores[name][is_point] = judge(values[is_point])
    return _Series(seconds, values, labels.astype(np.float64), scores)


def _ranking(name: str, labelled: list[_Series]) -> Row:
    figures: list[float | None] = []
    for measure in (roc_auc, pr_auc):
        interval = bootstrap_interval([measure(series.scores[name], series.labels) for series in labelled], _SEED)
        figures += [interval.estimate, interval.low, interval.high]
    return Row(name, tuple(figures))


def _halves(name: str, labelled: list[_Series]) -> Row:
    figures = [
        bootstrap_interval(
            [measure(series.scores[name], series.labels) for series in labelled[half::2]], _SEED
        ).estimate
        for half in (0, 1)
        for measure in (roc_auc, pr_auc)
    ]
    return Row(name, tuple(figures))


def _at_the_bar(found: list[_Series]) -> Row:
    """Return recall and precision by events, and false alarms a day."""
    met = labelled = right = runs = 0.0
    per_day = []
    for series in found:
        scores = series.scores["Driftlock"]
        interval_s = float(np.median(np.diff(series.seconds)))
        tolerance = round(_TOLERANCE_S / interval_s)
        of_events = event_f1(scores, series.labels, ALARM_SCORE, tolerance)
        count = len(events(series.labels))
        alarms = _runs(scores >= ALARM_SCORE, tolerance)
        met += of_events.recall * count
        labelled += count
        right += of_events.precision * alarms
        runs += alarms
        days = (series.seconds[-1] - series.seconds[0]) / _DAY_S
        per_day.append((1.0 - of_events.precision) * alarms / days)
    recall, precision = met / max(labelled, 1.0), right / max(runs, 1.0)
    f1 = 2.0 * precision * recall / (precision + recall) if right else 0.0
    return Row("Driftlock", (recall, precision, f1, float(np.mean(per_day)), float(np.quantile(per_day, 0.95))))


def _runs(found: np.ndarray, tolerance: int) -> int:
    """Return how many runs of alarms there are, those close together being one."""
    rows = np.flatnonzero(found)
    return int(rows.size > 0) + int((np.diff(rows) > tolerance + 1).sum())
