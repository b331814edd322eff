"""One server for all tests of a process; each test that writes has a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from tests.supabase.database import PROJECT, STUBS, Server, run_file, running_server
from tests.supabase.postgrest import gateway
from tests.supabase.scene import Scene, scene_of


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


@pytest.fixture(scope="session")
def empty(server: Server) -> str:
    """A Supabase project before its first migration, to be copied."""
    name = server.new_database()
    with psycopg.connect(server.dsn(name)) as connection:
        run_file(connection, STUBS)
    server.freeze(name)
    return name


@pytest.fixture(scope="session")
def migrated(server: Server, empty: str) -> str:
    """A project with all migrations, to be copied."""
    name = server.new_database(empty)
    with psycopg.connect(server.dsn(name)) as connection:
        for path in sorted((PROJECT / "migrations").glob("*.sql")):
            run_file(connection, path)
    server.freeze(name)
    return name


@pytest.fixture
def database(server: Server, migrated: str) -> Iterator[str]:
    """A migrated project of the test's own: how to connect to it as its owner."""
    name = server.new_database(migrated)
    yield server.dsn(name)
    server.drop(name)


@pytest_asyncio.fixture
async def scene(database: str, tmp_path: Path) -> AsyncIterator[Scene]:
    with gateway(database.replace("user=postgres", "user=authenticator")) as running:
        async with scene_of(database, running, tmp_path) as made:
            yield made
