"""Usage: what each tenant has sent, by hour and signal; the source of bills and limits."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from driftlock_otlp.model import Signal


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


_SIGNAL_OF_NAME = {signal.plural: signal for signal in Signal}


def add(
    connection: sqlite3.Connection,
    *,
    hour_unix_s: int,
    tenant: str,
    signal: Signal,
    items: int,
    bytes: int,
    requests: int,
) -> None:
    """Add to what a tenant has sent within an hour.

    Args:
        connection: The state database.
        hour_unix_s: When the hour began, in seconds since the epoch.
        tenant: The organisation.
        signal: The signal.
        items: Items to add.
        bytes: Bytes to add, uncompressed.
        requests: Requests to add.
    """
    connection.execute(
        "INSERT INTO usage (hour_unix_s, tenant, signal, items, bytes, requests) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (hour_unix_s, tenant, signal) DO UPDATE SET items = items + excluded.items,"
        " bytes = bytes + excluded.bytes, requests = requests + excluded.requests",
        (hour_unix_s, tenant, signal.plural, items, bytes, requests),
    )


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
