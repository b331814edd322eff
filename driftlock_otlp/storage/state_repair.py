"""Making a state database anew from what can be read of a damaged one.

SQLite finds damage when it meets a page that cannot be: it has no checksums, so a flipped bit within
a value goes unnoticed, and what was said of the value stays. What it finds is repaired by copying
every table from both of its ends, so that a damaged page costs the rows on it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from driftlock_otlp.storage.schema import APPLICATION_ID, MIGRATIONS, take

DAMAGED_SUFFIX = ".damaged"
"""What the database before the repair is called from then on; the newest one is kept."""

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_HEADER_BYTES = 100
_APPLICATION_ID_OFFSET = 68
_HEADER_START = b"SQLite format 3\0" + bytes([0x10, 0, 2, 2, 0, 64, 32, 32])
"""What never differs in ours: the name, pages of 4096 bytes, a write-ahead log, fractions."""


def is_damage(error: sqlite3.Error) -> bool:
    """Return True if SQLite says that the file itself is wrong."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def is_ours(path: Path) -> bool:
    """Return True if the file's header, as far as it is sound, says that it is a state database."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    stored = header[_APPLICATION_ID_OFFSET : _APPLICATION_ID_OFFSET + 4]
    return stored == APPLICATION_ID.to_bytes(4, "big")


def rebuild(path: Path, version: int) -> dict[str, int]:
    """Replace a damaged database by one that holds what can be read of it.

    Nobody may have it open. If the process dies meanwhile the damaged one is still there.

    Args:
        path: The database; it is kept beside, with `DAMAGED_SUFFIX`.
        version: Schema of the damaged one.

    Returns:
        Rows that were kept, by table.

    Raises:
        OSError, sqlite3.Error: There is no room, or the disk fails.
    """
    with path.open("r+b") as file:
        if file.read(len(_HEADER_START)) != _HEADER_START:
            file.seek(0)
            file.write(_HEADER_START)
    fresh = path.with_name(path.name + ".rebuilt")
    _unlink(fresh)
    kept: dict[str, int] = {}
    with closing(sqlite3.connect(fresh, isolation_level=None)) as target:
        target.execute("PRAGMA auto_vacuum = INCREMENTAL")
        target.execute("BEGIN")
        for step in MIGRATIONS[:version]:
            take(target, step)
        with closing(sqlite3.connect(path, isolation_level=None)) as source:
            for table, key in _tables(target):
                _copy(source, target, table, key)
                kept[table] = int(target.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])  # noqa: S608 - our own names
        target.execute(f"PRAGMA user_version = {version}")
        target.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        target.execute("COMMIT")
    damaged = path.with_name(path.name + DAMAGED_SUFFIX)
    _unlink(damaged)
    os.link(path, damaged)
    # The journal belongs to the old file: it must not be replayed into the new one.
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    fresh.replace(path)
    _sync(path.parent)
    return kept


def _tables(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the name and the key of every table, parents before children."""
    found = []
    for name, sql in connection.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
    ).fetchall():
        columns = connection.execute(f'PRAGMA table_info("{name}")').fetchall()
        key = sorted((column[5], column[1]) for column in columns if column[5])
        found.append((str(name), ", ".join(column for _, column in key) if "WITHOUT ROWID" in sql else "rowid"))
    return found


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, table: str, key: str) -> None:
    columns = [str(row[1]) for row in target.execute(f'PRAGMA table_info("{table}")')]
    if key == "rowid":
        columns.insert(0, "rowid") if "id" not in columns else None
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    for order in ("ASC", "DESC"):
        terms = ", ".join(f"{column} {order}" for column in key.split(", "))
        try:
            for row in source.execute(f'SELECT {names} FROM "{table}" NOT INDEXED ORDER BY {terms}'):  # noqa: S608 - our own names
                with contextlib.suppress(sqlite3.IntegrityError, sqlite3.DataError):  # A row that cannot be, either.
                    target.execute(f'INSERT OR IGNORE INTO "{table}" ({names}) VALUES ({marks})', row)  # noqa: S608 - our own names
        except sqlite3.Error:
            continue  # From the other end.
        return


def _unlink(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
