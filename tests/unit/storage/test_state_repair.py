"""State databases that the disk has damaged: what can be read is kept, and the sidecar goes on."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from driftlock_otlp.errors import StorageFormatError, StorageUnavailableError
from driftlock_otlp.model import AnomalyStatus, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import anomalies, history, quarantine
from driftlock_otlp.storage.anomalies import AnomalyFilter
from driftlock_otlp.storage.state import StateDatabase, cursors, set_cursor
from tests.unit.storage.test_anomalies import ANOMALY

PAGE_BYTES = 4096
ROWS = 400


def fill(connection: sqlite3.Connection) -> None:
    set_cursor(connection, "forward:otlp_grpc", 4711)
    for number in range(ROWS):
        quarantine.add(
            connection,
            position=number,
            signal=Signal.LOGS,
            anomaly_ids=["ab" * 16],
            stream="logs/shop",
            payload=bytes([number % 256]) * 1000,
            item_count=1,
            now_unix_nano=1000 + number,
        )


async def filled(path: Path) -> None:
    state = StateDatabase(path, durability="os")
    state.open()
    await state.write(fill)
    state.close()


def root_page(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    return int(page)


def leaf_page(path: Path, number: int) -> int:
    """Return a page that holds rows of the quarantine, and nothing else."""
    marker = bytes([number % 256]) * 600
    return path.read_bytes().index(marker) // PAGE_BYTES + 1


def spoil(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES)
        file.write(b"\xa5" * PAGE_BYTES)


def repairs(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("driftlock_state_repairs_total")


async def test_damaged_page_costs_its_own_rows(tmp_path: Path) -> None:
    path, metrics = tmp_path / "state.db", Metrics()
    await filled(path)
    spoil(path, leaf_page(path, 200))
    state = StateDatabase(path, durability="os", metrics=metrics)
    state.open()
    assert await state.read(cursors) == {"forward:otlp_grpc": 4711}
    level = await state.read(quarantine.level)
    assert ROWS - 10 <= level.item_count < ROWS
    await state.write(lambda connection: quarantine.release(connection, None))
    assert {len(row.payload) for row in await state.read(lambda c: quarantine.released(c, ROWS))} == {1000}
    assert repairs(metrics) == 1
    assert (tmp_path / "state.db.damaged").exists()
    state.close()
    again = StateDatabase(path, durability="os", metrics=metrics)
    again.open()
    again.close()
    assert repairs(metrics) == 1


@pytest.mark.parametrize("table", ["cursors", "verdicts", "windows"])
async def test_damage_that_is_met_in_use_is_mended_without_a_restart(tmp_path: Path, table: str) -> None:
    path, metrics = tmp_path / "state.db", Metrics()
    await filled(path)
    state = StateDatabase(path, durability="os", metrics=metrics)
    state.open()
    spoil(path, root_page(path, table))

    def touch(connection: sqlite3.Connection) -> None:
        connection.execute(f"SELECT * FROM {table}").fetchall()

    with pytest.raises(StorageUnavailableError) as failure:
        # What is cached hides the damage; a cache that is let go of does not.
        await asyncio.gather(*(state.read(touch) for _ in range(4)))
    assert failure.value.retry_after_s is not None
    await state.write(lambda connection: set_cursor(connection, "divert:quarantine", 5))
    assert state.is_writable
    found = await state.read(cursors)
    assert found["divert:quarantine"] == 5
    assert ("forward:otlp_grpc" in found) == (table != "cursors")
    assert (await state.read(quarantine.level)).item_count == ROWS
    assert repairs(metrics) == 1
    state.close()


async def test_any_flipped_byte_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await filled(path)
    content = path.read_bytes()
    rng = random.Random(20_260_101)
    for _ in range(60):
        spoiled = bytearray(content)
        # Where the pages have their structure: in headers, and in the first pages, which hold the small tables.
        page = rng.randrange(len(content) // PAGE_BYTES)
        offset = page * PAGE_BYTES + rng.randrange(100 if page else PAGE_BYTES)
        spoiled[offset] ^= 1 << rng.randrange(8)
        for old in tmp_path.iterdir():
            old.unlink()
        path.write_bytes(spoiled)
        state = StateDatabase(path, durability="os")
        try:
            state.open()
        except StorageFormatError as refusal:  # Nothing says any more that it is ours, or of this version.
            assert page == 0, f"byte {offset}: {refusal}"
            continue
        for attempt in range(3):
            try:
                await state.write(lambda connection: set_cursor(connection, "later", 1))
                await state.read(quarantine.level)
                break
            except StorageUnavailableError:
                assert attempt < 2, f"byte {offset}"
        state.close()


async def test_database_that_is_not_ours_is_not_rebuilt(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"SQLite format 3\0" + b"not one" * 1000)
    before = path.read_bytes()
    with pytest.raises(StorageFormatError, match="move it away"):
        StateDatabase(path, durability="os").open()
    assert path.read_bytes() == before


async def test_anomalies_and_their_history_are_kept_when_another_table_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await filled(path)

    def find(connection: sqlite3.Connection) -> None:
        for number in range(3):
            anomalies.record(connection, replace(ANOMALY, id=f"{number:032x}"), 1)
        for at in (1, 5):
            anomalies.set_status(connection, f"{1:032x}", AnomalyStatus.DISMISSED, actor="local", at_unix_nano=at)
        assert history.prune(connection, 2, 6, most_rows=9) == 1  # the chain begins behind what has gone

    state = StateDatabase(path, durability="os")
    state.open()
    await state.write(find)
    state.close()
    spoil(path, leaf_page(path, 200))
    state = StateDatabase(path, durability="os", metrics=Metrics())
    state.open()
    kept = await state.read(lambda c: anomalies.find(c, AnomalyFilter(text="zahlung")))
    assert sorted((anomaly.id[-1], anomaly.status) for anomaly in kept) == [
        ("0", "new"),
        ("1", "dismissed"),
        ("2", "new"),
    ]
    assert await state.read(history.verify) is None
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        await state.write(lambda c: c.execute("DELETE FROM history"))
    state.close()
