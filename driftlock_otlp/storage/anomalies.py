"""The anomalies that were found: whether they still go on, and what people have done about them.

A short row holds what changes and what is searched; beside it stands the anomaly as the detector told
of it first. Times are event times unless they are said to be on the wall clock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from driftlock_otlp.model import Anomaly, AnomalyLevel, AnomalyState, AnomalyStatus
from driftlock_otlp.storage import history
from driftlock_otlp.storage.schema import FILTERED, searched_text
from driftlock_otlp.storage.state import MAX_INTEGER

_MOST_SCANNED = 20_000
"""Rows looked at for one page; then it ends, however full."""
_MOST_TEXTS = 1_000
"""The same where each row's text must be read."""
_MOST_RARE = 2_000
"""A value that as many rows have is common."""

_ROW = (
    "document, state, status, severity, level, incident_id, is_suppressed, window_count, last_unix_nano,"
    " resolved_unix_nano, resolution"
)
_JOINED = "anomalies JOIN anomaly_documents USING (number)"
_EQUAL = {
    "incident_id": "incident",
    "service": "service",
    "tenant": "tenant",
    "state": "state",
    "status": "status",
    "level": "level",
    "severity": "severity",
    "kind": "kind",
}
"""Columns that are filtered by one value, with the filter's names of them."""
_LEADING = ("incident_id", "service", "tenant", "state")
"""Those with an index that begins with them; of several that are as common the first one is taken."""
_COVERED = f"number, detected_unix_nano, id, tenant, service, {FILTERED}"
_CONDITIONS = (
    ("score >= :min_score", "min_score"),
    ("p_value <= :max_p_value", "max_p_value"),
    ("is_suppressed = :is_suppressed", "is_suppressed"),
    ("instr((SELECT text FROM anomaly_texts AS t WHERE t.number = scanned.number), :text) > 0", "text"),
)
_LAST = (MAX_INTEGER, "\U0010ffff")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Anomaly).decode


@dataclass(frozen=True, slots=True)
class AnomalyFilter:
    """Which anomalies are meant: those that fit everything given; None takes all.

    Attributes:
        tenant: Organisation, exactly.
        since_unix_nano: Least event time of detection.
        until_unix_nano: Event time of detection that is too late already.
        kind: Value of a `StreamKind`.
        service: Name of the service, exactly.
        state: Value of an `AnomalyState`.
        status: Value of an `AnomalyStatus`.
        severity: Label of an `AnomalySeverity`.
        level: Value of an `AnomalyLevel`.
        incident: Id of the incident they belong to.
        min_score: Least score.
        max_p_value: Largest p-value.
        text: What their explanation or template contains, in whichever case.
        is_suppressed: Whether they were suppressed.
    """

    tenant: str | None = None
    since_unix_nano: int | None = None
    until_unix_nano: int | None = None
    kind: str | None = None
    service: str | None = None
    state: str | None = None
    status: str | None = None
    severity: str | None = None
    level: str | None = None
    incident: str | None = None
    min_score: float | None = None
    max_p_value: float | None = None
    text: str | None = None
    is_suppressed: bool | None = None


@dataclass(frozen=True, slots=True)
class AnomalyPage:
    """A part of a list.

    Attributes:
        anomalies: Newest first.
        next_cursor: Where the next page begins; None at the end of the list. A page may be shorter than
            was asked for, or empty, and yet not the last: looking for what is rare takes several.
    """

    anomalies: list[Anomaly]
    next_cursor: str | None


def record(connection: sqlite3.Connection, anomaly: Anomaly, now_unix_nano: int) -> bool:
    """Store an anomaly under its id, unless it is known.

    A known one stays as it is, whatever a replay finds again: it may have gone on or ended since.

    Args:
        connection: The state database.
        anomaly: What was found.
        now_unix_nano: Wall clock.

    Returns:
        True if it was not known before.
    """
    detected = min(anomaly.detected_unix_nano, MAX_INTEGER)
    key = anomaly.stream
    inserted = connection.execute(
        "INSERT INTO anomalies (id, kind, service, name, tenant, template, state, status, severity, level, incident_id,"
        " is_suppressed, score, p_value, detected_unix_nano, window_count, notice_window, last_unix_nano,"
        " told_unix_nano, recorded_unix_nano, resolved_unix_nano, resolution)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        (
            *(anomaly.id, key.kind, key.service, key.name, key.tenant, anomaly.template),
            *(anomaly.state, anomaly.status, anomaly.severity, anomaly.level, anomaly.incident_id),
            *(anomaly.is_suppressed, anomaly.score, anomaly.p_value, detected, anomaly.window_count),
            0 if anomaly.is_suppressed else anomaly.window_count,
            min(anomaly.last_unix_nano, MAX_INTEGER) or detected,
            *(0 if anomaly.is_suppressed else detected, now_unix_nano),
            *(min(anomaly.resolved_unix_nano, MAX_INTEGER), anomaly.resolution),
        ),
    )
    if inserted.rowcount != 1:
        return False
    number, text = inserted.lastrowid, searched_text(anomaly.explanation, anomaly.template)
    connection.execute("INSERT INTO anomaly_documents (number, document) VALUES (?, ?)", (number, _encode(anomaly)))
    connection.execute("INSERT INTO anomaly_texts (number, text) VALUES (?, ?)", (number, text))
    return True


