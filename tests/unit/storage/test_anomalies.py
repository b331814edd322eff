"""The store of anomalies."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from driftlock_otlp.model import Anomaly, Evidence, StreamKey
from driftlock_otlp.storage import anomalies

ANOMALY = Anomaly(
    id="ab" * 16,
    stream=StreamKey("logs", "checkout", "", "acme"),
    state="open",
    severity="high",
    detected_unix_nano=1_700_000_000_000_000_000,
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
    resource=bytes(range(256)),
    resource_schema_url="https://opentelemetry.io/schemas/1.30.0",
    fingerprint="openzl/1/abc",
    compressor="openzl 0.3",
)


def test_anomaly_comes_back_exactly_as_it_was(connection: sqlite3.Connection) -> None:
    assert anomalies.record(connection, ANOMALY)
    assert anomalies.get(connection, ANOMALY.id) == ANOMALY


def test_recording_again_updates_and_is_not_new(connection: sqlite3.Connection) -> None:
    anomalies.record(connection, ANOMALY)
    worse = replace(ANOMALY, severity="critical", record_count=400)
    assert not anomalies.record(connection, worse)
    assert anomalies.find(connection) == [worse]


def test_resolved_anomaly_is_not_opened_again_by_a_replay(connection: sqlite3.Connection) -> None:
    anomalies.record(connection, ANOMALY)
    assert anomalies.open_count(connection) == 1
    assert anomalies.resolve(connection, ANOMALY.id, 1_700_000_100, "recovered")
    assert not anomalies.record(connection, ANOMALY)
    assert not anomalies.resolve(connection, ANOMALY.id, 9, "adopted")
    expected = replace(ANOMALY, state="resolved", resolved_unix_nano=1_700_000_100, resolution="recovered")
    assert anomalies.get(connection, ANOMALY.id) == expected
    assert anomalies.open_count(connection) == 0


def test_unknown_anomaly_cannot_be_resolved(connection: sqlite3.Connection) -> None:
    assert not anomalies.resolve(connection, "00", 1, "recovered")


def test_prefix_finds_the_one_anomaly_that_begins_so(connection: sqlite3.Connection) -> None:
    other = replace(ANOMALY, id="ac" + "0" * 30)
    anomalies.record(connection, ANOMALY)
    anomalies.record(connection, other)
    assert anomalies.get(connection, "ABA") == ANOMALY
    assert anomalies.get(connection, "ac") == other
    assert anomalies.get(connection, "ad") is None
    assert anomalies.get(connection, "") is None
    assert anomalies.get(connection, "%") is None
    with pytest.raises(ValueError, match="give more digits"):
        anomalies.get(connection, "a")


def test_find_filters_by_everything_given_newest_first(connection: sqlite3.Connection) -> None:
    stored = [
        replace(ANOMALY, id=f"{number:032x}", detected_unix_nano=1000 + number, stream=StreamKey(kind, service))
        for number, (kind, service) in enumerate([("logs", "a"), ("logs", "b"), ("traces", "a"), ("logs", "a")])
    ]
    for anomaly in stored:
        anomalies.record(connection, anomaly)
    anomalies.resolve(connection, stored[0].id, 5, "adopted")

    def found(**conditions: object) -> list[int]:
        return [int(anomaly.id, 16) for anomaly in anomalies.find(connection, **conditions)]  # type: ignore[arg-type]

    assert found() == [3, 2, 1, 0]
    assert found(kind="logs", service="a") == [3, 0]
    assert found(state="open") == [3, 2, 1]
    assert found(state="resolved", kind="logs") == [0]
    assert found(since_unix_nano=1002) == [3, 2]
    assert found(limit=1) == [3]


def test_event_times_beyond_what_sqlite_holds_are_kept(connection: sqlite3.Connection) -> None:
    strange = replace(ANOMALY, detected_unix_nano=(1 << 64) - 1, window_end_unix_nano=(1 << 64) - 1)
    anomalies.record(connection, strange)
    assert anomalies.find(connection, since_unix_nano=(1 << 64) - 1) == [strange]
