"""What each role may do with each table, by trying it; `python -m tests.supabase.matrix` writes it into the page."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.supabase.database import PROJECT, ROOT, STUBS, become, run_file, running_server

PAGE = ROOT / "docs" / "supabase.md"

_ONE = "00000000-0000-4000-8000-000000000001"
_USERS: dict[str, tuple[str, str | None]] = {
    "anon": ("anon", None),
    "viewer": ("authenticated", "00000000-0000-4000-8000-00000000000d"),
    "operator": ("authenticated", "00000000-0000-4000-8000-00000000000c"),
    "admin": ("authenticated", "00000000-0000-4000-8000-00000000000b"),
    "owner": ("authenticated", "00000000-0000-4000-8000-00000000000a"),
    "other member": ("authenticated", "00000000-0000-4000-8000-00000000000e"),
    "service": ("service_role", None),
}
_SECTION = re.compile(r"(<!-- roles -->\n)(.*?)(<!-- end of roles -->)", re.DOTALL)
_LETTERS = {"select": "read", "insert": "add", "update": "change", "delete": "remove"}

Matrix = dict[tuple[str, str], set[str]]


def measure(connection: psycopg.Connection[Any]) -> Matrix:
    """Return which commands work for each table and role on rows of organisation one; `other` if it reads two's."""
    include = (PROJECT / "tests" / "include" / "organizations.sql").read_text()
    run_file(connection, PROJECT / "local" / "tap.sql")
    connection.execute(include)
    tables = connection.execute(
        "select relname, array(select attname::text from pg_attribute where attrelid = c.oid and attnum > 0"
        " and not attisdropped and attidentity = '' order by attnum)"
        " from pg_class c where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
        " and not relispartition order by relname"
    ).fetchall()
    return {
        (table, name): _allowed(connection, table, columns, role, user)
        for table, columns in tables
        for name, (role, user) in _USERS.items()
    }


def _allowed(
    connection: psycopg.Connection[Any], table: str, columns: list[str], role: str, user: str | None
) -> set[str]:
    owner = "id" if table == "organizations" else "organization_id"
    one = sql.SQL("{} = {}").format(sql.Identifier(owner), sql.Literal(_ONE))
    own: sql.Composed = one if owner in columns else sql.Composed([sql.SQL("true")])
    readable = _columns_to(connection, "select", table, columns, role)
    changeable = _columns_to(connection, "update", table, columns, role)
    meant = sql.SQL("{} and role = 'viewer'").format(own) if table == "organization_members" else own
    rows = connection.execute(sql.SQL("select * from {} where {} limit 1").format(sql.Identifier(table), meant))
    names = [column.name for column in rows.description or []]
    row = dict(zip(names, rows.fetchone() or [], strict=True))
    attempts = {
        "select": sql.SQL("select {} from {} where {}").format(
            _list(readable or columns[:1]), sql.Identifier(table), own
        ),
        "insert": sql.SQL("insert into {} ({}) values ({})").format(
            sql.Identifier(table),
            _list(columns),
            sql.SQL(", ").join(sql.Literal(_json(row[column])) for column in columns),
        ),
        "update": sql.SQL("update {} set {} where {}").format(
            sql.Identifier(table),
            sql.SQL(", ").join(sql.SQL("{0} = {0}").format(sql.Identifier(c)) for c in changeable or columns[:1]),
            own,
        ),
        "delete": sql.SQL("delete from {} where {}").format(sql.Identifier(table), meant),
    }
    may = {command for command, statement in attempts.items() if _works(connection, statement, role, user)}
    if owner in columns and "select" in may and role != "service_role":
        strange = sql.SQL("select {} from {} where not {}").format(_list(readable), sql.Identifier(table), own)
        if user != _USERS["other member"][1] and _works(connection, strange, role, user):
            may.add("other")
    return may


def _columns_to(
    connection: psycopg.Connection[Any], command: str, table: str, columns: list[str], role: str
) -> list[str]:
    """Return the columns for which a role has a privilege."""
    found = connection.execute(
        "select name from unnest(%s::text[]) name where has_column_privilege(%s, %s, name, %s)",
        [columns, role, table, command],
    )
    return [name for (name,) in found]


def _works(connection: psycopg.Connection[Any], statement: sql.Composed, role: str, user: str | None) -> bool:
    """Return whether a command is not refused; reading, changing and removing must also find a row."""
    try:
        with connection.transaction(force_rollback=True):
            become(connection, role, user)
            return connection.execute(statement).rowcount > 0
    except psycopg.errors.InsufficientPrivilege:
        return False
    except (psycopg.errors.UniqueViolation, psycopg.errors.ForeignKeyViolation, psycopg.errors.CheckViolation):
        return True  # It got past the policies.


def _list(columns: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _json(value: Any) -> Any:
    return Jsonb(value) if isinstance(value, dict) else value


def table(matrix: Matrix) -> str:
    """Return the table for the page."""
    lines = [f"| Table | {' | '.join(_USERS)} |", f"| --- |{' --- |' * len(_USERS)}"]
    for name in sorted({name for name, _ in matrix}):
        cells = (
            ", ".join(word for command, word in _LETTERS.items() if command in matrix[name, role]) or "–"
            for role in _USERS
        )
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def section_of(page: str) -> str:
    """Return the table that a page has."""
    found = _SECTION.search(page)
    assert found is not None, "the page has no place for the table"
    return found[2]


def write() -> None:
    """Measure on a database made for it, and write the page's table anew."""
    with running_server() as server, psycopg.connect(server.dsn(server.new_database())) as connection:
        run_file(connection, STUBS)
        for path in sorted((PROJECT / "migrations").glob("*.sql")):
            run_file(connection, path)
        found = table(measure(connection))
    PAGE.write_text(_SECTION.sub(lambda part: part[1] + found + part[3], PAGE.read_text()))


if __name__ == "__main__":
    write()
