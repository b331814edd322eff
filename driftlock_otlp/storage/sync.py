"""What is to be sent to Supabase: noted in the outbox where it arises, in the same transaction.

Triggers note an anomaly whenever its row changes, and each entry of the history. Such a row of the outbox has no
payload: what is sent is the anomaly as it stands then, so that a day without Supabase leaves one row an anomaly.
Usage is noted as events that hold what was counted since the event before.

It is noted whether or not Supabase is configured, so that all of it can be uploaded later.
"""

from __future__ import annotations

import sqlite3
import uuid
from dataclasses import dataclass

import msgspec

from driftlock_otlp.storage import outbox

DESTINATION = "supabase"
"""The outbox's name for it; exporters' names begin with their type."""

ANOMALY = "anomaly"
HISTORY = "history"
USAGE = "usage"

_NOTE = (
    "DELETE FROM outbox WHERE destination = 'supabase' AND key = {key};"
    " INSERT INTO outbox (destination, key, payload, due_unix_nano, enqueued_unix_nano)"
    " VALUES ('supabase', {key}, x'', {time}, {time});"
)
# A new row takes the place of the old one, so that what changes while it is sent is noted still.
_NOTE_ANOMALY = _NOTE.format(key="'anomaly:' || new.id", time="new.recorded_unix_nano")
_NOTE_HISTORY = _NOTE.format(key="'history:' || new.seq", time="new.at_unix_nano")

TABLES = (
    "ALTER TABLE usage ADD COLUMN told_items INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE usage ADD COLUMN told_bytes INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE usage ADD COLUMN told_requests INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX usage_untold ON usage (hour_unix_s) WHERE requests > told_requests",
    "CREATE TABLE installation (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), id TEXT NOT NULL)",
    # How far what people do in Supabase is known here, by table and organisation there.
    "CREATE TABLE project_cursors (name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO outbox (destination, key, payload, due_unix_nano, enqueued_unix_nano)"
    " SELECT 'supabase', 'anomaly:' || id, x'', recorded_unix_nano, recorded_unix_nano FROM anomalies ORDER BY number",
    "INSERT INTO outbox (destination, key, payload, due_unix_nano, enqueued_unix_nano)"
    " SELECT 'supabase', 'history:' || seq, x'', at_unix_nano, at_unix_nano FROM history ORDER BY seq",
    f"CREATE TRIGGER anomalies_are_noted AFTER INSERT ON anomalies BEGIN {_NOTE_ANOMALY} END",
    # A change of status is told by its entry of the history.
    "CREATE TRIGGER changes_of_anomalies_are_noted AFTER UPDATE OF state, severity, level, incident_id, is_suppressed,"
    f" window_count, last_unix_nano, resolved_unix_nano, resolution ON anomalies BEGIN {_NOTE_ANOMALY} END",
    "CREATE TRIGGER gone_anomalies_are_not_noted AFTER DELETE ON anomalies BEGIN"
    " DELETE FROM outbox WHERE destination = 'supabase' AND key = 'anomaly:' || old.id; END",
    "CREATE TRIGGER gone_history_is_not_noted AFTER DELETE ON history BEGIN"
    " DELETE FROM outbox WHERE destination = 'supabase' AND key = 'history:' || old.seq; END",
    f"CREATE TRIGGER history_is_noted AFTER INSERT ON history BEGIN {_NOTE_HISTORY} END",
)
"""What this module adds to the schema."""


class UsageEvent(msgspec.Struct, frozen=True):
    """What was received of one signal in one hour, since the event before.

    Attributes:
        id: UUID of this event; a repeat has the same.
        tenant: Organisation; empty without authentication.
        signal: OTLP's name of the signal.
        hour_unix_s: Beginning of the hour.
        log_position: How far in the log it has counted.
        items: Log records, data points or spans.
        bytes: Bytes of the requests, uncompressed.
        requests: Requests.
    """

    id: str
    tenant: str
    signal: str
    hour_unix_s: int
    log_position: int
    items: int
    bytes: int
    requests: int


