"""Usage: what each tenant has sent, by hour and signal; the source of bills and limits."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from driftlock_otlp.model import LogEntry, Signal

_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """What one tenant has sent of one signal.

    Attributes:
        tenant: The organisation; empty without authentication.
        signal: The signal.
        item_count: Log records, data points or spans.
        payload_bytes: Bytes of the requests, uncompressed.
        request_count: Requests.
    """

    tenant: str
    signal: Signal
    item_count: int
    payload_bytes: int
    request_count: int


@dataclass(frozen=True, slots=True)
class UsagePeriod:
    """What one tenant has sent of one signal in one period.

    Attributes:
        start_unix_s: When the period began.
        total: What was sent in it.
    """

    start_unix_s: int
    total: UsageTotal


_SIGNAL_OF_NAME = {signal.plural: signal for signal in Signal}


def count(connection: sqlite3.Connection, entries: Sequence[LogEntry]) -> None:
    """Add what was sent with these entries of the log; what was counted before changes nothing.

    Each row says itself up to where in the log it has counted, so that entries that come again,
    even because a cursor was lost, are not billed again. Damaged ones are not billed.

    Args:
        connection: The state database.
        entries: In the order of the log.
    """
    for (hour_unix_s, tenant, signal), sent in _by_row(entries).items():
        row = (hour_unix_s, tenant, signal.plural)
        known = connection.execute(
            "SELECT counted_before FROM usage WHERE hour_unix_s = ? AND tenant = ? AND signal = ?", row
        ).fetchone()
        new = [stored for stored in sent if known is None or stored.position >= known[0]]
        if not new:
            continue
        connection.execute(
            "INSERT INTO usage (hour_unix_s, tenant, signal, items, bytes, requests, counted_before)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (hour_unix_s, tenant, signal) DO UPDATE SET"
            " items = items + excluded.items, bytes = bytes + excluded.bytes,"
            " requests = requests + excluded.requests, counted_before = excluded.counted_before",
            (
                *row,
                sum(stored.entry.item_count for stored in new),
                sum(len(stored.entry.payload) for stored in new),
                len(new),
                new[-1].next_position,
            ),
        )


def _by_row(entries: Sequence[LogEntry]) -> dict[tuple[int, str, Signal], list[LogEntry]]:
    """Return entries by (hour, tenant, signal)."""
    found: dict[tuple[int, str, Signal], list[LogEntry]] = {}
    for stored in entries:
        new = stored.entry
        if new.signal is not None and not stored.is_damaged:
            hour_unix_s = new.received_unix_nano // 1_000_000_000 // _HOUR_S * _HOUR_S
            found.setdefault((hour_unix_s, new.tenant, new.signal), []).append(stored)
    return found


def totals(connection: sqlite3.Connection, since_unix_s: int | None = None) -> list[UsageTotal]:
    """Return what was sent, per tenant and signal.

    Args:
        connection: The state database.
        since_unix_s: Only hours that began then or later; None for all.
    """
    rows = connection.execute(
        "SELECT tenant, signal, sum(items), sum(bytes), sum(requests) FROM usage"
        " WHERE hour_unix_s >= ? GROUP BY tenant, signal ORDER BY tenant, signal",
        (since_unix_s or 0,),
    )
    return [UsageTotal(tenant, _SIGNAL_OF_NAME[signal], *sums) for tenant, signal, *sums in rows]


def periods(
    connection: sqlite3.Connection,
    *,
    tenant: str | None,
    since_unix_s: int,
    until_unix_s: int,
    period_s: int,
    after: tuple[int, str, str],
    limit: int,
) -> list[UsagePeriod]:
    """Return what was sent by period, tenant and signal.

    Args:
        connection: The state database.
        tenant: Only this tenant's; None for all.
        since_unix_s: Only hours that began then or later.
        until_unix_s: Only hours that began before.
        period_s: Whole hours.
        after: Start, tenant and signal's name of the last one of the page before; what is before everything
            for the first page.
        limit: Most to return.
    """
    rows = connection.execute(
        "SELECT hour_unix_s / ?1 * ?1 AS start, tenant, signal, sum(items), sum(bytes), sum(requests) FROM usage"
        " WHERE hour_unix_s >= ?2 AND hour_unix_s < ?3 AND hour_unix_s >= ?4 AND (?5 IS NULL OR tenant = ?5)"
        " GROUP BY start, tenant, signal HAVING (start, tenant, signal) > (?4, ?6, ?7)"
        " ORDER BY start, tenant, signal LIMIT ?8",
        (period_s, since_unix_s, until_unix_s, after[0], tenant, after[1], after[2], limit),
    )
    return [
        UsagePeriod(start, UsageTotal(owner, _SIGNAL_OF_NAME[signal], *sums)) for start, owner, signal, *sums in rows
    ]
