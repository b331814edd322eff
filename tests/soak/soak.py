"""One soak: measure what the sidecar can do, ask twice that of it, watch, and account for every request."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driftlock_otlp.model import Signal
from driftlock_otlp.observability.memory import resident_bytes
from driftlock_otlp.otlp.decode import decode
from tests.doubles.otlp_sink import OtlpSink, Received
from tests.e2e.sidecar import Sidecar
from tests.e2e.traffic import START_UNIX_NANO, STEP_NANO, times
from tests.soak.clients import ITEMS, Client, Tally
from tests.soak.sdk import BATCH, SERVICE

MEMORY_LIMIT_BYTES = 384 << 20
CLIENTS = 12

_MIB = 1 << 20
_LOOK_S = 0.5
_LEAST_QUEUE_BYTES = 4 * _MIB
_RECORD_BYTES = 100
_OWN_ITEM = 500_000_000
_ROW = "{:>6} {:>9} {:>9} {:>8} {:>9} {:>8} {:>8} {:>8}"


@dataclass(slots=True)
class Verdict:
    """How it went.

    Attributes:
        capacity: Records a second that the sidecar passed on when it was asked for as many as it could.
        offered: Records a second that the raw clients were to send.
        faults: What is not as promised; empty if all is.
    """

    capacity: float
    offered: float
    acknowledged: int
    highest_rss_bytes: int
    refusals: Counter[str]
    delays_s: Counter[float]
    sdk: dict[str, dict[str, int]]
    faults: list[str] = field(default_factory=list)


class Downstream:
    """What has arrived: requests of the raw clients by number, batches of the SDK by name."""

    def __init__(self) -> None:
        self.sink = OtlpSink(on_accepted=self._take)
        self.requests: set[int] = set()
        self.sdk: Counter[str] = Counter()
        self.items = 0

    def _take(self, request: Received) -> None:
        self.sink.attempts.clear()
        self.sink.received.clear()
        self.items += self._count(request.signal, request.message)

    def _count(self, signal: Signal, message: Any) -> int:
        own, sdk, count = read_items(signal, message)
        self.requests |= own
        self.sdk += sdk
        return count


async def soak(
    directory: Path, seconds: float, say: Callable[[str], None], measure_s: float = 8.0, queue_s: float = 10.0
) -> Verdict:
    """Run it.

    Args:
        directory: For its files; empty.
        seconds: How long twice the capacity is asked for.
        say: Takes each line of the table.
        measure_s: How long the capacity is measured.
        queue_s: The log may hold what so many seconds bring; it is soon full.
    """
    downstream = Downstream()
    async with downstream.sink:
        capacity = await _capacity(directory / "measure", measure_s)
        say(f"capacity {capacity:,.0f} records/s; twice that is asked for, for {seconds:g} s")
        (directory / "soak").mkdir()
        queue_bytes = max(_LEAST_QUEUE_BYTES, int(capacity * _RECORD_BYTES * queue_s))
        settings = {
            "receiver": {"memory_limit": MEMORY_LIMIT_BYTES},
            "queue": {"max_bytes": queue_bytes, "segment_bytes": 1 << 20},
            "windows": {"logs": {"size": 500}, "metrics": {"size": 500}, "traces": {"size": 500}},
            "forward": {"max_wait": "120s"},
        }
        sidecar = Sidecar(directory / "soak", downstream.sink, settings)
        try:
            await sidecar.start()
            return await _overload(sidecar, downstream, capacity, seconds, say)
        finally:
            await sidecar.close()


async def _capacity(directory: Path, seconds: float) -> float:
    """Return the records a second that come out when as many are sent as are taken."""
    directory.mkdir()
    downstream = Downstream()
    async with downstream.sink:
        settings = {"windows": {"logs": {"size": 500}, "metrics": {"size": 500}, "traces": {"size": 500}}}
        sidecar = Sidecar(directory, downstream.sink, settings)
        try:
            await sidecar.start()
            clients = _clients((sidecar.grpc_port, sidecar.http_port), Tally(), 6)
            loop = asyncio.get_running_loop()
            until_s = loop.time() + seconds
            running = [asyncio.create_task(client.run(until_s, 0.0)) for client in clients]
            await asyncio.sleep(seconds / 3)
            items, started_s = downstream.items, loop.time()
            await asyncio.gather(*running)
            return max((downstream.items - items) / (loop.time() - started_s), 500.0)
        finally:
            await sidecar.close()


def _clients(ports: tuple[int, int], tally: Tally, count: int) -> list[Client]:
    signals = list(Signal)
    return [
        Client(signals[number % len(signals)], ("grpc", "http")[number // len(signals) % 2], number, ports, tally)
        for number in range(count)
    ]


async def _overload(
    sidecar: Sidecar, downstream: Downstream, capacity: float, seconds: float, say: Callable[[str], None]
) -> Verdict:
    loop = asyncio.get_running_loop()
    tally = Tally()
    ports = sidecar.grpc_port, sidecar.http_port
    until_s = loop.time() + seconds
    interval_s = CLIENTS * ITEMS / (2 * capacity)
    running = [asyncio.create_task(client.run(until_s, interval_s)) for client in _clients(ports, tally, CLIENTS)]
    sdk = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.sdk",
        "--grpc-port", str(ports[0]), "--http-port", str(ports[1]), "--seconds", str(seconds),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    watch = Watch(sidecar, downstream, tally, say)
    watching = asyncio.create_task(watch.run())
    try:
        await asyncio.gather(*running)
        output, _ = await sdk.communicate()
    finally:
        if sdk.returncode is None:
            sdk.kill()
            await sdk.wait()
        watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await sidecar.wait_until(
        lambda: sidecar.total("driftlock_queue_items") == 0, "is not settled", timeout_s=max(60.0, 2 * seconds)
    )
    counts: dict[str, dict[str, int]] = json.loads(output)
    verdict = Verdict(
        capacity=capacity,
        offered=2 * capacity,
        acknowledged=len(tally.acknowledged) * ITEMS,
        highest_rss_bytes=watch.highest_rss_bytes,
        refusals=tally.refusals,
        delays_s=tally.delays_s,
        sdk=counts,
    )
    own, sdk_items, _ = await asyncio.to_thread(_withheld, sidecar)
    lost = tally.acknowledged - downstream.requests - own
    if lost:
        verdict.faults.append(f"{len(lost)} acknowledged requests are lost, as {sorted(lost)[:3]}")
    arrived = (downstream.sdk + sdk_items).total()
    exported = sum(count["exported"] for count in counts.values()) * BATCH
    if arrived < exported:
        verdict.faults.append(f"the SDK has exported {exported} items and {arrived} arrived")
    given_up = sum(count["given up"] for count in counts.values())
    if given_up:
        verdict.faults.append(f"the SDK has given up {given_up} batches: {counts}")
    if tally.unfit:
        verdict.faults.append(f"{len(tally.unfit)} refusals are not as OTLP asks, as {tally.unfit[:3]}")
    if watch.highest_rss_bytes > MEMORY_LIMIT_BYTES:
        verdict.faults.append(f"memory was at {watch.highest_rss_bytes // _MIB} MiB")
    await asyncio.to_thread(sidecar.assert_balanced)
    if await sidecar.stop() != 0:
        verdict.faults.append("it did not stop cleanly")
    return verdict


class Watch:
    """Looks at a sidecar twice a second, and says every ten how it is."""

    def __init__(self, sidecar: Sidecar, downstream: Downstream, tally: Tally, say: Callable[[str], None]) -> None:
        self._sidecar, self._downstream, self._tally, self._say = sidecar, downstream, tally, say
        self.highest_rss_bytes = 0

    async def run(self, every_s: float = 10.0) -> None:
        """Until cancelled."""
        self._say(_ROW.format("s", "in/s", "out/s", "refused", "RSS MiB", "p50 ms", "p99 ms", "log MiB"))
        started_s = said_s = time.monotonic()
        acknowledged, out, refused, answered = 0, self._downstream.items, 0, 0
        while True:
            await asyncio.sleep(_LOOK_S)
            rss = resident_bytes([self._sidecar.pid, *self._sidecar.worker_pids()])
            self.highest_rss_bytes = max(self.highest_rss_bytes, rss)
            now_s = time.monotonic()
            if now_s - said_s < every_s:
                continue
            accepted = await asyncio.to_thread(
                self._sidecar.total, "driftlock_receiver_items_total", outcome="accepted"
            )
            passed_s = now_s - said_s
            log_bytes = sum(path.stat().st_size for path in (self._sidecar.data / "log").glob("*.log"))
            times_s = sorted(self._tally.ack_s[answered:]) or [0.0]
            self._say(
                _ROW.format(
                    round(now_s - started_s),
                    f"{(accepted - acknowledged) / passed_s:,.0f}",
                    f"{(self._downstream.items - out) / passed_s:,.0f}",
                    f"{self._tally.refusals.total() - refused:,}",
                    f"{rss / _MIB:.0f}",
                    f"{times_s[len(times_s) // 2] * 1e3:.0f}",
                    f"{times_s[int(len(times_s) * 0.99)] * 1e3:.0f}",
                    f"{log_bytes / _MIB:.1f}",
                )
            )
            said_s, acknowledged, out = now_s, accepted, self._downstream.items
            refused, answered = self._tally.refusals.total(), len(self._tally.ack_s)


def read_items(signal: Signal, message: Any) -> tuple[set[int], Counter[str], int]:
    """Return the raw clients' requests, the SDK's items by service, and the number of items in a request."""
    envelopes = {
        Signal.LOGS: lambda: message.resource_logs,
        Signal.METRICS: lambda: message.resource_metrics,
        Signal.TRACES: lambda: message.resource_spans,
    }[signal]()
    names = {
        a.value.string_value for envelope in envelopes for a in envelope.resource.attributes if a.key == "service.name"
    }
    numbers = times(signal, message)
    if SERVICE in names:
        return set(), Counter({SERVICE: len(numbers)}), len(numbers)
    items = [(number - START_UNIX_NANO) // STEP_NANO for number in numbers]
    return {item for item in items if item % 1_000_000_000 > _OWN_ITEM}, Counter(), len(numbers)


def _withheld(sidecar: Sidecar) -> tuple[set[int], Counter[str], int]:
    own: set[int] = set()
    sdk: Counter[str] = Counter()
    count = 0
    with sidecar.state() as connection:
        for code, payload in connection.execute("SELECT signal, payload FROM quarantine"):
            signal = Signal.of_code(code)
            found = read_items(signal, decode(signal, payload))
            own |= found[0]
            sdk += found[1]
            count += found[2]
    return own, sdk, count
