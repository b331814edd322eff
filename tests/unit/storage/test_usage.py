"""Usage per tenant, signal and hour."""

from __future__ import annotations

import sqlite3

from driftlock_otlp.model import Signal
from driftlock_otlp.storage import usage
from driftlock_otlp.storage.usage import UsageTotal


def test_usage_adds_up_per_tenant_and_signal(connection: sqlite3.Connection) -> None:
    for hour, tenant, signal in (
        (0, "acme", Signal.LOGS),
        (0, "acme", Signal.LOGS),
        (3600, "acme", Signal.LOGS),
        (3600, "acme", Signal.TRACES),
        (3600, "", Signal.LOGS),
    ):
        usage.add(connection, hour_unix_s=hour, tenant=tenant, signal=signal, items=10, bytes=1000, requests=1)
    assert usage.totals(connection) == [
        UsageTotal("", Signal.LOGS, 10, 1000, 1),
        UsageTotal("acme", Signal.LOGS, 30, 3000, 3),
        UsageTotal("acme", Signal.TRACES, 10, 1000, 1),
    ]
    assert usage.totals(connection, since_unix_s=3600)[1] == UsageTotal("acme", Signal.LOGS, 10, 1000, 1)
