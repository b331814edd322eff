"""Incidents: anomalies of several streams that belong together, and what their joiners remember."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import msgspec

from driftlock_otlp.model import AnomalyState
from driftlock_otlp.storage.state import MAX_INTEGER

_COLUMNS = "id, tenant, level, state, started_unix_nano, last_unix_nano, resolved_unix_nano, origin_anomaly_id, title"


@dataclass(frozen=True, slots=True)
class StoredIncident:
    """An incident.

    Attributes:
        id: 32 hex digits, computed from its first anomaly.
        tenant: Organisation it belongs to; empty without authentication.
        level: Highest level of its anomalies: value of an `AnomalyLevel`.
        state: Value of an `AnomalyState`: open with one anomaly, ongoing with more.
        started_unix_nano: Event time of its first finding.
        last_unix_nano: Event time of its last one.
        resolved_unix_nano: Event time by which all of its anomalies had ended; 0 before.
        origin_anomaly_id: The anomaly that is its likeliest origin.
        title: One sentence for people.
    """

    id: str
    tenant: str
    level: str
    state: str
    started_unix_nano: int
    last_unix_nano: int
    resolved_unix_nano: int
    origin_anomaly_id: str
    title: str


def put(connection: sqlite3.Connection, incident: StoredIncident) -> None:
    """Store an incident under its id, as it is now."""
    connection.execute(
        f"INSERT OR REPLACE INTO incidents ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own names
        [min(value, MAX_INTEGER) if isinstance(value, int) else value for value in astuple(incident)],
    )


def get(connection: sqlite3.Connection, incident_id: str, tenant: str | None = None) -> StoredIncident | None:
    """Return the incident with this id; None if there is none, or it is another tenant's.

    Args:
        connection: The state database.
        incident_id: Its whole id.
        tenant: Only if it is this tenant's; None for any.
    """
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM incidents WHERE id = ?1 AND (?2 IS NULL OR tenant = ?2)",  # noqa: S608 - our own names
        (incident_id, tenant),
    ).fetchone()
    return None if row is None else StoredIncident(*row)


def newest(
    connection: sqlite3.Connection,
    *,
    tenant: str | None = None,
    state: str | None = None,
    before: tuple[int, str] | None = None,
    limit: int,
) -> list[StoredIncident]:
    """Return incidents, newest first.

    Args:
        connection: The state database.
        tenant: Only this tenant's; None for all.
        state: Value of an `AnomalyState`.
        before: Start and id of the last one of the page before.
        limit: Most to return.
    """
    start, last_id = before or (MAX_INTEGER, "\U0010ffff")
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM incidents WHERE (started_unix_nano, id) < (?1, ?2) AND (?3 IS NULL OR tenant = ?3)"  # noqa: S608 - our own names
        " AND (?4 IS NULL OR state = ?4) ORDER BY started_unix_nano DESC, id DESC LIMIT ?5",
        (start, last_id, tenant, state, limit),
    )
    return [StoredIncident(*row) for row in rows]


def resolve_ended(
    connection: sqlite3.Connection, incident_ids: Sequence[str], at_unix_nano: int
) -> list[StoredIncident]:
    """Resolve those of these incidents of which no anomaly goes on any more; return them.

    Args:
        connection: The state database.
        incident_ids: Incidents of which an anomaly has ended.
        at_unix_nano: Event time of the last end.
    """
    over, resolved = AnomalyState.RESOLVED.value, []
    for incident_id in dict.fromkeys(incident_ids):
        changed = connection.execute(
            "UPDATE incidents SET state = ?1, resolved_unix_nano = ?2 WHERE id = ?3 AND state <> ?1 AND NOT EXISTS"
            " (SELECT 1 FROM anomalies WHERE incident_id = ?3 AND state <> ?1)",
            (over, min(at_unix_nano, MAX_INTEGER), incident_id),
        )
        incident = get(connection, incident_id) if changed.rowcount else None
        if incident is not None:
            resolved.append(incident)
    return resolved


def open_count(connection: sqlite3.Connection) -> int:
    """Return how many incidents go on."""
    return int(connection.execute("SELECT count(*) FROM incidents WHERE state <> 'resolved'").fetchone()[0])


def prune(connection: sqlite3.Connection) -> int:
    """Delete the incidents that have no anomaly any more; return how many."""
    return connection.execute(
        "DELETE FROM incidents WHERE NOT EXISTS (SELECT 1 FROM anomalies WHERE incident_id = incidents.id)"
    ).rowcount


def joiner_state(connection: sqlite3.Connection, tenant: str) -> dict[str, Any] | None:
    """Return what the joiner of a tenant remembers; None if there is none."""
    row = connection.execute("SELECT document FROM incident_joiners WHERE tenant = ?", (tenant,)).fetchone()
    if row is None:
        return None
    found: dict[str, Any] = msgspec.msgpack.decode(row[0], type=dict[str, Any])
    return found


def keep_joiner_state(connection: sqlite3.Connection, tenant: str, state: dict[str, Any]) -> None:
    """Store what the joiner of a tenant remembers."""
    connection.execute(
        "INSERT OR REPLACE INTO incident_joiners (tenant, document) VALUES (?, ?)",
        (tenant, msgspec.msgpack.encode(state)),
    )