def of_incident(
    connection: sqlite3.Connection, incident_id: str, *, below: AnomalyLevel | None = None, limit: int = 1000
) -> list[Anomaly]:
    """Return the anomalies of an incident, the earliest first.

    Args:
        connection: The state database.
        incident_id: Which incident.
        below: Only those that go on and are below this level; None for all.
        limit: Most to return.
    """
    lower = [level.value for level in AnomalyLevel if below is None or level.rank < below.rank]
    rows = connection.execute(
        f"SELECT {_ROW} FROM {_JOINED} WHERE incident_id = ? AND level IN ({', '.join('?' * len(lower))})"  # noqa: S608 - our own names
        " AND (? OR state <> ?) ORDER BY detected_unix_nano, id LIMIT ?",
        (incident_id, *lower, below is None, AnomalyState.RESOLVED.value, limit),
    )
    return [_anomaly(row) for row in rows]


def set_status(
    connection: sqlite3.Connection,
    anomaly_id: str,
    status: AnomalyStatus,
    *,
    actor: str,
    note: str = "",
    at_unix_nano: int,
) -> Anomaly | None:
    """Say what somebody does about an anomaly; the history keeps who, when and the note.

    A note is kept even if the status stays the same.

    Args:
        connection: The state database.
        anomaly_id: Its whole id.
        status: The new status.
        actor: Who: `key:<id>` or `local`.
        note: What they have to say.
        at_unix_nano: Wall clock.

    Returns:
        The anomaly as it is now; None if there is none.
    """
    known = get(connection, anomaly_id)
    if known is None or known.id != anomaly_id:
        return None
    connection.execute("UPDATE anomalies SET status = ? WHERE id = ?", (status.value, anomaly_id))
    history.record(
        connection,
        at_unix_nano=at_unix_nano,
        tenant=known.stream.tenant,
        actor=actor,
        action="status_changed",
        subject=anomaly_id,
        detail={"from": known.status, "to": status.value, "note": note},
    )
    return replace(known, status=status.value)


def get(connection: sqlite3.Connection, id_or_prefix: str, tenant: str | None = None) -> Anomaly | None:
    """Return the anomaly whose id is, or begins with, these hex digits; None if there is none.

    Args:
        connection: The state database.
        id_or_prefix: Its id, or the first digits of it.
        tenant: Only if it is this tenant's; None for any.

    Raises:
        ValueError: Several anomalies begin so.
    """
    prefix = id_or_prefix.lower()
    if not prefix:
        return None
    rows = connection.execute(
        f"SELECT id, {_ROW} FROM {_JOINED} WHERE id >= ?1 AND id < ?2 AND (?3 IS NULL OR tenant = ?3)"  # noqa: S608 - our own names
        " ORDER BY id LIMIT 2",
        (prefix, prefix + "\U0010ffff", tenant),
    ).fetchall()
    # The whole id sorts before all that it is a prefix of.
    if len(rows) > 1 and rows[0][0] != prefix:
        raise ValueError(f"several anomalies begin with {id_or_prefix!r}: give more digits")
    return _anomaly(rows[0][1:]) if rows else None


