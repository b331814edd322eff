"""Limits of the quarantine and of the state database, on clocks that are handed in."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from driftlock_otlp.config.operation import AnomaliesConfig
from driftlock_otlp.errors import StorageUnavailableError
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import anomalies, history, incidents, quarantine
from driftlock_otlp.storage.incidents import StoredIncident
from driftlock_otlp.storage.retention import Retention
from driftlock_otlp.storage.state import StateDatabase
from tests.unit.storage.test_anomalies import ANOMALY

NOW_S = 1_800_000_000.0
HOUR_S = 3600.0
MAX_AGE_S = 24 * HOUR_S
MAX_BYTES = 10_000
KEPT = AnomaliesConfig(max_age=MAX_AGE_S, max_count=2, history_max_age=48 * HOUR_S)


class Clocks:
    """A wall clock that can be set, and a steady one."""

    def __init__(self) -> None:
        self.wall_s, self.steady = NOW_S, 50.0

    def wall(self) -> int:
        return int(self.wall_s * 1e9)

    def steady_s(self) -> float:
        return self.steady

    def pass_time(self, seconds: float) -> None:
        self.wall_s += seconds
        self.steady += seconds


class Bench:
    def __init__(self, path: Path) -> None:
        self.clocks = Clocks()
        self.metrics = Metrics()
        self.state = StateDatabase(path, durability="os", metrics=self.metrics)
        self.state.open()
        self.start()
        self._position = 0

    def start(self) -> None:
        self.retention = Retention(
            self.state, MAX_BYTES, MAX_AGE_S, KEPT, self.metrics, self.clocks.wall, self.clocks.steady_s
        )

    async def withhold(self, payload_bytes: int = 1000, items: int = 3, signal: Signal = Signal.LOGS) -> None:
        self._position += 1
        await self.state.write(
            partial(
                quarantine.add,
                position=self._position,
                signal=signal,
                anomaly_ids=["ab" * 16],
                stream="logs/shop",
                payload=bytes(payload_bytes),
                item_count=items,
                now_unix_nano=self.clocks.wall(),
            )
        )

    async def keep_house(self, seconds: float = 0.0) -> None:
        self.clocks.pass_time(seconds + 3.0)
        await self.retention.keep(0)

    async def items(self) -> int:
        return (await self.state.read(quarantine.level)).item_count

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"driftlock_quarantine_{name}", labels)


def size_of(path: Path) -> int:
    """Return the size of the database with what its write-ahead log holds."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return path.stat().st_size


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "state.db")
    yield made
    made.state.close()


async def test_oldest_is_dropped_for_its_age_after_the_metrics_have_counted_down(bench: Bench) -> None:
    await bench.withhold()
    await bench.keep_house(HOUR_S)
    assert bench.value("expires_seconds") == pytest.approx(23 * HOUR_S, abs=10)
    await bench.withhold(items=4)
    await bench.keep_house(22 * HOUR_S)
    assert bench.value("expires_seconds") == pytest.approx(HOUR_S, abs=10)
    assert await bench.items() == 7
    await bench.keep_house(HOUR_S)
    assert await bench.items() == 4
    assert bench.value("dropped_items_total", signal="logs", reason="max_age") == 3
    assert bench.value("expires_seconds") == pytest.approx(HOUR_S, abs=10)
    assert bench.value("items") == 4


async def test_oldest_are_dropped_beyond_the_size_which_the_metrics_show_against_the_limit(bench: Bench) -> None:
    for number in range(10):
        await bench.withhold(items=1, signal=Signal.TRACES if number == 0 else Signal.LOGS)
        bench.clocks.pass_time(1.0)
    await bench.keep_house()
    assert (bench.value("bytes"), bench.value("max_bytes")) == (MAX_BYTES, MAX_BYTES)
    assert await bench.items() == 10
    await bench.withhold(1500)
    await bench.keep_house()
    assert bench.value("bytes") == 9500
    assert bench.value("dropped_items_total", signal="traces", reason="max_bytes") == 1
    assert bench.value("dropped_items_total", signal="logs", reason="max_bytes") == 1


