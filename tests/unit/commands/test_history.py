"""`history list` and `history verify`."""

from __future__ import annotations

import json
import sqlite3

import pytest

from driftlock_otlp.__main__ import main
from driftlock_otlp.storage import history


@pytest.fixture
def written(connection: sqlite3.Connection, queue: str) -> str:
    with connection:
        for number, actor in enumerate(("driftlock", "key:ops", "local")):
            history.record(
                connection,
                at_unix_nano=10**18 + number * 10**9,
                tenant="acme",
                actor=actor,
                action="status_changed",
                subject=f"anomaly-{number}",
                detail={"to": "dismissed", "note": "\x1b[31mred"},
            )
    return queue


def test_entries_are_listed_newest_first(written: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "list", "--set", written]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["TIME", "(UTC)", "WHO", "WHAT", "TO", "DETAIL"]
    assert [row.split()[2] for row in rows] == ["local", "key:ops", "driftlock"]
    assert "\x1b" not in rows[0]


def test_programs_get_one_object_a_line(written: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "list", "--json", "--subject", "anomaly-1", "--set", written]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["detail"] == {"to": "dismissed", "note": "\x1b[31mred"}
    assert main(["history", "list", "--limit", "0", "--set", written]) == 2


def test_sound_history_is_told_with_the_hash_to_keep(
    connection: sqlite3.Connection, written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "verify", "--set", written]) == 0
    (newest,) = history.entries(connection, tenant=None, limit=1)
    assert capsys.readouterr().out == f"3 entries, each as it was written.\nThe newest is 3: {newest.hash}\n"


def test_broken_history_is_an_error(
    connection: sqlite3.Connection, written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with connection:
        connection.execute("DROP TRIGGER history_is_never_changed")
        connection.execute("UPDATE history SET actor = 'nobody' WHERE seq = 2")
    assert main(["history", "verify", "--set", written]) == 1
    assert "entry 2 is not as it was written" in capsys.readouterr().err


def test_empty_history_is_called_so(queue: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "list", "--set", queue]) == 0
    assert main(["history", "verify", "--set", queue]) == 0
    assert capsys.readouterr().out == "Nothing has happened.\n0 entries, each as it was written.\n"
