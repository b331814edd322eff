"""The tables of the state database, as numbered steps that only ever grow.

A step that has been released is never edited: to change a table, add a step.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec

from driftlock_otlp.storage import sync

APPLICATION_ID = 0x44524C4B
"""SQLite's `application_id` of our databases: "DRLK"."""

Statement = str | Callable[[sqlite3.Connection], None]
"""SQL, or what takes more than SQL."""


def searched_text(explanation: str, template: str) -> str:
    """Return what a search for text looks through, in one case."""
    return f"{explanation}\n{template}".casefold()


def _fill_anomalies(connection: sqlite3.Connection) -> None:
    """Move anomalies from the table of before, with the facts that were in their documents alone.

    What cannot be decoded could not be shown either, and stays behind.
    """
    rows = connection.execute(
        "SELECT id, kind, service, name, tenant, state, severity, detected_unix_nano, document"
        " FROM anomalies_before ORDER BY detected_unix_nano, id"
    )
    for *facts, document in rows.fetchall():
        try:
            known: dict[str, Any] = msgspec.msgpack.decode(document)
            score, p_value = float(known["score"]), float(known["p_value"])
            resolved, resolution = int(known.get("resolved_unix_nano", 0)), str(known.get("resolution", ""))
            template = str(known["template"])
            text = searched_text(str(known["explanation"]), template)
        except (msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError):
            continue
        detected = facts[-1]
        inserted = connection.execute(
            "INSERT INTO anomalies (id, kind, service, name, tenant, state, severity, detected_unix_nano, template,"
            " score, p_value, last_unix_nano, told_unix_nano, recorded_unix_nano, resolved_unix_nano, resolution)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*facts, template, score, p_value, *(detected,) * 3, min(resolved, (1 << 63) - 1), resolution),
        )
        number = inserted.lastrowid
        connection.execute("INSERT INTO anomaly_documents (number, document) VALUES (?, ?)", (number, document))
        connection.execute("INSERT INTO anomaly_texts (number, text) VALUES (?, ?)", (number, text))


FILTERED = "kind, state, status, severity, level, is_suppressed, score, p_value"
"""Columns of anomalies by which lists are filtered, and which the larger of their indexes hold."""

