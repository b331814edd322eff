"""A worker's own memory: the state of every stream at one position of the log.

A checkpoint is one transaction: the position, the clock, and the streams that changed since
the one before. A worker that starts again reads the log from there and arrives at the same
scores, bit for bit.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import structlog

from driftlock_otlp import fault_points
from driftlock_otlp.errors import StorageFormatError, StorageUnavailableError

_FORMAT_VERSION = 3
_ARRAY = 1

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # "IF NOT EXISTS": files of the first days have the tables, and no version.
        "CREATE TABLE IF NOT EXISTS place (id INTEGER PRIMARY KEY, position INTEGER, clock INTEGER)",
        "CREATE TABLE IF NOT EXISTS streams (key TEXT PRIMARY KEY, state BLOB NOT NULL)",
    ),
    ("ALTER TABLE place ADD COLUMN wall INTEGER NOT NULL DEFAULT 0", "UPDATE place SET wall = clock"),
    (
        "ALTER TABLE streams ADD COLUMN used INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE streams ADD COLUMN is_resident INTEGER NOT NULL DEFAULT 1",
        "CREATE INDEX streams_by_use ON streams (is_resident, used)",
    ),
)
"""Steps that only ever grow; `PRAGMA user_version` counts those that a file has taken."""

_logger = structlog.get_logger(__name__)


class Place(NamedTuple):
    """Where a worker stands in the log.

    Attributes:
        position: Everything before it is contained in the states.
        clock_unix_nano: Clock of the windows.
        wall_unix_nano: Latest time of arrival, as `windowing.clock` has it.
    """

    position: int
    clock_unix_nano: int
    wall_unix_nano: int


class SavedStream(NamedTuple):
    """What is kept of a stream.

    Attributes:
        name: Which.
        state: Everything remembered about it, encoded.
        used: A count that says how its last use compares with those of others.
        is_resident: Whether the worker follows it; False if it has made room for another.
    """

    name: str
    state: bytes
    used: int
    is_resident: bool


class Checkpoint:
    """The checkpoint database of one worker.

    One that the disk has damaged is put aside, and its streams learn anew.

    Args:
        path: SQLite file; made if absent.
        most_evicted: Streams that are kept although the worker does not follow them any more; the
            longest unused ones go first.

    Raises:
        StorageFormatError: A newer version wrote it.
    """

    def __init__(self, path: Path, most_evicted: int = 100_000) -> None:
        self._most_evicted = most_evicted
        try:
            self._connection = _open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            aside = path.with_name(path.name + ".damaged")
            path.replace(aside)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            _logger.error(
                "checkpoint_damaged",
                file=str(path),
                error=str(error),
                moved_to=aside.name,
                effect="its streams learn anew",
            )
            self._connection = _open(path)

    def place(self) -> Place | None:
        """Return where the checkpoint stands, None if there is none yet."""
        row = self._connection.execute("SELECT position, clock, wall FROM place").fetchone()
        return None if row is None else Place(*row)

    def states(self, most: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield when each of at most `most` streams that are followed was used, and its state; the latest used last."""
        latest = "SELECT used, key, state FROM streams WHERE is_resident ORDER BY used DESC, key LIMIT ?"
        for used, state in self._connection.execute(f"SELECT used, state FROM ({latest}) ORDER BY used, key", (most,)):  # noqa: S608
            yield used, decode_state(state)

    def state(self, name: str) -> dict[str, Any] | None:
        """Return the state of one stream, whether it is followed or not; None if there is none."""
        row = self._connection.execute("SELECT state FROM streams WHERE key = ?", (name,)).fetchone()
        return None if row is None else decode_state(row[0])

    def write(self, place: Place, streams: Iterable[SavedStream]) -> None:
        """Replace the checkpoint: durable on return.

        Args:
            place: Where it stands.
            streams: Those that changed.
        """
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        with contextlib.ExitStack() as undo:
            undo.callback(connection.execute, "ROLLBACK")
            connection.executemany(
                "INSERT OR REPLACE INTO streams (key, state, used, is_resident) VALUES (?, ?, ?, ?)", streams
            )
            connection.execute(
                "DELETE FROM streams WHERE NOT is_resident AND used <="
                " (SELECT used FROM streams WHERE NOT is_resident ORDER BY used DESC LIMIT 1 OFFSET ?)",
                (self._most_evicted,),
            )
            connection.execute("INSERT OR REPLACE INTO place (id, position, clock, wall) VALUES (1, ?, ?, ?)", place)
            fault_points.reach("worker.checkpointing")
            connection.execute("COMMIT")
            undo.pop_all()
        fault_points.reach("worker.checkpointed")

    def add(self, streams: Iterable[SavedStream]) -> None:
        """Put streams in that did not come out of the log; the place stays. Durable on return."""
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO streams (key, state, used, is_resident) VALUES (?, ?, ?, ?)", streams
            )

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


def checkpoint_path(directory: Path, index: int, count: int) -> Path:
    """Return where the worker of one of `count` partitions has its checkpoint, in the data directory."""
    return directory / f"detector-{index}-of-{count}.db"


def saved_states(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the state of every stream in a checkpoint, by name, beside a running worker too.

    Raises:
        StorageFormatError: Another version wrote it.
        StorageUnavailableError: It cannot be read.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            if _version(connection, path) != _FORMAT_VERSION:
                raise StorageFormatError(f"{path} is of an older version: start this version of the sidecar on it once")
            for (state,) in connection.execute("SELECT state FROM streams ORDER BY key"):
                yield decode_state(state)
    except sqlite3.Error as error:
        raise StorageUnavailableError(f"{path}: {error}") from None


def check_format(path: Path) -> None:
    """Make sure that this version reads a checkpoint, if there is one.

    Raises:
        StorageFormatError: A newer version wrote it.
    """
    if not path.is_file():
        return
    # What is damaged is the worker's to deal with.
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as connection:
        _version(connection, path)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        version = _version(connection, path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN IMMEDIATE")
        for statement in (statement for step in _MIGRATIONS[version:] for statement in step):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={_FORMAT_VERSION}")
        connection.execute("COMMIT")
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > _FORMAT_VERSION:
        raise StorageFormatError(
            f"{path} has checkpoint format {version}; this version of driftlock_otlp reads formats up to"
            f" {_FORMAT_VERSION}: run the version that wrote it, or move the file away to learn anew"
        )
    return version


def encode_state(state: Any) -> bytes:
    """Return plain values and NumPy arrays as msgpack."""
    return _encoder.encode(state)


def decode_state(data: bytes) -> Any:
    """Return what `encode_state` was given; arrays are writable."""
    return _decoder.decode(data)


def _encode_array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        head = msgspec.msgpack.encode((value.dtype.str, value.shape))
        return msgspec.msgpack.Ext(_ARRAY, len(head).to_bytes(2, "big") + head + np.ascontiguousarray(value).tobytes())
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot keep a {type(value).__name__} in a checkpoint")


def _decode_array(code: int, data: memoryview) -> Any:
    if code != _ARRAY:
        raise StorageFormatError(f"unknown value of type {code} in a checkpoint")
    size = int.from_bytes(data[:2], "big")
    dtype, shape = msgspec.msgpack.decode(data[2 : 2 + size])
    return np.frombuffer(data[2 + size :], dtype=dtype).reshape(shape).copy()


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_array)
_decoder = msgspec.msgpack.Decoder(ext_hook=_decode_array)
