"""The state database: transactions, migrations, cursors, and what it refuses."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from driftlock_otlp.errors import ConfigError, StorageFormatError, StorageUnavailableError
from driftlock_otlp.storage.schema import SCHEMA_VERSION
from driftlock_otlp.storage.state import (
    StateDatabase,
    connect_readonly,
    connect_shared,
    cursor,
    cursors,
    set_cursor,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "state.db"


@pytest.fixture
def state(path: Path) -> Iterator[StateDatabase]:
    database = StateDatabase(path, durability="fsync")
    database.open()
    yield database
    database.close()


async def test_what_is_written_is_read_and_survives_reopening(state: StateDatabase, path: Path) -> None:
    await state.write(lambda connection: set_cursor(connection, "forward", 7))
    assert await state.read(lambda connection: cursor(connection, "forward")) == 7
    state.close()
    again = StateDatabase(path, durability="os")
    again.open()
    assert await again.read(cursors) == {"forward": 7}
    again.close()


async def test_failing_work_changes_nothing_and_the_next_goes_on(state: StateDatabase) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        set_cursor(connection, "forward", 7)
        raise KeyError("boom")

    with pytest.raises(KeyError, match="boom"):
        await state.write(fail)
    assert await state.read(cursors) == {}
    await state.write(lambda connection: set_cursor(connection, "forward", 8))
    assert await state.read(cursors) == {"forward": 8}


async def test_concurrent_writes_are_all_kept(state: StateDatabase) -> None:
    def work(connection: sqlite3.Connection, name: str) -> None:
        set_cursor(connection, name, 1)

    await asyncio.gather(*(state.write(partial(work, name=f"c{number}")) for number in range(30)))
    assert len(await state.read(cursors)) == 30


async def test_cursor_never_moves_back(state: StateDatabase) -> None:
    assert await state.read(lambda connection: cursor(connection, "forward")) is None
    for position in (5, 9, 3):
        await state.write(partial(set_cursor, name="forward", position=position))
    assert await state.read(lambda connection: cursor(connection, "forward")) == 9


async def test_reading_connection_refuses_to_write(state: StateDatabase) -> None:
    with pytest.raises(StorageUnavailableError, match="readonly"):
        await state.read(lambda connection: set_cursor(connection, "forward", 1))


async def test_full_database_is_unavailable_and_rolled_back(state: StateDatabase) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
        set_cursor(connection, "forward", 1)
        connection.execute("CREATE TABLE much AS SELECT randomblob(1000000)")

    with pytest.raises(StorageUnavailableError, match="full") as refusal:
        await state.write(fill)
    assert refusal.value.retry_after_s == 5
    assert await state.read(cursors) == {}


async def test_mistaken_statement_is_not_taken_for_a_failing_disk(state: StateDatabase) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await state.write(lambda connection: connection.execute("SELECT * FROM nonsense"))


async def test_closed_database_refuses(state: StateDatabase) -> None:
    state.close()
    state.close()
    with pytest.raises(StorageUnavailableError, match="closed"):
        await state.read(cursors)


@pytest.mark.parametrize(("durability", "level"), [("fsync", 2), ("os", 1), ("memory", 1)])
async def test_only_fsync_waits_for_the_disk(tmp_path: Path, durability: str, level: int) -> None:
    database = StateDatabase(tmp_path / "state.db", durability=durability)  # type: ignore[arg-type]
    database.open()
    assert await database.write(lambda connection: connection.execute("PRAGMA synchronous").fetchone()[0]) == level
    assert await database.write(lambda connection: connection.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"
    database.close()


def test_newer_schema_is_refused(state: StateDatabase, path: Path) -> None:
    state.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StorageFormatError, match="run the version that wrote it"):
        StateDatabase(path, durability="fsync").open()
    with pytest.raises(StorageFormatError):
        connect_readonly(path)


def test_older_schema_is_left_to_the_sidecar(state: StateDatabase, path: Path) -> None:
    state.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 0")
    with pytest.raises(StorageFormatError, match="start the sidecar once"):
        connect_shared(path)


def test_database_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(StorageFormatError, match="move it away"):
        StateDatabase(path, durability="fsync").open()
    assert path.read_bytes() == before


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(StorageFormatError):
        StateDatabase(path, durability="fsync").open()
    with pytest.raises(StorageFormatError):
        connect_readonly(path)


def test_path_that_cannot_be_used_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="queue.path"):
        StateDatabase(tmp_path / "file" / "state.db", durability="fsync").open()


@pytest.mark.parametrize("connect", [connect_readonly, connect_shared])
def test_other_processes_are_told_when_there_is_no_database(tmp_path: Path, connect: object) -> None:
    assert callable(connect)
    with pytest.raises(ConfigError, match="has the sidecar run with this queue.path"):
        connect(tmp_path / "state.db")
    assert not (tmp_path / "state.db").exists()


async def test_shared_connection_writes_beside_the_sidecar(state: StateDatabase, path: Path) -> None:
    await state.write(lambda connection: set_cursor(connection, "forward", 1))
    with closing(connect_shared(path)) as shared, closing(connect_readonly(path)) as readonly:
        with shared:
            set_cursor(shared, "forward", 2)
        assert cursor(readonly, "forward") == 2
        with pytest.raises(sqlite3.OperationalError):
            set_cursor(readonly, "forward", 3)
    assert await state.read(cursors) == {"forward": 2}


def test_readonly_connection_reads_while_no_sidecar_runs(state: StateDatabase, path: Path) -> None:
    state.close()
    with closing(connect_readonly(path)) as readonly:
        assert cursors(readonly) == {}
