"""The tables of the state database, as numbered steps that only ever grow.

A step that has been released is never edited: to change a table, add a step.
"""

from __future__ import annotations

APPLICATION_ID = 0x44524C4B
"""SQLite's `application_id` of our databases: "DRLK"."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
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
)
"""Statements of each step; `PRAGMA user_version` counts the steps that a database has taken."""

SCHEMA_VERSION = len(MIGRATIONS)
"""The schema that this version reads and writes."""
