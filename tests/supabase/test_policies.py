"""What each role may do: the tests that `supabase test db` runs, and the table in the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.supabase import matrix
from tests.supabase.database import PROJECT, run_file

TESTS = sorted((PROJECT / "tests").glob("*.sql"))
_FACTS = """
anomalies evidence streams anomaly_status_history anomaly_feedback usage_events usage_hourly usage_monthly
subscriptions plans invoices quota_alerts audit_log api_keys
"""
_INCLUDE = re.compile(r"^\\ir (\S+)$", re.MULTILINE)


def lines_of(connection: psycopg.Connection[Any], path: Path) -> list[str]:
    """Run a file of tests and return what it says, as psql would."""
    text = _INCLUDE.sub(lambda found: (path.parent / found[1]).read_text(), path.read_text())
    lines: list[str] = []
    cursor = connection.execute(text)
    while True:
        if cursor.description is not None:
            lines += [line for row in cursor.fetchall() for line in str(row[0]).splitlines()]
        if not cursor.nextset():
            return lines


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_sql_tests_pass(path: Path, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        run_file(connection, PROJECT / "local" / "tap.sql")
        lines = lines_of(connection, path)
    wrong = [line for line in lines if not line.startswith("ok ")]
    assert wrong[0].startswith("1.."), lines
    assert wrong[1:] == [], "\n".join(lines)
    assert f"1..{len(lines) - 1}" == wrong[0]


def test_a_failing_sql_test_fails(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        run_file(connection, PROJECT / "local" / "tap.sql")
        said = connection.execute(
            "select extensions.is(1, 2, 'a'), extensions.throws_ok('select 1', '42501', null, 'b'),"
            " extensions.lives_ok('select 1/0', 'c'), extensions.throws_ok('select 1/0', '42501', null, 'd')"
        ).fetchone()
    assert said is not None
    assert all(line.startswith("not ok ") for line in said)


def test_the_documented_table_is_what_each_role_may_really_do(database: str) -> None:
    with psycopg.connect(database) as connection:
        found = matrix.table(matrix.measure(connection))
    page = matrix.PAGE.read_text()
    assert matrix.section_of(page) == found, f"run `python -m tests.supabase.matrix`; it writes {matrix.PAGE.name}"


def test_members_write_no_facts_and_read_no_other_organisation(database: str) -> None:
    with psycopg.connect(database) as connection:
        found = matrix.measure(connection)
    facts = set(_FACTS.split())
    assert facts <= {table for table, _ in found}
    for (table, role), may in found.items():
        if role != "service":
            assert not may & {"other"}, f"{role} reads another organisation's {table}"
            if table in facts:
                assert may <= {"select"}, f"{role} writes {table}"
