"""The state database: SQLite in WAL mode; what must agree is written in one transaction.

Owns connections, threads, transactions and the named cursors. A database that is found to be damaged
is made anew from what can be read of it, whether it is just opened or in use. The tables' meaning is in the
modules of plain functions beside this one (`anomalies`, `verdicts`, `outbox`, `quarantine`,
`usage`), which take a connection, so that one `write` may call several of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog

from driftlock_otlp.errors import ConfigError, StorageFormatError, StorageUnavailableError
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import state_repair
from driftlock_otlp.storage.log import RETRY_AFTER_S, Durability
from driftlock_otlp.storage.schema import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION, take

T = TypeVar("T")

STATE_FILE = "state.db"
"""Name of the database's file below `queue.path`."""

MAX_INTEGER = (1 << 63) - 1
"""The largest integer that SQLite stores; event times from outside may be larger (uint64)."""

_BUSY_TIMEOUT_S = 10.0
_CHECKED_BYTES = 64 << 20
"""A database up to this size is checked as a whole when it is opened; damage in a larger one is found in use."""
_VACUUM_BYTES = 256 << 20
"""One of before, which could not shrink, is copied at its migration if it is no larger."""
_JOURNAL_BYTES = 32 << 20
_FREE_PAGES = 2048
"""Pages that may be unused, or a quarter of all if that is more, before some are given back."""
_MOST_FREED = 4096

_logger = structlog.get_logger(__name__)

# What the disk or another process causes; any other OperationalError is a mistake of ours.
_PASSING_ERRORS = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
}


