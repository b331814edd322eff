"""What becomes of what workers say: levels, incidents, events, suppressions, each told once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from driftlock_otlp.config.file import load
from driftlock_otlp.model import Anomaly, AnomalyWindow, ItemRange, StreamKey, WindowFacts
from driftlock_otlp.storage import anomalies, history, incidents, suppressions, verdicts
from driftlock_otlp.storage.incidents import StoredIncident
from driftlock_otlp.storage.state import StateDatabase, connect_shared
from driftlock_otlp.storage.suppressions import FOR_GOOD, Suppression
from driftlock_otlp.worker.messages import Progress
from driftlock_otlp.worker.recording import Recorded, Recorder
from tests.unit.storage.test_anomalies import ANOMALY

SECOND = 10**9
START = 1_700_000_000 * SECOND
NOW = START + 3_600 * SECOND


class Told:
    """An announcer that remembers what it was told."""

    def __init__(self) -> None:
        self.anomalies: list[tuple[str, str, int]] = []
        self.incidents: list[tuple[str, str]] = []
        self.titles: list[str] = []

    def anomaly(self, connection: sqlite3.Connection, anomaly: Anomaly) -> None:
        self.anomalies.append((anomaly.id[:4], anomaly.state, anomaly.window_count))

    def incident(self, connection: sqlite3.Connection, incident: StoredIncident, change: str, anomaly: Anomaly) -> None:
        self.incidents.append((change, incident.level))
        self.titles.append(incident.title)


class Bench:
    """A state database and what is told of what a worker says."""

    def __init__(self, path: Path) -> None:
        StateDatabase(path, durability="os").open()
        self.connection = connect_shared(path)
        self.settings = [f"queue.path={path.parent}", "events.update_interval=60s"]
        self.restart()

    def restart(self, *settings: str) -> None:
        self.told = Told()
        self.recorder = Recorder(load(None, [*self.settings, *settings], environ={}), lambda: NOW, self.told)

    def say(self, **said: object) -> Recorded:
        message = Progress(1, 1, 1, **said)  # type: ignore[arg-type]
        with self.connection:
            return self.recorder.record(self.connection, [("detect:0-of-1", [message])])

    def get(self, name: str) -> Anomaly:
        found = anomalies.get(self.connection, name)
        assert found is not None
        return found

    def actions(self, subject: str | None = None) -> list[str]:
        return [e.action for e in history.entries(self.connection, tenant=None, subject=subject, limit=99)][::-1]

    def suppress(self, *, until: int = FOR_GOOD, **pattern: str) -> Suppression:
        fields = {"kind": "", "service": "", "name": "", "template": "", "purpose": "pattern"} | pattern
        made = Suppression(
            id="5" * 32,
            tenant="",
            from_unix_nano=0,
            until_unix_nano=until,
            note="known",
            created_by="local",
            created_unix_nano=NOW,
            **fields,
        )
        with self.connection:
            suppressions.add(self.connection, made)
        return made


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "state.db")
    with closing(made.connection):
        yield made


def alarm(name: str, service: str = "shop", *, at_s: int = 0, kind: str = "logs", **changes: object) -> Anomaly:
    """Return an anomaly whose id begins with `name`."""
    facts: dict[str, object] = {
        "severity": "low",
        "bits": 11.0,
        "trace_id": "",
        "related_trace_ids": (),
        "template": "",
    }
    return replace(
        ANOMALY,
        id=name.ljust(32, "0"),
        stream=StreamKey(kind, service),
        detected_unix_nano=START + at_s * SECOND,
        **(facts | changes),  # type: ignore[arg-type]
    )


def window(
    name: str, count: int, at_s: int, *, bits: float = 5.0, is_odd: bool = False, **changes: str
) -> AnomalyWindow:
    facts = {"level": "notice", "severity": "low"} | changes
    return AnomalyWindow(name.ljust(32, "0"), START + at_s * SECOND, count, bits, is_odd, **facts)


def end(name: str, at_s: int) -> tuple[str, int, str]:
    return (name.ljust(32, "0"), START + at_s * SECOND, "recovered")


def test_one_event_tells_of_the_beginning_one_of_the_end_and_few_in_between(bench: Bench) -> None:
    bench.say(opened=[alarm("a")])
    for count in range(2, 16):
        bench.say(ongoing=[window("a", count, 10 * (count - 1), severity="critical" if count == 3 else "low")])
    bench.say(resolved=[end("a", 150)])
    assert bench.told.anomalies == [
        ("a000", "open", 1),
        ("a000", "ongoing", 7),
        ("a000", "ongoing", 13),
        ("a000", "resolved", 15),
    ]
    known = bench.get("a")
    assert (known.state, known.window_count, known.severity) == ("resolved", 15, "critical")
    assert bench.actions(known.id) == ["opened", "resolved"]
    assert history.verify(bench.connection) is None


def test_what_is_said_again_after_a_crash_is_told_to_nobody(bench: Bench) -> None:
    said = [
        {"opened": [alarm("a"), alarm("b", at_s=1, kind="metrics")]},
        {"ongoing": [window("a", count, 30 * count, bits=12.0, is_odd=True) for count in range(2, 6)]},
        {"resolved": [end("a", 300), end("b", 300)]},
    ]
    for message in said:
        bench.say(**message)
    told, rows = bench.told, bench.actions()
    assert told.anomalies
    assert told.incidents
    for start in range(3):
        bench.restart()
        for message in said[start:]:
            assert bench.say(**message).opened == []
        assert (bench.told.anomalies, bench.told.incidents) == ([], [])
    assert bench.actions() == rows


def test_transaction_that_was_rolled_back_leaves_nothing_behind(bench: Bench) -> None:
    message = Progress(1, 1, 1, opened=[alarm("a")])
    with pytest.raises(RuntimeError), bench.connection:
        bench.recorder.record(bench.connection, [("detect:0-of-1", [message])])
        raise RuntimeError("the disk fails")
    bench.say(opened=[alarm("a"), alarm("b", at_s=1, kind="traces")])
    assert [incident.level for incident in incidents.newest(bench.connection, limit=9)] == ["fleet"]
    assert bench.get("a").incident_id == bench.get("b").incident_id


def test_related_streams_become_one_incident_that_calls_once_a_level(bench: Bench) -> None:
    bench.say(opened=[alarm("a", explanation="logs are odd")])
    bench.say(opened=[alarm("b", kind="traces", at_s=20)])
    bench.say(opened=[alarm("c", kind="metrics", at_s=40)])
    bench.say(opened=[alarm("d", "elsewhere", at_s=41)])
    assert bench.told.incidents == [("opened", "notice"), ("raised", "fleet"), ("opened", "notice")]
    assert bench.told.titles[1] == "logs are odd (and another stream)"
    first = bench.get("a")
    assert {bench.get(name).incident_id for name in "abc"} == {first.incident_id}
    assert [(bench.get(name).level, bench.get(name).severity) for name in "abcd"] == [("fleet", "high")] * 3 + [
        ("notice", "low")
    ]
    incident = incidents.get(bench.connection, first.incident_id)
    assert incident is not None
    assert (incident.state, incident.origin_anomaly_id, incident.title) == (
        *("ongoing", first.id),
        "logs are odd (and 2 more streams)",
    )
    bench.say(resolved=[end("a", 60), end("b", 60)])
    assert incidents.open_count(bench.connection) == 2
    bench.say(resolved=[end("c", 70)])
    assert bench.told.incidents[3:] == [("resolved", "fleet")]
    assert bench.actions(first.id) == ["opened", "level_raised", "resolved"]


@pytest.mark.parametrize("link", [{"trace_id": "7" * 32}, {"template": "card <*> refused"}])
def test_trace_or_template_joins_services(bench: Bench, link: dict[str, object]) -> None:
    bench.say(opened=[alarm("a", "shop", **link), alarm("b", "bank", at_s=30, **link)])
    assert bench.get("a").incident_id == bench.get("b").incident_id


def test_what_comes_long_after_is_an_incident_of_its_own(bench: Bench) -> None:
    bench.say(opened=[alarm("a")])
    bench.say(opened=[alarm("b", kind="traces", at_s=500)])
    assert bench.told.incidents == [("opened", "notice")] * 2


def test_two_incidents_that_turn_out_to_be_one_are_one(bench: Bench) -> None:
    bench.say(opened=[alarm("a", "shop", trace_id="7" * 32), alarm("b", "bank", at_s=1, template="t")])
    second = bench.get("b").incident_id
    bench.say(opened=[alarm("c", "mail", at_s=2, trace_id="7" * 32, template="t")])
    assert len({bench.get(name).incident_id for name in "abc"}) == 1
    gone = incidents.get(bench.connection, second)
    assert gone is not None
    assert gone.state == "resolved"
    assert bench.told.incidents[2:] == [("resolved", "notice"), ("raised", "fleet")]


def test_incident_goes_on_after_a_restart(bench: Bench) -> None:
    bench.say(opened=[alarm("a")])
    bench.restart()
    bench.say(opened=[alarm("b", kind="traces", at_s=20)])
    assert bench.told.incidents == [("raised", "fleet")]


def test_four_odd_windows_of_one_stream_are_a_fleet_incident(bench: Bench) -> None:
    bench.say(opened=[alarm("a", bits=12.0)])
    bench.say(ongoing=[window("a", count, 10 * count, bits=12.0, is_odd=True) for count in (2, 3, 4)])
    assert bench.told.incidents == [("opened", "notice"), ("raised", "fleet")]
    assert bench.get("a").level == "fleet"


def test_stream_that_says_page_pages_and_a_calm_window_changes_nothing(bench: Bench) -> None:
    bench.say(opened=[alarm("a")])
    bench.say(ongoing=[window("a", 2, 10), window("a", 3, 20, is_odd=True, level="page", severity="medium")])
    assert bench.told.incidents == [("opened", "notice"), ("raised", "page")]
    assert (bench.get("a").level, bench.get("a").severity) == ("page", "medium")


def test_streams_that_stand_out_together_are_pages(bench: Bench) -> None:
    def facts(service: str, bits: float) -> WindowFacts:
        return WindowFacts(
            StreamKey("logs", service), START - 9, START, 50, "clean", 0.1, 0.5, bits, 0.1, 1.0, 1.0, 1.0, 1.0
        )

    calm = [facts(f"calm-{number}", 0.5) for number in range(40)]
    bench.say(opened=[alarm("a", "shop")], facts=[*calm, facts("shop", 11.0), facts("bank", 10.0)])
    assert bench.get("a").level == "page"


def test_suppressed_alarm_is_recorded_and_makes_no_noise(bench: Bench) -> None:
    bench.suppress(service="shop", kind="logs")
    recorded = bench.say(
        opened=[alarm("a"), alarm("b", kind="traces")],
        ongoing=[window("a", 2, 400)],
        diverted=[(5, [ItemRange(0, 3, alarm("a").id), ItemRange(3, 4, alarm("b").id)])],
    )
    bench.say(resolved=[end("a", 500)])
    assert [anomaly.is_suppressed for anomaly in recorded.opened] == [True, False]
    assert bench.told.anomalies == [("b000", "open", 1)]
    assert bench.told.incidents == [("opened", "notice")]
    assert recorded.spared_items == {"suppressed": 3}
    assert verdicts.between(bench.connection, 0, 9) == {5: [ItemRange(3, 4, alarm("b").id)]}
    assert (bench.get("a").state, bench.get("a").is_suppressed) == ("resolved", True)
    assert bench.actions("5" * 32) == ["suppression_added"]


@pytest.mark.parametrize(
    "pattern", [{"service": "bank"}, {"template": "other"}, {"name": "queue.depth"}, {"kind": "metrics"}]
)
def test_suppression_of_something_else_does_not_apply(bench: Bench, pattern: dict[str, str]) -> None:
    bench.suppress(**pattern)
    bench.say(opened=[alarm("a", template="card <*> refused")])
    assert not bench.get("a").is_suppressed


def test_fault_that_outlasts_its_maintenance_is_heard_of_then(bench: Bench) -> None:
    bench.suppress(purpose="maintenance", until=START + 100 * SECOND)
    bench.say(opened=[alarm("a")])
    bench.say(ongoing=[window("a", 2, 50, is_odd=True)])
    assert (bench.told.anomalies, bench.told.incidents) == ([], [])
    bench.say(ongoing=[window("a", 3, 100)])
    assert bench.told.anomalies == [("a000", "ongoing", 3)]
    assert bench.told.incidents == [("opened", "notice")]
    bench.say(resolved=[end("a", 200)])
    assert bench.told.anomalies[1:] == [("a000", "resolved", 3)]


def test_new_suppression_silences_what_goes_on_and_its_end_is_still_told(bench: Bench) -> None:
    bench.say(opened=[alarm("a", template="card <*> refused")])
    made = bench.suppress(template="card <*> refused")
    recorded = bench.say(ongoing=[window("a", 2, 400)], diverted=[(5, [ItemRange(0, 3, alarm("a").id)])])
    assert recorded.spared_items == {"suppressed": 3}
    with bench.connection:
        removed = suppressions.remove(bench.connection, made.id, tenant=None, actor="key:ops", at_unix_nano=NOW)
        assert suppressions.remove(bench.connection, made.id, tenant=None, actor="x", at_unix_nano=NOW) is None
    assert removed is not None
    bench.say(ongoing=[window("a", 3, 410)])
    bench.say(resolved=[end("a", 420)])
    assert bench.told.anomalies == [("a000", "open", 1), ("a000", "ongoing", 3), ("a000", "resolved", 3)]
    assert bench.actions(made.id) == ["suppression_added", "suppression_removed"]


def test_records_below_the_level_from_which_data_are_diverted_go_on_as_clean(bench: Bench) -> None:
    bench.restart("forward.divert_from=page")
    quiet, loud = alarm("a", "shop"), alarm("b", "bank", level="page")
    recorded = bench.say(opened=[quiet, loud], diverted=[(5, [ItemRange(0, 2, quiet.id), ItemRange(2, 7, loud.id)])])
    assert verdicts.between(bench.connection, 0, 9) == {5: [ItemRange(2, 7, loud.id)]}
    assert recorded.spared_items == {"level": 2}
    # One message may tell of several windows: only those from the higher level on are withheld, also when said again.
    said = {
        "ongoing": [window("a", 2, 10), window("a", 3, 20, is_odd=True, level="page", severity="medium")],
        "diverted": [
            (6, [ItemRange(0, 2, quiet.id, 1), ItemRange(2, 3, quiet.id, 2), ItemRange(5, 4, quiet.id, 3)]),
            (7, [ItemRange(0, 1, quiet.id, 4)]),
        ],
    }
    for _ in range(2):
        assert bench.say(**said).spared_items == {"level": 5}
        bench.restart("forward.divert_from=page")
    assert verdicts.between(bench.connection, 6, 9) == {
        6: [ItemRange(5, 4, quiet.id)],
        7: [ItemRange(0, 1, quiet.id)],
    }


def test_organisations_have_incidents_and_suppressions_of_their_own(bench: Bench) -> None:
    bench.suppress(service="shop")
    theirs = replace(alarm("b", at_s=1), stream=StreamKey("traces", "shop", "", "acme"))
    bench.say(opened=[alarm("a"), theirs])
    assert (bench.get("a").is_suppressed, bench.get("b").is_suppressed) == (True, False)
    bench.say(opened=[replace(alarm("c", at_s=2), stream=StreamKey("logs", "shop", "", "other"))])
    assert bench.told.incidents == [("opened", "notice")] * 2


@pytest.mark.parametrize("pattern", [{}, {"service": "shop", "until": "0"}])
def test_suppression_that_says_nothing_or_never_holds_is_refused(bench: Bench, pattern: dict[str, str]) -> None:
    until = int(pattern.pop("until", FOR_GOOD))
    with pytest.raises(ValueError, match=r"say what|ends before"):
        bench.suppress(until=until, **pattern)
    assert bench.actions() == []
