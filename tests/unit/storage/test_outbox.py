"""The outbox of anomaly events."""

from __future__ import annotations

import sqlite3

from driftlock_otlp.storage import outbox

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


def keys(connection: sqlite3.Connection, destination: str = "a") -> list[str]:
    return [row.key for row in outbox.pending(connection, destination, 10)]


def test_events_are_sent_in_order_and_per_destination(connection: sqlite3.Connection) -> None:
    for key in ("z", "y", "x"):
        outbox.enqueue(connection, "a", key, key.encode(), NOW)
    outbox.enqueue(connection, "b", "z", b"other", NOW)
    rows = outbox.pending(connection, "a", 2)
    assert [(row.destination, row.key, row.payload) for row in rows] == [
        ("a", "z", b"z"),
        ("a", "y", b"y"),
    ]
    assert outbox.depth(connection, "a") == 3
    assert outbox.depth(connection, "b") == 1


def test_event_that_was_sent_is_not_sent_again_after_a_replay(connection: sqlite3.Connection) -> None:
    outbox.enqueue(connection, "a", "k", b"1", NOW)
    outbox.enqueue(connection, "a", "k", b"2", NOW + 5)
    (row,) = outbox.pending(connection, "a", 10)
    assert row.payload == b"1"
    outbox.mark_sent(connection, [row.id])
    outbox.enqueue(connection, "a", "k", b"1", NOW + 6 * 24 * 3600 * SECOND)
    assert outbox.depth(connection, "a") == 0


def test_dropped_event_is_not_sent_and_not_enqueued_again(connection: sqlite3.Connection) -> None:
    outbox.enqueue(connection, "a", "k", b"x", NOW)
    outbox.mark_dropped(connection, [row.id for row in outbox.pending(connection, "a", 10)], "rejected")
    outbox.enqueue(connection, "a", "k", b"x", NOW)
    assert keys(connection) == []
    assert connection.execute("SELECT state, reason, payload FROM outbox").fetchall() == [("dropped", "rejected", b"")]


def test_keys_of_finished_events_are_forgotten_after_a_week_and_pending_ones_never(
    connection: sqlite3.Connection,
) -> None:
    for key in ("sent", "pending"):
        outbox.enqueue(connection, "a", key, b"", NOW)
    outbox.mark_sent(connection, [outbox.pending(connection, "a", 1)[0].id])
    later = NOW + (outbox.KEPT_KEYS_S + 1) * SECOND
    outbox.enqueue(connection, "a", "new", b"", later)
    assert connection.execute("SELECT key FROM outbox ORDER BY id").fetchall() == [("pending",), ("new",)]
