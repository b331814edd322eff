"""The verdicts: which items of which log entries belong to an anomaly; no row means clean.

How far verdicts reach is what the detect cursors say.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from driftlock_otlp.model import ItemRange


def add(connection: sqlite3.Connection, position: int, ranges: Sequence[ItemRange]) -> None:
    """Add anomalous ranges of one log entry; several workers may do so, and repeats are harmless.

    Args:
        connection: The state database.
        position: Position of the entry.
        ranges: Runs of its items; they may overlap.
    """
    connection.executemany(
        "INSERT INTO verdicts (position, first_item, item_count, anomaly_id) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        [(position, run.first, run.count, run.anomaly_id) for run in ranges],
    )


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
    """Delete the verdicts on entries before `position`, which have been forwarded."""
    connection.execute("DELETE FROM verdicts WHERE position < ?", (position,))
