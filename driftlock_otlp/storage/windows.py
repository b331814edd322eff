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


def find(connection: sqlite3.Connection, stream: StreamKey, limit: int = 100) -> list[WindowFacts]:
    """Return the newest windows of a stream, newest first."""
    rows = connection.execute(
        "SELECT start_unix_nano, end_unix_nano, record_count, outcome, score, p_value, bits, ncd, compression_ratio,"
        " baseline_compression_ratio, entropy_bits, baseline_entropy_bits FROM windows"
        " WHERE kind = ? AND service = ? AND name = ? AND tenant = ? ORDER BY start_unix_nano DESC LIMIT ?",
        (stream.kind, stream.service, stream.name, stream.tenant, limit),
    )
    return [WindowFacts(stream, *row) for row in rows]
