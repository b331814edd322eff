"""A whole sidecar and a whole project: killed in the middle of its work, it is billed for what it took, exactly."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg

from driftlock_otlp.__main__ import main
from driftlock_otlp.model import Signal
from tests.e2e.sidecar import Sidecar
from tests.e2e.test_crash import ITEMS, Sender, send_until_enough
from tests.supabase.postgrest import SECRET_KEY, gateway


async def test_usage_of_a_sidecar_that_is_killed_while_answers_get_lost_is_exact(database: str, tmp_path: Path) -> None:
    with gateway(database.replace("user=postgres", "user=authenticator")) as project:
        project.losing = set(range(2, 2_000, 3))
        settings = {
            "forward": {"policy": "pass"},
            "supabase": {
                "url": project.url,
                "secret_key": SECRET_KEY,
                "organization": "acme",
                "usage_interval": "50ms",
                "status_interval": "100ms",
            },
        }
        sidecar = Sidecar(tmp_path, None, settings)
        try:
            await sidecar.start()
            senders = [Sender(sidecar, Signal.LOGS, 1), Sender(sidecar, Signal.METRICS, 2)]
            tasks = [asyncio.create_task(sender.run()) for sender in senders]
            for _ in range(2):
                await send_until_enough(senders, 15)
                await sidecar.kill()
                await sidecar.start()
            await send_until_enough(senders, 10)
            for sender in senders:
                sender.finish()
            await asyncio.gather(*tasks)
            await sidecar.settle()
            project.losing = set()
            assert await sidecar.stop() == 0
        finally:
            await sidecar.close()
        arguments = ["--config", str(tmp_path / "sidecar.yaml")]
        assert await asyncio.to_thread(main, ["supabase", "push", *arguments]) == 0
        assert await asyncio.to_thread(main, ["usage", "reconcile", *arguments]) == 0
    sent = {sender.signal.plural: len(sender.acknowledged) * ITEMS for sender in senders}
    with psycopg.connect(database) as connection:
        found = dict(connection.execute("select signal, sum(items)::bigint from usage_hourly group by 1").fetchall())
        assert found == sent
        assert connection.execute("select sum(items) from usage_events").fetchone() == (sum(sent.values()),)
