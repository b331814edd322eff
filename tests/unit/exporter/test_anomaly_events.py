"""Events leave the outbox once, in order, each destination on its own."""

from __future__ import annotations

import asyncio
import time

from driftlock_otlp.errors import DownstreamRejectedError, DownstreamUnavailableError
from driftlock_otlp.exporter.anomaly_events import EventSender
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import outbox
from driftlock_otlp.storage.state import StateDatabase
from tests.unit.exporter.conftest import FakeExporter, HeldClock, eventually


async def enqueue(state: StateDatabase, clock: HeldClock, destination: str, *keys: str) -> None:
    for key in keys:
        await state.write(
            lambda connection, key=key: outbox.enqueue(  # type: ignore[misc]
                connection, destination, key, key.encode(), clock.now
            )
        )


def counted(metrics: Metrics, exporter: str, outcome: str) -> float | None:
    return metrics.registry.get_sample_value("driftlock_events_total", {"exporter": exporter, "outcome": outcome})


async def test_events_are_sent_in_order_and_each_destination_gets_its_own(
    state: StateDatabase, metrics: Metrics, clock: HeldClock
) -> None:
    exporters = [FakeExporter("a"), FakeExporter("b")]
    exporters[0].answers.append(DownstreamUnavailableError("down"))
    senders = [EventSender(exporter.deliverer(metrics), state, metrics) for exporter in exporters]
    assert [sender.name for sender in senders] == ["events:a", "events:b"]
    await enqueue(state, clock, "a", "one", "two")
    await enqueue(state, clock, "b", "one")
    for sender in senders:
        await sender.start()
    await eventually(lambda: counted(metrics, "a", "sent") == 2 and counted(metrics, "b", "sent") == 1)
    # A key that was sent stays known.
    await enqueue(state, clock, "b", "one", "three")
    await eventually(lambda: counted(metrics, "b", "sent") == 2)
    for sender in senders:
        await sender.stop(5.0)
    assert exporters[0].taken == [(Signal.LOGS, b"one"), (Signal.LOGS, b"two")]
    assert exporters[1].taken == [(Signal.LOGS, b"one"), (Signal.LOGS, b"three")]
    assert all(exporter.is_closed for exporter in exporters)


async def test_an_event_that_is_refused_is_dropped_and_the_next_is_sent(
    state: StateDatabase, metrics: Metrics, clock: HeldClock
) -> None:
    exporter = FakeExporter("a")
    exporter.answers.append(DownstreamRejectedError("never"))
    sender = EventSender(exporter.deliverer(metrics), state, metrics)
    await enqueue(state, clock, "a", "one", "two")
    await sender.start()
    await eventually(lambda: counted(metrics, "a", "sent") == 1)
    await sender.stop(5.0)
    assert counted(metrics, "a", "dropped") == 1
    assert await state.read(lambda connection: outbox.depth(connection, "a")) == 0


async def test_stopping_makes_one_last_pass(state: StateDatabase, metrics: Metrics, clock: HeldClock) -> None:
    exporter = FakeExporter("a")
    sender = EventSender(exporter.deliverer(metrics), state, metrics)
    await sender.start()
    await enqueue(state, clock, "a", "one")
    await sender.stop(5.0)
    assert exporter.taken == [(Signal.LOGS, b"one")]


async def test_stopping_does_not_cut_off_an_event_under_way_nor_send_it_twice(
    state: StateDatabase, metrics: Metrics, clock: HeldClock
) -> None:
    exporter = FakeExporter("a")
    exporter.gate.clear()
    sender = EventSender(exporter.deliverer(metrics), state, metrics)
    await enqueue(state, clock, "a", "one")
    await sender.start()
    await eventually(lambda: len(exporter.attempts) == 1)
    stopping = asyncio.create_task(sender.stop(20.0))
    await asyncio.sleep(0.2)
    exporter.gate.set()
    await stopping
    assert exporter.attempts == [(Signal.LOGS, b"one")]


async def test_stopping_does_not_wait_for_a_destination_that_is_down(
    state: StateDatabase, metrics: Metrics, clock: HeldClock
) -> None:
    exporter = FakeExporter("a")
    exporter.answers.extend([DownstreamUnavailableError("down", retry_after_s=3600.0)] * 5)
    sender = EventSender(exporter.deliverer(metrics), state, metrics)
    await enqueue(state, clock, "a", "one")
    await sender.start()
    await eventually(lambda: len(exporter.attempts) == 1)
    await asyncio.sleep(0.02)
    started_s = time.monotonic()
    await sender.stop(30.0)
    assert time.monotonic() - started_s < 3.0
    assert await state.read(lambda connection: outbox.depth(connection, "a")) == 1


async def test_an_event_is_sent_although_the_clock_was_set_back_meanwhile(
    state: StateDatabase, metrics: Metrics, clock: HeldClock
) -> None:
    exporter = FakeExporter("a")
    sender = EventSender(exporter.deliverer(metrics), state, metrics)
    await enqueue(state, clock, "a", "before")
    clock.now -= 3_600_000_000_000
    await enqueue(state, clock, "a", "after")
    await sender.start()
    await eventually(lambda: len(exporter.taken) == 2)
    await sender.stop(2.0)
    assert [payload for _, payload in exporter.taken] == [b"before", b"after"]
