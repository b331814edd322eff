"""What waits in the outbox, as rows for each table."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from driftlock_otlp.model import Anomaly
from driftlock_otlp.storage import anomalies, history, outbox, sync
from driftlock_otlp.storage.history import HistoryEntry
from driftlock_otlp.storage.sync import UsageEvent
from driftlock_otlp.supabase.rows import (
    FROM_DASHBOARD,
    Row,
    anomaly_row,
    audit_row,
    evidence_rows,
    feedback_row,
    status_row,
    usage_row,
)

_decode_usage = msgspec.json.Decoder(UsageEvent).decode


@dataclass(frozen=True, slots=True)
class Table:
    """How a table is written.

    Attributes:
        name: The table.
        key: Columns that say which row it is.
        is_merged: Whether a known row takes new values; else a repeat changes nothing.
    """

    name: str
    key: str
    is_merged: bool = False


TABLES = (
    Table("anomalies", "id", is_merged=True),
    Table("evidence", "anomaly_id,rank"),
    Table("anomaly_status_history", "id"),
    Table("anomaly_feedback", "id"),
    Table("audit_log", "id"),
    Table("usage_events", "id,hour"),
)
"""In the order in which they are written: what others refer to comes first."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A row of the outbox and what it speaks of.

    Attributes:
        id: The row.
        key: What it is.
        thing: What is to be told; None if it is gone.
    """

    id: int
    key: str
    thing: Anomaly | HistoryEntry | UsageEvent | None

    @property
    def tenant(self) -> str:
        """Whose it is."""
        if isinstance(self.thing, Anomaly):
            return self.thing.stream.tenant
        return "" if self.thing is None else self.thing.tenant


@dataclass(slots=True)
class Batch:
    """Rows by table, each with the row of the outbox that it comes from."""

    rows: dict[str, list[tuple[int, Row]]] = field(default_factory=lambda: {table.name: [] for table in TABLES})


def load(connection: sqlite3.Connection, limit: int) -> list[Noted]:
    """Return what waits, in the order in which it arose, as it stands now.

    Args:
        connection: The state database.
        limit: Most to return.
    """
    return [
        Noted(row.id, row.key, _thing(connection, row)) for row in outbox.pending(connection, sync.DESTINATION, limit)
    ]


def _thing(connection: sqlite3.Connection, row: outbox.OutboxRow) -> Anomaly | HistoryEntry | UsageEvent | None:
    kind, _, name = row.key.partition(":")
    if kind == sync.ANOMALY:
        return anomalies.get(connection, name)
    if kind == sync.USAGE:
        return _decode_usage(row.payload)
    found = history.entries(connection, tenant=None, before=int(name) + 1, limit=1)
    return found[0] if found and found[0].seq == int(name) else None


def compose(noted: list[Noted], organizations: Mapping[str, str], source: uuid.UUID) -> Batch:
    """Return the rows that tell of what was noted; of what is gone, or was told by Supabase itself, there are none.

    Args:
        noted: In the order in which it arose.
        organizations: Id of each tenant's organisation.
        source: Id of this installation.
    """
    batch = Batch()
    for one in noted:
        if one.thing is None:
            continue
        organization = organizations[one.tenant]
        if isinstance(one.thing, Anomaly):
            batch.rows["anomalies"].append((one.id, anomaly_row(one.thing, organization)))
            batch.rows["evidence"] += [(one.id, row) for row in evidence_rows(one.thing, organization)]
        elif isinstance(one.thing, UsageEvent):
            batch.rows["usage_events"].append((one.id, usage_row(one.thing, organization, source)))
        elif not one.thing.actor.startswith(FROM_DASHBOARD):
            status = status_row(one.thing, organization, source)
            if status is not None:
                batch.rows["anomaly_status_history"].append((one.id, status))
            verdict = feedback_row(one.thing, organization, source)
            if verdict is not None:
                batch.rows["anomaly_feedback"].append((one.id, verdict))
            batch.rows["audit_log"].append((one.id, audit_row(one.thing, organization, source)))
    return batch
