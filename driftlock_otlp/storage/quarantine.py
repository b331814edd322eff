"""The quarantine: anomalous parts of requests, withheld until somebody releases or drops them.

One row holds the anomalous part of one request: that of one log position and signal. If it belongs
to several anomalies, it is released, or dropped, only as a whole: by the first of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

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
class Level:
    """How much is withheld.

    Attributes:
        item_count: Items.
        payload_bytes: Bytes of their payloads.
        oldest_unix_nano: When the oldest was withheld; None if nothing is.
    """

    item_count: int
    payload_bytes: int
    oldest_unix_nano: int | None


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row that was deleted before anybody decided about it.

    Attributes:
        signal: Its signal.
        item_count: Items in it.
        reason: `max_age`, `max_bytes` or `damaged`.
    """

    signal: Signal
    item_count: int
    reason: str


@dataclass(frozen=True, slots=True)
class HeldRow:
    """The anomalous part of one request.

    Attributes:
        state: `withheld`, or `released` and not sent yet.
        signal: Its signal.
        item_count: Items in it.
        payload: An OTLP request.
    """

    state: str
    signal: Signal
    item_count: int
    payload: bytes


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
        "INSERT INTO quarantine (position, signal, stream, payload, payload_bytes, item_count, withheld_unix_nano,"
        " payload_crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (position, signal) DO NOTHING",
        (position, signal.code, stream, payload, len(payload), item_count, now_unix_nano, crc32(payload)),
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
    """Return at most `limit` released rows that are to be sent, in the order they were received.

    Rows that the disk has damaged are passed over; `drop_damaged` deletes them.
    """
    rows = connection.execute(
        "SELECT id, signal, payload, item_count, payload_crc FROM quarantine"
        " WHERE state = 'released' ORDER BY position LIMIT ?",
        (limit,),
    )
    return [
        ReleasedRow(row_id, Signal.of_code(code), payload, count)
        for row_id, code, payload, count, crc in rows
        if crc is None or crc == crc32(payload)
    ]


def drop_damaged(connection: sqlite3.Connection, limit: int) -> list[DroppedRow]:
    """Delete those of the first `limit` released rows whose payload the disk has damaged."""
    rows = connection.execute(
        "SELECT id, signal, item_count, payload, payload_crc FROM quarantine"
        " WHERE state = 'released' ORDER BY position LIMIT ?",
        (limit,),
    ).fetchall()
    damaged = [row for row in rows if row[4] is not None and row[4] != crc32(row[3])]
    delete(connection, [row[0] for row in damaged])
    return [DroppedRow(Signal.of_code(row[1]), row[2], "damaged") for row in damaged]


def expire(
    connection: sqlite3.Connection, *, before_unix_nano: int | None, max_bytes: int, most_rows: int
) -> list[DroppedRow]:
    """Delete the oldest withheld rows that are beyond the limits.

    Args:
        connection: The state database.
        before_unix_nano: Rows withheld before then are too old; None if none is.
        max_bytes: Bytes of payload that may stay.
        most_rows: Rows deleted at once; call again while it returns as many.
    """
    excess_bytes = level(connection).payload_bytes - max_bytes
    dropped: list[DroppedRow] = []
    ids: list[int] = []
    for row_id, code, item_count, payload_bytes, withheld in connection.execute(
        "SELECT id, signal, item_count, payload_bytes, withheld_unix_nano FROM quarantine"
        " WHERE state = 'withheld' ORDER BY withheld_unix_nano, id LIMIT ?",
        (most_rows,),
    ):
        is_old = before_unix_nano is not None and withheld < before_unix_nano
        if not is_old and excess_bytes <= 0:
            break
        excess_bytes -= payload_bytes
        ids.append(row_id)
        dropped.append(DroppedRow(Signal.of_code(code), item_count, "max_age" if is_old else "max_bytes"))
    delete(connection, ids)
    return dropped


def item_counts(connection: sqlite3.Connection, anomaly_id: str) -> dict[str, int]:
    """Return how many items are held of an anomaly, by state."""
    rows = connection.execute(
        "SELECT state, sum(item_count) FROM quarantine JOIN quarantine_anomalies ON row_id = id WHERE anomaly_id = ?"
        " GROUP BY state",
        (anomaly_id,),
    )
    return {state: int(count) for state, count in rows}


def held(connection: sqlite3.Connection, anomaly_id: str, most_rows: int, max_bytes: int) -> list[HeldRow]:
    """Return some of what is held of an anomaly, in the order it was received; damaged rows are passed over.

    Args:
        connection: The state database.
        anomaly_id: Its whole id.
        most_rows: Rows to return at most.
        max_bytes: Rows with more bytes of payload are passed over.
    """
    rows = connection.execute(
        "SELECT state, signal, item_count, payload, payload_crc FROM quarantine JOIN quarantine_anomalies"
        " ON row_id = id WHERE anomaly_id = ? AND payload_bytes <= ? ORDER BY position, signal LIMIT ?",
        (anomaly_id, max_bytes, most_rows),
    )
    return [
        HeldRow(state, Signal.of_code(code), count, payload)
        for state, code, count, payload, crc in rows
        if crc is None or crc == crc32(payload)
    ]


def level(connection: sqlite3.Connection) -> Level:
    """Return how much is withheld."""
    return Level(
        *connection.execute(
            "SELECT coalesce(sum(item_count), 0), coalesce(sum(payload_bytes), 0), min(withheld_unix_nano)"
            " FROM quarantine WHERE state = 'withheld'"
        ).fetchone()
    )


def delete(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Delete rows: released ones that have been sent, or others for good."""
    connection.executemany("DELETE FROM quarantine WHERE id = ?", [(row_id,) for row_id in ids])


def withheld_items(connection: sqlite3.Connection) -> int:
    """Return how many items are withheld."""
    return level(connection).item_count


def withheld_bytes(connection: sqlite3.Connection) -> int:
    """Return how many bytes of payload are withheld."""
    return level(connection).payload_bytes


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
