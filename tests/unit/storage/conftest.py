"""A state database with its tables, as the stores' functions get it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from driftlock_otlp.storage.state import StateDatabase, connect_shared


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    database = StateDatabase(tmp_path / "state.db", durability="os")
    database.open()
    database.close()
    with closing(connect_shared(tmp_path / "state.db")) as shared:
        yield shared