class StateDatabase:
    """The state database as the sidecar's main process has it.

    One thread writes and one reads, each with a connection of its own, so that a read never
    waits for a sync. A read that starts after a write has returned sees it.

    Args:
        path: The database file; made with its directory if it does not exist.
        durability: `fsync` survives a power cut (`synchronous=FULL`); otherwise the last
            transactions may be lost with the power, but never halves of one.
        metrics: Where repairs are counted.
    """

    def __init__(self, path: Path, *, durability: Durability, metrics: Metrics | None = None) -> None:
        self._path = path
        self._durability = durability
        self._metrics = metrics
        self._mending = asyncio.Lock()
        self._repair_count = 0
        self._failing_since_s: float | None = None
        self._write_thread: ThreadPoolExecutor | None = None
        self._read_thread: ThreadPoolExecutor | None = None
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open the database, make or migrate its tables, and start its threads.

        Raises:
            ConfigError: The file cannot be used.
            StorageFormatError: A newer version wrote it, or it is not ours.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connect_both()
        except sqlite3.DatabaseError as error:
            self.close()
            if not state_repair.is_damage(error) or not self._path.is_file() or not state_repair.is_ours(self._path):
                raise self._unusable(error) from error
            try:
                self._rebuild(str(error))
                self._connect_both()
            except (OSError, sqlite3.Error) as failure:
                self.close()
                raise self._unusable(failure) from failure
        except OSError as error:
            self.close()
            raise self._unusable(error) from error
        except StorageFormatError:
            self.close()
            raise
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix="state-writer")
        self._read_thread = ThreadPoolExecutor(1, thread_name_prefix="state-reader")

    @property
    def is_writable(self) -> bool:
        """Whether the disk took the last write."""
        return self._failing_since_s is None

    @property
    def failing_s(self) -> float:
        """How long the disk has been refusing, in seconds; 0 if it does not."""
        return 0.0 if self._failing_since_s is None else time.monotonic() - self._failing_since_s

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction and return what it returns once that is committed.

        Args:
            work: Called in the writer thread. If it raises, everything it did is rolled back. It
                must not commit.

        Raises:
            StorageUnavailableError: The disk did not take it, or the database is closed; nothing
                was changed.
        """
        return await self._run(self._write_thread, lambda: self._writer, "IMMEDIATE", work)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on one consistent snapshot and return what it returns.

        Args:
            work: Called in the reader thread, on a connection that refuses to write.

        Raises:
            StorageUnavailableError: The disk failed, or the database is closed.
        """
        return await self._run(self._read_thread, lambda: self._reader, "DEFERRED", work)

    async def probe(self) -> None:
        """Find out whether the disk takes again what it has refused.

        Raises:
            StorageUnavailableError: It does not.
        """
        # Writes a page, though it changes nothing.
        await self.write(lambda connection: connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}"))

    async def compact(self) -> int:
        """Give space back to the disk if much is unused; return the size of the file in bytes.

        Raises:
            StorageUnavailableError: The disk did not take it, or the database is closed.
        """

        def work(connection: sqlite3.Connection) -> int:
            (free,), (count,) = (
                connection.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_count")
            )
            if free > max(_FREE_PAGES, count // 4):
                # Each step of this statement frees a page, and `execute` takes one step where there are no rows.
                for _ in range(min(free, _MOST_FREED)):
                    connection.execute("PRAGMA incremental_vacuum")
            return self._path.stat().st_size

        return await self.write(work)

    def close(self) -> None:
        """Finish the work that was handed in and close the database. Harmless twice."""
        for thread in (self._write_thread, self._read_thread):
            if thread is not None:
                thread.shutdown()
        # The writer is the last to close, so that it can fold the WAL into the database.
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._write_thread = self._read_thread = None
        self._writer = self._reader = None

    def _connect_both(self) -> None:
        is_new = not self._path.exists()
        self._writer = _connect(self._path, "rwc")
        if is_new:
            self._writer.execute("PRAGMA auto_vacuum = INCREMENTAL")  # Before there is any table.
        version = _schema_version(self._writer, self._path)  # Before anything is changed that may not be ours.
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
        self._writer.execute(f"PRAGMA synchronous = {'FULL' if self._durability == 'fsync' else 'NORMAL'}")
        if self._path.stat().st_size <= _CHECKED_BYTES:
            (found,) = self._writer.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise _Damaged(found)
        _migrate(self._writer, self._path)
        if 0 < version < SCHEMA_VERSION and self._path.stat().st_size <= _VACUUM_BYTES:
            self._writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
            with contextlib.suppress(sqlite3.OperationalError):  # Without room for it the file just stays as large.
                self._writer.execute("VACUUM")
        self._reader = _connect(self._path, "rw")
        self._reader.execute("PRAGMA query_only = ON")

    def _unusable(self, error: Exception) -> ConfigError:
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            return StorageFormatError(f"{self._path} is not a state database ({error}); move it away")
        return ConfigError(
            f"queue.path: cannot use {self._path}: {error}; make it writable or choose another queue.path"
        )

    def _rebuild(self, reason: str) -> None:
        version = SCHEMA_VERSION
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect(self._path, "ro")) as connection:
            stored = int(connection.execute("PRAGMA user_version").fetchone()[0])
            version = stored if 0 < stored < SCHEMA_VERSION else version
        kept = state_repair.rebuild(self._path, version)
        self._repair_count += 1
        if self._metrics is not None:
            self._metrics.state_repairs.inc()
        _logger.error(
            "state_database_rebuilt",
            file=str(self._path),
            damage=reason,
            kept_rows=kept,
            damaged_file=self._path.name + state_repair.DAMAGED_SUFFIX,
            effect="rows on damaged pages are lost; routes without a cursor send again what the log still holds",
        )

    async def _run(
        self,
        thread: ThreadPoolExecutor | None,
        connection: Callable[[], sqlite3.Connection | None],
        kind: str,
        work: Callable[[sqlite3.Connection], T],
    ) -> T:
        if thread is None:
            raise StorageUnavailableError("the state database is closed", RETRY_AFTER_S)
        repair_count = self._repair_count

        def run() -> T:
            opened = connection()
            if opened is None:
                raise _Damaged("it is damaged and could not be made anew yet")
            with _transaction(opened, kind):
                return work(opened)

        try:
            result = await asyncio.get_running_loop().run_in_executor(thread, run)
        except sqlite3.DatabaseError as error:
            is_damage = state_repair.is_damage(error)
            if not is_damage and not _is_passing(error):
                raise
            self._failing_since_s = self._failing_since_s or time.monotonic()
            if is_damage:
                await self._mend(str(error), repair_count)
            raise StorageUnavailableError(f"the state database failed: {error}", RETRY_AFTER_S) from error
        if kind == "IMMEDIATE":
            self._failing_since_s = None
        return result

    async def _mend(self, reason: str, repair_count: int) -> None:
        """Make the database anew beneath those who use it, unless somebody has done so already."""
        async with self._mending:
            if self._repair_count != repair_count or self._write_thread is None or self._read_thread is None:
                return
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._read_thread, self._close_reader)
            try:
                await loop.run_in_executor(self._write_thread, self._reopen, reason)
            except (OSError, sqlite3.Error) as error:
                raise StorageUnavailableError(f"the state database is damaged: {error}", RETRY_AFTER_S) from error

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def _reopen(self, reason: str) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None
        try:
            self._rebuild(reason)
        finally:
            # If there was no room for it the damaged one goes on, and it is tried again.
            self._connect_both()


