"""Evidence bundles of anomalies, as the detection workers made them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from driftlock_otlp.model import EvidenceBundle
from driftlock_otlp.storage import history


def keep(connection: sqlite3.Connection, bundles: Iterable[EvidenceBundle], now_unix_nano: int) -> None:
    """Keep the bundles of anomalies, and their roots in the history; the first one of an anomaly stays."""
    for bundle in bundles:
        cursor = connection.execute(
            "INSERT INTO evidence (anomaly_id, size_bytes, bundle) VALUES (?, ?, ?)"
            " ON CONFLICT (anomaly_id) DO NOTHING",
            (bundle.anomaly_id, len(bundle.data), bundle.data),
        )
        if cursor.rowcount:
            history.record(
                connection,
                at_unix_nano=now_unix_nano,
                tenant=bundle.tenant,
                actor=history.SERVICE,
                action="evidence_kept",
                subject=bundle.anomaly_id,
                detail={"root": bundle.root, "size_bytes": len(bundle.data)},
            )


def get(connection: sqlite3.Connection, anomaly_id: str) -> bytes | None:
    """Return the bundle of an anomaly, by its whole id; None if there is none."""
    row = connection.execute("SELECT bundle FROM evidence WHERE anomaly_id = ?", (anomaly_id,)).fetchone()
    return None if row is None else bytes(row[0])


def expire(connection: sqlite3.Connection, max_bytes: int) -> int:
    """Delete the oldest bundles until the others take at most `max_bytes`; return how many went."""
    return connection.execute(
        "DELETE FROM evidence WHERE id <= (SELECT max(id) FROM"
        " (SELECT id, sum(size_bytes) OVER (ORDER BY id DESC) AS total FROM evidence) WHERE total > ?)",
        (max_bytes,),
    ).rowcount
