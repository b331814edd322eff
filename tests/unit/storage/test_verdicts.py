"""The verdicts."""

from __future__ import annotations

import sqlite3

from driftlock_otlp.model import ItemRange
from driftlock_otlp.storage import verdicts


def test_ranges_are_found_by_position_in_order(connection: sqlite3.Connection) -> None:
    verdicts.add(connection, 20, [ItemRange(5, 2, "b"), ItemRange(0, 3, "a")])
    verdicts.add(connection, 10, [ItemRange(1, 1, "a")])
    verdicts.add(connection, 30, [])
    assert verdicts.between(connection, 0, 100) == {
        10: [ItemRange(1, 1, "a")],
        20: [ItemRange(0, 3, "a"), ItemRange(5, 2, "b")],
    }
    assert list(verdicts.between(connection, 10, 20)) == [10]
    assert list(verdicts.between(connection, 11, 21)) == [20]


def test_repeat_is_harmless_and_workers_add_up(connection: sqlite3.Connection) -> None:
    for _ in range(2):
        verdicts.add(connection, 10, [ItemRange(0, 3, "a")])
        verdicts.add(connection, 10, [ItemRange(0, 3, "b"), ItemRange(7, 1, "a")])
    assert verdicts.between(connection, 0, 100) == {
        10: [ItemRange(0, 3, "a"), ItemRange(0, 3, "b"), ItemRange(7, 1, "a")]
    }


def test_what_lies_before_a_position_is_forgotten(connection: sqlite3.Connection) -> None:
    for position in (10, 20, 30):
        verdicts.add(connection, position, [ItemRange(0, 1, "a")])
    verdicts.forget_before(connection, 20)
    assert list(verdicts.between(connection, 0, 100)) == [20, 30]
