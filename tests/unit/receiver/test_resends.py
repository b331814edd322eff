"""Requests that are sent again."""

from __future__ import annotations

import asyncio

import pytest

from driftlock_otlp.errors import OverloadedError, StorageUnavailableError
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import NewEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.receiver.ingest import Ingest
from driftlock_otlp.receiver.resends import RecentRequests
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
    await bench.log.append(NewEntry(None, b"", 0, bench.now_unix_nano))
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
