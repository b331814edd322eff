"""The state database of a sidecar, as the commands find it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from driftlock_otlp.storage.state import STATE_FILE, StateDatabase, connect_shared


@pytest.fixture
def queue(tmp_path: Path) -> str:
    """Makes the database; returns the setting that names it."""
    database = StateDatabase(tmp_path / STATE_FILE, durability="os")
    database.open()
    database.close()
    return f"queue.path={tmp_path}"


@pytest.fixture
def connection(queue: str) -> Iterator[sqlite3.Connection]:
    with closing(connect_shared(Path(queue.removeprefix("queue.path=")) / STATE_FILE)) as shared:
        yield shared
