"""Log lines: false alarms on 2,000 raw lines of each of 16 systems, and alerts of BGL.

Data: `loghub2k/<System>/<System>_2k.log` and `loghub2k/BGL/BGL_2k.log_structured.csv` below the data
directory. Only BGL has labels; of the others nothing is known to be wrong, so each alarm counts as false.
"""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import Compressor, new_compressor
from driftlock_otlp.detection.scores import ALARM_SCORE
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.measures import Floats, best_f1, f1_at, flag_everything_f1, pr_auc, roc_auc
from driftlock_otlp.evaluation.result import Row, SuiteResult, Table
from driftlock_otlp.model import Anomaly, AnomalyState
from driftlock_otlp.replay.fields import FieldOptions
from driftlock_otlp.replay.formats import Format
from driftlock_otlp.replay.inputs import InputFile
from driftlock_otlp.replay.run import replay
from driftlock_otlp.windowing.templates import TemplateMiner

_LABELLED = ("BGL", "Thunderbird")
"""BGL holds alerts; a line of Thunderbird begins with its label, too."""
_WINDOW_LINES = 20
"""Lines of a window: what lets 2,000 lines pass the warm-up and leave as many to judge."""
_SEED = 1


def run_loglines(data: Path, config: Config, on_file: Callable[[str, int, int], None]) -> SuiteResult:
    """Replay every system's lines, as text without times.

    Args:
        data: Directory that holds `loghub2k/`.
        config: Settings; only the windows' size is set here.
        on_file: Called before each file with its name, its number and how many there are.

    Raises:
        InputError: The data are not there, or not as they should be.
    """
    root = data / "loghub2k"
    systems = sorted(path.name for path in root.glob("*") if path.is_dir()) if root.is_dir() else []
    if not systems:
        raise InputError(f"{root}: holds no systems; name the directory that holds loghub2k/ with --data")
    logs = config.windows.logs.model_copy(update={"size": _WINDOW_LINES, "baseline_records": _WINDOW_LINES * 12})
    config = config.model_copy(update={"windows": config.windows.model_copy(update={"logs": logs})})
    warm_lines = (logs.baseline_windows + config.detection.warm_up_windows) * _WINDOW_LINES
    compressor = new_compressor(config.detection.compressor)
    started_s, line_count = time.process_time(), 0
    rows, total = [], np.zeros(4)
    for number, system in enumerate(systems):
        on_file(system, number, len(systems))
        path = root / system / f"{system}_2k.log"
        alarms: list[Anomaly] = []
        found = replay([InputFile(str(path))], [Format.TEXT], FieldOptions(), config, compressor, alarms.append)
        lines = len(found.files[0].scores)
        line_count += lines
        opened = [alarm for alarm in alarms if alarm.state == AnomalyState.OPEN.value]
        judged = lines - warm_lines
        figures = np.array([len(opened), judged, _new_templates(path)[warm_lines:].sum(), 1.0])
        if system not in _LABELLED:
            total += figures
        rows.append(Row(system, tuple(figures[:3].tolist()), opened[0].explanation if opened else ""))
    cpu_s = time.process_time() - started_s
    alarms_per_2000 = float(total[0]) / max(total[1], 1.0) * 2000.0
    free = Table(
        f"Alarms on {int(total[3])} systems without labels, per 2,000 lines after warm-up",
        ("alarms per 2,000 lines", "lines judged"),
        (
            Row("Driftlock", (alarms_per_2000, float(total[1]))),
            Row("new template", (float(total[2] / max(total[1], 1.0) * 2000.0), float(total[1]))),
        ),
        "Windows of 20 lines. Nothing is known to be wrong in these lines, so every alarm counts as false.",
    )
    each = Table(
        "Each system", ("alarms", "lines judged", "new templates"), tuple(rows), "With the first alarm's words."
    )
    return SuiteResult(
        suite="loglines",
        data=f"{len(systems)} systems of LogHub, {line_count:,} lines",
        split=f"Streaming: windows of {_WINDOW_LINES} lines, judged by those before them; warm-up {warm_lines} lines",
        settings=f"one for all, significance {config.significance('logs'):g}, {compressor.fingerprint}",
        tables=(free, *_bgl(root, config, compressor), each),
        record_count=line_count,
        cpu_s=cpu_s,
    )


def _bgl(root: Path, config: Config, compressor: Compressor) -> list[Table]:
    """Return the table of BGL's alerts, replayed with their levels; none if the labels are not there."""
    path = root / "BGL" / "BGL_2k.log_structured.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    labels = np.array([line["Label"] != "-" for line in lines])
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "lines.jsonl"
        fields = (
            {"time": int(line["Timestamp"]), "level": line["Level"], "message": line["Content"]} for line in lines
        )
        copy.write_text("".join(json.dumps(one) + "\n" for one in fields))
        found = replay([InputFile(str(copy))], [Format.JSONL], FieldOptions(), config, compressor).files[0]
    half = len(labels) // 2
    levels: Counter[str] = Counter()
    rarity = []
    for number, line in enumerate(lines):
        rarity.append((number + 1.0) / (levels[line["Level"]] + 0.5))
        levels[line["Level"]] += 1
    detectors = {
        "Driftlock": np.array(found.scores),
        "new template": _new_of([line["Content"] for line in lines]),
        "rarity of the level": np.array(rarity),
        "random": np.random.default_rng(_SEED).random(len(labels)),
        "every line": np.ones(len(labels)),
    }
    rows = []
    for name, scores in detectors.items():
        part, truth = scores[half:], labels[half:]
        at_bar = f1_at(part, truth, ALARM_SCORE).f1 if name == "Driftlock" else None
        rows.append(Row(name, (roc_auc(part, truth), pr_auc(part, truth), best_f1(part, truth).f1, at_bar)))
    note = (
        f"A thinned sample with {int(labels.sum())} alerts in 2,000 lines, most of which repeat: a smoke test."
        f" Calling every line an alert has F1 {flag_everything_f1(labels[half:]):.3f}."
    )
    columns = ("ROC-AUC", "PR-AUC", "best F1", "F1 at the bar")
    return [Table("BGL, second half: alerts line by line", columns, tuple(rows), note)]


def _new_templates(path: Path) -> Floats:
    """Return which lines are the first of their template; float64, (n,)."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    return _new_of(lines)


def _new_of(lines: list[str]) -> Floats:
    codes, _ = TemplateMiner().mine(lines)
    new = np.zeros(len(lines))
    new[np.unique(codes, return_index=True)[1]] = 1.0
    return new
