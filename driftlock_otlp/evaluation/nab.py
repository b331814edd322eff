"""The Numenta Anomaly Benchmark: single metrics, replayed file by file.

Data: `nab/data/<category>/<file>.csv`, `nab/combined_windows.json` and
`nab/published_detectors.json` below the data directory.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.detection.scores import ALARM_SCORE
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.baselines import SERIES_BASELINES
from driftlock_otlp.evaluation.nab_score import PROFILES, Floats, ScoredFile, sweep
from driftlock_otlp.evaluation.result import Row, SuiteResult, Table
from driftlock_otlp.replay.fields import FieldOptions
from driftlock_otlp.replay.formats import Format
from driftlock_otlp.replay.inputs import InputFile
from driftlock_otlp.replay.run import replay
from driftlock_otlp.replay.times import parse_time

_COLUMNS = tuple(profile.name for profile in PROFILES)


def run_nab(data: Path, config: Config, on_file: Callable[[str, int, int], None]) -> SuiteResult:
    """Replay every file, and score ours beside baselines and the published detectors.

    Args:
        data: Directory that holds `nab/`.
        config: Settings; one for all files.
        on_file: Called before each file with its name, its number and how many there are.

    Raises:
        InputError: The data are not there, or not as they should be.
    """
    root = data / "nab"
    labels = _read_json(root / "combined_windows.json")
    published = _read_json(root / "published_detectors.json")
    compressor = new_compressor(config.detection.compressor)
    detectors: dict[str, list[ScoredFile]] = {name: [] for name in ("Driftlock", *SERIES_BASELINES)}
    cpu_s, row_count = 0.0, 0
    for number, name in enumerate(sorted(labels)):
        on_file(name, number, len(labels))
        file = InputFile(str(root / "data" / name), lambda _: None)
        started_s = time.process_time()
        scored = replay([file], [Format.CSV], FieldOptions(), config, compressor).files[0]
        cpu_s += time.process_time() - started_s
        times = np.array(scored.times_unix_nano, dtype=np.uint64)
        windows = [_rows(times, window, name) for window in labels[name]]
        values = _values(root / "data" / name)
        detectors["Driftlock"].append(ScoredFile(np.array(scored.scores), windows))
        for detector, judge in SERIES_BASELINES.items():
            detectors[detector].append(ScoredFile(judge(values), windows))
        row_count += len(values)
    fixed = tuple(sweep(detectors["Driftlock"], profile).at(ALARM_SCORE) for profile in PROFILES)
    chosen = [
        Row(name, tuple(sweep(files, profile).best()[0] for profile in PROFILES)) for name, files in detectors.items()
    ]
    return SuiteResult(
        suite="nab",
        data=f"{len(labels)} of 58 files of the Numenta Anomaly Benchmark, {sum(map(len, labels.values()))} windows",
        split="Streaming: each row is judged by those before it; the first 15 % (750 at most) do not count",
        settings=f"one for all files, significance {config.significance('metrics'):g}, {compressor.fingerprint}",
        tables=(
            Table(
                "Threshold fixed beforehand (the bar of an immediate alarm)",
                _COLUMNS,
                (Row("Driftlock", fixed),),
                "This is what a user gets who sets nothing.",
            ),
            Table(
                "Threshold chosen on the files, for each profile",
                _COLUMNS,
                (*chosen, *_published(published, len(labels))),
                "As published detectors are scored: one threshold for all files, the best one.",
            ),
        ),
        record_count=row_count,
        cpu_s=cpu_s,
    )


def _published(published: Any, file_count: int) -> list[Row]:
    """Return the published detectors, scored on these files where that is known, best first."""
    part = next(
        (part for part in ("dev", "all") if all(scores[part]["files"] == file_count for scores in published.values())),
        "all",
    )
    rows = []
    for name, scores in published.items():
        if name in {"null", "random"}:
            continue
        on = "these files" if scores[part]["files"] == file_count else f"all {scores[part]['files']} files"
        figures = tuple(float(scores[part][profile.name]) for profile in PROFILES)
        rows.append(Row(name, figures, f"published results on {on}"))
    return sorted(rows, key=lambda row: -(row.figures[0] or 0.0))


def _rows(times_unix_nano: Any, window: list[str], name: str) -> tuple[int, int]:
    first, last = (np.uint64(parse_time(text)) for text in window)
    start = int(np.searchsorted(times_unix_nano, first, side="left"))
    stop = int(np.searchsorted(times_unix_nano, last, side="right")) - 1
    if start > stop:
        raise InputError(f"{name}: no row lies within the labelled window from {window[0]} to {window[1]}")
    return start, stop


def _values(path: Path) -> Floats:
    try:
        return np.loadtxt(path, delimiter=",", skiprows=1, usecols=1, ndmin=1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as timestamp,value: {error}") from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: is not there; name the directory that holds nab/ with --data") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
