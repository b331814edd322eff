"""The verdicts: which items of which log entries belong to an anomaly; no row means clean.

How far verdicts reach is what the detect cursors say. Where a route has passed, or has decided
to wait no longer, verdicts are closed: all routes see the same rows there, whenever they come by,
so that no record is withheld by one and passed over by the other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

from driftlock_otlp.model import ItemRange
from driftlock_otlp.storage.state import cursors, set_cursor

_CLOSED = "verdicts-closed"
ROUTES = ("forward:", "divert:")
"""How the names of the cursors of routes begin."""


def add(connection: sqlite3.Connection, position: int, ranges: Sequence[ItemRange]) -> None:
    """Add anomalous ranges of one log entry; several workers may do so, and repeats are harmless.

    Ranges of an entry whose verdicts are closed come too late, and change nothing.

    Args:
        connection: The state database.
        position: Position of the entry.
        ranges: Runs of its items; they may overlap.
    """
    if position < closed_before(connection):
        return
    connection.executemany(
        "INSERT INTO verdicts (position, first_item, item_count, anomaly_id) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        [(position, run.first, run.count, run.anomaly_id) for run in ranges],
    )


def close_before(connection: sqlite3.Connection, position: int) -> None:
    """Decide to wait no longer for verdicts on entries before `position`: what is known counts."""
    set_cursor(connection, _CLOSED, position)


def closed_before(connection: sqlite3.Connection) -> int:
    """Return the position before which verdicts are closed: by decision, or because a route has passed."""
    row = connection.execute(
        "SELECT coalesce(max(position), 0) FROM cursors WHERE name = ? OR name LIKE ? OR name LIKE ?",
        (_CLOSED, *(f"{route}%" for route in ROUTES)),
    ).fetchone()
    return int(row[0])


def forget_routes(connection: sqlite3.Connection, kept: Collection[str]) -> None:
    """Delete the cursors of routes that are configured no more.

    Args:
        connection: The state database.
        kept: Names of the routes that are.
    """
    gone = [name for name in cursors(connection) if name.startswith(ROUTES) and name not in kept]
    connection.executemany("DELETE FROM cursors WHERE name = ?", [(name,) for name in gone])


def between(connection: sqlite3.Connection, start: int, end: int) -> dict[int, list[ItemRange]]:
    """Return the anomalous ranges of entries with `start` <= position < `end`.

    Returns:
        Ranges by position, both ascending; entries without any are absent.
    """
    found: dict[int, list[ItemRange]] = {}
    for position, first, count, anomaly_id in connection.execute(
        "SELECT position, first_item, item_count, anomaly_id FROM verdicts"
        " WHERE position >= ? AND position < ? ORDER BY position, first_item, item_count, anomaly_id",
        (start, end),
    ):
        found.setdefault(position, []).append(ItemRange(first, count, anomaly_id))
    return found


def forget_before(connection: sqlite3.Connection, position: int) -> None:
    """Delete the verdicts on entries before `position`, which the log has no more."""
    connection.execute("DELETE FROM verdicts WHERE position < ?", (position,))
