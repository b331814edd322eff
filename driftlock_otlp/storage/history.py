"""The history: the one record of who did what, and when; rows are added and never changed.

Triggers refuse to change or delete a row. Beyond that the rows are a chain: each holds the hash of
the row before it and its own, so that whoever changes one behind our back must change all that follow.
The hash is SHA-256 over the UTF-8 bytes of a JSON array without blanks,
`[previous_hash, seq, at_unix_nano, tenant, actor, action, subject, detail]`, with every value as it
stands in the row, the detail as text. The first row ever has an empty `previous_hash`.

A chain does not show that its newest rows are missing: who needs that keeps a hash elsewhere.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

SERVICE = "driftlock"
"""The actor of what happens by itself."""

_COLUMNS = "seq, at_unix_nano, tenant, actor, action, subject, detail, previous_hash, hash"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Something that somebody did.

    Attributes:
        seq: Counts entries, from 1, without gaps.
        at_unix_nano: Wall clock.
        tenant: Whose; empty without authentication.
        actor: `driftlock`, `key:<id>` of an API key, or `local`.
        action: What was done, as `status_changed`.
        subject: What to: an anomaly's id, or what the action names.
        detail: The rest, as plain JSON values.
        previous_hash: Hash of the entry before, 64 hex digits; empty in the first ever.
        hash: Its own hash, 64 hex digits.
    """

    seq: int
    at_unix_nano: int
    tenant: str
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    previous_hash: str
    hash: str


def record(
    connection: sqlite3.Connection,
    *,
    at_unix_nano: int,
    tenant: str,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, object],
) -> int:
    """Add an entry, in the transaction of what it tells of; return its number.

    Args:
        connection: The state database.
        at_unix_nano: Wall clock.
        tenant: Whose; empty without authentication.
        actor: Who did it.
        action: What was done.
        subject: What to.
        detail: The rest; JSON must be able to hold it.
    """
    last = connection.execute("SELECT seq, hash FROM history ORDER BY seq DESC LIMIT 1").fetchone()
    seq, previous_hash = last or _floor(connection)
    text = msgspec.json.encode(dict(detail), order="deterministic").decode()
    row = (seq + 1, at_unix_nano, _plain(tenant), _plain(actor), _plain(action), _plain(subject), text)
    connection.execute(
        f"INSERT INTO history ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own names
        (*row, previous_hash, _hash(previous_hash, row)),
    )
    return int(row[0])


def entries(
    connection: sqlite3.Connection,
    *,
    tenant: str | None,
    subject: str | None = None,
    before: int | None = None,
    limit: int,
) -> list[HistoryEntry]:
    """Return entries, newest first.

    Args:
        connection: The state database.
        tenant: Only this tenant's; None for all.
        subject: Only those about it, as an anomaly's id.
        before: Only entries with a smaller number: the last of the page before.
        limit: Most to return.
    """
    conditions = {"tenant = ?": tenant, "subject = ?": subject, "seq < ?": before}
    given = {condition: value for condition, value in conditions.items() if value is not None}
    where = f" WHERE {' AND '.join(given)}" if given else ""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM history{where} ORDER BY seq DESC LIMIT ?",  # noqa: S608 - our own names
        (*given.values(), limit),
    )
    return _entries(rows)


def following(connection: sqlite3.Connection, *, tenant: str | None, after: int, limit: int) -> list[HistoryEntry]:
    """Return the entries behind one, oldest first.

    Args:
        connection: The state database.
        tenant: Only this tenant's; None for all.
        after: Only entries with a larger number.
        limit: Most to return.
    """
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM history WHERE seq > ?1 AND (?2 IS NULL OR tenant = ?2) ORDER BY seq LIMIT ?3",  # noqa: S608 - our own names
        (after, tenant, limit),
    )
    return _entries(rows)


def ends(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the number of the last entry that retention has let go, and of the newest one; 0 if there is none."""
    floor, _ = _floor(connection)
    (last,) = connection.execute("SELECT max(seq) FROM history").fetchone()
    return int(floor), int(last or floor)


def verify(connection: sqlite3.Connection) -> int | None:
    """Return the number of the first entry that is missing or not as it was written; None if all are sound."""
    seq, previous_hash = _floor(connection)
    for *row, previous, own in connection.execute(
        f"SELECT {_COLUMNS} FROM history WHERE seq > ? ORDER BY seq",  # noqa: S608 - our own names
        (seq,),
    ):
        if row[0] != seq + 1 or previous != previous_hash or own != _hash(previous, tuple(row)):
            return int(seq + 1)
        seq, previous_hash = row[0], own
    return None


def prune(connection: sqlite3.Connection, before_unix_nano: int, now_unix_nano: int, most_rows: int) -> int:
    """Let the oldest entries go, and say so in an entry; the chain goes on from the last of them.

    This is retention, and the only way that entries go.

    Args:
        connection: The state database.
        before_unix_nano: Entries of before then go.
        now_unix_nano: Wall clock.
        most_rows: Entries to let go at once; call again while it returns as many.
    """
    last = connection.execute(
        "SELECT seq, hash FROM (SELECT seq, hash, at_unix_nano FROM history ORDER BY seq LIMIT ?)"
        " WHERE at_unix_nano < ? ORDER BY seq DESC LIMIT 1",
        (most_rows, before_unix_nano),
    ).fetchone()
    if last is None:
        return 0
    connection.execute("INSERT OR REPLACE INTO history_floor (only_row, seq, hash) VALUES (1, ?, ?)", last)
    count = connection.execute("DELETE FROM history WHERE seq <= ?", (last[0],)).rowcount
    record(
        connection,
        at_unix_nano=now_unix_nano,
        tenant="",
        actor=SERVICE,
        action="history_pruned",
        subject="history",
        detail={"entries": count, "last_seq": last[0], "last_hash": last[1]},
    )
    return count


def _entries(rows: Iterable[tuple[Any, ...]]) -> list[HistoryEntry]:
    return [
        HistoryEntry(seq, at, tenant, actor, action, subject, msgspec.json.decode(detail), previous, own)
        for seq, at, tenant, actor, action, subject, detail, previous, own in rows
    ]


def _floor(connection: sqlite3.Connection) -> tuple[int, str]:
    """Return the number and hash of the last entry that retention has let go; 0 if it has not yet."""
    row = connection.execute("SELECT seq, hash FROM history_floor").fetchone()
    return (0, "") if row is None else (int(row[0]), str(row[1]))


def _hash(previous_hash: str, row: tuple[object, ...]) -> str:
    return hashlib.sha256(msgspec.json.encode([previous_hash, *row])).hexdigest()


def _plain(text: str) -> str:
    """Return `text` without lone surrogates, which the database cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
