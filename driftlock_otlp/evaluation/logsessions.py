"""Log sessions: blocks of HDFS in time order, and hours of BGL as bags of events.

Data: `hdfs_2pct/events.jsonl.xz` and `labels.csv.xz`, `bgl_sessions/bgl_{val,test_normal,test_abnormal}.xz`
below the data directory. A session's score is the highest of its records.
"""

from __future__ import annotations

import csv
import json
import lzma
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import Compressor, new_compressor
from driftlock_otlp.detection.scores import ALARM_SCORE
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.baselines import fitted_forest
from driftlock_otlp.evaluation.measures import Floats, best_f1, f1_at, pr_auc, roc_auc
from driftlock_otlp.evaluation.result import Row, SuiteResult, Table
from driftlock_otlp.replay.fields import FieldOptions
from driftlock_otlp.replay.formats import Format
from driftlock_otlp.replay.inputs import InputFile
from driftlock_otlp.replay.run import replay
from driftlock_otlp.windowing.templates import TemplateMiner

_SEED = 1
_IDLE_S = 86_400.0
"""A block of HDFS is written, served and deleted within a day or so."""
_HOUR_S = 3_600.0
_BGL_START_S = 1_117_800_000.0
"""When BGL began, more or less: its hours are given without their times."""
_COLUMNS = ("ROC-AUC", "PR-AUC", "best F1", "F1 at the bar", "precision", "recall")
_NOTE = (
    "Best F1: threshold chosen on what is judged, as published figures are. At the bar: the threshold that is in force"
    " without any labels; other detectors have none."
)

OnFile = Callable[[str, int, int], None]


@dataclass(slots=True)
class Session:
    """A session as it came.

    Attributes:
        name: What its records share.
        is_bad: Its label.
        events: (time as text, level, component, message) of each record.
    """

    name: str
    is_bad: bool
    events: list[tuple[str, str, str, str]]