MIGRATIONS: tuple[tuple[Statement, ...], ...] = (
    (
        "CREATE TABLE cursors (name TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID",
        """CREATE TABLE anomalies (
            id TEXT PRIMARY KEY,
            kind TEXT NOT NULL,
            service TEXT NOT NULL,
            name TEXT NOT NULL,
            tenant TEXT NOT NULL,
            state TEXT NOT NULL,
            severity TEXT NOT NULL,
            detected_unix_nano INTEGER NOT NULL,
            document BLOB NOT NULL)""",
        "CREATE INDEX anomalies_by_time ON anomalies (detected_unix_nano DESC)",
        "CREATE INDEX anomalies_open ON anomalies (state) WHERE state = 'open'",
        """CREATE TABLE verdicts (
            position INTEGER NOT NULL,
            first_item INTEGER NOT NULL,
            item_count INTEGER NOT NULL,
            anomaly_id TEXT NOT NULL,
            PRIMARY KEY (position, first_item, item_count, anomaly_id)) WITHOUT ROWID""",
        """CREATE TABLE outbox (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            destination TEXT NOT NULL,
            key TEXT NOT NULL,
            payload BLOB NOT NULL,
            state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'dropped')),
            reason TEXT NOT NULL DEFAULT '',
            attempts INTEGER NOT NULL DEFAULT 0,
            due_unix_nano INTEGER NOT NULL,
            enqueued_unix_nano INTEGER NOT NULL,
            UNIQUE (destination, key))""",
        "CREATE INDEX outbox_pending ON outbox (destination, id) WHERE state = 'pending'",
        "CREATE INDEX outbox_finished ON outbox (enqueued_unix_nano) WHERE state <> 'pending'",
        """CREATE TABLE quarantine (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            position INTEGER NOT NULL,
            signal INTEGER NOT NULL,
            stream TEXT NOT NULL,
            payload BLOB NOT NULL,
            payload_bytes INTEGER NOT NULL,
            item_count INTEGER NOT NULL,
            state TEXT NOT NULL DEFAULT 'withheld' CHECK (state IN ('withheld', 'released')),
            withheld_unix_nano INTEGER NOT NULL,
            UNIQUE (position, signal))""",
        "CREATE INDEX quarantine_by_state ON quarantine (state, position)",
        """CREATE TABLE quarantine_anomalies (
            anomaly_id TEXT NOT NULL,
            row_id INTEGER NOT NULL REFERENCES quarantine (id) ON DELETE CASCADE,
            PRIMARY KEY (anomaly_id, row_id)) WITHOUT ROWID""",
        "CREATE INDEX quarantine_anomalies_by_row ON quarantine_anomalies (row_id)",
        """CREATE TABLE usage (
            hour_unix_s INTEGER NOT NULL,
            tenant TEXT NOT NULL,
            signal TEXT NOT NULL,
            items INTEGER NOT NULL,
            bytes INTEGER NOT NULL,
            requests INTEGER NOT NULL,
            PRIMARY KEY (hour_unix_s, tenant, signal)) WITHOUT ROWID""",
        """CREATE TABLE windows (
            kind TEXT NOT NULL,
            service TEXT NOT NULL,
            name TEXT NOT NULL,
            tenant TEXT NOT NULL,
            start_unix_nano INTEGER NOT NULL,
            end_unix_nano INTEGER NOT NULL,
            record_count INTEGER NOT NULL,
            outcome TEXT NOT NULL,
            score REAL NOT NULL,
            p_value REAL NOT NULL,
            bits REAL NOT NULL,
            ncd REAL NOT NULL,
            compression_ratio REAL NOT NULL,
            baseline_compression_ratio REAL NOT NULL,
            entropy_bits REAL NOT NULL,
            baseline_entropy_bits REAL NOT NULL,
            UNIQUE (kind, service, name, tenant, start_unix_nano, end_unix_nano))""",
    ),
    (
        # Sums and the oldest rows come from the index alone, for payloads lie before these columns in a row.
        """CREATE INDEX quarantine_by_age ON quarantine
            (withheld_unix_nano, id, payload_bytes, item_count, signal) WHERE state = 'withheld'""",
        # CRC-32 of the payload; NULL in rows of before.
        "ALTER TABLE quarantine ADD COLUMN payload_crc INTEGER",
    ),
    (
        # Entries of the log before this position are in the row's sums already.
        "ALTER TABLE usage ADD COLUMN counted_before INTEGER NOT NULL DEFAULT 0",
        # Each row: what requests before a position of the log are known by, behind those of the row before.
        """CREATE TABLE requests (
            before INTEGER PRIMARY KEY,
            newest_unix_nano INTEGER NOT NULL,
            keys BLOB NOT NULL)""",
    ),
    (
        "DROP INDEX anomalies_by_time",
        "DROP INDEX anomalies_open",
        "ALTER TABLE anomalies RENAME TO anomalies_before",
        # Short rows, so that a filter passes many of them quickly; what is told at length stands beside.
        """CREATE TABLE anomalies (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            kind TEXT NOT NULL,
            service TEXT NOT NULL,
            name TEXT NOT NULL,
            tenant TEXT NOT NULL,
            template TEXT NOT NULL,
            state TEXT NOT NULL,
            status TEXT NOT NULL DEFAULT 'new',
            severity TEXT NOT NULL,
            level TEXT NOT NULL DEFAULT 'notice',
            incident_id TEXT NOT NULL DEFAULT '',
            is_suppressed INTEGER NOT NULL DEFAULT 0,
            score REAL NOT NULL,
            p_value REAL NOT NULL,
            detected_unix_nano INTEGER NOT NULL,
            window_count INTEGER NOT NULL DEFAULT 1,
            notice_window INTEGER NOT NULL DEFAULT 1,
            page_window INTEGER NOT NULL DEFAULT 0,
            fleet_window INTEGER NOT NULL DEFAULT 0,
            last_unix_nano INTEGER NOT NULL,
            told_unix_nano INTEGER NOT NULL,
            recorded_unix_nano INTEGER NOT NULL,
            resolved_unix_nano INTEGER NOT NULL DEFAULT 0,
            resolution TEXT NOT NULL DEFAULT '')""",
        """CREATE TABLE anomaly_documents (
            number INTEGER PRIMARY KEY REFERENCES anomalies (number) ON DELETE CASCADE,
            document BLOB NOT NULL)""",
        # What is searched for text, apart from what is large.
        """CREATE TABLE anomaly_texts (
            number INTEGER PRIMARY KEY REFERENCES anomalies (number) ON DELETE CASCADE,
            text TEXT NOT NULL)""",
        _fill_anomalies,
        "DROP TABLE anomalies_before",
        # These hold all that is filtered by, so that many rows are passed without reading them.
        f"CREATE INDEX anomalies_by_time ON anomalies (detected_unix_nano, id, tenant, service, {FILTERED})",
        f"CREATE INDEX anomalies_by_tenant ON anomalies (tenant, detected_unix_nano, id, service, {FILTERED})",
        f"CREATE INDEX anomalies_by_service ON anomalies (service, detected_unix_nano, id, tenant, {FILTERED})",
        "CREATE INDEX anomalies_by_state ON anomalies (state, detected_unix_nano, id)",
        "CREATE INDEX anomalies_by_incident ON anomalies (incident_id, detected_unix_nano, id)",
        "CREATE INDEX anomalies_by_age ON anomalies (recorded_unix_nano)",
        """CREATE TABLE history (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            at_unix_nano INTEGER NOT NULL,
            tenant TEXT NOT NULL,
            actor TEXT NOT NULL,
            action TEXT NOT NULL,
            subject TEXT NOT NULL,
            detail TEXT NOT NULL,
            previous_hash TEXT NOT NULL,
            hash TEXT NOT NULL)""",
        "CREATE INDEX history_by_subject ON history (subject, seq)",
        "CREATE INDEX history_by_tenant ON history (tenant, seq)",
        # Rows up to `seq` may go; `hash` is that of the last of them, which the first that stays goes on from. No row
        # until some have gone.
        """CREATE TABLE history_floor (
            only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
            seq INTEGER NOT NULL,
            hash TEXT NOT NULL)""",
        """CREATE TRIGGER history_is_never_changed BEFORE UPDATE ON history
            BEGIN SELECT raise(ABORT, 'the history is append-only'); END""",
        """CREATE TRIGGER history_is_never_deleted BEFORE DELETE ON history
            WHEN old.seq > coalesce((SELECT seq FROM history_floor), 0)
            BEGIN SELECT raise(ABORT, 'the history is append-only'); END""",
        """CREATE TABLE incidents (
            id TEXT PRIMARY KEY,
            tenant TEXT NOT NULL,
            level TEXT NOT NULL,
            state TEXT NOT NULL,
            started_unix_nano INTEGER NOT NULL,
            last_unix_nano INTEGER NOT NULL,
            resolved_unix_nano INTEGER NOT NULL DEFAULT 0,
            origin_anomaly_id TEXT NOT NULL,
            title TEXT NOT NULL)""",
        "CREATE INDEX incidents_by_time ON incidents (started_unix_nano, id)",
        "CREATE INDEX incidents_open ON incidents (tenant, id) WHERE state <> 'resolved'",
        # What the joiner of each tenant remembers, so that a restart goes on where it was.
        "CREATE TABLE incident_joiners (tenant TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID",
        """CREATE TABLE suppressions (
            id TEXT PRIMARY KEY,
            tenant TEXT NOT NULL,
            purpose TEXT NOT NULL CHECK (purpose IN ('pattern', 'maintenance')),
            kind TEXT NOT NULL,
            service TEXT NOT NULL,
            name TEXT NOT NULL,
            template TEXT NOT NULL,
            from_unix_nano INTEGER NOT NULL,
            until_unix_nano INTEGER NOT NULL,
            note TEXT NOT NULL,
            created_by TEXT NOT NULL,
            created_unix_nano INTEGER NOT NULL,
            removed_unix_nano INTEGER NOT NULL DEFAULT 0)""",
        "CREATE INDEX suppressions_in_force ON suppressions (tenant, until_unix_nano) WHERE removed_unix_nano = 0",
        """CREATE TABLE evidence (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            anomaly_id TEXT NOT NULL UNIQUE,
            size_bytes INTEGER NOT NULL,
            bundle BLOB NOT NULL)""",
        # So that sums do not read the bundles.
        "CREATE INDEX evidence_sizes ON evidence (id, size_bytes)",
        *sync.TABLES,
    ),
)
"""Statements of each step; `PRAGMA user_version` counts the steps that a database has taken."""

SCHEMA_VERSION = len(MIGRATIONS)
"""The schema that this version reads and writes."""


def take(connection: sqlite3.Connection, step: tuple[Statement, ...]) -> None:
    """Take one step."""
    for statement in step:
        if isinstance(statement, str):
            connection.execute(statement)
        else:
            statement(connection)
