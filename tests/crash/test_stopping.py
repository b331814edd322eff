"""SIGTERM under load, and deploys: the old process ends in time, the new one goes on where it was."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.crash.report import table
from tests.crash.trial import Trial

SEED = 20_260_404
GRACE_S = 15.0
DEPLOYS = 3


@pytest.mark.timeout(240)
async def test_deploys_under_load_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    settings = {"service": {"shutdown_grace": f"{GRACE_S:g}s"}}
    async with Trial(tmp_path, SEED, settings, fault_every=100) as trial:
        await trial.start()
        trial.send()
        await trial.acknowledge(70)
        for _ in range(DEPLOYS):
            started_s = time.monotonic()
            assert await trial.sidecar.stop() == 0
            assert time.monotonic() - started_s < GRACE_S
            await trial.start()
            await trial.acknowledge(20)
        report = await trial.finish()
        print(table(report))
        assert not report.faults, f"seed {SEED}: " + "\n".join(report.faults)
        assert report.repeated == 0
        assert report.event_deliveries == report.events
        assert "worker_killed" not in trial.sidecar.output
        assert await trial.sidecar.stop() == 0
