"""Requests that are sent again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from driftlock_otlp.errors import OverloadedError, StorageUnavailableError
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import NewEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.receiver.ingest import Ingest
from driftlock_otlp.receiver.resends import RecentRequests
from driftlock_otlp.storage import requests
from driftlock_otlp.storage.log import SegmentLog
from driftlock_otlp.storage.state import StateDatabase, reached
from tests.conformance.receivers import JSON_LOG, request_of
from tests.doubles.memory_log import MemoryLog

PAYLOAD = request_of(Signal.LOGS, 3)
WINDOW_S = 300.0


class Bench:
    """An Ingest that remembers, on a log in memory, with a clock that goes on when told."""

    def __init__(self, log: MemoryLog | None = None, capacity: int = 1000) -> None:
        self.now_unix_nano = 1_700_000_000_000_000_000
        self.log = log or MemoryLog()
        self.metrics = Metrics()
        self.recent = RecentRequests(WINDOW_S, lambda: self.now_unix_nano, capacity)
        self.ingest = Ingest(self.log, self.metrics, lambda: self.now_unix_nano, recent=self.recent)

    async def send(self, payload: bytes = PAYLOAD, signal: Signal = Signal.LOGS, tenant: str = "") -> ExportResult:
        return await self.ingest.ingest_protobuf(signal, payload, "grpc", tenant)

    def items(self, outcome: str) -> float:
        labels = {"signal": "logs", "transport": "grpc", "outcome": outcome}
        return self.metrics.registry.get_sample_value("driftlock_receiver_items_total", labels) or 0.0


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_the_same_request_is_acknowledged_taken_once_and_counted_apart(bench: Bench) -> None:
    assert await bench.send() == await bench.send() == ExportResult()
    assert len(bench.log.entries) == 1
    assert (bench.items("accepted"), bench.items("duplicate")) == (3, 3)


async def test_it_is_the_same_in_json(bench: Bench) -> None:
    for transport in ("http", "http"):
        await bench.ingest.ingest_json(Signal.LOGS, JSON_LOG, transport)
    await bench.send(bench.log.entries[0].payload)
    assert len(bench.log.entries) == 1


async def test_requests_that_differ_in_bytes_signal_or_organisation_are_all_taken(bench: Bench) -> None:
    await bench.send()
    await bench.send(request_of(Signal.LOGS, 4))
    await bench.send(tenant="acme")
    await bench.send(tenant="globex")
    await bench.send(b"", Signal.LOGS)
    await bench.ingest.ingest_protobuf(Signal.TRACES, request_of(Signal.TRACES), "grpc")
    assert len(bench.log.entries) == 5


async def test_after_the_window_it_is_a_new_request(bench: Bench) -> None:
    await bench.send()
    bench.now_unix_nano += int(WINDOW_S * 1e9)
    await bench.send()
    assert len(bench.log.entries) == 2


async def test_a_repeat_waits_for_the_first_one_to_be_durable(bench: Bench) -> None:
    bench.log.gate.clear()
    calls = [asyncio.ensure_future(bench.send()) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert not any(call.done() for call in calls)
    bench.log.gate.set()
    await asyncio.gather(*calls)
    assert len(bench.log.entries) == 1


async def test_what_could_not_be_taken_is_taken_when_it_comes_again(bench: Bench) -> None:
    bench.log.failure = StorageUnavailableError("disk")
    bench.log.gate.clear()
    calls = [asyncio.ensure_future(bench.send()) for _ in range(2)]
    await asyncio.sleep(0.01)
    bench.log.gate.set()
    for call in calls:
        with pytest.raises(StorageUnavailableError):
            await call
    bench.log.failure = None
    await bench.send()
    assert len(bench.log.entries) == 1
    assert (bench.items("refused"), bench.items("accepted"), bench.items("duplicate")) == (6, 3, 0)


async def test_a_repeat_finds_what_a_caller_who_went_away_has_left(bench: Bench) -> None:
    bench.log.gate.clear()
    first = asyncio.ensure_future(bench.send())
    await asyncio.sleep(0.01)
    first.cancel()
    again = asyncio.ensure_future(bench.send())
    await asyncio.sleep(0.01)
    bench.log.gate.set()
    await again
    assert len(bench.log.entries) == 1


async def test_requests_of_the_process_before_are_known(bench: Bench) -> None:
    await bench.send()
    for payload in (b"", b"an order"):
        await bench.log.append(NewEntry(None, payload, 0, bench.now_unix_nano))
    after = Bench(bench.log)
    after.recent.load(after.log, 0)
    await after.send()
    await after.send(request_of(Signal.LOGS, 1))
    assert sum(entry.signal is not None for entry in bench.log.entries) == 2


async def test_memory_is_bounded_and_the_oldest_is_forgotten_first() -> None:
    bench = Bench(capacity=2)
    for count in (1, 2, 3):
        await bench.send(request_of(Signal.LOGS, count))
    await bench.send(request_of(Signal.LOGS, 3))
    assert len(bench.log.entries) == 3
    await bench.send(request_of(Signal.LOGS, 1))
    assert len(bench.log.entries) == 4


async def test_a_repeat_is_acknowledged_although_there_is_no_room_for_more(bench: Bench) -> None:
    await bench.send()
    bench.log.failure = OverloadedError("full", 5.0)
    assert await bench.send() == ExportResult()


async def test_among_many_the_last_ones_are_known_and_the_first_are_not() -> None:
    capacity, sent = 1024, 3000
    bench = Bench(capacity=capacity)
    keys = [bytes([n >> 8, n & 255]) * 8 for n in range(sent)]
    for position, key in enumerate(keys):
        bench.recent._take(key, bench.now_unix_nano, position)
    known = [await bench.recent.is_repeated(key) for key in keys]
    assert all(known[-capacity * 9 // 10 :])
    assert sum(known) <= capacity + 4
    bench.now_unix_nano += int(WINDOW_S * 1e9)
    assert not any([await bench.recent.is_repeated(key) for key in keys])


class Disk:
    """A log of small segments and a state database, as one process after the other has them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.now_unix_nano = 1_700_000_000_000_000_000

    async def start(self) -> None:
        self.log = SegmentLog(
            self._directory / "log", durability="os", segment_bytes=500, max_bytes=1 << 20, metrics=Metrics()
        )
        self.state = StateDatabase(self._directory / "state.db", durability="os")
        self.state.open()
        self.log.open(await self.state.read(reached))
        self.recent = RecentRequests(WINDOW_S, lambda: self.now_unix_nano)
        before, keys = await self.state.read(requests.load)
        self.recent.load(self.log, self.log.recent_position if before is None else before, keys)
        self.ingest = Ingest(self.log, Metrics(), lambda: self.now_unix_nano, recent=self.recent)

    def stop(self) -> None:
        self.log.close()
        self.state.close()

    async def send(self, *numbers: int) -> None:
        for number in numbers:
            await self.ingest.ingest_protobuf(Signal.LOGS, request_of(Signal.LOGS, number), "grpc")


