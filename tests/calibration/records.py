"""Measures whether the records that an explanation names are those that a fault touched.

    python -m tests.calibration.records --seeds 0:6 --trials 20

precision@k: of the first k records named, the share that the fault touched; k is the number touched, at
most the 20 that are named. Chance is the share of the window's records that it touched.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.detection.explain import explain
from driftlock_otlp.evaluation.calibration.streams import Fault
from driftlock_otlp.evaluation.calibration.watch import Watch

Rows = npt.NDArray[np.bool_]


def _labelled(column: str, part: str) -> Callable[[Columns], Rows]:
    def rows(columns: Columns) -> Rows:
        category = columns.categories[column]
        result: Rows = np.isin(category.codes, [code for code, label in enumerate(category.labels) if part in label])
        return result

    return rows


def _main_template(columns: Columns) -> Rows:
    codes = columns.categories["template"].codes
    result: Rows = codes == np.bincount(codes).argmax()
    return result


TOUCHED: list[tuple[Fault, Callable[[Columns], Rows]]] = [
    (("new_template", 0.03), _labelled("template", "payment")),
    (("new_template", 0.1), _labelled("template", "payment")),
    (("new_template", 0.25), _labelled("template", "payment")),
    (("error_burst", 0.1), _labelled("severity", "ERROR")),
    (("error_burst", 0.25), _labelled("severity", "ERROR")),
    (("latency", 4.0), _main_template),
]
"""Faults of logs, and which records of a window they touch."""


def precision(seeds: range, trials: int) -> dict[Fault, tuple[float, float, int]]:
    """Return precision@k, chance, and how many alarms that rests on, fault by fault."""
    found: dict[Fault, list[tuple[float, float]]] = {fault: [] for fault, _ in TOUCHED}
    for seed in seeds:
        watch = Watch("logs", seed).warm_up(20)
        for _ in range(trials):
            watch.step()
            for fault, touched in TOUCHED:
                trial = watch.branch()
                score = trial.score(*fault)
                rows = touched(score.columns)
                if not score.is_alarm or not rows.any():
                    continue
                named = explain(trial.detector, score, "logs", "logs", 80).rows
                k = min(int(rows.sum()), len(named))
                found[fault].append((float(rows[named[:k]].mean()), float(rows.mean())))
    return {
        fault: (*(float(np.mean(part)) for part in zip(*pairs, strict=True)), len(pairs))  # type: ignore[misc]
        for fault, pairs in found.items()
        if pairs
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:6", help="first:end, default %(default)s")
    parser.add_argument("--trials", type=int, default=20, help="per seed and fault, default %(default)s")
    arguments = parser.parse_args()
    first, end = map(int, arguments.seeds.split(":"))
    for fault, (share, chance, alarms) in precision(range(first, end), arguments.trials).items():
        print(f"{fault[0]} {fault[1]:g}: precision@k {share:.2f}, chance {chance:.2f}, {alarms} alarms")


if __name__ == "__main__":
    main()
