"""What workers stand on: a log on disk and small windows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from driftlock_otlp.config.file import load
from driftlock_otlp.config.root import Config
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage.log import SegmentLog
from driftlock_otlp.storage.state import StateDatabase

SIZE = 10


@pytest.fixture
def config(tmp_path: Path) -> Config:
    settings = [f"queue.path={tmp_path}", f"windows.logs.size={SIZE}", "windows.logs.max_age=1s"]
    return load(None, [*settings, "windows.logs.baseline_records=40", "detection.warm_up_windows=20"], environ={})


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SegmentLog]:
    made = SegmentLog(tmp_path / "log", durability="os", segment_bytes=64 << 20, max_bytes=1 << 30, metrics=Metrics())
    made.open()
    yield made
    made.close()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDatabase]:
    database = StateDatabase(tmp_path / "state.db", durability="os")
    database.open()
    yield database
    database.close()
