"""Suppressions: what is known already and nobody wants to hear of, for a time or for good.

A pattern is silenced where it is expected; maintenance silences a service, or all, from one time to
another. What falls under one is recorded and counted all the same, but makes no event and no page, and
its records go on as clean. The history says who made each, and who took it away.
"""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, dataclass, replace
from enum import Enum

from driftlock_otlp.model import Anomaly, AnomalyState
from driftlock_otlp.storage import history
from driftlock_otlp.storage.state import MAX_INTEGER

FOR_GOOD = MAX_INTEGER
"""`until_unix_nano` of a suppression without an end."""

_COLUMNS = (
    "id, tenant, purpose, kind, service, name, template, from_unix_nano, until_unix_nano, note, created_by,"
    " created_unix_nano, removed_unix_nano"
)
_FITS = (
    "tenant = ?1 AND (kind = '' OR kind = ?2) AND (service = '' OR service = ?3) AND (name = '' OR name = ?4)"
    " AND (template = '' OR template = ?5) AND from_unix_nano <= ?6 AND until_unix_nano > ?6 AND removed_unix_nano = 0"
)


class Purpose(Enum):
    """Why something is silenced."""

    PATTERN = "pattern"
    MAINTENANCE = "maintenance"


@dataclass(frozen=True, slots=True)
class Suppression:
    """What is not to be heard, and when; an empty text takes in everything.

    Attributes:
        id: Identifies it.
        tenant: Whose anomalies; empty without authentication.
        purpose: Value of a `Purpose`.
        kind: Value of the `StreamKind`.
        service: Name of the service.
        name: Name of the stream within the service: of a metric, say.
        template: Log template.
        from_unix_nano: Least event time.
        until_unix_nano: Event time that is too late already; `FOR_GOOD` without an end.
        note: Why, for people.
        created_by: Who made it: `key:<id>` or `local`.
        created_unix_nano: Wall clock.
        removed_unix_nano: Wall clock when somebody took it away; 0 while nobody has.
    """

    id: str
    tenant: str
    purpose: str
    kind: str
    service: str
    name: str
    template: str
    from_unix_nano: int
    until_unix_nano: int
    note: str
    created_by: str
    created_unix_nano: int
    removed_unix_nano: int = 0


def add(connection: sqlite3.Connection, new: Suppression) -> int:
    """Make a suppression; return how many anomalies that go on fall under it, and are silent from now on.

    Raises:
        ValueError: It ends before it begins, or a pattern says nothing of what it is about.
    """
    if new.until_unix_nano <= new.from_unix_nano:
        raise ValueError("it ends before it begins")
    if Purpose(new.purpose) is Purpose.PATTERN and not (new.kind or new.service or new.name or new.template):
        raise ValueError("say what is not to be heard: a service, a kind of stream, a stream's name or a template")
    connection.execute(
        f"INSERT INTO suppressions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own names
        [min(value, MAX_INTEGER) if isinstance(value, int) else value for value in astuple(new)],
    )
    detail = {
        "purpose": new.purpose,
        "kind": new.kind,
        "service": new.service,
        "name": new.name,
        "template": new.template,
        "from_unix_nano": new.from_unix_nano,
        "until_unix_nano": new.until_unix_nano,
        "note": new.note,
    }
    _write(connection, new, "suppression_added", new.created_by, new.created_unix_nano, detail)
    return _silence(connection, new)


def remove(
    connection: sqlite3.Connection, suppression_id: str, *, tenant: str | None, actor: str, at_unix_nano: int
) -> Suppression | None:
    """Take a suppression away: what falls under it is heard again from its next window on.

    Args:
        connection: The state database.
        suppression_id: Which.
        tenant: Only if it is this tenant's; None for any.
        actor: Who does it.
        at_unix_nano: Wall clock.

    Returns:
        What it is now; None if there is none that is in force or still to come.
    """
    known = get(connection, suppression_id, tenant)
    if known is None or known.removed_unix_nano:
        return None
    connection.execute("UPDATE suppressions SET removed_unix_nano = ? WHERE id = ?", (at_unix_nano, suppression_id))
    _write(connection, known, "suppression_removed", actor, at_unix_nano, {"purpose": known.purpose})
    return replace(known, removed_unix_nano=at_unix_nano)


def get(connection: sqlite3.Connection, suppression_id: str, tenant: str | None = None) -> Suppression | None:
    """Return a suppression, also one that is over; None if there is none, or it is another tenant's."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM suppressions WHERE id = ?1 AND (?2 IS NULL OR tenant = ?2)",  # noqa: S608 - our own names
        (suppression_id, tenant),
    ).fetchone()
    return None if row is None else Suppression(*row)


def current(
    connection: sqlite3.Connection, *, tenant: str | None, now_unix_nano: int, limit: int = 1000
) -> list[Suppression]:
    """Return the suppressions that are in force or still to come, those that end first in front.

    Args:
        connection: The state database.
        tenant: Only this tenant's; None for all.
        now_unix_nano: Wall clock.
        limit: Most to return.
    """
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM suppressions WHERE (?1 IS NULL OR tenant = ?1) AND until_unix_nano > ?2"  # noqa: S608 - our own names
        " AND removed_unix_nano = 0 ORDER BY until_unix_nano, id LIMIT ?3",
        (tenant, now_unix_nano, limit),
    )
    return [Suppression(*row) for row in rows]


def covering(connection: sqlite3.Connection, anomaly: Anomaly, at_unix_nano: int) -> str:
    """Return the id of a suppression that an anomaly falls under at an event time; empty if there is none."""
    key = anomaly.stream
    row = connection.execute(
        f"SELECT id FROM suppressions WHERE {_FITS} ORDER BY until_unix_nano DESC, id LIMIT 1",  # noqa: S608 - our own names
        (key.tenant, key.kind, key.service, key.name, anomaly.template, min(at_unix_nano, MAX_INTEGER - 1)),
    ).fetchone()
    return "" if row is None else str(row[0])


def prune(connection: sqlite3.Connection, before_unix_nano: int) -> int:
    """Delete the suppressions that ended, or were taken away, before then; return how many."""
    return connection.execute(
        "DELETE FROM suppressions WHERE until_unix_nano < ?1 OR (removed_unix_nano > 0 AND removed_unix_nano < ?1)",
        (before_unix_nano,),
    ).rowcount


def _silence(connection: sqlite3.Connection, new: Suppression) -> int:
    """Silence the anomalies that go on and fall under a new suppression."""
    return connection.execute(
        "UPDATE anomalies SET is_suppressed = 1 WHERE state IN (?1, ?2) AND is_suppressed = 0 AND tenant = ?3"
        " AND (?4 = '' OR kind = ?4) AND (?5 = '' OR service = ?5) AND (?6 = '' OR name = ?6)"
        " AND (?7 = '' OR template = ?7) AND last_unix_nano >= ?8 AND last_unix_nano < ?9",
        (
            *(AnomalyState.OPEN.value, AnomalyState.ONGOING.value),
            *(new.tenant, new.kind, new.service, new.name, new.template, new.from_unix_nano, new.until_unix_nano),
        ),
    ).rowcount


def _write(
    connection: sqlite3.Connection,
    suppression: Suppression,
    action: str,
    actor: str,
    at_unix_nano: int,
    detail: dict[str, object],
) -> None:
    history.record(
        connection,
        at_unix_nano=at_unix_nano,
        tenant=suppression.tenant,
        actor=actor,
        action=action,
        subject=suppression.id,
        detail=detail,
    )