class _Damaged(sqlite3.DatabaseError):
    """What `quick_check` has found."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def _is_passing(error: sqlite3.DatabaseError) -> bool:
    return (
        isinstance(error, sqlite3.OperationalError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING_ERRORS
    )


def connect_readonly(path: Path) -> sqlite3.Connection:
    """Return a connection that only reads, for another process than the sidecar.

    Raises:
        ConfigError: There is no such file.
        StorageFormatError: It has another schema than this version's, or is not ours.
    """
    return _connect_existing(path, "ro")


def connect_shared(path: Path) -> sqlite3.Connection:
    """Return a connection that may write beside the running sidecar; use it as `with connection:`.

    Raises:
        ConfigError: There is no such file.
        StorageFormatError: It has another schema than this version's, or is not ours.
    """
    connection = _connect_existing(path, "rw")
    # A transaction that begins by reading could not turn into a writing one beside another writer.
    connection.isolation_level = "IMMEDIATE"
    return connection


def cursor(connection: sqlite3.Connection, name: str) -> int | None:
    """Return the log position at which a cursor stands; None if it has never been set."""
    row = connection.execute("SELECT position FROM cursors WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def set_cursor(connection: sqlite3.Connection, name: str, position: int) -> None:
    """Move a cursor to a log position; one that stands further already stays where it is."""
    connection.execute(
        "INSERT INTO cursors (name, position) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET position = max(position, excluded.position)",
        (name, position),
    )


def cursors(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the position of every cursor by its name."""
    return dict(connection.execute("SELECT name, position FROM cursors ORDER BY name"))


def reached(connection: sqlite3.Connection) -> int:
    """Return the highest position of the log that anything here speaks of; 0 if nothing does.

    The log never begins anew before it: what comes would be taken for what was here already.
    """
    (position,) = connection.execute(
        "SELECT max("
        " (SELECT coalesce(max(position), 0) FROM cursors),"
        " (SELECT coalesce(max(counted_before), 0) FROM usage),"
        " (SELECT coalesce(max(before), 0) FROM requests),"
        " (SELECT coalesce(max(position) + 1, 0) FROM verdicts),"
        " (SELECT coalesce(max(position) + 1, 0) FROM quarantine))"
    ).fetchone()
    return int(position)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # isolation_level None: sqlite3 must not begin transactions of its own.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _connect_existing(path: Path, mode: str) -> sqlite3.Connection:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: has the sidecar run with this queue.path?")
    try:
        connection = _connect(path, mode)
    except sqlite3.OperationalError as error:
        raise ConfigError(f"cannot open {path}: {error}") from error
    try:
        version = _schema_version(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise StorageFormatError(f"{path} is not a state database ({error})") from error
    except StorageFormatError:
        connection.close()
        raise
    if version < SCHEMA_VERSION:
        connection.close()
        raise StorageFormatError(
            f"{path} has schema {version}, this version needs {SCHEMA_VERSION}: start the sidecar once to migrate it"
        )
    return connection


def _schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return how many migrations the database has taken; 0 for a new one."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application_id = int(connection.execute("PRAGMA application_id").fetchone()[0])
    table_count = int(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    if application_id != APPLICATION_ID and (version or table_count):
        raise StorageFormatError(f"{path} is a database, but not a state database of driftlock_otlp; move it away")
    if version > SCHEMA_VERSION:
        raise StorageFormatError(
            f"{path} has schema {version}; this version of driftlock_otlp knows schemas up to {SCHEMA_VERSION}:"
            " run the version that wrote it, or set queue.path to a new directory"
        )
    return version


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Take the steps that the database has not taken yet, all in one transaction."""
    with _transaction(connection, "IMMEDIATE"):
        version = _schema_version(connection, path)
        for step in MIGRATIONS[version:]:
            take(connection, step)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite rolls back by itself on some errors; a failing rollback must not hide the reason.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