async def test_requests_are_known_after_a_restart_although_their_segments_are_gone(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    await disk.start()
    await disk.send(*range(1, 41))
    end = disk.log.end().position
    assert await disk.recent.save(disk.state, disk.log) == end
    disk.log.release(end)
    assert len(list((tmp_path / "log").glob("*.log"))) == 1
    await disk.send(41, 42)  # Nobody has saved these when the process dies.
    for _ in range(2):
        disk.stop()
        await disk.start()
        end = disk.log.end().position
        await disk.send(*range(1, 43))
        assert disk.log.end().position == end
    assert await disk.recent.save(disk.state, disk.log) == end
    disk.now_unix_nano += int(WINDOW_S * 1e9)
    disk.stop()
    await disk.start()
    await disk.send(1, 42)
    assert disk.log.end().position > end
    # What is too old is not kept on disk, either.
    await disk.recent.save(disk.state, disk.log)
    (rows,) = await disk.state.read(lambda c: c.execute("SELECT count(*) FROM requests").fetchone())
    assert rows == 1
    disk.stop()


async def test_nothing_is_released_before_what_it_is_known_by_is_durable(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    await disk.start()
    await disk.send(1, 2)
    known = disk.log.end().position
    under_way: asyncio.Future[int] = asyncio.Future()
    task = asyncio.ensure_future(_result_of(under_way))
    disk.recent.begin(b"x" * 16, disk.now_unix_nano, task, known)
    await disk.send(3)
    assert await disk.recent.save(disk.state, disk.log) == known
    under_way.set_result(known)
    await task
    await asyncio.sleep(0)
    assert await disk.recent.save(disk.state, disk.log) == disk.log.end().position
    disk.stop()


async def _result_of(future: asyncio.Future[int]) -> int:
    return await future


class SlowRoom:
    """A `Room` that lets nobody in until told."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.waiting = 0

    async def take(self, entry: NewEntry) -> None:
        self.waiting += 1
        await self.is_open.wait()

    def give_back(self, entry: NewEntry) -> None:
        raise AssertionError("nothing fails here")

    def appended(self, entry: NewEntry, position: int) -> None:
        pass


async def test_what_waits_for_room_is_taken_once_although_its_sender_gave_up_and_sent_it_again() -> None:
    room, log = SlowRoom(), MemoryLog()
    ingest = Ingest(log, Metrics(), lambda: 1, room, RecentRequests(WINDOW_S, lambda: 1))
    first = asyncio.ensure_future(ingest.ingest_protobuf(Signal.LOGS, PAYLOAD, "grpc"))
    while not room.waiting:
        await asyncio.sleep(0)
    first.cancel()
    again = asyncio.ensure_future(ingest.ingest_protobuf(Signal.LOGS, PAYLOAD, "grpc"))
    await asyncio.sleep(0.01)
    room.is_open.set()
    await again
    assert (len(log.entries), room.waiting) == (1, 1)
