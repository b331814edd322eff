"""The outbox: anomaly events on their way to each destination, each sent once if nothing crashes.

A finished event leaves its key behind for a week, so that a replay does not send it again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

KEPT_KEYS_S = 7 * 24 * 3600
"""How long the key of a finished event is remembered, in seconds since it was enqueued."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One event that is to be sent.

    Attributes:
        id: Its row, for `mark_sent` and `mark_dropped`.
        destination: Key of the exporter it goes to.
        key: What it is, unique within a destination.
        payload: The event as an OTLP logs request.
    """

    id: int
    destination: str
    key: str
    payload: bytes


def enqueue(connection: sqlite3.Connection, destination: str, key: str, payload: bytes, now_unix_nano: int) -> None:
    """Add an event for one destination; a known key changes nothing, sent or not."""
    connection.execute(
        "DELETE FROM outbox WHERE state <> 'pending' AND enqueued_unix_nano < ?",
        (now_unix_nano - KEPT_KEYS_S * 1_000_000_000,),
    )
    connection.execute(
        "INSERT INTO outbox (destination, key, payload, due_unix_nano, enqueued_unix_nano) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (destination, key) DO NOTHING",
        (destination, key, payload, now_unix_nano, now_unix_nano),
    )


def pending(connection: sqlite3.Connection, destination: str, limit: int) -> list[OutboxRow]:
    """Return at most `limit` events to send to a destination, in the order they were enqueued."""
    rows = connection.execute(
        "SELECT id, destination, key, payload FROM outbox WHERE destination = ? AND state = 'pending'"
        " ORDER BY id LIMIT ?",
        (destination, limit),
    )
    return [OutboxRow(*row) for row in rows]


def mark_sent(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Say that the destination has taken these events."""
    _finish(connection, ids, "sent", "")


def mark_dropped(connection: sqlite3.Connection, ids: Sequence[int], reason: str) -> None:
    """Give these events up for good."""
    _finish(connection, ids, "dropped", reason)


def depth(connection: sqlite3.Connection, destination: str) -> int:
    """Return how many events wait for a destination."""
    statement = "SELECT count(*) FROM outbox WHERE destination = ? AND state = 'pending'"
    return int(connection.execute(statement, (destination,)).fetchone()[0])


def _finish(connection: sqlite3.Connection, ids: Sequence[int], state: str, reason: str) -> None:
    connection.executemany(
        "UPDATE outbox SET state = ?, reason = ?, payload = x'' WHERE id = ? AND state = 'pending'",
        [(state, reason, row_id) for row_id in ids],
    )
