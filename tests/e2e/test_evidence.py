"""From a fault in real traffic to a bundle that gives the verdict again, on paper, too."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from driftlock_otlp.model import Signal
from driftlock_otlp.storage import anomalies, evidence
from tests.doubles.otlp_sink import OtlpSink
from tests.e2e.conftest import NewSidecar
from tests.e2e.sidecar import laid_over, small_windows
from tests.e2e.traffic import Traffic

WINDOW = 50
CALM, FAULTY = 45, 3


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "driftlock_otlp", "evidence", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(120)
@pytest.mark.parametrize("quote_max_bytes", [160, 0])
async def test_the_evidence_of_a_real_alarm_holds_also_after_a_kill(
    new_sidecar: NewSidecar, sink: OtlpSink, tmp_path: Path, quote_max_bytes: int
) -> None:
    quoting = {"detection": {"quote_max_bytes": quote_max_bytes}}
    sidecar = new_sidecar(sink, laid_over(small_windows(WINDOW), quoting))
    await sidecar.start()
    traffic = Traffic(seed=7)
    for windows, share in ((CALM, 0.0), (FAULTY, 1.0)):
        for _ in range(windows * WINDOW // 25):
            await sidecar.send(Signal.LOGS, traffic.logs(25, share))
    await sidecar.wait_until(lambda: sidecar.total("driftlock_open_anomalies") > 0, "no anomaly is found")
    await sidecar.kill()
    with sidecar.state() as connection:
        (found,) = anomalies.find(connection, anomalies.AnomalyFilter(kind="logs"))
        assert evidence.get(connection, found.id) is not None
    bundle, paper = tmp_path / "bundle.zip", tmp_path / "paper.pdf"
    where = f"queue.path={sidecar.data}"
    for path, options in ((bundle, ()), (paper, ("--pdf",))):
        done = await asyncio.to_thread(command, "export", found.id, "--out", str(path), "--set", where, *options)
        assert done.returncode == 0, done.stderr
    assert paper.read_bytes().startswith(b"%PDF-")
    done = await asyncio.to_thread(command, "verify", str(bundle), "--all")
    assert done.returncode == 0, done.stdout
    assert "the verdict holds" in done.stdout
