"""What the requests of the last while are known by, durable beside the log, whose segments may be gone.

Kept in runs: each row has those before a position of the log that the row before it has not.
"""

from __future__ import annotations

import sqlite3

import numpy as np
from numpy.typing import NDArray

KEY = np.dtype([("first", "<u8"), ("rest", "<u8"), ("received_unix_nano", "<i8")])
"""One request: the two halves of its hash, and when it was received."""


def add(connection: sqlite3.Connection, before: int, keys: NDArray[np.void]) -> None:
    """Add a run.

    Args:
        connection: The state database.
        before: Every request before this position of the log is in this run or in an earlier one.
        keys: Of dtype `KEY`, shape (n,), n >= 1.
    """
    connection.execute(
        "INSERT OR REPLACE INTO requests (before, newest_unix_nano, keys) VALUES (?, ?, ?)",
        (before, int(keys["received_unix_nano"].max()), keys.tobytes()),
    )


def load(connection: sqlite3.Connection) -> tuple[int | None, NDArray[np.void]]:
    """Return the position before which every request is known, None if nothing says so, and the keys."""
    rows = connection.execute("SELECT before, keys FROM requests ORDER BY before").fetchall()
    keys = np.frombuffer(b"".join(blob[: len(blob) // KEY.itemsize * KEY.itemsize] for _, blob in rows), KEY)
    return (rows[-1][0] if rows else None), keys


def forget(connection: sqlite3.Connection, oldest_unix_nano: int) -> None:
    """Delete runs whose newest request is not after `oldest_unix_nano`; the last one stays, for its position."""
    connection.execute(
        "DELETE FROM requests WHERE newest_unix_nano <= ? AND before < (SELECT max(before) FROM requests)",
        (oldest_unix_nano,),
    )
