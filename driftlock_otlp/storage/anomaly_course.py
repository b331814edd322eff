"""The course of anomalies: they go on, are heard further, end, and are forgotten; what the recorder writes.

Each function is called in the transaction of what it follows from.
"""

from __future__ import annotations

import sqlite3

from driftlock_otlp.model import Anomaly, AnomalyLevel, AnomalyState
from driftlock_otlp.storage.state import MAX_INTEGER

NEVER = 1 << 62
"""Number of a window that no anomaly comes to."""

_WINDOWS = {
    AnomalyLevel.NOTICE: "notice_window",
    AnomalyLevel.PAGE: "page_window",
    AnomalyLevel.FLEET: "fleet_window",
}
"""Columns that say with which window an anomaly came to a level; 0 for never."""

_IS_FREE = "id NOT IN (SELECT anomaly_id FROM quarantine_anomalies)"


def go_on(connection: sqlite3.Connection, anomaly_id: str, at_unix_nano: int, window_count: int, severity: str) -> bool:
    """Say that further windows belong to an anomaly.

    Args:
        connection: The state database.
        anomaly_id: Its whole id.
        at_unix_nano: Event time of the end of the last of them.
        window_count: How many belong to it by now.
        severity: How bad it is by now: label of an `AnomalySeverity`.

    Returns:
        True if that is news; False if as many were known, or it is unknown or over.
    """
    changed = connection.execute(
        "UPDATE anomalies SET state = ?, window_count = ?, last_unix_nano = max(last_unix_nano, ?), severity = ?"
        " WHERE id = ? AND state <> ? AND window_count < ?",
        (
            *(AnomalyState.ONGOING.value, window_count, min(at_unix_nano, MAX_INTEGER), severity),
            *(anomaly_id, AnomalyState.RESOLVED.value, window_count),
        ),
    )
    return changed.rowcount == 1


def resolve(connection: sqlite3.Connection, anomaly_id: str, at_unix_nano: int, resolution: str) -> bool:
    """Say that an anomaly is over.

    Args:
        connection: The state database.
        anomaly_id: Its whole id.
        at_unix_nano: Event time of its end.
        resolution: `recovered`, `adopted` or `dismissed`.

    Returns:
        True if it went on; False if it is unknown or was resolved before, which stays as it was.
    """
    state = AnomalyState.RESOLVED.value
    return (
        connection.execute(
            "UPDATE anomalies SET state = ?, resolved_unix_nano = ?, resolution = ? WHERE id = ? AND state <> ?",
            (state, min(at_unix_nano, MAX_INTEGER), resolution, anomaly_id, state),
        ).rowcount
        == 1
    )


def put(connection: sqlite3.Connection, anomaly: Anomaly) -> None:
    """Store how far an anomaly is to be heard: its level, severity, incident, and whether it is suppressed."""
    connection.execute(
        "UPDATE anomalies SET level = ?, severity = ?, incident_id = ?, is_suppressed = ? WHERE id = ?",
        (anomaly.level, anomaly.severity, anomaly.incident_id, anomaly.is_suppressed, anomaly.id),
    )
    if not anomaly.is_suppressed:
        rank = AnomalyLevel(anomaly.level).rank
        for level, column in _WINDOWS.items():
            if level.rank <= rank:
                connection.execute(
                    f"UPDATE anomalies SET {column} = ? WHERE id = ? AND {column} = 0",  # noqa: S608 - our own names
                    (anomaly.window_count, anomaly.id),
                )


def told_unix_nano(connection: sqlite3.Connection, anomaly_id: str) -> int:
    """Return the event time of which an anomaly was last told to the outside; 0 if it never was."""
    row = connection.execute("SELECT told_unix_nano FROM anomalies WHERE id = ?", (anomaly_id,)).fetchone()
    return 0 if row is None else int(row[0])


def set_told(connection: sqlite3.Connection, anomaly_id: str, at_unix_nano: int) -> None:
    """Say of which event time an anomaly was last told to the outside."""
    connection.execute(
        "UPDATE anomalies SET told_unix_nano = ? WHERE id = ?", (min(at_unix_nano, MAX_INTEGER), anomaly_id)
    )


def heard_from(connection: sqlite3.Connection, anomaly_id: str, level: AnomalyLevel) -> int | None:
    """Return the first window of an anomaly that is heard as far as `level`; None if there is no such anomaly.

    Returns:
        Its number, from 1; `NEVER` for one that is not heard so far, as while it is suppressed.
    """
    row = connection.execute(
        f"SELECT {_WINDOWS[level]}, is_suppressed FROM anomalies WHERE id = ?",  # noqa: S608 - our own names
        (anomaly_id,),
    ).fetchone()
    if row is None:
        return None
    return NEVER if row[1] or not row[0] else int(row[0])


def is_suppressed(connection: sqlite3.Connection, anomaly_id: str) -> bool:
    """Return whether an anomaly is suppressed."""
    row = connection.execute("SELECT is_suppressed FROM anomalies WHERE id = ?", (anomaly_id,)).fetchone()
    return row is not None and bool(row[0])


def move(connection: sqlite3.Connection, incident_id: str, into: str) -> None:
    """Let the anomalies of one incident belong to another."""
    connection.execute("UPDATE anomalies SET incident_id = ? WHERE incident_id = ?", (into, incident_id))


def prune(connection: sqlite3.Connection, *, before_unix_nano: int, most: int, most_rows: int) -> int:
    """Delete anomalies that are too old, and ended ones beyond the newest `most`; return how many.

    Those of which something is withheld stay. The history keeps what was done about the others.

    Args:
        connection: The state database.
        before_unix_nano: Those recorded before then, on the wall clock, are too old.
        most: Anomalies that may stay.
        most_rows: Anomalies to delete at once; call again while it returns as many.
    """
    (count,) = connection.execute("SELECT count(*) FROM anomalies").fetchone()
    deleted = connection.execute(
        "DELETE FROM anomalies WHERE number IN (SELECT number FROM anomalies WHERE recorded_unix_nano < ?"  # noqa: S608 - our own names
        f" AND {_IS_FREE} ORDER BY recorded_unix_nano LIMIT ?)",
        (before_unix_nano, most_rows),
    ).rowcount
    excess = min(count - deleted - most, most_rows - deleted)
    if excess > 0:
        deleted += connection.execute(
            "DELETE FROM anomalies WHERE number IN (SELECT number FROM anomalies INDEXED BY anomalies_by_state"  # noqa: S608 - our own names
            f" WHERE state = ? AND {_IS_FREE} ORDER BY detected_unix_nano, id LIMIT ?)",
            (AnomalyState.RESOLVED.value, excess),
        ).rowcount
    return deleted
