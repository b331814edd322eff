"""The history: entries are added, and whoever changes one is found out."""

from __future__ import annotations

import hashlib
import json
import sqlite3

import pytest

from driftlock_otlp.storage import history


def write(connection: sqlite3.Connection, count: int, tenant: str = "acme") -> None:
    for number in range(count):
        history.record(
            connection,
            at_unix_nano=1000 + number,
            tenant=tenant,
            actor="key:ops",
            action="status_changed",
            subject=f"anomaly-{number % 2}",
            detail={"to": "dismissed", "note": "“größer”", "number": number},
        )
    connection.commit()


def numbers(entries: list[history.HistoryEntry]) -> list[int]:
    return [entry.seq for entry in entries]


def test_entries_come_back_newest_first_by_tenant_subject_and_page(connection: sqlite3.Connection) -> None:
    write(connection, 4)
    write(connection, 2, tenant="other")
    assert numbers(history.entries(connection, tenant=None, limit=9)) == [6, 5, 4, 3, 2, 1]
    assert numbers(history.entries(connection, tenant="acme", limit=3)) == [4, 3, 2]
    assert numbers(history.entries(connection, tenant="acme", before=2, limit=3)) == [1]
    assert numbers(history.entries(connection, tenant="acme", subject="anomaly-1", limit=9)) == [4, 2]
    (first,) = history.entries(connection, tenant="other", subject="anomaly-0", limit=1)
    assert (first.at_unix_nano, first.actor, first.action) == (1000, "key:ops", "status_changed")
    assert first.detail == {"to": "dismissed", "note": "“größer”", "number": 0}


def test_hash_is_what_the_page_on_the_history_says(connection: sqlite3.Connection) -> None:
    write(connection, 2)
    previous = ""
    for row in connection.execute(
        "SELECT seq, at_unix_nano, tenant, actor, action, subject, detail, previous_hash, hash FROM history"
    ):
        text = json.dumps([previous, *row[:7]], separators=(",", ":"), ensure_ascii=False)
        assert row[7] == previous
        previous = row[8]
        assert hashlib.sha256(text.encode()).hexdigest() == previous


@pytest.mark.parametrize("statement", ["UPDATE history SET actor = 'nobody'", "DELETE FROM history WHERE seq = 2"])
def test_database_refuses_to_change_an_entry(connection: sqlite3.Connection, statement: str) -> None:
    write(connection, 3)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    assert history.verify(connection) is None


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        ("UPDATE history SET actor = 'nobody' WHERE seq = 2", 2),
        ("UPDATE history SET detail = '{}' WHERE seq = 3", 3),
        ("DELETE FROM history WHERE seq = 2", 2),
        ("DELETE FROM history WHERE seq = 1", 1),
    ],
)
def test_entry_that_was_changed_behind_our_back_is_found(
    connection: sqlite3.Connection, statement: str, broken: int
) -> None:
    write(connection, 4)
    connection.execute("DROP TRIGGER history_is_never_changed")
    connection.execute("DROP TRIGGER history_is_never_deleted")
    connection.execute(statement)
    assert history.verify(connection) == broken


def test_pruned_history_stays_verifiable_and_says_what_went(connection: sqlite3.Connection) -> None:
    write(connection, 6)
    (last_gone,) = history.entries(connection, tenant=None, before=4, limit=1)
    assert history.prune(connection, 1003, 5000, most_rows=100) == 3
    assert history.prune(connection, 1003, 5000, most_rows=100) == 0
    left = history.entries(connection, tenant=None, limit=9)
    assert numbers(left) == [7, 6, 5, 4]
    assert (left[0].actor, left[0].action) == ("driftlock", "history_pruned")
    assert left[0].detail == {"entries": 3, "last_seq": 3, "last_hash": last_gone.hash}
    assert history.verify(connection) is None
    write(connection, 1)
    assert history.verify(connection) is None


def test_what_is_pruned_waits_for_no_destination_any_more(connection: sqlite3.Connection) -> None:
    write(connection, 3)
    noted = "SELECT count(*) FROM outbox WHERE key LIKE 'history:%'"
    before = connection.execute(noted).fetchone()[0]
    gone = history.prune(connection, 9000, 9000, most_rows=100)
    # What says that they were pruned is an entry itself.
    assert connection.execute(noted).fetchone()[0] == before - gone + 1


def test_history_of_which_all_is_pruned_goes_on_where_it_was(connection: sqlite3.Connection) -> None:
    write(connection, 3)
    assert history.prune(connection, 9000, 9000, most_rows=100) == 3
    assert numbers(history.entries(connection, tenant=None, limit=9)) == [4]
    assert history.verify(connection) is None


def test_text_that_no_database_holds_does_not_keep_an_entry_from_being_written(connection: sqlite3.Connection) -> None:
    history.record(
        connection, at_unix_nano=1, tenant="", actor="key:\ud800", action="a", subject="s", detail={"note": "fine"}
    )
    assert history.verify(connection) is None
