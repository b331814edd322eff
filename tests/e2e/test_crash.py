"""Processes that are killed in the middle of their work: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import signal as process_signal
from collections import Counter
from typing import Any

import grpc
import pytest

from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import decode
from tests.doubles.otlp_sink import OtlpSink
from tests.e2e.conftest import NewSidecar
from tests.e2e.sidecar import Sidecar, delivered, small_windows, wait_gone
from tests.e2e.traffic import Traffic, times

SEED = 20_260_101
ITEMS = 20


class Sender:
    """Sends one signal without end and keeps what was acknowledged; waits while nobody listens.

    A request that is not acknowledged is sent again, as every OTLP client does.
    """

    def __init__(self, sidecar: Sidecar, signal: Signal, number: int) -> None:
        self.acknowledged: list[bytes] = []
        self.signal = signal
        self._finishing = False
        self._sidecar = sidecar
        self._traffic = Traffic(SEED + number, first_item=number * 10_000_000)

    async def run(self) -> None:
        """Send until told to finish; what has begun is brought to its end."""
        while not self._finishing:
            payload = self._traffic.request(self.signal, ITEMS)
            while True:
                try:
                    await self._sidecar.send(self.signal, payload)
                except (grpc.RpcError, grpc.aio.UsageError, asyncio.CancelledError):
                    # Closing the channel under a call cancels the call; nobody cancels this task.
                    await asyncio.sleep(0.05)
                else:
                    break
            self.acknowledged.append(payload)

    def finish(self) -> None:
        """Let `run` return once the request in hand is acknowledged."""
        self._finishing = True


async def send_until_enough(senders: list[Sender], count: int) -> None:
    """Return when every sender has had so many requests acknowledged beyond what it has."""
    goals = [len(sender.acknowledged) + count for sender in senders]
    async with asyncio.timeout(60.0):
        while any(len(sender.acknowledged) < goal for sender, goal in zip(senders, goals, strict=True)):
            await asyncio.sleep(0.02)


def acknowledged_times(senders: list[Sender], signal: Signal) -> list[int]:
    """Return the ids of all acknowledged items of a signal."""
    payloads = [payload for sender in senders if sender.signal is signal for payload in sender.acknowledged]
    return [time for payload in payloads for time in times(signal, decode(signal, payload))]


@pytest.mark.parametrize("policy", ["tag", "pass"])  # divert: tests.crash
async def test_nothing_acknowledged_is_lost_when_the_sidecar_is_killed(
    new_sidecar: NewSidecar, sink: OtlpSink, policy: str
) -> None:
    sidecar = new_sidecar(sink, {"forward": {"policy": policy}, **small_windows()})
    await sidecar.start()
    senders = [Sender(sidecar, signal, number) for number, signal in enumerate([*Signal, Signal.LOGS])]
    tasks = [asyncio.create_task(sender.run()) for sender in senders]
    for _ in range(2):
        await send_until_enough(senders, 25)
        workers = sidecar.worker_pids()
        await sidecar.kill()
        await wait_gone(workers)
        await sidecar.start()
    await send_until_enough(senders, 25)
    for sender in senders:
        sender.finish()
    await asyncio.gather(*tasks)
    await sidecar.settle()
    repeats = Counter[str]()
    for signal in Signal:
        sent = set(acknowledged_times(senders, signal))
        came = Counter(delivered(sink, signal))
        withheld = await asyncio.to_thread(sidecar.outcomes, signal)
        missing = sent - came.keys()
        # Ordinary traffic is not divided; if chance raises an alarm the quarantine holds the rest.
        assert len(missing) <= withheld["diverted"], f"seed {SEED}: {len(missing)} of {len(sent)} {signal.plural} lost"
        repeats[signal.plural] = came.total() - len(came)
    print(f"repeated after two kills, policy {policy}: {dict(repeats)}")
    workers = sidecar.worker_pids()
    assert await sidecar.stop() == 0
    await wait_gone(workers)


async def test_a_killed_worker_comes_back_and_every_window_gets_its_verdict(
    new_sidecar: NewSidecar, sink: OtlpSink
) -> None:
    sidecar = new_sidecar(sink, small_windows())
    await sidecar.start()
    sender = Sender(sidecar, Signal.LOGS, 1)
    task = asyncio.create_task(sender.run())
    await send_until_enough([sender], 30)
    (worker,) = sidecar.worker_pids()
    os.kill(worker, process_signal.SIGKILL)
    await sidecar.wait_until(lambda: sidecar.status("/readyz") == 503, "still counts as ready")
    await send_until_enough([sender], 10)
    await sidecar.wait_ready()
    assert sidecar.worker_pids() != [worker]
    await send_until_enough([sender], 30)
    sender.finish()
    await task
    await sidecar.settle()
    assert sorted(delivered(sink, Signal.LOGS)) == sorted(acknowledged_times([sender], Signal.LOGS))
    await asyncio.to_thread(sidecar.assert_balanced)
    assert await asyncio.to_thread(sidecar.total, "driftlock_worker_restarts_total") == 1
    assert await asyncio.to_thread(sidecar.total, "driftlock_forward_unscored_items_total") == 0

    def scored_records() -> int:
        # By identity, since windows that are scored again after the restart replace themselves.
        with sidecar.state() as connection:
            (records,) = connection.execute("SELECT sum(record_count) FROM windows WHERE kind = 'logs'").fetchone()
        return records or 0

    # Facts are written once a second.
    expected = len(sender.acknowledged) * ITEMS
    await sidecar.wait_until(lambda: scored_records() == expected, "not every record is scored once")


@pytest.mark.parametrize("victim", ["sidecar", "worker"])
async def test_a_crash_changes_neither_the_anomaly_nor_what_is_withheld(
    new_sidecar: NewSidecar, sink: OtlpSink, victim: str
) -> None:
    sidecar = new_sidecar(sink, small_windows())
    await sidecar.start()
    traffic = Traffic()
    for _ in range(70):
        await sidecar.send(Signal.LOGS, traffic.logs(50))
    fault = [traffic.logs(50, fault_share=1.0) for _ in range(6)]
    for payload in fault[:3]:
        await sidecar.send(Signal.LOGS, payload)
    await _crash(sidecar, victim)
    for payload in fault[3:]:
        await sidecar.send(Signal.LOGS, payload)
    await _crash(sidecar, victim)
    await sidecar.settle()
    with sidecar.state() as connection:
        anomalies: list[Any] = connection.execute("SELECT id FROM anomalies").fetchall()
        (withheld,) = connection.execute("SELECT coalesce(sum(item_count), 0) FROM quarantine").fetchone()
    assert len(anomalies) == 1

    def received_events() -> list[Any]:
        return [
            record
            for record in sink.records()
            if record.event_name == "driftlock.anomaly.detected"
            and any(
                item.key == "driftlock.anomaly.state" and item.value.string_value == "open"
                for item in record.attributes
            )
        ]

    await sidecar.wait_until(lambda: bool(received_events()), "no event has arrived")
    events = received_events()
    assert len({event.time_unix_nano for event in events}) == 1
    forwarded = {record.time_unix_nano for record in sink.records() if not record.event_name}
    timeouts = [record for record in sink.records() if "payment gateway" in record.body.string_value]
    assert len(forwarded) + withheld == 76 * 50
    # The windows before the alarm, of which there is at most one, have gone on.
    assert len([record for record in timeouts if not record.event_name]) <= 50
    assert withheld >= 5 * 50


async def _crash(sidecar: Sidecar, victim: str) -> None:
    if victim == "sidecar":
        workers = sidecar.worker_pids()
        await sidecar.kill()
        await wait_gone(workers)
        await sidecar.start()
        return
    (worker,) = sidecar.worker_pids()
    os.kill(worker, process_signal.SIGKILL)
    await sidecar.wait_until(lambda: sidecar.status("/readyz") == 503, "still counts as ready")
    await sidecar.wait_ready()


async def test_workers_start_beside_busy_grpc_connections(new_sidecar: NewSidecar, sink: OtlpSink) -> None:
    sidecar = new_sidecar(sink, {"forward": {"policy": "pass"}})
    await sidecar.start()
    sender = Sender(sidecar, Signal.LOGS, 1)
    task = asyncio.create_task(sender.run())
    for _ in range(2):
        (worker,) = sidecar.worker_pids()
        os.kill(worker, process_signal.SIGKILL)
        await sidecar.wait_until(lambda: sidecar.status("/readyz") == 503, "still counts as ready")
        await sidecar.wait_ready()
    sender.finish()
    await task
    # gRPC says so when it meets a fork; then it has not been kept out of it.
    assert "fork" not in sidecar.output


async def test_a_killed_sidecar_leaves_no_worker_behind(new_sidecar: NewSidecar, sink: OtlpSink) -> None:
    sidecar = new_sidecar(sink, {"detection": {"workers": 2}})
    await sidecar.start()
    workers = sidecar.worker_pids()
    assert len(workers) == 2
    await sidecar.kill()
    await wait_gone(workers)
    assert "Traceback" not in sidecar.output


async def test_what_is_sent_again_after_a_kill_is_known_although_its_segments_are_gone(
    new_sidecar: NewSidecar, sink: OtlpSink
) -> None:
    sidecar = new_sidecar(sink, {"queue": {"segment_bytes": 16 << 10}, "forward": {"policy": "pass"}})
    await sidecar.start()
    traffic = Traffic()
    requests = [traffic.logs(50) for _ in range(30)]
    for payload in requests:
        await sidecar.send(Signal.LOGS, payload)
    await sidecar.settle()
    segments = sidecar.data / "log"
    await sidecar.wait_until(lambda: len(list(segments.glob("*.log"))) == 1, "the log is not released")
    last = [traffic.logs(50) for _ in range(3)]  # These are known from the log alone.
    for payload in last:
        await sidecar.send(Signal.LOGS, payload)
    await sidecar.kill()
    await sidecar.start()
    for payload in requests + last:
        await sidecar.send(Signal.LOGS, payload)
    await sidecar.settle()
    assert await asyncio.to_thread(sidecar.total, "driftlock_receiver_items_total", outcome="accepted") == 0
    assert await asyncio.to_thread(sidecar.total, "driftlock_receiver_items_total", outcome="duplicate") == 33 * 50
    assert set(delivered(sink, Signal.LOGS)) == {
        time for payload in requests + last for time in times(Signal.LOGS, decode(Signal.LOGS, payload))
    }
