"""Facts of scored windows, for auditors: what was measured, window by window; the newest are kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from driftlock_otlp.model import StreamKey, WindowFacts

MOST_WINDOWS = 200_000
"""Windows kept; older ones are pruned."""

_MAX_INTEGER = (1 << 63) - 1


def add(connection: sqlite3.Connection, facts: Sequence[WindowFacts]) -> None:
    """Add windows; one that a replay after a crash scores again replaces itself."""
    connection.executemany(
        "INSERT OR REPLACE INTO windows (kind, service, name, tenant, start_unix_nano, end_unix_nano, record_count,"
        " outcome, score, p_value, bits, ncd, compression_ratio, baseline_compression_ratio, entropy_bits,"
        " baseline_entropy_bits) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                fact.stream.kind,
                fact.stream.service,
                fact.stream.name,
                fact.stream.tenant,
                min(fact.start_unix_nano, _MAX_INTEGER),
                min(fact.end_unix_nano, _MAX_INTEGER),
                fact.record_count,
                fact.outcome,
                fact.score,
                fact.p_value,
                fact.bits,
                fact.ncd,
                fact.compression_ratio,
                fact.baseline_compression_ratio,
                fact.entropy_bits,
                fact.baseline_entropy_bits,
            )
            for fact in facts
        ],
    )


def prune(connection: sqlite3.Connection, most: int = MOST_WINDOWS) -> int:
    """Delete all but the newest `most` windows; return how many went."""
    return connection.execute(
        "DELETE FROM windows WHERE rowid <= (SELECT max(rowid) FROM windows) - ?", (most,)
    ).rowcount


def streams(
    connection: sqlite3.Connection, *, tenant: str | None, after: tuple[str, str, str, str] | None, limit: int
) -> list[StreamKey]:
    """Return streams that have windows, by kind, service, name and tenant.

    Args:
        connection: The state database.
        tenant: Only this tenant's; None for all.
        after: Kind, service, name and tenant of the last one of the page before.
        limit: Most to return.
    """
    found: list[StreamKey] = []
    key = after or ("", "", "", "")
    # One step through the index for each stream, however many windows it has.
    while len(found) < limit:
        row = connection.execute(
            "SELECT kind, service, name, tenant FROM windows WHERE (kind, service, name, tenant) > (?, ?, ?, ?)"
            " ORDER BY kind, service, name, tenant LIMIT 1",
            key,
        ).fetchone()
        if row is None:
            break
        key = tuple(row)
        if tenant is None or row[3] == tenant:
            found.append(StreamKey(*row))
    return found


def find(
    connection: sqlite3.Connection, stream: StreamKey, limit: int = 100, before_unix_nano: int = _MAX_INTEGER
) -> list[WindowFacts]:
    """Return windows of a stream, newest first.

    Args:
        connection: The state database.
        stream: Which.
        limit: Most to return.
        before_unix_nano: Event time; only windows that began before.
    """
    rows = connection.execute(
        "SELECT start_unix_nano, end_unix_nano, record_count, outcome, score, p_value, bits, ncd, compression_ratio,"
        " baseline_compression_ratio, entropy_bits, baseline_entropy_bits FROM windows"
        " WHERE kind = ? AND service = ? AND name = ? AND tenant = ? AND start_unix_nano < ?"
        " ORDER BY start_unix_nano DESC LIMIT ?",
        (stream.kind, stream.service, stream.name, stream.tenant, before_unix_nano, limit),
    )
    return [WindowFacts(stream, *row) for row in rows]


def reaches_back_to(connection: sqlite3.Connection, stream: StreamKey, baseline_windows: int) -> int:
    """Return when the oldest of the last windows that were learned began, as event time; 0 if none is stored.

    Args:
        connection: The state database.
        stream: Which.
        baseline_windows: How many windows the baseline holds.
    """
    row = connection.execute(
        "SELECT min(start_unix_nano) FROM (SELECT start_unix_nano FROM windows WHERE kind = ? AND service = ?"
        " AND name = ? AND tenant = ? AND outcome <> 'anomalous' ORDER BY start_unix_nano DESC LIMIT ?)",
        (stream.kind, stream.service, stream.name, stream.tenant, baseline_windows),
    ).fetchone()
    return int(row[0] or 0)
