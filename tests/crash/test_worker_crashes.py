"""Workers are killed again and again: verdicts are those of an undisturbed run, bit for bit."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.crash.report import table
from tests.crash.trial import Trial

SEED = 20_260_303
KILLS = 12
WORKERS = 4  # The pauses before a worker that dies again and again is started grow: here they share the deaths.


@pytest.mark.timeout(300)
async def test_killing_workers_at_random_moments_changes_no_verdict(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    settings = {"detection": {"workers": WORKERS}}
    async with Trial(tmp_path, SEED, settings, pause_s=0.03, fault_every=110) as trial:
        await trial.start()
        trial.send()
        await trial.acknowledge(60)
        deaths = 0
        while deaths < KILLS:
            await asyncio.sleep(chance.uniform(0.0, 0.6))
            await trial.kill_worker(deaths)
            deaths = trial.kills["worker"]
        await trial.acknowledge(30)
        await trial.sidecar.wait_ready()
        report = await trial.finish()
        print(table(report))
        assert not report.faults, f"seed {SEED}: " + "\n".join(report.faults)
        assert report.anomalies, "without anomalies nothing is shown of them"
        assert report.repeated == 0, "only the death of the service may repeat anything"
        assert await asyncio.to_thread(trial.sidecar.total, "driftlock_worker_restarts_total") == KILLS
        assert await trial.sidecar.stop() == 0
