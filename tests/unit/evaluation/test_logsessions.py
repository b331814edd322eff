from __future__ import annotations

import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from driftlock_otlp.config.root import Config
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.logsessions import baseline_scores, run_logsessions


def test_simple_detectors_judge_what_they_have_not_learned() -> None:
    usual = [[1 + number % 4, 1 + number // 4, 0] for number in range(20)]
    counts = np.array([*usual, [2, 3, 0], [9, 9, 5]], dtype=np.float64)
    scores = baseline_scores(counts, 20)
    for name in ("isolation forest on counts", "nearest count vector", "new templates", "length"):
        assert scores[name][1] > scores[name][0], name
    assert scores["nearest count vector"].tolist() == [0.0, 14 / 32]
    assert set(scores["every session"]) == {1.0}


def test_missing_data_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data"):
        run_logsessions(tmp_path, Config(), lambda *_: None)


def test_odd_sessions_of_small_sets_come_first(tmp_path: Path) -> None:
    lines, labels = [], []
    for number in range(120):
        is_bad = number in (70, 90, 110)
        words = ["open", "abort"] if is_bad else ["open", "write", "write", "close"]
        block = f"b{number}"
        labels.append(f"{block},{int(is_bad)}")
        for place, word in enumerate(words):
            at = f"2008-11-09T{number // 60:02}:{number % 60:02}:{place:02}Z"
            lines.append(json.dumps([at, "INFO", "part", "1", f"{word} block", block]))
    (tmp_path / "hdfs_2pct").mkdir()
    (tmp_path / "bgl_sessions").mkdir()
    _write(tmp_path / "hdfs_2pct" / "events.jsonl.xz", lines)
    _write(tmp_path / "hdfs_2pct" / "labels.csv.xz", labels)
    _write(tmp_path / "bgl_sessions" / "bgl_val.xz", ["1 2 2 3"] * 60)
    _write(tmp_path / "bgl_sessions" / "bgl_test_normal.xz", ["1 2 2 3"] * 30)
    _write(tmp_path / "bgl_sessions" / "bgl_test_abnormal.xz", ["1 4 4", "5 6"])
    seen: list[str] = []
    result = run_logsessions(tmp_path, Config(), lambda name, *_: seen.append(name))
    assert len(seen) == len(result.tables) == 3
    for table in result.tables:
        assert table.rows[0].detector == "Driftlock"
        assert table.rows[0].figures[0] == 1.0, table.title
        assert len(table.columns) == len(table.rows[0].figures)


def _write(path: Path, lines: list[str]) -> None:
    with lzma.open(path, "wt") as stream:
        stream.write("\n".join(lines) + "\n")
