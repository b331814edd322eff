"""The anomalies that were found, and whether they still go on."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import msgspec

from driftlock_otlp.model import Anomaly, AnomalyState
from driftlock_otlp.storage.state import MAX_INTEGER

MOST_ANOMALIES = 20_000
"""Anomalies kept; older ones that are over are pruned."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Anomaly).decode


def record(connection: sqlite3.Connection, anomaly: Anomaly) -> bool:
    """Store an anomaly under its id, replacing what is known of it.

    An anomaly that has been resolved stays so: a replay that finds it open again changes nothing.

    Returns:
        True if it was not known before.
    """
    known = _load(connection, anomaly.id)
    if known is not None and known.state == AnomalyState.RESOLVED.value and anomaly.state != known.state:
        return False
    connection.execute(
        "INSERT INTO anomalies (id, kind, service, name, tenant, state, severity, detected_unix_nano, document)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET state = excluded.state, severity = excluded.severity,"
        " detected_unix_nano = excluded.detected_unix_nano, document = excluded.document",
        (
            anomaly.id,
            anomaly.stream.kind,
            anomaly.stream.service,
            anomaly.stream.name,
            anomaly.stream.tenant,
            anomaly.state,
            anomaly.severity,
            min(anomaly.detected_unix_nano, MAX_INTEGER),
            _encode(anomaly),
        ),
    )
    return known is None


def resolve(connection: sqlite3.Connection, anomaly_id: str, at_unix_nano: int, resolution: str) -> bool:
    """Say that an anomaly is over.

    Args:
        connection: The state database.
        anomaly_id: Its whole id.
        at_unix_nano: Event time of its end.
        resolution: `recovered` or `adopted`.

    Returns:
        True if it was open; False if it is unknown or was resolved before, which stays as it was.
    """
    known = _load(connection, anomaly_id)
    if known is None or known.state != AnomalyState.OPEN.value:
        return False
    state = AnomalyState.RESOLVED.value
    resolved = replace(known, state=state, resolved_unix_nano=at_unix_nano, resolution=resolution)
    connection.execute(
        "UPDATE anomalies SET state = ?, document = ? WHERE id = ?", (state, _encode(resolved), anomaly_id)
    )
    return True


def get(connection: sqlite3.Connection, id_or_prefix: str) -> Anomaly | None:
    """Return the anomaly whose id is, or begins with, these hex digits; None if there is none.

    Raises:
        ValueError: Several anomalies begin so.
    """
    prefix = id_or_prefix.lower()
    if not prefix:
        return None
    rows = connection.execute(
        "SELECT id, document FROM anomalies WHERE id >= ? AND id < ? ORDER BY id LIMIT 2",
        (prefix, prefix + "\U0010ffff"),
    ).fetchall()
    # The whole id sorts before all that it is a prefix of.
    if len(rows) > 1 and rows[0][0] != prefix:
        raise ValueError(f"several anomalies begin with {id_or_prefix!r}: give more digits")
    return _decode(rows[0][1]) if rows else None


def find(
    connection: sqlite3.Connection,
    *,
    kind: str | None = None,
    service: str | None = None,
    state: str | None = None,
    since_unix_nano: int | None = None,
    limit: int = 50,
) -> list[Anomaly]:
    """Return anomalies that fit everything given, newest first.

    Args:
        connection: The state database.
        kind: Value of a `StreamKind`.
        service: Name of the service, exactly.
        state: Value of an `AnomalyState`.
        since_unix_nano: Least event time of detection.
        limit: Most to return.
    """
    rows = connection.execute(
        "SELECT document FROM anomalies WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR service = ?2)"
        " AND (?3 IS NULL OR state = ?3) AND detected_unix_nano >= ?4 ORDER BY detected_unix_nano DESC, id LIMIT ?5",
        (kind, service, state, min(since_unix_nano or 0, MAX_INTEGER), limit),
    )
    return [_decode(document) for (document,) in rows]


def prune(connection: sqlite3.Connection, most: int = MOST_ANOMALIES) -> int:
    """Delete anomalies that are over, beyond the newest `most`, if nothing of them is withheld; return how many."""
    return connection.execute(
        "DELETE FROM anomalies WHERE state = 'resolved' AND detected_unix_nano <"
        " (SELECT detected_unix_nano FROM anomalies ORDER BY detected_unix_nano DESC LIMIT 1 OFFSET ?)"
        " AND id NOT IN (SELECT anomaly_id FROM quarantine_anomalies)",
        (most - 1,),
    ).rowcount


def open_count(connection: sqlite3.Connection) -> int:
    """Return how many anomalies still go on."""
    return int(connection.execute("SELECT count(*) FROM anomalies WHERE state = 'open'").fetchone()[0])


def _load(connection: sqlite3.Connection, anomaly_id: str) -> Anomaly | None:
    row = connection.execute("SELECT document FROM anomalies WHERE id = ?", (anomaly_id,)).fetchone()
    return None if row is None else _decode(row[0])
