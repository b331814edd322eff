"""The demo, as `make demo` plays it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "deploy" / "demo" / "demo.py"


def run_demo(*arguments: str, temporary: Path, timeout_s: float) -> tuple[int, str]:
    """Run the demo to its end; return its exit code and all that it printed."""
    with subprocess.Popen(
        [sys.executable, str(DEMO), *arguments],
        cwd=temporary,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:
        try:
            printed, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.terminate()  # kindly, so that it stops its own processes
            printed, _ = process.communicate(timeout=60)
    return process.returncode, printed


@pytest.mark.timeout(320)
def test_demo_finds_its_three_faults_and_explains_them(tmp_path: Path) -> None:
    exit_code, printed = run_demo(temporary=tmp_path, timeout_s=240)
    assert exit_code == 0, printed
    assert "All three faults were found, and nothing else was called an anomaly." in printed
    panels = [part.split("╰")[0] for part in printed.split("─ driftlock.anomaly.detected ─")[1:]]
    for stream, explained in (
        ("logs/checkout", "coupon service refused connection"),
        ("metrics/warehouse/queue.depth", "queue=packing"),
        ("traces/checkout", "expected"),
    ):
        panel = next(panel for panel in panels if f" {stream} " in panel)
        assert explained in panel
        assert "evidence" in panel
        assert "p ≤" in panel
    assert "quarantine release --all" in printed
    assert list(tmp_path.iterdir()) == []  # it leaves no data behind


def test_demo_teaches_its_use(tmp_path: Path) -> None:
    exit_code, printed = run_demo("--help", temporary=tmp_path, timeout_s=60)
    assert exit_code == 0
    assert "deploy/demo/demo.yaml" in printed
    assert list(tmp_path.iterdir()) == []
