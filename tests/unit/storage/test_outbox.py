"""The outbox of anomaly events."""

from __future__ import annotations

import sqlite3

from driftlock_otlp.storage import outbox

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


def due_keys(connection: sqlite3.Connection, destination: str = "a", now: int = NOW) -> list[str]:
    return [row.key for row in outbox.due(connection, destination, now, 10)]


def test_events_are_due_in_order_and_per_destination(connection: sqlite3.Connection) -> None:
    for key in ("z", "y", "x"):
        outbox.enqueue(connection, "a", key, key.encode(), NOW)
    outbox.enqueue(connection, "b", "z", b"other", NOW)
    rows = outbox.due(connection, "a", NOW, 2)
    assert [(row.destination, row.key, row.payload, row.attempts) for row in rows] == [
        ("a", "z", b"z", 0),
        ("a", "y", b"y", 0),
    ]
    assert outbox.depth(connection, "a") == 3
    assert outbox.depth(connection, "b") == 1
    assert outbox.due(connection, "a", NOW - 1, 10) == []


def test_event_that_was_sent_is_not_sent_again_after_a_replay(connection: sqlite3.Connection) -> None:
    outbox.enqueue(connection, "a", "k", b"1", NOW)
    outbox.enqueue(connection, "a", "k", b"2", NOW + 5)
    (row,) = outbox.due(connection, "a", NOW, 10)
    assert row.payload == b"1"
    outbox.mark_sent(connection, [row.id])
    outbox.enqueue(connection, "a", "k", b"1", NOW + 6 * 24 * 3600 * SECOND)
    assert outbox.depth(connection, "a") == 0


def test_postponed_event_comes_back_with_its_attempts_counted(connection: sqlite3.Connection) -> None:
    for key in ("k", "l"):
        outbox.enqueue(connection, "a", key, b"", NOW)
    (first, _) = outbox.due(connection, "a", NOW, 10)
    outbox.postpone(connection, [first.id], NOW + SECOND)
    assert due_keys(connection) == ["l"]
    again = outbox.due(connection, "a", NOW + SECOND, 10)
    assert [(row.key, row.attempts) for row in again] == [("k", 1), ("l", 0)]
    assert outbox.depth(connection, "a") == 2


def test_dropped_event_is_not_due_and_not_enqueued_again(connection: sqlite3.Connection) -> None:
    outbox.enqueue(connection, "a", "k", b"x", NOW)
    outbox.mark_dropped(connection, [row.id for row in outbox.due(connection, "a", NOW, 10)], "rejected")
    outbox.enqueue(connection, "a", "k", b"x", NOW)
    assert due_keys(connection) == []
    assert connection.execute("SELECT state, reason, payload FROM outbox").fetchall() == [("dropped", "rejected", b"")]


def test_keys_of_finished_events_are_forgotten_after_a_week_and_pending_ones_never(
    connection: sqlite3.Connection,
) -> None:
    for key in ("sent", "pending"):
        outbox.enqueue(connection, "a", key, b"", NOW)
    outbox.mark_sent(connection, [outbox.due(connection, "a", NOW, 1)[0].id])
    later = NOW + (outbox.KEPT_KEYS_S + 1) * SECOND
    outbox.enqueue(connection, "a", "new", b"", later)
    assert connection.execute("SELECT key FROM outbox ORDER BY id").fetchall() == [("pending",), ("new",)]
