"""A downstream that is away for longer than the log can hold what comes meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.crash.report import table
from tests.crash.senders import ITEMS, ROLES
from tests.crash.trial import Trial

SEED = 20_260_505


@pytest.mark.timeout(240)
async def test_a_downstream_that_is_away_for_longer_than_the_log_holds_costs_nothing_but_time(tmp_path: Path) -> None:
    settings = {"queue": {"max_bytes": 400 << 10, "segment_bytes": 64 << 10}}
    async with Trial(tmp_path, SEED, settings, ROLES[:4], fault_every=0) as trial:
        await trial.start()
        trial.send()
        await trial.acknowledge(5)
        await trial.take_downstream_away()
        await trial.until(lambda: all(sender.retries > 5 for sender in trial.senders), "nobody is told to wait")
        acknowledged = [len(sender.acknowledged) for sender in trial.senders]
        assert await asyncio.to_thread(trial.sidecar.status, "/healthz") == 200
        await trial.bring_downstream_back()
        await trial.until(
            lambda: all(len(s.acknowledged) > count + 5 for s, count in zip(trial.senders, acknowledged, strict=True)),
            "senders are not let in again",
        )
        report = await trial.finish()
        print(table(report))
        assert not report.faults, "\n".join(report.faults)
        # What the downstream had taken and not yet answered when its connections were cut comes once more.
        assert report.repeated <= len(ROLES[:4]) * ITEMS
        refused = await asyncio.to_thread(trial.sidecar.total, "driftlock_receiver_items_total", outcome="refused")
        assert refused > 0
        assert await trial.sidecar.stop() == 0