def run_logsessions(data: Path, config: Config, on_file: OnFile) -> SuiteResult:
    """Replay both sets with session windows, ours beside baselines.

    Args:
        data: Directory that holds `hdfs_2pct/` and `bgl_sessions/`.
        config: Settings; only the sessions' key and age are set here.
        on_file: Called before each run with its name, its number and how many there are.

    Raises:
        InputError: The data are not there, or not as they should be.
    """
    compressor = new_compressor(config.detection.compressor)
    started_s = time.process_time()
    hdfs = _read_hdfs(data / "hdfs_2pct")
    first = hdfs[: len(hdfs) // 2]
    judged = hdfs[len(first) :]
    tables, record_count = [], 0
    kinds = (("all, without labels", first), ("its normal blocks only", [s for s in first if not s.is_bad]))
    for number, (name, trained) in enumerate(kinds):
        on_file(f"hdfs_2pct, learning from {name}", number, 3)
        # Line by line in time order, as they would arrive; blocks overlap.
        lines = sorted(
            (
                (at, s.name, level, component, message)
                for s in [*trained, *judged]
                for at, level, component, message in s.events
            ),
            key=lambda line: line[0],
        )
        scores = _replayed(lines, config, compressor, _IDLE_S)
        record_count += len(lines)
        ours = np.array([scores[session.name] for session in judged])
        title = f"HDFS, second half of the blocks; the first half is learned from: {name}"
        tables.append(_table(title, ours, trained, judged))
    on_file("bgl_sessions", 2, 3)
    bgl = _read_bgl(data / "bgl_sessions")
    trained = [session for session in bgl if session.name.startswith("val")]
    judged = [session for session in bgl if not session.name.startswith("val")]
    order = np.random.default_rng(_SEED).permutation(len(judged)).tolist()
    judged = [judged[place] for place in order]
    hours: list[tuple[str | float, str, str, str, str]] = [
        (_BGL_START_S + place * _HOUR_S, session.name, *event[1:])
        for place, session in enumerate([*trained, *judged])
        for event in session.events
    ]
    scores = _replayed(hours, config, compressor, _HOUR_S / 2)
    record_count += len(hours)
    ours = np.array([scores[session.name] for session in judged])
    title = (
        "BGL, hours; those of the validation file come first, the others follow shuffled, and are learned as they come"
    )
    tables.append(_table(title, ours, trained, judged))
    return SuiteResult(
        suite="logsessions",
        data=f"{len(hdfs)} blocks of HDFS in time order, {len(bgl)} hours of BGL",
        split="Streaming: each session is judged by those that ended before it; no labels are used",
        settings=f"one for all, significance {config.significance('logs'):g}, {compressor.fingerprint}",
        tables=tuple(tables),
        record_count=record_count,
        cpu_s=time.process_time() - started_s,
    )


def _replayed(
    lines: Sequence[tuple[str | float, str, str, str, str]], config: Config, compressor: Compressor, idle_s: float
) -> dict[str, float]:
    """Return the highest score of each session's records.

    Args:
        lines: (time, session, level, component, message) in the order in which they arrive.
        config: Settings.
        compressor: Judges order and structure.
        idle_s: Seconds after which a session is over.
    """
    windows = config.windows.model_copy(
        update={
            "logs": config.windows.logs.model_copy(
                update={"session_key": "session", "max_age": idle_s, "size": 100_000}
            )
        }
    )
    config = config.model_copy(update={"windows": windows})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lines.jsonl"
        with path.open("w") as stream:
            for at, session, level, component, message in lines:
                fields: dict[str, str | float] = {"time": at, "message": message, "session": session}
                fields |= {key: value for key, value in (("level", level), ("component", component)) if value}
                stream.write(json.dumps(fields) + "\n")
        options = FieldOptions(session_key="session")
        found = replay([InputFile(str(path))], [Format.JSONL], options, config, compressor).files[0]
    best: dict[str, float] = {}
    for (_, session, *_), score in zip(lines, found.scores, strict=True):
        best[session] = max(best.get(session, 0.0), score)
    return best


def _table(title: str, ours: Floats, trained: Sequence[Session], judged: Sequence[Session]) -> Table:
    labels = np.array([session.is_bad for session in judged])
    rows = [Row("Driftlock", _figures(ours, labels, ALARM_SCORE))]
    others = baseline_scores(_counts(trained, judged), len(trained))
    rows += [Row(name, _figures(scores, labels)) for name, scores in others.items()]
    return Table(title, _COLUMNS, tuple(rows), _NOTE)


def _figures(scores: Floats, labels: Any, bar: float | None = None) -> tuple[float | None, ...]:
    figures = (roc_auc(scores, labels), pr_auc(scores, labels), best_f1(scores, labels).f1)
    if bar is None:
        return (*figures, None, None, None)
    at_bar = f1_at(scores, labels, bar)
    return (*figures, at_bar.f1, at_bar.precision, at_bar.recall)


def baseline_scores(counts: Floats, trained: int) -> dict[str, Floats]:
    """Return what simple detectors say of the sessions behind the first ones, which they learn from.

    Args:
        counts: float64, (sessions, templates): how often each template occurs in each session.
        trained: How many of them are learned from.
    """
    known, new = counts[:trained], counts[trained:]
    forest = fitted_forest(known)
    is_new = (known.sum(axis=0) == 0) & (new > 0)
    vectors = np.unique(known, axis=0)
    # Landauer et al.: distance to the nearest known count vector, as a share of both vectors' events.
    nearest = np.array([(np.abs(vectors - one).sum(axis=1) / (vectors + one).sum(axis=1)).min() for one in new])
    return {
        "isolation forest on counts": -forest.score_samples(new),
        "nearest count vector": nearest,
        "new templates": is_new.sum(axis=1).astype(np.float64),
        "length": new.sum(axis=1),
        "random": np.random.default_rng(_SEED).random(len(new)),
        "every session": np.ones(len(new)),
    }


def _counts(trained: Sequence[Session], judged: Sequence[Session]) -> Floats:
    miner = TemplateMiner()
    of_session = []
    for session in [*trained, *judged]:
        codes, labels = miner.mine([message for *_, message in session.events])
        of_session.append(Counter(labels[code] for code in codes.tolist()))
    columns = {label: place for place, label in enumerate(dict.fromkeys(label for bag in of_session for label in bag))}
    counts = np.zeros((len(of_session), len(columns)))
    for place, bag in enumerate(of_session):
        for label, count in bag.items():
            counts[place, columns[label]] = count
    return counts


def _read_hdfs(root: Path) -> list[Session]:
    labels = dict(csv.reader(_lines(root / "labels.csv.xz")))
    sessions: dict[str, Session] = {}
    for line in _lines(root / "events.jsonl.xz"):
        at, level, component, _, message, block = json.loads(line)
        session = sessions.setdefault(block, Session(block, labels.get(block) == "1", []))
        session.events.append((at, level, component, message))
    return list(sessions.values())


def _read_bgl(root: Path) -> list[Session]:
    """Return the hours; what an event is, is all that is known of it."""
    sessions = []
    for part in ("val", "test_normal", "test_abnormal"):
        for number, line in enumerate(_lines(root / f"bgl_{part}.xz")):
            events = [("", "", "", _letters(event)) for event in line.split()]
            if events:
                sessions.append(Session(f"{part} {number}", part == "test_abnormal", events))
    return sessions


def _letters(number: str) -> str:
    # Digits would be taken for a parameter.
    return "".join(chr(ord("a") + int(digit)) for digit in number)


def _lines(path: Path) -> Iterable[str]:
    try:
        return lzma.open(path, "rt").read().splitlines()
    except (OSError, lzma.LZMAError) as error:
        raise InputError(
            f"{path}: cannot be read: {error}; name the directory that holds the sets with --data"
        ) from None
