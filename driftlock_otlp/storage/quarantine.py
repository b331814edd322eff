"""The quarantine: anomalous parts of requests, withheld until somebody releases or drops them.

One row holds the anomalous part of one request: that of one log position and signal. If it belongs
to several anomalies, it is released, or dropped, only as a whole: by the first of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from driftlock_otlp.model import Signal


@dataclass(frozen=True, slots=True)
class QuarantineGroup:
    """What the quarantine holds of one anomaly in one state.

    A row of several anomalies counts in each of their groups.

    Attributes:
        anomaly_id: The anomaly.
        state: `withheld`, or `released` and not sent yet.
        signals: Signals of the rows.
        stream: Stream of one of the rows, as shown to people.
        item_count: Items.
        request_count: Rows.
        payload_bytes: Bytes of their payloads.
        first_unix_nano: When the first was withheld.
        last_unix_nano: When the last was.
    """

    anomaly_id: str
    state: str
    signals: tuple[Signal, ...]
    stream: str
    item_count: int
    request_count: int
    payload_bytes: int
    first_unix_nano: int
    last_unix_nano: int


@dataclass(frozen=True, slots=True)
class ReleasedRow:
    """A released part of a request, to be sent downstream.

    Attributes:
        id: Its row, for `delete`.
        signal: Its signal.
        payload: An OTLP request.
        item_count: Items in it.
    """

    id: int
    signal: Signal
    payload: bytes
    item_count: int


def add(
    connection: sqlite3.Connection,
    *,
    position: int,
    signal: Signal,
    anomaly_ids: Sequence[str],
    stream: str,
    payload: bytes,
    item_count: int,
    now_unix_nano: int,
) -> None:
    """Withhold the anomalous part of a request; a repeat for the same position and signal is harmless.

    Args:
        connection: The state database; move the forward cursor in the same transaction.
        position: The request's position in the log.
        signal: Its signal.
        anomaly_ids: The anomalies that its items belong to, at least one.
        stream: Where the items come from, as shown to people.
        payload: Its anomalous part as an OTLP request.
        item_count: Items in it.
        now_unix_nano: Wall clock.
    """
    inserted = connection.execute(
        "INSERT INTO quarantine (position, signal, stream, payload, payload_bytes, item_count, withheld_unix_nano)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (position, signal) DO NOTHING",
        (position, signal.code, stream, payload, len(payload), item_count, now_unix_nano),
    )
    if inserted.rowcount == 1:
        connection.executemany(
            "INSERT INTO quarantine_anomalies (anomaly_id, row_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(anomaly_id, inserted.lastrowid) for anomaly_id in anomaly_ids],
        )


def list_groups(connection: sqlite3.Connection) -> list[QuarantineGroup]:
    """Return what is held, per anomaly and state, newest first."""
    rows = connection.execute(
        "SELECT anomaly_id, state, group_concat(DISTINCT signal), min(stream), sum(item_count), count(*),"
        " sum(payload_bytes), min(withheld_unix_nano), max(withheld_unix_nano)"
        " FROM quarantine JOIN quarantine_anomalies ON row_id = id"
        " GROUP BY anomaly_id, state ORDER BY max(withheld_unix_nano) DESC, anomaly_id, state"
    )
    return [
        QuarantineGroup(anomaly_id, state, tuple(Signal.of_code(int(code)) for code in sorted(codes.split(","))), *rest)
        for anomaly_id, state, codes, *rest in rows
    ]


def release(connection: sqlite3.Connection, anomaly_id_prefix: str | None) -> int:
    """Let withheld rows go downstream: those of one anomaly, or all.

    A row that belongs to other anomalies, too, goes as a whole.

    Args:
        connection: The state database.
        anomaly_id_prefix: The anomaly's id or its first digits; None for everything.

    Returns:
        Items released.

    Raises:
        ValueError: Several anomalies begin so.
    """
    return _each_withheld(connection, anomaly_id_prefix, "UPDATE quarantine SET state = 'released' WHERE id = ?")


def drop(connection: sqlite3.Connection, anomaly_id_prefix: str | None) -> int:
    """Delete withheld rows for good: those of one anomaly, or all.

    A row that belongs to other anomalies, too, goes as a whole. What is released stays.

    Args:
        connection: The state database.
        anomaly_id_prefix: The anomaly's id or its first digits; None for everything.

    Returns:
        Items dropped.

    Raises:
        ValueError: Several anomalies begin so.
    """
    return _each_withheld(connection, anomaly_id_prefix, "DELETE FROM quarantine WHERE id = ?")


def released(connection: sqlite3.Connection, limit: int) -> list[ReleasedRow]:
    """Return at most `limit` released rows that are to be sent, in the order they were received."""
    rows = connection.execute(
        "SELECT id, signal, payload, item_count FROM quarantine WHERE state = 'released' ORDER BY position LIMIT ?",
        (limit,),
    )
    return [ReleasedRow(row_id, Signal.of_code(code), payload, count) for row_id, code, payload, count in rows]


def delete(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Delete released rows that have been sent."""
    connection.executemany("DELETE FROM quarantine WHERE id = ?", [(row_id,) for row_id in ids])


def withheld_items(connection: sqlite3.Connection) -> int:
    """Return how many items are withheld."""
    return _withheld_sum(connection, "item_count")


def withheld_bytes(connection: sqlite3.Connection) -> int:
    """Return how many bytes of payload are withheld."""
    return _withheld_sum(connection, "payload_bytes")


def _withheld_sum(connection: sqlite3.Connection, column: str) -> int:
    statement = f"SELECT coalesce(sum({column}), 0) FROM quarantine WHERE state = 'withheld'"  # noqa: S608 - our own names
    return int(connection.execute(statement).fetchone()[0])


def _each_withheld(connection: sqlite3.Connection, anomaly_id_prefix: str | None, statement: str) -> int:
    """Run a statement for the id of each withheld row of an anomaly; return the items in them."""
    select = "SELECT id, item_count FROM quarantine"
    if anomaly_id_prefix is None:
        rows = connection.execute(f"{select} WHERE state = 'withheld'").fetchall()
    else:
        rows = connection.execute(
            f"{select} JOIN quarantine_anomalies ON row_id = id WHERE state = 'withheld' AND anomaly_id = ?",
            (_one_anomaly(connection, anomaly_id_prefix),),
        ).fetchall()
    connection.executemany(statement, [(row_id,) for row_id, _ in rows])
    return sum(item_count for _, item_count in rows)


def _one_anomaly(connection: sqlite3.Connection, prefix: str) -> str:
    """Return the id of the only anomaly with withheld rows that begins so; empty if there is none."""
    lowered = prefix.lower()
    if not lowered:
        raise ValueError("give at least one digit of the anomaly's id")
    found = [
        str(anomaly_id)
        for (anomaly_id,) in connection.execute(
            "SELECT DISTINCT anomaly_id FROM quarantine_anomalies JOIN quarantine ON row_id = id"
            " WHERE state = 'withheld' AND anomaly_id >= ? AND anomaly_id < ? ORDER BY anomaly_id LIMIT 2",
            (lowered, lowered + "\U0010ffff"),
        )
    ]
    if len(found) > 1 and found[0] != lowered:
        raise ValueError(f"several withheld anomalies begin with {prefix!r}: give more digits")
    return found[0] if found else ""
