"""The pool with real processes: started, fed, listened to, started again."""

from __future__ import annotations

import asyncio
import os
import signal as process_signal
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from driftlock_otlp.config.root import Config
from driftlock_otlp.model import Anomaly, NewEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import anomalies, verdicts
from driftlock_otlp.storage.incidents import StoredIncident
from driftlock_otlp.storage.log import SegmentLog
from driftlock_otlp.storage.state import StateDatabase, cursors
from driftlock_otlp.worker.pool import WorkerPool
from tests.e2e.traffic import Traffic
from tests.unit.worker.conftest import SIZE

PATIENCE_S = 60.0


class Bench:
    """A pool, its log, and what it enqueued for new anomalies."""

    def __init__(self, config: Config, log: SegmentLog, state: StateDatabase, directory: Path) -> None:
        self.config, self.log, self.state = config, log, state
        self.directory = directory
        self.metrics = Metrics()
        self.told: list[Anomaly] = []
        self.traffic = Traffic()
        self.positions: list[int] = []
        self.pool = self.new_pool()

    def new_pool(self) -> WorkerPool:
        self.pool = WorkerPool(
            self.config, self.log, self.directory / "log", self.state, self.metrics, time.time_ns, self
        )
        return self.pool

    def anomaly(self, connection: sqlite3.Connection, anomaly: Anomaly) -> None:
        assert connection.in_transaction
        self.told.append(anomaly)

    def incident(self, connection: sqlite3.Connection, incident: StoredIncident, change: str, anomaly: Anomaly) -> None:
        assert connection.in_transaction

    async def append(self, fault_share: float = 0.0) -> None:
        payload = self.traffic.logs(SIZE, fault_share)
        # An hour ago, ten seconds apart: the faster windows come, the higher is the bar for an alarm.
        received = time.time_ns() - (3600 - 10 * len(self.positions)) * 10**9
        self.positions.append(await self.log.append(NewEntry(Signal.LOGS, payload, SIZE, received)))

    async def judged(self) -> None:
        """Return when everything appended has its verdict."""
        end = self.log.end().position
        async with asyncio.timeout(PATIENCE_S):
            while self.pool.watermark < end:
                await asyncio.sleep(0.01)

    async def ready(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not self.pool.is_ready:
                await asyncio.sleep(0.01)

    async def rows(self, query: str, expected: list[tuple[object, ...]]) -> bool:
        """Return whether the state database comes to say this: what is not urgent is written once a second."""
        deadline_s = time.monotonic() + PATIENCE_S
        while (found := await self.state.read(lambda c: c.execute(query).fetchall())) != expected:
            assert time.monotonic() < deadline_s, found
            await asyncio.sleep(0.05)
        return True

    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self.pool._workers if worker.process is not None]


