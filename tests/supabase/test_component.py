"""The part of the running sidecar that sends: it waits while the project is away, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psycopg
import pytest_asyncio

from driftlock_otlp.config.supabase import SupabaseConfig
from driftlock_otlp.model import AnomalyStatus
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import anomalies
from driftlock_otlp.supabase.component import SupabaseSync
from tests.supabase.database import Server
from tests.supabase.postgrest import SECRET_KEY, gateway
from tests.supabase.scene import ANOMALY, NOW, Scene, numbered, received
from tests.supabase.test_sync import set_there


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await is_so():
            await asyncio.sleep(0.02)


def sync_of(scene: Scene, url: str = "") -> SupabaseSync:
    config = SupabaseConfig(
        url=url or scene.gateway.url, secret_key=SECRET_KEY, usage_interval=0.05, status_interval=0.05
    )
    return SupabaseSync(config, scene.state, scene.log, Metrics(), lambda: NOW)


@pytest_asyncio.fixture
async def running(scene: Scene) -> AsyncIterator[SupabaseSync]:
    part = sync_of(scene)
    await part.start()
    yield part
    await part.stop(1.0)


async def test_what_is_found_appears_and_what_people_do_there_comes_back(scene: Scene, running: SupabaseSync) -> None:
    await scene.record(ANOMALY)
    await scene.write(received, 10, 42)

    async def is_there() -> bool:
        return scene.query("select count(*), (select sum(items) from usage_monthly) from anomalies") == [(1, 42)]

    await until(is_there)
    set_there(scene, "acknowledged")

    async def is_here() -> bool:
        known = await scene.state.read(lambda connection: anomalies.get(connection, ANOMALY.id))
        return known is not None and known.status == AnomalyStatus.ACKNOWLEDGED.value

    await until(is_here)


async def test_a_project_that_answers_with_errors_gets_everything_once_it_is_back(
    scene: Scene, running: SupabaseSync
) -> None:
    scene.gateway.failures.extend([503, 500])
    await scene.record(*(numbered(n) for n in range(5)))

    async def is_there() -> bool:
        return scene.query("select count(*) from anomalies") == [(5,)]

    await until(is_there)
    assert not scene.gateway.failures


async def test_a_project_that_is_away_is_waited_for(
    server: Server, scene: Scene, database: str, tmp_path: Path
) -> None:
    with gateway(database) as gone:
        url = gone.url
    part = sync_of(scene, url)
    await part.start()
    await scene.record(ANOMALY)

    async def is_failing() -> bool:
        return part.is_failing

    await until(is_failing)
    assert "cannot be reached" in part.last_error
    await part.stop(1.0)
    assert await scene.send_all() == (1, 0)


async def test_the_last_usage_is_told_when_it_stops(scene: Scene) -> None:
    part = SupabaseSync(
        SupabaseConfig(url=scene.gateway.url, secret_key=SECRET_KEY), scene.state, scene.log, Metrics(), lambda: NOW
    )
    await part.start()

    async def has_kept_house() -> bool:
        return "POST /rest/v1/rpc/keep_house" in scene.gateway.requests

    await until(has_kept_house)
    await scene.write(received, 10, 7)
    await part.stop(4.0)
    assert scene.query("select items from usage_monthly") == [(7,)]


async def test_who_is_to_be_blocked_when_the_plan_is_used_up_is_named(scene: Scene) -> None:
    named: list[list[str]] = []
    config = SupabaseConfig(url=scene.gateway.url, secret_key=SECRET_KEY, usage_interval=0.05)
    part = SupabaseSync(
        config, scene.state, scene.log, Metrics(), time.time_ns, lambda tenants: named.append(sorted(tenants))
    )
    with psycopg.connect(scene.dsn) as connection:
        connection.execute("insert into organizations (slug, name, quota_action) values ('acme', 'A', 'block')")
        connection.execute("update plans set included_items = 100 where id = 'free'")
    await part.start()
    this_hour = (time.time_ns() - NOW) // 3_600_000_000_000
    for position, items, tenant in ((10, 99, "acme"), (20, 500, "bolt"), (30, 1, "acme")):
        await scene.write(received, position, items, this_hour, tenant)

    async def is_named() -> bool:
        return named[-1:] == [["acme"]]

    await until(is_named)
    await part.stop(1.0)