@dataclass(frozen=True, slots=True)
class UsageHour:
    """What was received in one hour, and how much of it is in events.

    Attributes:
        tenant: Organisation.
        signal: OTLP's name of the signal.
        hour_unix_s: Beginning of the hour.
        items: Items in all.
        told_items: Those that events were made of.
    """

    tenant: str
    signal: str
    hour_unix_s: int
    items: int
    told_items: int


def installation(connection: sqlite3.Connection) -> uuid.UUID:
    """Return the id of this state database, which is made when it is first asked for."""
    connection.execute("INSERT OR IGNORE INTO installation (only_row, id) VALUES (1, ?)", (str(uuid.uuid4()),))
    return uuid.UUID(connection.execute("SELECT id FROM installation").fetchone()[0])


def note_usage(connection: sqlite3.Connection, now_unix_nano: int) -> int:
    """Make events of what was counted and is in none yet; return how many.

    An event's id is computed from the installation, the organisation, the signal, the hour and the position in the
    log up to which it counts, which only grows: no two events share one, and an event keeps its own.

    Args:
        connection: The state database.
        now_unix_nano: Wall clock.
    """
    source = installation(connection)
    rows = connection.execute(
        "SELECT tenant, signal, hour_unix_s, counted_before, items - told_items, bytes - told_bytes,"
        " requests - told_requests FROM usage WHERE requests > told_requests ORDER BY hour_unix_s, tenant, signal"
    ).fetchall()
    for tenant, signal, hour, position, *counts in rows:
        name = f"{tenant}\n{signal}\n{hour}\n{position}"
        event = UsageEvent(str(uuid.uuid5(source, name)), tenant, signal, hour, position, *counts)
        outbox.enqueue(connection, DESTINATION, f"{USAGE}:{event.id}", msgspec.json.encode(event), now_unix_nano)
    connection.execute(
        "UPDATE usage SET told_items = items, told_bytes = bytes, told_requests = requests"
        " WHERE requests > told_requests"
    )
    return len(rows)


def usage_hours(connection: sqlite3.Connection, since_unix_s: int, until_unix_s: int) -> list[UsageHour]:
    """Return what was received in the hours that began from `since_unix_s` on and before `until_unix_s`."""
    rows = connection.execute(
        "SELECT tenant, signal, hour_unix_s, items, told_items FROM usage"
        " WHERE hour_unix_s >= ? AND hour_unix_s < ? ORDER BY hour_unix_s, tenant, signal",
        (since_unix_s, until_unix_s),
    )
    return [UsageHour(*row) for row in rows]


def usage_events(connection: sqlite3.Connection, state: str) -> list[UsageEvent]:
    """Return the events that wait (`pending`) or were refused (`dropped`)."""
    rows = connection.execute(
        "SELECT payload FROM outbox WHERE destination = ? AND state = ? AND key >= ? AND key < ? ORDER BY id",
        (DESTINATION, state, f"{USAGE}:", f"{USAGE};"),
    )
    return [msgspec.json.decode(payload, type=UsageEvent) for (payload,) in rows]


def refuse(connection: sqlite3.Connection, reasons: dict[int, str]) -> None:
    """Say that Supabase refuses these rows of the outbox; they keep their payload, and can be tried again.

    Args:
        connection: The state database.
        reasons: Why, by row.
    """
    connection.executemany(
        "UPDATE outbox SET state = 'dropped', reason = ? WHERE id = ? AND state = 'pending'",
        [(reason, row_id) for row_id, reason in reasons.items()],
    )


def try_again(connection: sqlite3.Connection) -> int:
    """Let what was refused be sent again; return how many rows."""
    return connection.execute(
        "UPDATE outbox SET state = 'pending', reason = '' WHERE destination = ? AND state = 'dropped'", (DESTINATION,)
    ).rowcount


def project_cursor(connection: sqlite3.Connection, name: str) -> int:
    """Return the number of the last row that was taken over; 0 before the first."""
    row = connection.execute("SELECT seq FROM project_cursors WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else int(row[0])


def set_project_cursor(connection: sqlite3.Connection, name: str, seq: int) -> None:
    """Say that rows up to this number are taken over."""
    connection.execute(
        "INSERT INTO project_cursors (name, seq) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET seq = max(seq, excluded.seq)",
        (name, seq),
    )
