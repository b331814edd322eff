"""The suite on scenarios made for it; the real ones are not part of the project."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

from driftlock_otlp.config.root import Config
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.traces import read_scenario, run_traces

REQUESTS = 400
CALLS = ("cart", "price", "stock")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One scenario of each application, in which an anomaly delays `price` and another one `stock`."""
    for seed, application in enumerate(("trainticket", "eshopper")):
        random = np.random.default_rng(seed)
        anomaly = random.choice([0, 0, 0, 0, 0, 0, 0, 0, 1, 2], REQUESTS)
        calls = np.array([20.0, 30.0, 8.0]) * np.exp(0.1 * random.standard_normal((REQUESTS, 3)))
        calls[anomaly == 1, 1] += 60.0
        calls[anomaly == 2, 2] += 60.0
        whole = calls.sum(axis=1) + random.exponential(5.0, REQUESTS)
        rows = np.column_stack((whole, calls, anomaly)).astype(int)
        folder = tmp_path / "delag" / application
        folder.mkdir(parents=True)
        lines = [",".join(("Latency", *CALLS, "anomaly")), *(",".join(map(str, row)) for row in rows.tolist())]
        with lzma.open(folder / "000.csv.xz", "wt") as file:
            file.write("\n".join(lines) + "\n")
    return tmp_path


def test_delayed_requests_stand_out_and_the_delayed_call_is_named(data: Path) -> None:
    seen: list[str] = []
    result = run_traces(data, Config(), lambda name, number, count: seen.append(f"{number + 1}/{count} {name}"))
    assert seen == ["1/2 trainticket/000.csv.xz", "2/2 eshopper/000.csv.xz"]
    assert result.record_count == 2 * REQUESTS * (1 + len(CALLS))
    for table in result.tables:
        by_name = {row.detector: row.figures for row in table.rows}
        ours = by_name["Driftlock"]
        # The first window knows nothing to compare with: 16 of the anomalous requests or so.
        assert ours[0] is not None and ours[0] > 0.6
        assert ours[3] == 1.0
        for other in ("random", "every request"):
            assert (ours[2] or 0.0) > (by_name[other][2] or 1.0)


def test_the_call_that_was_delayed_is_the_culprit(data: Path) -> None:
    scenario = read_scenario(data / "delag" / "eshopper" / "000.csv.xz")
    assert scenario.culprits(1) == {2}
    assert scenario.culprits(2) == {3}


def test_data_that_are_not_there_or_not_as_described_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="delag"):
        run_traces(tmp_path, Config(), lambda *_: None)
    path = tmp_path / "000.csv.xz"
    path.write_bytes(lzma.compress(b"Latency,cart\n1,2\n"))
    with pytest.raises(InputError, match="anomaly"):
        read_scenario(path)
