"""Applies `supabase/migrations` to a project's database, as `supabase db push` does, and keeps the same record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psycopg

from driftlock_otlp.errors import ConfigError, RetryableError

_LOCK = 0x44524C4B
"""Two who migrate at once take turns: number of PostgreSQL's advisory lock."""


@dataclass(frozen=True, slots=True)
class Migration:
    """A file of SQL.

    Attributes:
        version: Its place: fourteen digits.
        name: What it is about.
        text: The SQL.
    """

    version: str
    name: str
    text: str


def migrations() -> list[Migration]:
    """Return every migration, in order."""
    here = Path(__file__).parent
    # In an installed package they lie beside this file, in a checkout at its top.
    folder = here / "migrations" if (here / "migrations").is_dir() else here.parents[1] / "supabase" / "migrations"
    found = []
    for path in sorted(folder.glob("*.sql")):
        version, _, name = path.stem.partition("_")
        found.append(Migration(version, name, path.read_text(encoding="utf-8")))
    return found


def apply(database_url: str) -> list[Migration]:
    """Apply what is missing, each migration in a transaction of its own; return what was applied.

    Args:
        database_url: Connection string of the project's database, as its owner.

    Raises:
        ConfigError: The database refuses, or is no Supabase project.
        RetryableError: It cannot be reached.
    """
    applied = []
    try:
        with psycopg.connect(database_url, connect_timeout=15, autocommit=True) as connection:
            row = connection.execute("select to_regclass('auth.users') is not null").fetchone()
            if row is None or not row[0]:
                raise ConfigError(
                    "supabase.database_url: this database has no table auth.users, so it is no Supabase project;"
                    " for a plain PostgreSQL run supabase/local/roles_and_stubs.sql first"
                )
            connection.execute("select pg_advisory_lock(%s)", [_LOCK])
            connection.execute("create schema if not exists supabase_migrations")
            connection.execute(
                "create table if not exists supabase_migrations.schema_migrations"
                " (version text primary key, statements text[], name text)"
            )
            known = {
                version
                for (version,) in connection.execute("select version from supabase_migrations.schema_migrations")
            }
            for migration in migrations():
                if migration.version in known:
                    continue
                with connection.transaction():
                    connection.execute(migration.text.encode())
                    connection.execute(
                        "insert into supabase_migrations.schema_migrations (version, statements, name)"
                        " values (%s, %s, %s)",
                        [migration.version, [migration.text], migration.name],
                    )
                applied.append(migration)
            # PostgREST looks at the tables anew.
            connection.execute("notify pgrst, 'reload schema'")
    except psycopg.OperationalError as error:
        raise RetryableError(f"supabase.database_url: the database cannot be reached: {error}".strip()) from None
    except psycopg.Error as error:
        raise ConfigError(f"supabase.database_url: the database refuses: {error}".strip()) from None
    return applied
