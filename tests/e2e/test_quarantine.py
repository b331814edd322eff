"""The limits of the quarantine: the oldest records go first, and metrics say so before they do."""

from __future__ import annotations

import asyncio

import pytest

from driftlock_otlp.model import Signal
from driftlock_otlp.storage import quarantine
from tests.doubles.otlp_sink import OtlpSink
from tests.e2e.conftest import NewSidecar
from tests.e2e.sidecar import Sidecar, small_windows
from tests.e2e.traffic import Traffic

WINDOW = 50
CALM, FAULTY, AFTER = 65, 4, 12
"""Windows before a fault, of it, and after it."""


async def break_down(sidecar: Sidecar, traffic: Traffic, service: str) -> None:
    """Let a service that is new be odd for a while, and see its records withheld."""
    traffic.service = service
    for windows, share in ((CALM, 0.0), (FAULTY, 1.0), (AFTER, 0.0)):
        for _ in range(windows * WINDOW // 25):
            await sidecar.send(Signal.LOGS, traffic.logs(25, share))
    await sidecar.settle()


def withheld(sidecar: Sidecar) -> dict[str, tuple[int, int]]:
    """Return (items, bytes) that are withheld, by stream."""
    with sidecar.state() as connection:
        groups = quarantine.list_groups(connection)
    return {group.stream: (group.item_count, group.payload_bytes) for group in groups}


def dropped(sidecar: Sidecar, reason: str) -> float:
    return sidecar.total("driftlock_quarantine_dropped_items_total", reason=reason)


@pytest.mark.timeout(180)
async def test_the_oldest_go_first_when_there_are_too_many_or_they_are_too_old_and_it_is_said_before(
    new_sidecar: NewSidecar, sink: OtlpSink
) -> None:
    sidecar = new_sidecar(sink, small_windows(WINDOW, max_age="5s"))
    await sidecar.start()
    traffic = Traffic(seed=7)
    await break_down(sidecar, traffic, "first")
    (first_items, first_bytes) = withheld(sidecar)["logs/first"]
    assert await sidecar.stop() == 0

    # Nearly full: it is said, and nothing is dropped.
    limit_bytes = first_bytes * 11 // 10
    sidecar.settings["forward"]["quarantine"] = {"max_bytes": limit_bytes}
    await sidecar.start()
    await sidecar.wait_until(lambda: bool(sidecar.logged("quarantine_expires_soon")), "it is not said")
    assert await asyncio.to_thread(sidecar.total, "driftlock_quarantine_bytes") == first_bytes
    assert await asyncio.to_thread(sidecar.total, "driftlock_quarantine_max_bytes") == limit_bytes
    assert not sidecar.logged("quarantine_dropped")

    # Too many: of the first stream some go, of the second none.
    await break_down(sidecar, traffic, "second")
    await sidecar.wait_until(lambda: dropped(sidecar, "max_bytes") > 0, "nothing is dropped")
    left = withheld(sidecar)
    assert left["logs/first"][0] == first_items - await asyncio.to_thread(dropped, sidecar, "max_bytes")
    assert sum(size for _, size in left.values()) <= limit_bytes
    counted = await asyncio.to_thread(sidecar.outcomes, Signal.LOGS)
    assert left["logs/second"][0] == counted["diverted"]
    await asyncio.to_thread(sidecar.assert_balanced)
    assert await sidecar.stop() == 0

    # Too old: the time that is left is told while all are there, and is over when they go.
    sidecar.settings["forward"]["quarantine"] = {"max_age": "4s"}
    await sidecar.start()
    items = sum(count for count, _ in left.values())
    await sidecar.wait_until(lambda: sidecar.total("driftlock_quarantine_items") == items, "it is not counted")
    assert 0 < await asyncio.to_thread(sidecar.total, "driftlock_quarantine_expires_seconds") <= 4.0
    assert await asyncio.to_thread(dropped, sidecar, "max_age") == 0
    await sidecar.wait_until(lambda: dropped(sidecar, "max_age") == items, "nothing grows too old")
    assert withheld(sidecar) == {}
    # Said anew, for it is another process.
    events = [line for line in sidecar.output.splitlines() if '"quarantine_' in line]
    assert ["expires_soon" in line for line in events[-2:]] == [True, False]
    assert await sidecar.stop() == 0
