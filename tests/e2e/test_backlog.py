"""Starting with much that was left: receiving begins at once, and the backlog goes on meanwhile.

DRIFTLOCK_BACKLOG_MIB=1024 pytest tests/e2e/test_backlog.py -s
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from pathlib import Path

import grpc
import pytest

from driftlock_otlp.model import NewEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage.log import SegmentLog
from tests.e2e.conftest import NewSidecar
from tests.e2e.sidecar import Sidecar
from tests.e2e.traffic import Traffic

BACKLOG_BYTES = int(os.environ.get("DRIFTLOCK_BACKLOG_MIB", "128")) << 20
ITEMS = 2000
START_S = 5.0
"""Longest from the start of the process to the first acknowledgement, on a machine that has nothing else to do."""


async def leave_a_backlog(directory: Path) -> int:
    """Fill a log as a sidecar that was killed would have left it; return its requests."""
    log = SegmentLog(directory, durability="os", segment_bytes=64 << 20, max_bytes=1 << 40, metrics=Metrics())
    log.open()
    payloads = [Traffic(seed).logs(ITEMS) for seed in range(4)]
    count = 0
    while log.end().position < BACKLOG_BYTES:
        # Received a while ago, so that nothing counts as sent again.
        await log.append(NewEntry(Signal.LOGS, payloads[count % 4], ITEMS, time.time_ns() - 3600 * 10**9))
        count += 1
    log.close()
    for path in directory.glob("*.log"):
        with path.open("rb") as file:
            # After a crash of the machine nothing is in memory either.
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return count


async def first_acknowledgement_s(sidecar: Sidecar, payload: bytes) -> float:
    """Start the process and return the seconds until it has acknowledged a request."""
    started_s = time.monotonic()
    sidecar.spawn()
    while True:
        try:
            await sidecar.send(Signal.LOGS, payload)
        except grpc.RpcError:
            assert sidecar.is_running, sidecar.output[-2000:]
            assert time.monotonic() - started_s < 60.0, sidecar.output[-2000:]
            await sidecar._close_channel()  # It would wait before it tries to connect again.
            await asyncio.sleep(0.02)
        else:
            return time.monotonic() - started_s


@pytest.mark.timeout(600)
@pytest.mark.parametrize("policy", ["pass", "divert"])
async def test_sidecar_with_a_backlog_receives_at_once_and_drains_meanwhile(
    new_sidecar: NewSidecar, policy: str
) -> None:
    settings = {"forward": {"policy": policy}}
    empty = new_sidecar(None, settings)
    empty_s = await first_acknowledgement_s(empty, Traffic().logs(1))
    assert await empty.stop() == 0
    sidecar = new_sidecar(None, settings)
    left = await leave_a_backlog(sidecar.data / "log")
    backlog_s = await first_acknowledgement_s(sidecar, Traffic().logs(1))
    await sidecar.wait_ready()
    waits_ms = []
    passed_before = await asyncio.to_thread(sidecar.total, "driftlock_forward_items_total")
    began_s = time.monotonic()
    while time.monotonic() - began_s < 2.0:
        sent_s = time.monotonic()
        await sidecar.send(Signal.LOGS, Traffic().logs(20))
        waits_ms.append((time.monotonic() - sent_s) * 1000)
        await asyncio.sleep(0.02)
    passed = await asyncio.to_thread(sidecar.total, "driftlock_forward_items_total")
    elapsed_s = time.monotonic() - began_s + backlog_s
    print(
        f"\n{policy}: backlog {BACKLOG_BYTES >> 20} MiB, {left * ITEMS} records: first acknowledgement after"
        f" {backlog_s:.2f} s (empty: {empty_s:.2f} s); while draining p50 {statistics.median(waits_ms):.1f} ms,"
        f" worst {max(waits_ms):.0f} ms; {passed:.0f} records passed after {elapsed_s:.1f} s"
    )
    # The machine may be busy: what counts is what the backlog adds.
    assert backlog_s - empty_s < START_S / 2
    assert statistics.median(waits_ms) < 500.0
    assert passed > passed_before or passed >= left * ITEMS
    assert await sidecar.stop() == 0
