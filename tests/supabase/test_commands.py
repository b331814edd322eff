"""`driftlock-otlp supabase` and `usage reconcile`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from driftlock_otlp.__main__ import main
from driftlock_otlp.storage import anomalies, sync
from driftlock_otlp.storage.state import STATE_FILE, StateDatabase, connect_shared
from tests.supabase.database import Server
from tests.supabase.postgrest import PUBLISHABLE_KEY, SECRET_KEY, Gateway, gateway
from tests.supabase.scene import ANOMALY, NOW, numbered, received


@pytest.fixture
def project(database: str) -> Iterator[Gateway]:
    with gateway(database.replace("user=postgres", "user=authenticator")) as running:
        yield running


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state of a sidecar that has found an anomaly and counted three requests, one of them long ago."""
    path = tmp_path / STATE_FILE
    made = StateDatabase(path, durability="os")
    made.open()
    made.close()
    with closing(connect_shared(path)) as connection, connection:
        anomalies.record(connection, ANOMALY, NOW)
        hours_ago = -_hours_since_then()
        received(connection, 1, 100, hour=hours_ago)
        received(connection, 2, 40, hour=hours_ago - 1, tenant="")
    return path


def _hours_since_then() -> int:
    return (NOW - time.time_ns()) // 3_600_000_000_000 + 1


def run(command: list[str], project: Gateway, state: Path, *settings: str) -> int:
    pairs = [
        f"queue.path={state.parent}",
        f"supabase.url={project.url}",
        f"supabase.secret_key={SECRET_KEY}",
        *settings,
    ]
    return main([*command, *(part for pair in pairs for part in ("--set", pair))])


def test_migrate_makes_the_tables_once(server: Server, empty: str, capsys: pytest.CaptureFixture[str]) -> None:
    dsn = server.dsn(server.new_database(empty))
    assert main(["supabase", "migrate", "--set", f"supabase.database_url={dsn}"]) == 0
    assert "4 migrations applied" in capsys.readouterr().out
    assert main(["supabase", "migrate", "--set", f"supabase.database_url={dsn}"]) == 0
    assert "0 migrations applied" in capsys.readouterr().out
    with psycopg.connect(dsn) as connection:
        kept = connection.execute(
            "select version, name from supabase_migrations.schema_migrations order by 1"
        ).fetchall()
    assert kept[0] == ("20261124000100", "organizations")


def test_migrate_without_a_connection_string_says_where_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["supabase", "migrate"]) == 2
    assert "SUPABASE_DB_URL" in capsys.readouterr().err


def test_migrate_refuses_what_is_no_supabase_project(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    dsn = server.dsn(server.new_database())
    assert main(["supabase", "migrate", "--set", f"supabase.database_url={dsn}"]) == 2
    assert "no Supabase project" in capsys.readouterr().err


def test_push_sends_what_waits_and_reconcile_then_finds_nothing(
    project: Gateway, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["usage", "reconcile"], project, state) == 0
    assert "140  counted since the last event" in capsys.readouterr().out
    assert run(["supabase", "push"], project, state) == 0
    assert "3 of what waited has arrived, 0 refused" in capsys.readouterr().out
    assert run(["usage", "reconcile"], project, state) == 0
    out = capsys.readouterr().out
    assert "140  in the project" in out
    assert "No difference" in out


def test_push_says_what_is_refused_and_why(project: Gateway, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(connect_shared(state)) as connection, connection:
        anomalies.record(connection, numbered(7, severity="catastrophic"), NOW)
    assert run(["supabase", "push"], project, state) == 1
    assert "is refused: anomalies: 23514" in " ".join(capsys.readouterr().err.split())
    assert run(["supabase", "check"], project, state) == 1


def test_check_says_that_all_is_well(project: Gateway, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["supabase", "push"], project, state) == 0
    assert run(["supabase", "check"], project, state) == 0
    assert "usage_events is there, and the key may read it ok" in " ".join(capsys.readouterr().out.split())


def test_a_project_can_be_checked_from_a_machine_without_a_sidecar(project: Gateway, tmp_path: Path) -> None:
    assert run(["supabase", "check"], project, tmp_path / "none" / STATE_FILE) == 0


def test_check_names_the_remedy(project: Gateway, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["supabase", "check"], project, state, "supabase.secret_key=sb_secret_other") == 1
    assert "supabase.secret_key" in capsys.readouterr().out
    assert run(["supabase", "check"], project, state, f"supabase.secret_key={PUBLISHABLE_KEY}") == 2
    err = capsys.readouterr().err
    assert "supabase.secret_key: this is a publishable key" in err
    assert PUBLISHABLE_KEY not in err


def test_reconcile_finds_what_was_removed_and_says_how_much(
    project: Gateway, state: Path, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["supabase", "push"], project, state) == 0
    with psycopg.connect(database) as connection:
        connection.execute("alter table usage_events disable trigger usage_events_is_append_only")
        connection.execute("delete from usage_events where items = 40")
    capsys.readouterr()
    assert run(["usage", "reconcile"], project, state) == 1
    assert "default       logs    40       0                    40" in capsys.readouterr().out


def test_reconcile_tells_what_is_refused_and_what_waits(
    project: Gateway, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(connect_shared(state)) as connection, connection:
        sync.note_usage(connection, NOW)
        (row,) = connection.execute("SELECT id FROM outbox WHERE key LIKE 'usage:%' ORDER BY id LIMIT 1").fetchone()
        sync.refuse(connection, {row: "a test"})
    assert run(["usage", "reconcile"], project, state) == 0
    out = capsys.readouterr().out
    assert "100  in events that wait to be sent" in out
    assert "40  in events that the project refuses" in out
    assert run(["supabase", "push", "--again"], project, state) == 0
    capsys.readouterr()
    assert run(["usage", "reconcile"], project, state) == 0
    assert "140  in the project" in capsys.readouterr().out
