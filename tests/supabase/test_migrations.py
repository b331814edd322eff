"""Migrations run from an empty database, and twice."""

from __future__ import annotations

import re
from typing import Any

import psycopg

from tests.supabase.database import PROJECT, Server, run_file

MIGRATIONS = sorted((PROJECT / "migrations").glob("*.sql"))

_SHAPE = """
select table_name, column_name, data_type, is_nullable, column_default from information_schema.columns
where table_schema in ('public', 'driftlock') order by 1, 2
"""
_POLICIES = "select tablename, policyname, cmd, roles::text, qual, with_check from pg_policies order by 1, 2"


def shape_of(connection: psycopg.Connection[Any]) -> tuple[list[Any], list[Any]]:
    return connection.execute(_SHAPE).fetchall(), connection.execute(_POLICIES).fetchall()


def test_migrations_have_an_order_and_say_what_they_are_about() -> None:
    assert MIGRATIONS
    for path in MIGRATIONS:
        assert re.fullmatch(r"\d{14}_[a-z_]+\.sql", path.name), path.name
        assert path.read_text().startswith("-- ")


def test_migrations_run_twice_and_change_nothing_the_second_time(server: Server, empty: str) -> None:
    with psycopg.connect(server.dsn(server.new_database(empty))) as connection:
        for path in MIGRATIONS:
            run_file(connection, path)
        once = shape_of(connection)
        for path in MIGRATIONS:
            run_file(connection, path)
        assert shape_of(connection) == once


def test_the_seed_loads_twice_and_is_counted_once(database: str) -> None:
    with psycopg.connect(database) as connection:
        run_file(connection, PROJECT / "seed.sql")
        run_file(connection, PROJECT / "seed.sql")
        assert connection.execute("select items from public.usage_hourly").fetchall() == [(1200,)]
        assert connection.execute("select service, status, organization from public.anomaly_overview").fetchall() == [
            ("checkout", "new", "Acme")
        ]


def test_every_table_view_column_and_function_says_what_it_is(database: str) -> None:
    with psycopg.connect(database) as connection:
        silent = connection.execute(
            "select c.relname from pg_class c where c.relnamespace = 'public'::regnamespace"
            " and c.relkind in ('r', 'p', 'v') and obj_description(c.oid, 'pg_class') is null"
            " union all select c.relname || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid"
            " where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition"
            " and a.attnum > 0 and not a.attisdropped and col_description(c.oid, a.attnum) is null"
            " union all select p.proname from pg_proc p where p.pronamespace::regnamespace::text in"
            " ('public', 'driftlock') and obj_description(p.oid, 'pg_proc') is null"
        ).fetchall()
        assert silent == []