async def test_what_became_too_old_while_the_process_was_down_is_announced_first(bench: Bench) -> None:
    await bench.withhold()
    bench.clocks.pass_time(30 * MAX_AGE_S)
    bench.start()
    await bench.keep_house()
    assert await bench.items() == 3
    assert bench.value("expires_seconds") == pytest.approx(597, abs=1)
    await bench.keep_house(600)
    assert await bench.items() == 0


async def test_clock_that_jumps_ahead_makes_nothing_old(bench: Bench) -> None:
    await bench.withhold()
    await bench.keep_house(HOUR_S)
    bench.clocks.wall_s += 365 * MAX_AGE_S
    await bench.keep_house()
    assert await bench.items() == 3
    bench.clocks.wall_s -= 365 * MAX_AGE_S
    await bench.keep_house(HOUR_S)
    assert await bench.items() == 3
    assert bench.value("expires_seconds") == pytest.approx(22 * HOUR_S, abs=10)


async def test_released_row_that_the_disk_has_damaged_is_counted_and_not_sent(bench: Bench) -> None:
    await bench.withhold()
    await bench.withhold(items=5)

    def damage(connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE quarantine SET payload = cast(x'01' || substr(payload, 2) AS BLOB) WHERE position = 1"
        )
        quarantine.release(connection, None)

    await bench.state.write(damage)
    assert [row.item_count for row in await bench.state.read(lambda c: quarantine.released(c, 10))] == [5]
    await bench.keep_house()
    assert bench.value("dropped_items_total", signal="logs", reason="damaged") == 3
    assert await bench.state.read(lambda c: c.execute("SELECT count(*) FROM quarantine").fetchone()) == (1,)


async def test_file_shrinks_when_much_of_it_is_unused(bench: Bench, tmp_path: Path) -> None:
    for _ in range(40):
        await bench.withhold(1 << 20)
    before_bytes = size_of(tmp_path / "state.db")
    await bench.keep_house()
    assert (bench.value("bytes"), await bench.items()) == (40 << 20, 120)  # It is said before anything goes.
    await bench.keep_house()  # All but nothing is beyond the limit.
    assert (await bench.state.read(quarantine.level)).payload_bytes <= MAX_BYTES
    for _ in range(4):
        await bench.keep_house(61.0)
    assert before_bytes > 40 << 20
    assert size_of(tmp_path / "state.db") < 10 << 20
    assert bench.metrics.registry.get_sample_value("driftlock_state_bytes") is not None


async def test_disk_that_takes_nothing_is_tried_again_until_it_does(bench: Bench) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # As many as there are.
        connection.execute("INSERT INTO requests VALUES (1, 1, zeroblob(1000000))")

    assert bench.state.failing_s == 0.0
    for _ in range(2):
        with pytest.raises(StorageUnavailableError):
            await bench.state.write(fill)
        assert not bench.state.is_writable
    assert bench.state.failing_s > 0.0
    await bench.keep_house()
    assert bench.state.is_writable
    assert bench.state.failing_s == 0.0


async def test_old_anomalies_and_entries_of_the_history_go_and_it_is_said(bench: Bench) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        for number in range(5):
            anomaly = replace(ANOMALY, id=f"{number:032x}", state="resolved", incident_id=f"{number}")
            anomalies.record(connection, anomaly, bench.clocks.wall() + number)
            incidents.put(connection, StoredIncident(f"{number}", "", "notice", "resolved", 1, 1, 1, anomaly.id, ""))
        history.record(
            connection, at_unix_nano=bench.clocks.wall(), tenant="", actor="local", action="a", subject="s", detail={}
        )

    await bench.state.write(fill)
    await bench.retention.keep(0)
    assert len(await bench.state.read(anomalies.find)) == KEPT.max_count
    assert len(await bench.state.read(lambda c: incidents.newest(c, limit=9))) == KEPT.max_count
    bench.clocks.pass_time(MAX_AGE_S + 60)
    await bench.retention.keep(0)
    assert await bench.state.read(anomalies.find) == []
    bench.clocks.pass_time(MAX_AGE_S)
    await bench.retention.keep(0)
    entries = await bench.state.read(lambda c: history.entries(c, tenant=None, limit=9))
    assert [(entry.action, entry.detail.get("count", entry.detail.get("entries"))) for entry in entries] == [
        ("history_pruned", 2),
        ("anomalies_pruned", 2),
    ]
    assert await bench.state.read(history.verify) is None
