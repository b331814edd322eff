"""What a sidecar finds appears in the project once, whatever fails in between."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from driftlock_otlp.config.supabase import SupabaseConfig
from driftlock_otlp.errors import RetryableError
from driftlock_otlp.model import AnomalyStatus
from driftlock_otlp.orders import Feedback, decode
from driftlock_otlp.storage import anomalies, anomaly_course, history, outbox, sync
from driftlock_otlp.storage.state import StateDatabase, connect_shared
from driftlock_otlp.supabase.client import Project, SetupError
from tests.supabase.database import become
from tests.supabase.postgrest import PUBLISHABLE_KEY, gateway, token
from tests.supabase.scene import ANOMALY, NOW, Scene, numbered, received, scene_of


async def test_an_anomaly_appears_with_its_evidence_in_its_organisation(scene: Scene) -> None:
    await scene.record(ANOMALY)
    assert await scene.send_all() == (1, 0)
    assert scene.query(
        "select service, signal, severity, state, status, organization, id::text from anomaly_overview"
    ) == [("checkout", "logs", "high", "open", "new", "acme", "abababab-abab-abab-abab-abababababab")]
    ((detected, traces),) = scene.query("select detected_at, related_trace_ids from anomalies")
    assert detected == datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
    assert traces == ["1" * 32, "2" * 32]
    assert scene.query("select rank, field, bits from evidence order by rank") == [
        (1, "template", 30.5),
        (2, "count", 11.0),
    ]


async def test_only_its_last_state_is_sent_and_a_later_one_again(scene: Scene) -> None:
    await scene.record(ANOMALY)
    await scene.write(anomaly_course.go_on, ANOMALY.id, NOW, 7, "critical")
    assert await scene.send_all() == (1, 0)
    assert scene.query("select state, window_count, severity from anomalies") == [("ongoing", 7, "critical")]
    await scene.write(anomaly_course.resolve, ANOMALY.id, NOW, "recovered")
    assert await scene.send_all() == (1, 0)
    assert await scene.send_all() == (0, 0)
    assert scene.query("select state, resolution, resolved_at is null from anomalies") == [
        ("resolved", "recovered", False)
    ]


async def test_what_changes_while_it_is_sent_is_sent_again(scene: Scene) -> None:
    await scene.record(ANOMALY)
    rows = await scene.state.read(lambda connection: outbox.pending(connection, sync.DESTINATION, 10))
    await scene.write(anomaly_course.resolve, ANOMALY.id, NOW, "adopted")
    await scene.write(outbox.mark_sent, [row.id for row in rows])
    await scene.send_all()
    assert scene.query("select state from anomalies") == [("resolved",)]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
async def test_a_passing_failure_loses_nothing(scene: Scene, status: int) -> None:
    await scene.record(ANOMALY)
    scene.gateway.failures.append(status)
    with pytest.raises(RetryableError):
        await scene.sender.send_some()
    assert await scene.send_all() == (1, 0)


async def test_lost_answers_do_not_double_anything(scene: Scene) -> None:
    await scene.record(ANOMALY)
    await scene.write(received, 1, 100)
    await scene.sender.note_usage()
    # One more request is let through each time; then its answer, or that of the next, is lost.
    for answered in range(6):
        scene.gateway.losing = {len(scene.gateway.requests) + answered}
        try:
            await scene.sender.send_some()
        except RetryableError:
            continue
        break
    scene.gateway.losing = set()
    await scene.send_all()
    assert scene.query("select count(*) from anomalies") == [(1,)]
    assert scene.query("select items, bytes, requests from usage_monthly") == [(100, 100, 1)]
    assert len(scene.gateway.requests) > 8, "no answer was lost"


async def test_a_duplicate_is_delivered(scene: Scene) -> None:
    row = {"slug": "acme", "name": "Acme"}
    await scene.project.upsert("organizations", [row], "id", is_merged=False)
    await scene.project.upsert("organizations", [row], "id", is_merged=False)  # 409, 23505
    assert scene.query("select name from organizations") == [("Acme",)]


async def test_refused_rows_are_isolated_and_the_others_arrive(scene: Scene) -> None:
    poison = {17: {"severity": "catastrophic"}, 40: {"score": 7.0}}
    await scene.record(*(numbered(n, **poison.get(n, {})) for n in range(64)))
    assert await scene.send_all() == (62, 2)
    assert scene.query("select count(*) from anomalies") == [(62,)]
    reasons = await scene.state.read(
        lambda c: [r for (r,) in c.execute("SELECT reason FROM outbox WHERE state = 'dropped' ORDER BY id")]
    )
    assert ["anomalies: 23514" in reason for reason in reasons] == [True, True]
    assert await scene.write(sync.try_again) == 2


async def test_text_that_postgresql_cannot_hold_is_no_poison(scene: Scene) -> None:
    await scene.record(numbered(1, explanation="a\0b", bits=float("inf"), ncd=float("nan"), trace_id="xyz"))
    assert await scene.send_all() == (1, 0)
    assert scene.query("select explanation, bits, trace_id from anomalies") == [("a\ufffdb", float("inf"), "")]


async def test_a_publishable_key_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="publishable key, .*copy the secret key"):
        SupabaseConfig(url="https://x.supabase.co", secret_key=PUBLISHABLE_KEY)
    with pytest.raises(ValueError, match="role 'anon', which may not write"):
        SupabaseConfig(url="https://x.supabase.co", secret_key=token("anon"))


async def test_the_key_is_shown_as_apikey_alone_unless_it_is_a_legacy_one(scene: Scene) -> None:
    await scene.record(ANOMALY)
    assert await scene.send_all() == (1, 0)
    assert set(scene.gateway.bearers) == {""}
    legacy = Project(SupabaseConfig(url=scene.gateway.url, secret_key=token("service_role")))
    assert await legacy.select("anomalies", "service", order="id", limit=10) == [{"service": "checkout"}]
    await legacy.close()


async def test_a_wrong_key_waits_and_says_what_to_do(scene: Scene, tmp_path: Path) -> None:
    async with scene_of(scene.dsn, scene.gateway, tmp_path / "other", secret_key="sb_secret_wrong") as wrong:
        await wrong.record(ANOMALY)
        with pytest.raises(SetupError, match="set supabase.secret_key"):
            await wrong.sender.send_some()
        assert await wrong.state.read(lambda c: outbox.depth(c, sync.DESTINATION)) == 1


async def test_a_project_without_tables_waits_and_says_what_to_do(server: object, empty: str, tmp_path: Path) -> None:
    dsn = server.dsn(server.new_database(empty), user="authenticator")
    with gateway(dsn) as running:
        async with scene_of(dsn, running, tmp_path) as bare:
            await bare.record(ANOMALY)
            with pytest.raises(SetupError, match="driftlock-otlp supabase migrate"):
                await bare.sender.send_some()


async def test_status_changes_here_are_told_with_who_and_why(scene: Scene) -> None:
    await scene.record(ANOMALY)
    await scene.write(
        anomalies.set_status, ANOMALY.id, AnomalyStatus.DISMISSED, actor="key:1", note="ok", at_unix_nano=NOW
    )
    await scene.send_all()
    assert scene.query("select status from anomalies") == [("dismissed",)]
    assert scene.query("select status, note, actor, origin from anomaly_status_history") == [
        ("dismissed", "ok", "key:1", "sidecar")
    ]
    assert scene.query("select actor, action, origin from audit_log") == [("key:1", "status_changed", "sidecar")]


def in_the_dashboard(
    scene: Scene, function: str, value: str, user: str = "00000000-0000-4000-8000-00000000000a"
) -> None:
    """Let an operator of the organisation act on the anomaly in the dashboard."""
    with psycopg.connect(scene.dsn) as connection:
        connection.execute("insert into auth.users (id) values (%s) on conflict do nothing", [user])
        connection.execute(
            "insert into organization_members select id, %s, 'operator' from organizations on conflict do nothing",
            [user],
        )
        become(connection, "authenticated", user)
        connection.execute(f"select {function}(%s::uuid, %s, 'seen')", [ANOMALY.id, value])


def set_there(scene: Scene, status: str) -> None:
    in_the_dashboard(scene, "set_anomaly_status", status)


async def status_here(scene: Scene) -> str:
    known = await scene.state.read(lambda connection: anomalies.get(connection, ANOMALY.id))
    assert known is not None
    return known.status


async def test_status_changes_there_come_back_once(scene: Scene) -> None:
    await scene.record(ANOMALY)
    await scene.send_all()
    set_there(scene, "investigating")
    assert await scene.people.take_over() == 1
    assert await status_here(scene) == "investigating"
    assert await scene.people.take_over() == 0
    (entry,) = await scene.state.read(lambda c: history.entries(c, tenant="acme", subject=ANOMALY.id, limit=9))
    assert entry.actor == "user:00000000-0000-4000-8000-00000000000a"
    await scene.send_all()
    assert scene.query("select count(*) from anomaly_status_history") == [(1,)], "it was told back"
    assert scene.query("select count(*) from audit_log") == [(1,)]


async def test_of_two_changes_the_later_wins_on_both_sides(scene: Scene) -> None:
    await scene.record(ANOMALY)
    await scene.send_all()
    later = 4_000_000_000_000_000_000  # 2096: later than the clock of the database
    await scene.write(anomalies.set_status, ANOMALY.id, AnomalyStatus.DISMISSED, actor="local", at_unix_nano=later)
    set_there(scene, "investigating")
    assert await scene.people.take_over() == 0
    await scene.send_all()
    assert await status_here(scene) == "dismissed"
    assert scene.query("select status from anomalies") == [("dismissed",)]
    assert scene.query("select count(*) from anomaly_status_history") == [(2,)]


async def test_verdicts_here_are_told_there(scene: Scene) -> None:
    await scene.record(ANOMALY)
    detail = {"verdict": "false_alarm", "note": "a release"}
    facts = {"tenant": "acme", "actor": "key:1", "action": "feedback_given", "subject": ANOMALY.id, "detail": detail}
    await scene.write(history.record, at_unix_nano=NOW, **facts)
    await scene.send_all()
    assert scene.query("select verdict, note, actor, origin from anomaly_feedback") == [
        ("false_alarm", "a release", "key:1", "sidecar")
    ]


async def test_verdicts_there_reach_the_detector_and_the_history_once(scene: Scene) -> None:
    await scene.record(ANOMALY)
    await scene.send_all()
    in_the_dashboard(scene, "give_anomaly_feedback", "false_alarm")
    assert await scene.people.take_over() == 1
    assert await scene.people.take_over() == 0
    (entry,) = scene.log.read(0, 1 << 20)
    assert decode(entry.entry.payload) == Feedback(ANOMALY.stream, ANOMALY.id, "false_alarm")
    (done,) = await scene.state.read(lambda c: history.entries(c, tenant="acme", subject=ANOMALY.id, limit=9))
    assert (done.action, done.detail) == ("feedback_given", {"verdict": "false_alarm", "note": "seen"})
    await scene.send_all()
    assert scene.query("select count(*) from anomaly_feedback") == [(1,)], "it was told back"


async def test_what_was_found_without_a_project_is_sent_when_there_is_one(scene: Scene) -> None:
    await scene.record(*(numbered(n) for n in range(2500)))
    await scene.write(received, 1, 100)
    await scene.write(received, 2, 11, hour=1, tenant="")
    await scene.sender.note_usage()
    assert await scene.send_all() == (2502, 0)
    assert scene.query(
        "select slug, items from usage_hourly join organizations o on o.id = organization_id order by 1"
    ) == [
        ("acme", 100),
        ("default", 11),
    ]


def test_a_day_without_the_project_leaves_one_row_an_anomaly(tmp_path: Path) -> None:
    state = StateDatabase(tmp_path / "state.db", durability="os")
    state.open()
    state.close()
    with connect_shared(tmp_path / "state.db") as connection:
        anomalies.record(connection, ANOMALY, NOW)
        for count in range(2, 1000):
            anomaly_course.go_on(connection, ANOMALY.id, NOW, count, "high")
        assert outbox.depth(connection, sync.DESTINATION) == 1
        anomaly_course.prune(connection, before_unix_nano=NOW + 1, most=10, most_rows=10)
        assert outbox.depth(connection, sync.DESTINATION) == 0
    connection.close()