@pytest.fixture
async def bench(config: Config, log: SegmentLog, state: StateDatabase, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(config, log, state, tmp_path)
    yield made
    await made.pool.stop(20.0)


async def test_anomalies_verdicts_and_the_cursor_are_durable_before_the_watermark_moves(bench: Bench) -> None:
    await bench.pool.start()
    assert not bench.pool.is_ready
    for turn in range(90):
        await bench.append(fault_share=1.0 if turn >= 80 else 0.0)
    await bench.ready()
    await bench.judged()
    (anomaly,) = [told for told in bench.told if told.state == "open"]
    known = await bench.state.read(lambda connection: anomalies.get(connection, anomaly.id))
    assert known is not None
    assert (known.explanation, known.state, known.window_count) == (anomaly.explanation, "ongoing", 10)
    rows = await bench.state.read(lambda connection: verdicts.between(connection, 0, 1 << 60))
    assert set(rows) <= set(bench.positions[80:])
    assert len(rows) >= 8
    assert all(item.anomaly_id == anomaly.id and item.count == SIZE for items in rows.values() for item in items)
    value = bench.metrics.registry.get_sample_value
    assert value("driftlock_anomalies_total", {"kind": "logs", "severity": anomaly.severity}) == 1
    assert value("driftlock_open_anomalies") == 1


async def test_a_window_that_is_not_full_closes_by_ticks_when_nothing_more_comes(bench: Bench) -> None:
    await bench.pool.start()
    payload = bench.traffic.logs(3)
    await bench.log.append(NewEntry(Signal.LOGS, payload, 3, time.time_ns()))
    await bench.ready()
    await bench.judged()
    end = bench.log.end().position
    # Once all is judged the log is left in peace.
    await asyncio.sleep(1.5)
    assert bench.log.end().position == end


async def test_a_worker_that_dies_is_started_again_and_misses_nothing(bench: Bench) -> None:
    await bench.pool.start()
    await bench.ready()
    for _ in range(20):
        await bench.append()
    await bench.judged()
    (pid,) = bench.pids()
    os.kill(pid, process_signal.SIGKILL)
    for _ in range(20):
        await bench.append()
    await bench.judged()
    assert await bench.rows("SELECT count(*), sum(record_count) FROM windows", [(40, 40 * SIZE)])
    assert bench.metrics.registry.get_sample_value("driftlock_worker_restarts_total") == 1
    assert bench.pids() != [pid]


async def test_a_stop_leaves_a_checkpoint_and_a_start_goes_on_from_it(bench: Bench) -> None:
    await bench.pool.start()
    await bench.ready()
    for _ in range(30):
        await bench.append()
    await bench.judged()
    (pid,) = bench.pids()
    judged = bench.pool.watermark
    await bench.pool.stop(20.0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    kept = (await bench.state.read(cursors))["detect:0-of-1"]
    # Beyond what was judged there is at most a tick of the clock that came while the pool stopped.
    assert judged <= kept <= bench.log.end().position
    bench.new_pool()
    await bench.pool.start()
    assert bench.pool.watermark == kept
    await bench.ready()
    assert bench.pool.checkpoint == kept
    await bench.append(fault_share=1.0)
    await bench.judged()


async def test_stopping_right_after_starting_is_quick(bench: Bench) -> None:
    await bench.pool.start()
    started_s = time.monotonic()
    await bench.pool.stop(30.0)
    assert time.monotonic() - started_s < 15.0


async def test_the_log_is_kept_from_the_oldest_checkpoint_on(bench: Bench) -> None:
    await bench.pool.start()
    await bench.ready()
    await bench.append()
    await bench.judged()
    assert bench.pool.checkpoint == 0 < bench.pool.watermark


async def test_a_worker_that_may_die_soon_gets_on_for_its_first_checkpoint_comes_soon(bench: Bench) -> None:
    await bench.pool.start()
    await bench.ready()
    for _ in range(30):
        await bench.append()
    await bench.judged()
    # Less than the interval of those that follow.
    async with asyncio.timeout(7.0):
        while bench.pool.checkpoint == 0:
            await asyncio.sleep(0.05)


async def test_two_workers_share_the_streams(
    config: Config, log: SegmentLog, state: StateDatabase, tmp_path: Path
) -> None:
    two = config.model_copy(update={"detection": config.detection.model_copy(update={"workers": 2})})
    bench = Bench(two, log, state, tmp_path)
    await bench.pool.start()
    try:
        for number in range(12):
            payload = Traffic(number, service=f"service-{number}").logs(SIZE)
            await log.append(NewEntry(Signal.LOGS, payload, SIZE, time.time_ns()))
        await bench.ready()
        await bench.judged()
        expected = sorted((f"service-{number}", SIZE) for number in range(12))
        assert await bench.rows("SELECT service, record_count FROM windows ORDER BY service", expected)
        assert len({worker.streams.get("logs", 0) for worker in bench.pool._workers} - {0}) >= 1
        assert bench.metrics.registry.get_sample_value("driftlock_detection_streams", {"kind": "logs"}) == 12
    finally:
        await bench.pool.stop(20.0)


async def test_whoever_looks_sees_workers_and_streams_as_they_are(bench: Bench) -> None:
    await bench.pool.start()
    await bench.ready()
    for _ in range(5):
        await bench.append()
    await bench.judged()
    (worker,), (stream,) = await bench.pool.look()
    end = bench.log.end().position
    assert (worker.pid, worker.is_ready, worker.restart_count) == (bench.pids()[0], True, 0)
    assert (worker.read_position, worker.watermark, worker.lag_s) == (end, end, 0.0)
    assert (worker.stream_count, worker.warming_up_count) == (1, 1)
    assert (stream.key.kind, stream.window_count, stream.open_record_count) == ("logs", 5, 0)
    value = bench.metrics.registry.get_sample_value
    assert value("driftlock_detection_warming_up_streams") == 1


async def test_a_worker_that_does_not_answer_keeps_nobody_waiting(bench: Bench) -> None:
    await bench.pool.start()
    await bench.ready()
    await bench.append()
    await bench.judged()
    _, before = await bench.pool.look()
    (pid,) = bench.pids()
    os.kill(pid, process_signal.SIGSTOP)
    try:
        await asyncio.sleep(1.1)  # what was said a moment ago is not asked again
        started_s = time.monotonic()
        (worker,), after = await bench.pool.look()
        assert time.monotonic() - started_s < 5.0
        assert after == before
        assert worker.said_s_ago is not None
        assert worker.said_s_ago > 1.0
    finally:
        os.kill(pid, process_signal.SIGCONT)


async def test_whoever_looks_while_a_worker_is_down_sees_that(bench: Bench) -> None:
    (worker,), streams = await bench.pool.look()
    assert (worker.pid, worker.is_ready, worker.said_s_ago, streams) == (None, False, None, [])
