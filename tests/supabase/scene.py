"""A sidecar's state on one side, a Supabase project on the other."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from driftlock_otlp.config.supabase import SupabaseConfig
from driftlock_otlp.model import Anomaly, Evidence, LogEntry, NewEntry, Signal, StreamKey
from driftlock_otlp.storage import anomalies, usage
from driftlock_otlp.storage.state import StateDatabase
from driftlock_otlp.supabase.client import Project
from driftlock_otlp.supabase.organizations import Organizations
from driftlock_otlp.supabase.people import People
from driftlock_otlp.supabase.sender import Sender
from tests.doubles.memory_log import MemoryLog
from tests.supabase.postgrest import SECRET_KEY, Gateway

NOW = 1_800_000_000_000_000_000
HOUR_NANO = 3_600_000_000_000

ANOMALY = Anomaly(
    id="ab" * 16,
    stream=StreamKey("logs", "checkout", "", "acme"),
    state="open",
    severity="high",
    detected_unix_nano=1_700_000_000_123_456_789,
    window_start_unix_nano=1_699_999_990_000_000_000,
    window_end_unix_nano=1_700_000_000_000_000_000,
    record_count=200,
    score=0.93,
    p_value=0.004,
    bits=41.5,
    ncd=0.71,
    compression_ratio=3.2,
    baseline_compression_ratio=9.1,
    entropy_bits=5.5,
    baseline_entropy_bits=1.25,
    baseline_windows=12,
    baseline_records=2400,
    explanation="A template never seen before: “Zahlung fehlgeschlagen”",
    evidence=(Evidence("template", "pattern", 30.5, "new", "x", "y"), Evidence("count", "volume", 11.0, "more")),
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    related_trace_ids=("1" * 32, "2" * 32),
    template="payment <*> failed",
    resource=b"",
    resource_schema_url="",
    fingerprint="openzl/1/abc",
    compressor="openzl 0.3",
)


def numbered(number: int, **changes: Any) -> Anomaly:
    """Return an anomaly of its own."""
    return replace(ANOMALY, id=f"{number:032x}", **changes)


@dataclass
class Scene:
    """Both sides, and what is between them."""

    state: StateDatabase
    sender: Sender
    people: People
    log: MemoryLog
    project: Project
    gateway: Gateway
    dsn: str

    async def record(self, *found: Anomaly) -> None:
        """Let the detector find anomalies."""
        for anomaly in found:
            await self.state.write(partial(anomalies.record, anomaly=anomaly, now_unix_nano=NOW))

    async def write(self, work: Any, *arguments: Any, **named: Any) -> Any:
        """Change the sidecar's state."""
        return await self.state.write(lambda connection: work(connection, *arguments, **named))

    async def send_all(self) -> tuple[int, int]:
        """Send until nothing waits; return how many rows of the outbox were sent and refused."""
        sent = refused = 0
        while not (part := await self.sender.send_some()).is_empty:
            sent, refused = sent + part.sent, refused + len(part.refused)
        return sent, refused

    def query(self, text: str) -> list[Any]:
        """Ask the project's database itself."""
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(text).fetchall()


@asynccontextmanager
async def scene_of(dsn: str, gateway: Gateway, folder: Path, **settings: Any) -> AsyncIterator[Scene]:
    """Set both sides up."""
    config = SupabaseConfig(url=gateway.url, **{"secret_key": SECRET_KEY, "timeout": 10.0, **settings})
    state = StateDatabase(folder / "state.db", durability="os")
    state.open()
    project = Project(config)
    organizations = Organizations(project, config.organization)
    try:
        log = MemoryLog()
        people = People(project, organizations, state, log, lambda: NOW)
        yield Scene(state, Sender(project, organizations, state, lambda: NOW), people, log, project, gateway, dsn)
    finally:
        await project.close()
        state.close()


def received(connection: sqlite3.Connection, position: int, items: int, hour: int = 0, tenant: str = "acme") -> None:
    """Count a request of so many log records, at a position of the log."""
    entry = NewEntry(Signal.LOGS, b"x" * items, items, NOW + hour * HOUR_NANO, tenant)
    usage.count(connection, [LogEntry(position, position + 1, 0, entry)])
