"""The suite on faults made for it; the real ones are not part of the project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driftlock_otlp.config.root import Config
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.incidents import run_incidents

COMPONENTS = ("shop", "cart", "stock", "mail", "search")
CALLS = {"shop": ("cart", "mail", "search"), "cart": ("stock",)}
START_S = 1_700_000_000


def write_fault(folder: Path, number: int, root_cause: str, slower: dict[str, float]) -> None:
    """Five values of each component; from the third on some are slower by a factor."""
    folder.mkdir(parents=True)
    at = START_S + 10_000 * number
    lines = [
        ",".join(("microservice", *COMPONENTS, *COMPONENTS)),
        ",".join(("metric", *["latency"] * 5, *["availability"] * 5)),
        ",".join(("statistic", *["Average"] * 10)),
        "unix_timestamp" + "," * 10,
    ]
    for row in range(5):
        factors = [slower.get(name, 1.0) if row >= 2 else 1.0 for name in COMPONENTS]
        cells = [f"{0.1 * factor + 0.001 * row:.4f}" for factor in factors]
        lines.append(",".join((str(at + 300 * row), *cells, *["100.0"] * 4, "")))
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    target = {
        "target": {"node": "shop", "metric": "latency", "agg": "Average", "timestamp": at + 450},
        "root_cause": {"node": root_cause, "metric": None},
    }
    (folder / "target.json").write_text(json.dumps(target))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Faults whose callers are slower than the component at fault itself."""
    traffic = tmp_path / "petshop" / "low_traffic"
    write_fault(traffic / "test" / "issue_0", 0, "stock", {"stock": 4.0, "cart": 5.0, "shop": 6.0})
    write_fault(traffic / "train" / "issue_0", 1, "search", {"search": 4.0, "shop": 4.5})
    cells = [[str(float(callee in CALLS.get(caller, ()))) for callee in COMPONENTS] for caller in COMPONENTS]
    table = [",".join(("", *COMPONENTS)), *(",".join((n, *row)) for n, row in zip(COMPONENTS, cells, strict=True))]
    (traffic / "graph.csv").write_text("\n".join(table) + "\n")
    return tmp_path


def test_the_component_at_fault_comes_before_the_callers_that_wait_for_it(data: Path) -> None:
    seen: list[str] = []
    result = run_incidents(data, Config(), lambda name, number, count: seen.append(f"{number + 1}/{count} {name}"))
    assert seen == ["1/2 low_traffic/test/issue_0", "2/2 low_traffic/train/issue_0"]
    by_name = {row.detector: row.figures for row in result.tables[0].rows}
    assert by_name["Driftlock"][:2] == (1.0, 1.0)
    assert by_name["largest z"][:2] == (0.0, 1.0)
    assert by_name["random"][:2] == pytest.approx((0.2, 0.6))


def test_faults_that_are_not_there_or_not_as_described_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="petshop"):
        run_incidents(tmp_path / "elsewhere", Config(), lambda *_: None)
    (data / "petshop" / "low_traffic" / "test" / "issue_0" / "metrics.csv").write_text("microservice\n")
    with pytest.raises(InputError, match="issue_0"):
        run_incidents(data, Config(), lambda *_: None)
