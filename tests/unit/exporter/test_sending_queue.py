"""What waits for a destination is counted, and senders are refused or held up as it says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from driftlock_otlp.config.exporters import SendingQueueConfig
from driftlock_otlp.errors import OverloadedError, StorageUnavailableError
from driftlock_otlp.exporter.sending_queue import SendingQueue, SendingQueues
from driftlock_otlp.model import NewEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.receiver.ingest import Ingest
from tests.doubles.memory_log import MemoryLog
from tests.unit.exporter.conftest import NOW, HeldClock, eventually

MAX_WAIT_S = 30.0


class Scene:
    """Queues before a log, whose requests pass when told.

    Args:
        settings: Of each queue's `sending_queue`.
    """

    def __init__(
        self, *settings: dict[str, Any], metrics: Metrics, clock: HeldClock, waits_for_verdicts: bool = False,
        longest_wait_s: float = 20.0,
    ) -> None:  # fmt: skip
        self.log, self.watermark, self.clock = MemoryLog(), 0, clock
        watermark = (lambda: self.watermark) if waits_for_verdicts else None
        self.queues = [
            SendingQueue(f"e{index}", SendingQueueConfig(**own), watermark, MAX_WAIT_S, clock, metrics)
            for index, own in enumerate(settings)
        ]
        self.room = SendingQueues(self.queues, longest_wait_s)
        self.positions = [0 for _ in settings]

    async def send(self, item_count: int = 1, size_bytes: int = 10) -> None:
        """Append one request as receivers do."""
        entry = NewEntry(Signal.LOGS, b"x" * size_bytes, item_count, self.clock.now)
        await self.room.take(entry)
        self.room.appended(entry, await self.log.append(entry))

    def passes(self, count: int, queue: int = 0) -> None:
        """Let a route be done with its next requests."""
        for stored in self.log.read(self.positions[queue], 1 << 30)[:count]:
            self.queues[queue].passed(stored.next_position)
            self.positions[queue] = stored.next_position


@pytest.mark.parametrize(("sizer", "capacity"), [("requests", 3), ("items", 30), ("bytes", 300)])
async def test_a_full_queue_refuses_with_a_time_to_come_back(
    metrics: Metrics, clock: HeldClock, sizer: str, capacity: int
) -> None:
    scene = Scene({"sizer": sizer, "queue_size": capacity}, metrics=metrics, clock=clock)
    for _ in range(3):
        await scene.send(item_count=10, size_bytes=100)
    with pytest.raises(OverloadedError, match="exporters.e0.sending_queue.queue_size") as refusal:
        await scene.send(item_count=10, size_bytes=100)
    assert refusal.value.retry_after_s is not None
    sample = metrics.registry.get_sample_value
    assert sample("driftlock_queue_overflow_items_total", {"exporter": "e0", "signal": "logs"}) == 10
    assert sample("driftlock_queue_size", {"cursor": "forward:e0", "unit": sizer}) == capacity
    assert sample("driftlock_queue_capacity", {"cursor": "forward:e0", "unit": sizer}) == capacity
    scene.passes(1)
    await scene.send(item_count=10, size_bytes=100)


async def test_a_request_larger_than_the_queue_passes_when_it_is_alone(metrics: Metrics, clock: HeldClock) -> None:
    scene = Scene({"sizer": "bytes", "queue_size": 5}, metrics=metrics, clock=clock)
    await scene.send(size_bytes=100)
    with pytest.raises(OverloadedError):
        await scene.send(size_bytes=1)


async def test_a_sender_that_may_wait_gets_in_once_there_is_room(metrics: Metrics, clock: HeldClock) -> None:
    scene = Scene({"queue_size": 2, "block_on_overflow": True}, metrics=metrics, clock=clock)
    await scene.send()
    await scene.send()
    waiting = [asyncio.create_task(scene.send()) for _ in range(3)]
    await asyncio.wait(waiting, timeout=0.05)
    assert not any(task.done() for task in waiting)
    scene.passes(1)
    await eventually(lambda: sum(task.done() for task in waiting) == 1)
    await asyncio.wait(waiting[1:], timeout=0.05)
    assert scene.queues[0].waiting == 2
    scene.passes(2)
    await asyncio.gather(*waiting)


async def test_a_sender_waits_only_so_long(metrics: Metrics, clock: HeldClock) -> None:
    scene = Scene({"queue_size": 1, "block_on_overflow": True}, metrics=metrics, clock=clock, longest_wait_s=0.05)
    await scene.send()
    with pytest.raises(OverloadedError):
        await scene.send()
    assert scene.queues[0].waiting == 1


async def test_a_sender_that_goes_away_takes_no_room(metrics: Metrics, clock: HeldClock) -> None:
    scene = Scene({"queue_size": 1, "block_on_overflow": True}, metrics=metrics, clock=clock)
    await scene.send()
    gone = asyncio.create_task(scene.send())
    await asyncio.wait([gone], timeout=0.02)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    scene.passes(1)
    assert scene.queues[0].waiting == 0
    await scene.send()


async def test_stopping_refuses_those_who_wait_and_keeps_nobody_waiting(metrics: Metrics, clock: HeldClock) -> None:
    scene = Scene({"queue_size": 1, "block_on_overflow": True}, metrics=metrics, clock=clock)
    await scene.send()
    waiting = asyncio.create_task(scene.send())
    await asyncio.wait([waiting], timeout=0.02)
    await scene.room.stop(1.0)
    async with asyncio.timeout(5.0):
        with pytest.raises(OverloadedError):
            await waiting
        with pytest.raises(OverloadedError):
            await scene.send()
    scene.passes(1)
    await scene.send()


async def test_a_failed_append_frees_its_room(metrics: Metrics, clock: HeldClock) -> None:
    scene = Scene({"queue_size": 1}, metrics=metrics, clock=clock)
    entry = NewEntry(Signal.LOGS, b"x", 1, NOW)
    await scene.room.take(entry)
    scene.room.give_back(entry)
    await scene.send()


async def test_a_destination_without_room_refuses_even_if_another_would_let_wait(
    metrics: Metrics, clock: HeldClock
) -> None:
    scene = Scene({"queue_size": 1, "block_on_overflow": True}, {"queue_size": 1}, metrics=metrics, clock=clock)
    await scene.send()
    async with asyncio.timeout(5.0):
        with pytest.raises(OverloadedError, match="e1"):
            await scene.send()
    scene.passes(1, queue=1)
    waiting = asyncio.create_task(scene.send())
    await asyncio.wait([waiting], timeout=0.02)
    assert not waiting.done()
    scene.passes(1, queue=0)
    await waiting


async def test_what_waits_for_a_verdict_does_not_wait_for_the_destination(metrics: Metrics, clock: HeldClock) -> None:
    scene = Scene({"queue_size": 2}, metrics=metrics, clock=clock, waits_for_verdicts=True)
    for _ in range(5):
        await scene.send()
    scene.watermark = scene.log.read(0, 1 << 30)[1].next_position
    with pytest.raises(OverloadedError):
        await scene.send()
    # The route is done with one of the two that have their verdict.
    scene.passes(1)
    await scene.send()
    assert scene.queues[0].waiting == 1
    # With verdicts missing for too long, the rest goes on without.
    clock.now += int(MAX_WAIT_S * 1e9)
    with pytest.raises(OverloadedError):
        await scene.send()
    assert scene.queues[0].waiting == 5


@pytest.mark.parametrize("waits_for_verdicts", [False, True])
async def test_a_route_that_is_faster_than_the_acknowledgement_is_counted_right(
    metrics: Metrics, clock: HeldClock, waits_for_verdicts: bool
) -> None:
    scene = Scene({"queue_size": 2}, metrics=metrics, clock=clock, waits_for_verdicts=waits_for_verdicts)
    entries = [NewEntry(Signal.LOGS, b"x", 1, NOW) for _ in range(2)]
    positions = []
    for entry in entries:
        await scene.room.take(entry)
        positions.append(await scene.log.append(entry))
    scene.passes(2)
    for entry, position in zip(reversed(entries), reversed(positions), strict=True):
        scene.room.appended(entry, position)
    scene.watermark = scene.log.end().position
    await scene.send()
    scene.passes(1)
    assert scene.queues[0].waiting == 0


@pytest.mark.parametrize("waits_for_verdicts", [False, True])
async def test_what_the_process_before_left_waits_too(
    metrics: Metrics, clock: HeldClock, waits_for_verdicts: bool
) -> None:
    scene = Scene({"queue_size": 3}, metrics=metrics, clock=clock, waits_for_verdicts=waits_for_verdicts)
    for signal in (Signal.LOGS, None, Signal.TRACES, Signal.LOGS):
        await scene.log.append(NewEntry(signal, b"x", 1, NOW))
    scene.queues[0].load(scene.log, scene.log.read(0, 1 << 30)[0].next_position)
    scene.watermark = scene.log.end().position
    await scene.send()
    scene.watermark = scene.log.end().position
    with pytest.raises(OverloadedError):
        await scene.send()
    assert scene.queues[0].waiting == 3


@pytest.mark.parametrize("waits_for_verdicts", [False, True])
async def test_receivers_ask_for_room_and_free_it_when_the_append_fails(
    metrics: Metrics, clock: HeldClock, waits_for_verdicts: bool
) -> None:
    scene = Scene({"queue_size": 1}, metrics=metrics, clock=clock, waits_for_verdicts=waits_for_verdicts)
    ingest = Ingest(scene.log, metrics, clock, scene.room)
    message = ExportLogsServiceRequest()
    message.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "a"
    payload = message.SerializeToString()
    scene.log.failure = StorageUnavailableError("the disk is full", 5.0)
    with pytest.raises(StorageUnavailableError):
        await ingest.ingest_protobuf(Signal.LOGS, payload, "grpc")
    scene.log.failure = None
    await ingest.ingest_protobuf(Signal.LOGS, payload, "grpc")
    scene.watermark = scene.log.end().position
    with pytest.raises(OverloadedError):
        await ingest.ingest_protobuf(Signal.LOGS, payload, "grpc")
    labels = {"signal": "logs", "transport": "grpc"}
    sample = metrics.registry.get_sample_value
    assert sample("driftlock_receiver_items_total", {**labels, "outcome": "accepted"}) == 1
    assert sample("driftlock_receiver_items_total", {**labels, "outcome": "refused"}) == 2
    assert sample("driftlock_receiver_requests_total", {**labels, "outcome": "refused"}) == 2
    scene.passes(1)
    await ingest.ingest_protobuf(Signal.LOGS, payload, "grpc")
