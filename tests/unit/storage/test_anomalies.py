"""The store of anomalies."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from driftlock_otlp.model import Anomaly, AnomalyStatus, Evidence, Signal, StreamKey
from driftlock_otlp.storage import anomalies, anomaly_course, history, quarantine
from driftlock_otlp.storage.anomalies import AnomalyFilter

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


NOW = 1_800_000_000_000_000_000


def numbered(number: int, **changes: object) -> Anomaly:
    """Return an anomaly of its own, `number` nanoseconds after the first."""
    changed: dict[str, object] = {"detected_unix_nano": 1000 + number, **changes}
    return replace(ANOMALY, id=f"{number:032x}", **changed)  # type: ignore[arg-type]


def found(connection: sqlite3.Connection, **conditions: object) -> list[int]:
    where = AnomalyFilter(**conditions)  # type: ignore[arg-type]
    return [int(anomaly.id, 16) for anomaly in anomalies.find(connection, where)]


def test_anomaly_comes_back_exactly_as_it_was(connection: sqlite3.Connection) -> None:
    assert anomalies.record(connection, ANOMALY, NOW)
    assert anomalies.get(connection, ANOMALY.id) == replace(ANOMALY, last_unix_nano=ANOMALY.detected_unix_nano)


def test_replay_changes_nothing_of_what_is_known(connection: sqlite3.Connection) -> None:
    assert anomalies.record(connection, ANOMALY, NOW)
    assert anomaly_course.go_on(connection, ANOMALY.id, ANOMALY.detected_unix_nano + 10, 2, "critical")
    assert not anomalies.record(connection, ANOMALY, NOW + 5)
    assert not anomaly_course.go_on(connection, ANOMALY.id, ANOMALY.detected_unix_nano + 10, 2, "high")
    (known,) = anomalies.find(connection)
    assert (known.state, known.severity, known.window_count) == ("ongoing", "critical", 2)
    assert known.last_unix_nano == ANOMALY.detected_unix_nano + 10


def test_resolved_anomaly_is_not_opened_again_by_a_replay(connection: sqlite3.Connection) -> None:
    anomalies.record(connection, ANOMALY, NOW)
    assert anomalies.open_count(connection) == 1
    assert anomaly_course.go_on(connection, ANOMALY.id, 1_700_000_050, 2, "high")
    assert anomalies.open_count(connection) == 1
    assert anomaly_course.resolve(connection, ANOMALY.id, 1_700_000_100, "recovered")
    assert not anomalies.record(connection, ANOMALY, NOW)
    assert not anomaly_course.go_on(connection, ANOMALY.id, 1_700_000_150, 3, "high")
    assert not anomaly_course.resolve(connection, ANOMALY.id, 9, "adopted")
    known = anomalies.get(connection, ANOMALY.id)
    assert known is not None
    assert (known.state, known.resolved_unix_nano, known.resolution) == ("resolved", 1_700_000_100, "recovered")
    assert anomalies.open_count(connection) == 0


def test_unknown_anomaly_neither_goes_on_nor_ends(connection: sqlite3.Connection) -> None:
    assert not anomaly_course.go_on(connection, "00", 1, 2, "low")
    assert not anomaly_course.resolve(connection, "00", 1, "recovered")
    assert anomalies.set_status(connection, "00", AnomalyStatus.DISMISSED, actor="local", at_unix_nano=1) is None


def test_status_and_state_are_independent_and_the_history_tells_who_said_so(connection: sqlite3.Connection) -> None:
    anomalies.record(connection, ANOMALY, NOW)
    changed = anomalies.set_status(
        connection, ANOMALY.id, AnomalyStatus.ACKNOWLEDGED, actor="key:ops", note="mine", at_unix_nano=NOW
    )
    assert changed is not None
    assert (changed.state, changed.status) == ("open", "acknowledged")
    anomaly_course.resolve(connection, ANOMALY.id, NOW, "recovered")
    assert anomalies.get(connection, ANOMALY.id) == replace(
        changed, state="resolved", resolved_unix_nano=NOW, resolution="recovered"
    )
    (entry,) = history.entries(connection, tenant="acme", subject=ANOMALY.id, limit=9)
    assert (entry.actor, entry.action, entry.at_unix_nano) == ("key:ops", "status_changed", NOW)
    assert entry.detail == {"from": "new", "to": "acknowledged", "note": "mine"}


def test_prefix_finds_the_one_anomaly_that_begins_so(connection: sqlite3.Connection) -> None:
    other = replace(ANOMALY, id="ac" + "0" * 30, stream=StreamKey("logs", "shop", "", "other"))

    def id_of(prefix: str, tenant: str | None = None) -> str | None:
        known = anomalies.get(connection, prefix, tenant)
        return None if known is None else known.id

    anomalies.record(connection, ANOMALY, NOW)
    anomalies.record(connection, other, NOW)
    assert id_of("ABA") == ANOMALY.id
    assert id_of("ac") == other.id
    assert id_of("ad") is None
    assert id_of("") is None
    assert id_of("%") is None
    assert id_of("a", "other") == other.id
    assert id_of(ANOMALY.id, "other") is None
    with pytest.raises(ValueError, match="give more digits"):
        anomalies.get(connection, "a")


def test_filter_keeps_what_fits_everything_given_newest_first(connection: sqlite3.Connection) -> None:
    for number, (kind, service) in enumerate([("logs", "a"), ("logs", "b"), ("traces", "a"), ("logs", "a")]):
        changes = {"score": number / 10, "p_value": 0.1 / (number + 1), "explanation": f"Straße {number} is odd"}
        anomalies.record(connection, numbered(number, stream=StreamKey(kind, service), **changes), NOW)
    anomaly_course.resolve(connection, f"{0:032x}", 5, "adopted")
    anomaly_course.go_on(connection, f"{1:032x}", 2000, 2, "critical")
    anomaly_course.put(connection, numbered(2, level="page", severity="high"))
    anomalies.set_status(connection, f"{3:032x}", AnomalyStatus.DISMISSED, actor="local", at_unix_nano=1)
    anomalies.record(
        connection, numbered(4, stream=StreamKey("gen_ai", "c", "", "acme"), incident_id="i", is_suppressed=True), NOW
    )
    assert found(connection) == [4, 3, 2, 1, 0]
    assert found(connection, kind="logs", service="a") == [3, 0]
    assert found(connection, state="open") == [4, 3, 2]
    assert found(connection, state="ongoing", severity="critical") == [1]
    assert found(connection, state="resolved", kind="logs") == [0]
    assert found(connection, status="dismissed") == [3]
    assert found(connection, level="page", severity="high") == [2]
    assert found(connection, incident="i", tenant="acme") == [4]
    assert found(connection, tenant="") == [3, 2, 1, 0]
    assert found(connection, is_suppressed=True) == [4]
    assert found(connection, min_score=0.2, is_suppressed=False) == [3, 2]
    assert found(connection, max_p_value=0.05, kind="logs") == [3, 1]
    assert found(connection, text="STRASSE 2") == [2]
    assert found(connection, text="payment <*>") == [4, 3, 2, 1, 0]
    assert found(connection, since_unix_nano=1002) == [4, 3, 2]
    assert found(connection, since_unix_nano=1001, until_unix_nano=1003) == [2, 1]
    assert len(anomalies.find(connection, limit=1)) == 1


def test_pages_neither_repeat_nor_miss_a_row_while_others_come_in(connection: sqlite3.Connection) -> None:
    for number in range(0, 20, 2):
        anomalies.record(connection, numbered(number, detected_unix_nano=1000 + number // 4), NOW)
    seen: list[int] = []
    cursor = None
    for turn in range(10):
        part = anomalies.page(connection, AnomalyFilter(service="checkout"), 3, cursor)
        seen += [int(anomaly.id, 16) for anomaly in part.anomalies]
        anomalies.record(connection, numbered(100 + turn), NOW)  # newer than all that was there
        cursor = part.next_cursor
        if cursor is None:
            break
    assert seen == sorted(range(0, 20, 2), key=lambda number: (number // 4, number), reverse=True)


def test_page_ends_after_a_bounded_search_and_the_next_goes_on(connection: sqlite3.Connection) -> None:
    count = 50_000
    connection.executemany(
        "INSERT INTO anomalies (id, kind, service, name, tenant, template, state, severity, score, p_value,"
        " detected_unix_nano, last_unix_nano, told_unix_nano, recorded_unix_nano)"
        " VALUES (?, 'logs', 'shop', '', '', '', 'open', 'low', 0.1, 0.5, ?, 0, 0, 0)",
        [(f"{number:032x}", 10_000 + number) for number in range(count)],
    )
    anomalies.record(connection, numbered(1 << 20, detected_unix_nano=1, score=0.9), NOW)
    where, cursor, sizes = AnomalyFilter(min_score=0.8), None, []
    while True:
        part = anomalies.page(connection, where, 10, cursor)
        sizes.append(len(part.anomalies))
        cursor = part.next_cursor
        if cursor is None:
            break
    assert sizes == [0, 0, 1]
    assert len(anomalies.find(connection, where)) == 1


@pytest.mark.parametrize("cursor", ["", "x", "zz.00", "\ud800"])
def test_cursor_of_somebody_else_is_refused(connection: sqlite3.Connection, cursor: str) -> None:
    with pytest.raises(ValueError, match="no cursor"):
        anomalies.page(connection, AnomalyFilter(), 1, cursor)


def test_event_times_beyond_what_sqlite_holds_are_kept(connection: sqlite3.Connection) -> None:
    strange = replace(ANOMALY, detected_unix_nano=(1 << 64) - 1, window_end_unix_nano=(1 << 64) - 1)
    anomalies.record(connection, strange, NOW)
    anomaly_course.go_on(connection, strange.id, (1 << 64) - 1, 2, "high")
    anomaly_course.resolve(connection, strange.id, (1 << 64) - 1, "recovered")
    (known,) = anomalies.find(connection, AnomalyFilter(since_unix_nano=(1 << 64) - 1))
    assert known.detected_unix_nano == (1 << 64) - 1


def test_too_old_and_too_many_go_but_what_is_withheld_stays(connection: sqlite3.Connection) -> None:
    for number in range(6):
        anomalies.record(connection, numbered(number), NOW + number)
    for number in (1, 2, 3):
        anomaly_course.resolve(connection, f"{number:032x}", 5, "recovered")
    quarantine.add(
        connection,
        position=0,
        signal=Signal.LOGS,
        anomaly_ids=[f"{1:032x}"],
        stream="logs/checkout",
        payload=b"x",
        item_count=1,
        now_unix_nano=NOW,
    )
    assert anomaly_course.prune(connection, before_unix_nano=NOW + 2, most=9, most_rows=9) == 1
    assert found(connection) == [5, 4, 3, 2, 1]
    assert anomaly_course.prune(connection, before_unix_nano=NOW, most=2, most_rows=9) == 2
    assert found(connection) == [5, 4, 1]
    for table in ("anomaly_documents", "anomaly_texts"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (3,)
