"""The quarantine."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import pytest

from driftlock_otlp.model import Signal
from driftlock_otlp.storage import quarantine

A, B, AA = "aa11", "bb22", "aa33"


def withhold(
    connection: sqlite3.Connection,
    position: int,
    anomaly_ids: Sequence[str],
    signal: Signal = Signal.LOGS,
    items: int = 3,
) -> None:
    quarantine.add(
        connection,
        position=position,
        signal=signal,
        anomaly_ids=anomaly_ids,
        stream="logs/checkout",
        payload=bytes(position),
        item_count=items,
        now_unix_nano=1000 + position,
    )


def test_repeat_for_the_same_position_and_signal_is_harmless(connection: sqlite3.Connection) -> None:
    for _ in range(2):
        withhold(connection, 10, [A])
        withhold(connection, 10, [A], Signal.TRACES)
    assert quarantine.withheld_items(connection) == 6
    assert quarantine.withheld_bytes(connection) == 20


def test_groups_sum_up_each_anomaly(connection: sqlite3.Connection) -> None:
    withhold(connection, 10, [A])
    withhold(connection, 20, [A, B], Signal.TRACES, 4)
    assert quarantine.list_groups(connection) == [
        quarantine.QuarantineGroup(A, "withheld", (Signal.LOGS, Signal.TRACES), "logs/checkout", 7, 2, 30, 1010, 1020),
        quarantine.QuarantineGroup(B, "withheld", (Signal.TRACES,), "logs/checkout", 4, 1, 20, 1020, 1020),
    ]


def test_released_rows_are_handed_out_in_order_until_they_are_deleted(connection: sqlite3.Connection) -> None:
    for position in (30, 10, 20):
        withhold(connection, position, [A])
    withhold(connection, 40, [B])
    assert quarantine.released(connection, 10) == []
    assert quarantine.release(connection, "AA1") == 9
    assert quarantine.release(connection, A) == 0
    rows = quarantine.released(connection, 2)
    assert [(row.signal, row.payload, row.item_count) for row in rows] == [
        (Signal.LOGS, bytes(10), 3),
        (Signal.LOGS, bytes(20), 3),
    ]
    quarantine.delete(connection, [row.id for row in rows])
    assert [row.payload for row in quarantine.released(connection, 10)] == [bytes(30)]
    assert quarantine.withheld_items(connection) == 3
    assert {(group.anomaly_id, group.state) for group in quarantine.list_groups(connection)} == {
        (A, "released"),
        (B, "withheld"),
    }


def test_row_of_several_anomalies_goes_as_a_whole(connection: sqlite3.Connection) -> None:
    withhold(connection, 10, [A, B])
    assert quarantine.release(connection, B) == 3
    assert quarantine.withheld_items(connection) == 0
    assert quarantine.drop(connection, A) == 0


def test_dropped_rows_are_gone_and_released_ones_stay(connection: sqlite3.Connection) -> None:
    withhold(connection, 10, [A])
    quarantine.release(connection, A)
    withhold(connection, 20, [A])
    withhold(connection, 30, [B])
    assert quarantine.drop(connection, A) == 3
    assert [row.payload for row in quarantine.released(connection, 10)] == [bytes(10)]
    assert quarantine.withheld_items(connection) == 3
    assert connection.execute("SELECT count(*) FROM quarantine_anomalies").fetchone() == (2,)


def test_everything_can_be_released_or_dropped_at_once(connection: sqlite3.Connection) -> None:
    withhold(connection, 10, [A])
    withhold(connection, 20, [B, A])
    assert quarantine.release(connection, None) == 6
    withhold(connection, 30, [B])
    assert quarantine.drop(connection, None) == 3
    assert len(quarantine.released(connection, 10)) == 2


def test_ambiguous_or_empty_prefix_is_refused_and_an_unknown_one_does_nothing(connection: sqlite3.Connection) -> None:
    withhold(connection, 10, [A])
    withhold(connection, 20, [AA])
    with pytest.raises(ValueError, match="give more digits"):
        quarantine.drop(connection, "aa")
    with pytest.raises(ValueError, match="at least one digit"):
        quarantine.release(connection, "")
    assert quarantine.release(connection, "cc") == 0
    assert quarantine.withheld_items(connection) == 6
