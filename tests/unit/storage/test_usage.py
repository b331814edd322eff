"""Usage per tenant, signal and hour."""

from __future__ import annotations

import sqlite3

from driftlock_otlp.model import LogEntry, NewEntry, Signal
from driftlock_otlp.storage import usage
from driftlock_otlp.storage.usage import UsageTotal

HOUR_NANO = 3600 * 1_000_000_000
ENTRY_BYTES = 100


def sent(number: int, hour: int, tenant: str, signal: Signal | None, *, is_damaged: bool = False) -> LogEntry:
    """Return the entry of this number in a log whose entries are all of one size."""
    new = NewEntry(signal, b"x" * 50, 10, hour * HOUR_NANO + number, tenant)
    return LogEntry(number * ENTRY_BYTES, (number + 1) * ENTRY_BYTES, number * 10, new, is_damaged)


LOG = [
    sent(0, 0, "acme", Signal.LOGS),
    sent(1, 0, "acme", Signal.LOGS),
    sent(2, 1, "acme", Signal.LOGS),
    sent(3, 1, "acme", Signal.TRACES),
    sent(4, 1, "", None),
    sent(5, 1, "", Signal.LOGS),
    sent(6, 1, "", Signal.LOGS, is_damaged=True),
]


def test_usage_adds_up_per_tenant_and_signal_and_damage_is_not_billed(connection: sqlite3.Connection) -> None:
    usage.count(connection, LOG[:2])
    usage.count(connection, LOG[2:])
    assert usage.totals(connection) == [
        UsageTotal("", Signal.LOGS, 10, 50, 1),
        UsageTotal("acme", Signal.LOGS, 30, 150, 3),
        UsageTotal("acme", Signal.TRACES, 10, 50, 1),
    ]
    assert usage.totals(connection, since_unix_s=3600)[1] == UsageTotal("acme", Signal.LOGS, 10, 50, 1)


def test_entries_that_come_again_are_not_billed_again(connection: sqlite3.Connection) -> None:
    usage.count(connection, LOG[:4])
    before = usage.totals(connection)
    usage.count(connection, LOG[:2])
    usage.count(connection, LOG[1:4])
    assert usage.totals(connection) == before
    usage.count(connection, LOG[1:])
    assert [total.request_count for total in usage.totals(connection)] == [1, 3, 1]
