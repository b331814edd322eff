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
from typing import Any

import msgspec
import numpy as np

from driftlock_otlp import fault_points
from driftlock_otlp.errors import StorageFormatError

_FORMAT_VERSION = 1
_ARRAY = 1


class Checkpoint:
    """The checkpoint database of one worker.

    Args:
        path: SQLite file; made if absent.

    Raises:
        StorageFormatError: A newer version wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > _FORMAT_VERSION:
            raise StorageFormatError(
                f"{path} was written by a newer version of driftlock-otlp (format {version}, known is"
                f" {_FORMAT_VERSION}): run that version, or move the file away to learn anew"
            )
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS place (id INTEGER PRIMARY KEY, position INTEGER, clock INTEGER)"
        )
        self._connection.execute("CREATE TABLE IF NOT EXISTS streams (key TEXT PRIMARY KEY, state BLOB NOT NULL)")
        self._connection.execute(f"PRAGMA user_version={_FORMAT_VERSION}")

    def place(self) -> tuple[int, int] | None:
        """Return (position, clock) of the checkpoint, None if there is none yet."""
        row: tuple[int, int] | None = self._connection.execute("SELECT position, clock FROM place").fetchone()
        return row

    def states(self) -> Iterator[dict[str, Any]]:
        """Yield the state of every stream."""
        for (blob,) in self._connection.execute("SELECT state FROM streams ORDER BY key"):
            yield decode_state(blob)

    def write(self, position: int, clock_unix_nano: int, states: Iterable[tuple[str, bytes]]) -> None:
        """Replace the checkpoint: durable on return.

        Args:
            position: Everything before it is contained in the states.
            clock_unix_nano: Clock of the windows.
            states: Name and encoded state of each stream that changed.
        """
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        with contextlib.ExitStack() as undo:
            undo.callback(connection.execute, "ROLLBACK")
            connection.executemany(
                "INSERT INTO streams (key, state) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET state = excluded.state",
                states,
            )
            connection.execute(
                "INSERT INTO place (id, position, clock) VALUES (1, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET position = excluded.position, clock = excluded.clock",
                (position, clock_unix_nano),
            )
            fault_points.reach("worker.checkpointing")
            connection.execute("COMMIT")
            undo.pop_all()
        fault_points.reach("worker.checkpointed")

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


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
