"""The API with and without keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from driftlock_otlp.storage.state import StateDatabase
from tests.unit.api.v1.api import Api, new_api


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDatabase]:
    database = StateDatabase(tmp_path / "state.db", durability="memory")
    database.open()
    yield database
    database.close()


@pytest.fixture
def api(state: StateDatabase) -> Api:
    return new_api(state)


@pytest.fixture
def keyed(state: StateDatabase, tmp_path: Path) -> Api:
    return new_api(state, tmp_path / "keys.yaml")
