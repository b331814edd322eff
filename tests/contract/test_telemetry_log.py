"""What every `TelemetryLog` promises, run on each implementation and each durability."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import pytest

from driftlock_otlp.errors import OverloadedError
from driftlock_otlp.interfaces import TelemetryLog
from driftlock_otlp.model import LogEntry, NewEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage.log import Durability, SegmentLog

SEGMENT_BYTES = 1000
MAX_BYTES = 20_000


@pytest.fixture(params=get_args(Durability))
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TelemetryLog]:
    segment_log = SegmentLog(
        tmp_path / "log",
        durability=request.param,
        segment_bytes=SEGMENT_BYTES,
        max_bytes=MAX_BYTES,
        metrics=Metrics(),
    )
    segment_log.open()
    yield segment_log
    segment_log.close()


def entry(number: int, payload_bytes: int = 100) -> NewEntry:
    payload = (f"{number:08d}" * (payload_bytes // 8 + 1)).encode()[:payload_bytes]
    signal = (Signal.LOGS, Signal.METRICS, Signal.TRACES)[number % 3]
    return NewEntry(signal, payload, number % 7, 1_700_000_000_000_000_000 + number, f"tenänt-{number % 2}")


async def visible(log: TelemetryLog, position: int) -> None:
    """Wait until readers may read past `position`: at once, but for durability `memory`."""
    for _ in range(1000):
        if log.end().position > position:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"nothing behind {position} has become visible")


def read_all(log: TelemetryLog, position: int = 0, max_bytes: int = 350) -> list[LogEntry]:
    found: list[LogEntry] = []
    while run := log.read(position, max_bytes):
        found.extend(run)
        position = run[-1].next_position
    return found


async def test_new_log_is_empty(log: TelemetryLog) -> None:
    assert (log.end().position, log.end().item_count) == (0, 0)
    assert list(log.read(0, 1000)) == []


async def test_entries_are_read_back_in_order_and_exactly_as_they_were(log: TelemetryLog) -> None:
    entries = [entry(number) for number in range(40)]
    positions = [await log.append(new) for new in entries]
    await visible(log, positions[-1])

    found = read_all(log)

    assert [read.entry for read in found] == entries
    assert [read.position for read in found] == positions
    assert positions == sorted(set(positions))


async def test_each_entry_begins_where_the_one_before_it_ends(log: TelemetryLog) -> None:
    for number in range(30):
        position = await log.append(entry(number))
    await visible(log, position)

    found = read_all(log)

    assert [read.next_position for read in found] == [read.position for read in found[1:]] + [log.end().position]
    items = 0
    for read in found:
        assert read.items_before == items
        items += read.entry.item_count
    assert log.end().item_count == items


@pytest.mark.parametrize("payload", [b"", b"an order"])
async def test_clock_ticks_and_orders_have_no_signal(log: TelemetryLog, payload: bytes) -> None:
    entry = NewEntry(None, payload, 0, 42, "acme")
    position = await log.append(entry)
    await visible(log, position)
    assert [read.entry for read in log.read(0, 1)] == [entry]


async def test_read_returns_at_most_max_bytes_but_at_least_one_entry(log: TelemetryLog) -> None:
    for number in range(6):
        position = await log.append(entry(number, 50))
    await visible(log, position)
    for max_bytes in (50, 100, 149, 1000):
        assert 0 < sum(len(read.entry.payload) for read in log.read(0, max_bytes)) <= max_bytes
    for max_bytes in (0, 1, 49):
        assert len(log.read(0, max_bytes)) == 1


async def test_entry_larger_than_a_segment_is_taken(log: TelemetryLog) -> None:
    entries = [entry(1), entry(2, 5 * SEGMENT_BYTES), entry(3)]
    for new in entries:
        position = await log.append(new)
    await visible(log, position)
    assert [read.entry for read in read_all(log)] == entries


async def test_position_beyond_the_end_reads_nothing(log: TelemetryLog) -> None:
    position = await log.append(entry(1))
    await visible(log, position)
    assert list(log.read(log.end().position, 1000)) == []
    assert list(log.read(log.end().position + 12345, 1000)) == []


async def test_released_position_continues_at_the_oldest_entry_kept(log: TelemetryLog) -> None:
    for number in range(50):
        position = await log.append(entry(number))
    await visible(log, position)
    everything = read_all(log)

    log.release(everything[30].position)

    kept = read_all(log)
    assert 0 < kept[0].position <= everything[30].position
    assert kept == everything[-len(kept) :]


async def test_full_log_refuses_and_takes_again_after_release(log: TelemetryLog) -> None:
    with pytest.raises(OverloadedError) as refusal:
        for number in range(1000):
            await log.append(entry(number, 500))
    assert refusal.value.retry_after_s is not None
    await visible(log, MAX_BYTES - 600)

    end = log.end().position
    log.release(end)

    assert await log.append(entry(1)) == end
    await visible(log, end)
    assert [read.entry for read in log.read(end, 1000)] == [entry(1)]


async def test_concurrent_appends_all_get_a_place_of_their_own(log: TelemetryLog) -> None:
    positions: Sequence[int] = await asyncio.gather(*(log.append(entry(number, 30)) for number in range(100)))
    await visible(log, max(positions))
    found = {read.position: read.entry for read in read_all(log)}
    assert found == {position: entry(number, 30) for number, position in enumerate(positions)}