def page(connection: sqlite3.Connection, where: AnomalyFilter, limit: int, cursor: str | None = None) -> AnomalyPage:
    """Return anomalies, newest first, from where the page before ended.

    Takes a bounded time, whatever is asked and however many there are. What is found meanwhile
    neither shifts pages nor repeats rows.

    Args:
        connection: The state database.
        where: Which ones.
        limit: Most to return, at least 1.
        cursor: `next_cursor` of the page before; None for the first.

    Raises:
        ValueError: The cursor is none of ours.
    """
    after = _LAST if cursor is None else _position(cursor)
    if where.until_unix_nano is not None:
        after = min(after, (min(where.until_unix_nano, MAX_INTEGER), ""))
    equal = {column: value for column, name in _EQUAL.items() if (value := getattr(where, name)) is not None}
    leading = _leading(connection, equal)
    keys = "(detected_unix_nano, id) < (:time, :id) AND detected_unix_nano >= :since"
    source = f"anomalies INDEXED BY anomalies_by_{_EQUAL[leading] if leading else 'time'} WHERE {keys}"
    if leading:
        source += f" AND {leading} = :{leading}"
    conditions = [f"{column} = :{column}" for column in equal if column != leading]
    conditions += [condition for condition, name in _CONDITIONS if getattr(where, name) is not None]
    parameters = {
        **equal,
        **{name: getattr(where, name) for _, name in _CONDITIONS},
        "text": None if where.text is None else where.text.casefold(),
        "since": min(where.since_unix_nano or 0, MAX_INTEGER),
        "time": after[0],
        "id": after[1],
        "limit": limit + 1,
        "most": _MOST_SCANNED if where.text is None else _MOST_TEXTS,
    }
    columns = _COVERED + (", incident_id" if "incident_id" in equal else "")
    order = "ORDER BY detected_unix_nano DESC, id DESC"
    # The inner order is the outer one: saying so again would make it read all that may be looked at.
    found = connection.execute(
        f"SELECT number, detected_unix_nano, id FROM (SELECT {columns} FROM {source} {order} LIMIT :most) AS scanned"  # noqa: S608 - our own names
        f" WHERE {' AND '.join(conditions) or '1'} LIMIT :limit",
        parameters,
    ).fetchall()
    if len(found) > limit:
        del found[limit:]
        end = found[-1][1:]
    else:
        statement = f"SELECT detected_unix_nano, id FROM {source} {order} LIMIT 1 OFFSET :most - 1"  # noqa: S608 - our own names
        end = connection.execute(statement, parameters).fetchone()
    return AnomalyPage(
        [_load(connection, number) for number, *_ in found], None if end is None else f"{end[0]:x}.{end[1]}"
    )


def find(connection: sqlite3.Connection, where: AnomalyFilter | None = None, limit: int = 50) -> list[Anomaly]:
    """Return anomalies, newest first, however long it takes.

    Args:
        connection: The state database.
        where: Which ones; None for all.
        limit: Most to return.
    """
    where, found, cursor = where or AnomalyFilter(), list[Anomaly](), None
    while len(found) < limit:
        part = page(connection, where, limit - len(found), cursor)
        found += part.anomalies
        cursor = part.next_cursor
        if cursor is None:
            break
    return found


def open_count(connection: sqlite3.Connection) -> int:
    """Return how many anomalies still go on."""
    return int(
        connection.execute(
            "SELECT count(*) FROM anomalies WHERE state IN (?, ?)",
            (AnomalyState.OPEN.value, AnomalyState.ONGOING.value),
        ).fetchone()[0]
    )


def _leading(connection: sqlite3.Connection, equal: Mapping[str, str]) -> str | None:
    """Return the column whose index finds the fewest rows with its value; None for the one by time."""
    counts = {column: _count_some(connection, column, equal[column]) for column in _LEADING if column in equal}
    leading = min(counts, key=lambda column: counts[column], default=None)
    # Its index alone does not hold what else is filtered by.
    return None if leading == "state" and counts["state"] == _MOST_RARE else leading


def _count_some(connection: sqlite3.Connection, column: str, value: str) -> int:
    """Return how many rows have this value, at most `_MOST_RARE`."""
    statement = f"SELECT count(*) FROM (SELECT 1 FROM anomalies WHERE {column} = ? LIMIT ?)"  # noqa: S608 - our own names
    return int(connection.execute(statement, (value, _MOST_RARE)).fetchone()[0])


def _position(cursor: str) -> tuple[int, str]:
    time, _, anomaly_id = cursor.partition(".")
    try:
        return int(time, 16), anomaly_id
    except ValueError:
        raise ValueError(f"{cursor!r} is no cursor of a list of anomalies") from None


def _load(connection: sqlite3.Connection, number: int) -> Anomaly:
    return _anomaly(connection.execute(f"SELECT {_ROW} FROM {_JOINED} WHERE number = ?", (number,)).fetchone())  # noqa: S608 - our own names


def _anomaly(row: Sequence[Any]) -> Anomaly:
    document, state, status, severity, level, incident_id, suppressed, windows, last, resolved, resolution = row
    return replace(
        _decode(document),
        state=state,
        status=status,
        severity=severity,
        level=level,
        incident_id=incident_id,
        is_suppressed=bool(suppressed),
        window_count=windows,
        last_unix_nano=last,
        resolved_unix_nano=resolved,
        resolution=resolution,
    )
