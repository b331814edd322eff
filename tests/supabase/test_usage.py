"""Usage is billed exactly, whatever crashes, is repeated or comes twice in between."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftlock_otlp.errors import RetryableError
from driftlock_otlp.storage import outbox, sync
from driftlock_otlp.storage.state import StateDatabase
from driftlock_otlp.supabase.organizations import Organizations
from driftlock_otlp.supabase.reconciliation import reconcile
from driftlock_otlp.supabase.rows import usage_row
from driftlock_otlp.supabase.sender import Sender
from tests.supabase.scene import NOW, Scene, received, scene_of

T = TypeVar("T")


class _Crash(Exception):
    """The process ends here."""


class _Project:
    """A project that keeps what the real tables keep: usage events by id, and sums of what was really added.

    Attributes:
        fails: Whether requests fail `before` they are done, or `after`; empty if they do not.
    """

    def __init__(self) -> None:
        self.events: dict[tuple[str, str], dict[str, Any]] = {}
        self.sums: Counter[tuple[str, str, str]] = Counter()
        self.fails: str = ""

    async def upsert(self, table: str, rows: list[dict[str, Any]], on_conflict: str, *, is_merged: bool) -> None:
        if table != "usage_events":
            return
        if self.fails == "before":
            raise RetryableError("the request is lost")
        for row in rows:
            if (row["id"], row["hour"]) not in self.events:
                self.events[row["id"], row["hour"]] = row
                self.sums[row["organization_id"], row["signal"], row["hour"]] += row["items"]
        if self.fails == "after":
            raise RetryableError("the answer is lost")

    async def select(self, table: str, columns: str, *, equal: dict[str, str], **_: Any) -> list[dict[str, Any]]:
        return [{"id": f"id of {equal['slug']}"}]


class _State:
    """The state database, whose process may crash before or after a transaction is committed."""

    def __init__(self, path: Path) -> None:
        opened = StateDatabase(path, durability="os")
        opened.open()
        opened.close()
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.crashes: str = ""

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return work(self.connection)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self.connection.execute("BEGIN IMMEDIATE")
        result = work(self.connection)
        if self.crashes == "before":
            self.connection.execute("ROLLBACK")
            raise _Crash
        self.connection.execute("COMMIT")
        if self.crashes == "after":
            raise _Crash
        return result


_WHEN = st.sampled_from(["", "", "before", "after"])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("receive"), st.integers(0, 2), st.integers(1, 1000), st.sampled_from(["acme", "bolt", ""])),
        st.tuples(st.just("note"), _WHEN),
        st.tuples(st.just("send"), _WHEN, _WHEN),
        st.tuples(st.just("receive again"), st.integers(0, 30)),
    ),
    min_size=8,
    max_size=30,
)


async def _play(steps: list[tuple[Any, ...]], folder: Path) -> tuple[Counter[Any], _Project, _State]:
    state, project, truth = _State(folder / "state.db"), _Project(), Counter[Any]()
    position, past = 0, list[tuple[int, int, int, str]]()
    for name, *arguments in steps:
        sender = Sender(project, Organizations(project, "default"), state, lambda: NOW)  # type: ignore[arg-type]
        try:
            if name == "receive":
                hour, items, tenant = arguments
                position += 10
                past.append((position, items, hour, tenant))
                truth[tenant or "default", hour] += items
                await state.write(lambda c, r=past[-1]: received(c, r[0], r[1], r[2], r[3]))  # type: ignore[misc]
            elif name == "receive again" and past:
                # A route that starts again reads a part of the log once more.
                for again in past[arguments[0] % len(past) :]:
                    await state.write(lambda c, r=again: received(c, r[0], r[1], r[2], r[3]))  # type: ignore[misc]
            elif name == "note":
                state.crashes = arguments[0]
                await sender.note_usage()
            elif name == "send":
                await sender.note_usage()
                project.fails, state.crashes = arguments
                await sender.send_some()
        except (_Crash, RetryableError):
            pass
        project.fails = state.crashes = ""
    sender = Sender(project, Organizations(project, "default"), state, lambda: NOW)  # type: ignore[arg-type]
    await sender.note_usage()
    while not (await sender.send_some()).is_empty:
        pass
    return truth, project, state


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_STEPS)
def test_any_interleaving_of_crashes_retries_and_duplicates_gives_exact_totals(
    steps: list[tuple[Any, ...]],
) -> None:
    with tempfile.TemporaryDirectory(prefix="dl-usage-") as folder:
        truth, project, state = asyncio.run(_play(steps, Path(folder)))
        state.connection.close()
    there = Counter[Any]()
    for (organization, _, hour), items in project.sums.items():
        there[organization.removeprefix("id of "), hour] += items
    expected = Counter[Any]()
    for (tenant, hour), items in truth.items():
        moment = (NOW // 1_000_000_000 // 3600 + hour) * 3600
        expected[tenant, _hour(moment)] += items
    assert there == expected


def _hour(unix_s: int) -> str:
    return str(usage_row(sync.UsageEvent("", "", "", unix_s, 0, 0, 0, 0), "", uuid.UUID(int=0))["hour"])


async def test_events_that_come_in_any_order_and_twice_are_summed_once_in_the_database(scene: Scene) -> None:
    for number in range(1, 60):
        await scene.write(received, number * 10, number, number % 3, ("acme", "bolt", "")[number % 3])
        if number % 4 == 0:
            await scene.sender.note_usage()
        if number % 7 == 0:
            scene.gateway.losing = {len(scene.gateway.requests) + number % 3}
            try:
                await scene.sender.send_some()
            except RetryableError:
                scene.gateway.losing = set()
    await scene.sender.note_usage()
    await scene.send_all()
    assert scene.query("select sum(items) from usage_events") == [(sum(range(1, 60)),)]
    assert scene.query("select sum(items) from usage_hourly") == [(sum(range(1, 60)),)]
    assert scene.query("select sum(items) from usage_monthly") == [(sum(range(1, 60)),)]
    since = NOW // 1_000_000_000 - 3600
    found = await reconcile(scene.state, scene.project, "default", since, since + 10 * 3600)
    assert (found.total.counted, found.total.there, found.unexplained) == (1770, 1770, {})


async def test_two_sidecars_of_one_organisation_add_up(scene: Scene, tmp_path: Path) -> None:
    async with scene_of(scene.dsn, scene.gateway, tmp_path / "second") as second:
        for one, items in ((scene, 3), (second, 5)):
            await one.write(received, 10, items)
            await one.sender.note_usage()
            await one.send_all()
        assert scene.query("select items, requests from usage_monthly") == [(8, 2)]
        since = NOW // 1_000_000_000 - 3600
        found = await reconcile(scene.state, scene.project, "default", since, since + 7200)
        assert (found.total.counted, found.total.there) == (3, 3), "another's usage is not ours"


def test_concurrent_batches_are_summed_without_waiting_for_each_other_forever(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(
            "insert into organizations (id, slug, name) select format('00000000-0000-4000-8000-%s',"
            " lpad(n::text, 12, '0'))::uuid, 'o' || n, 'o' from generate_series(1, 20) n"
        )

    def insert(order: str) -> None:
        with psycopg.connect(database) as connection:
            for _ in range(20):
                connection.execute(
                    "insert into usage_events (id, hour, organization_id, source, signal, log_position, items, bytes,"
                    f" requests) select gen_random_uuid(), '2026-11-01Z', id, id, 'logs', 0, 1, 1, 1 from organizations"
                    f" order by slug {order}"
                )
                connection.commit()

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(insert, order) for order in ("asc", "desc", "asc", "desc")]:
            done.result(60)
    with psycopg.connect(database) as connection:
        assert connection.execute("select sum(items), max(items), min(items) from usage_monthly").fetchone() == (
            1600,
            80,
            80,
        )


async def test_what_was_counted_before_there_was_a_project_is_told_in_one_event_an_hour(scene: Scene) -> None:
    for number in range(1, 200):
        await scene.write(received, number * 10, 1, number % 2)
    assert await scene.sender.note_usage() == 2
    assert await scene.sender.note_usage() == 0
    assert await scene.state.read(lambda c: outbox.depth(c, sync.DESTINATION)) == 2
