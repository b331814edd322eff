"""The segment log where disks fail, files are torn and several processes meet."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from driftlock_otlp.errors import (
    ConfigError,
    OverloadedError,
    PayloadTooLargeError,
    StorageFormatError,
    StorageUnavailableError,
)
from driftlock_otlp.model import LogEnd, LogEntry, NewEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import segments
from driftlock_otlp.storage.log import LogReader, SegmentLog


class Disk:
    """System calls that fail on demand, and count."""

    def __init__(self) -> None:
        self.room_bytes: int | None = None
        self.sync_error: int | None = None
        self.sync_count = 0
        self.may_write = threading.Event()
        self.may_write.set()

    def write(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        assert self.may_write.wait(30)
        if self.room_bytes is None:
            return os.pwritev(fd, buffers, offset)
        data = b"".join(buffers)[: self.room_bytes]
        if not data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room_bytes -= len(data)
        return os.pwrite(fd, data, offset)

    def sync(self, fd: int) -> None:
        self.sync_count += 1
        if self.sync_error is not None:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        os.fsync(fd)


def make(directory: Path, disk: Disk | None = None, **settings: Any) -> SegmentLog:
    disk = disk or Disk()
    defaults: dict[str, Any] = {"durability": "fsync", "segment_bytes": 1000, "max_bytes": 1 << 20}
    log = SegmentLog(
        directory, **{**defaults, "metrics": Metrics(), "write": disk.write, "sync": disk.sync, **settings}
    )
    log.open()
    return log


def entry(number: int, payload_bytes: int = 100) -> NewEntry:
    return NewEntry(Signal.LOGS, bytes([number % 256]) * payload_bytes, 10, number)


def read_all(reader: SegmentLog | LogReader, position: int = 0) -> list[LogEntry]:
    found: list[LogEntry] = []
    while run := reader.read(position, 1000):
        found.extend(run)
        position = run[-1].next_position
    return found


def damage(metrics: Metrics) -> tuple[float | None, float | None]:
    """Return the damaged entries and bytes that were counted."""
    value = metrics.registry.get_sample_value
    return value("driftlock_log_damaged_entries_total"), value("driftlock_log_damaged_bytes_total")


def last_segment(directory: Path) -> Path:
    return segments.segment_path(directory, segments.list_bases(directory)[-1])


async def filled(directory: Path, count: int, **settings: Any) -> list[LogEntry]:
    """Return the entries of a log of `count` entries that has been closed."""
    log = make(directory, **settings)
    for number in range(count):
        await log.append(entry(number))
    found = read_all(log)
    log.close()
    assert len(found) == count
    return found


def overwrite(directory: Path, position: int, bits: int) -> None:
    """Flip bits of one byte of a log of one segment."""
    with last_segment(directory).open("r+b") as file:
        file.seek(position + segments.SEGMENT_HEADER_BYTES)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ bits]))


async def test_reopened_log_continues_where_it_ended(tmp_path: Path) -> None:
    before = await filled(tmp_path, 20)
    log = make(tmp_path)
    assert log.end() == LogEnd(before[-1].next_position, 200)
    assert await log.append(entry(20)) == before[-1].next_position
    assert [read.entry for read in read_all(log)] == [entry(number) for number in range(21)]
    log.close()


async def test_torn_tail_is_cut_off_and_the_log_goes_on(tmp_path: Path) -> None:
    before = await filled(tmp_path, 12)
    path = last_segment(tmp_path)
    os.truncate(path, path.stat().st_size - 1)
    metrics = Metrics()
    log = make(tmp_path, metrics=metrics)
    assert read_all(log) == before[:-1]
    assert log.end() == LogEnd(before[-1].position, 110)
    await log.append(entry(99))
    assert read_all(log)[-1].entry == entry(99)
    assert metrics.registry.get_sample_value("driftlock_errors_total", {"component": "storage.log"}) == 1
    log.close()


@pytest.mark.parametrize("tail", [b"\0" * 5000, b"DRIFT" * 7, b"\xabDR\x01" * 100])
async def test_garbage_behind_the_last_record_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    before = await filled(tmp_path, 3)
    with last_segment(tmp_path).open("ab") as file:
        file.write(tail)
    log = make(tmp_path)
    assert read_all(log) == before
    assert last_segment(tmp_path).stat().st_size == before[-1].next_position + segments.SEGMENT_HEADER_BYTES
    log.close()


@pytest.mark.parametrize("offset", [0, 4, 12, segments.RECORD_HEADER_BYTES + 3], ids=["magic", "crc", "length", "body"])
@pytest.mark.parametrize("victim", [0, 2, 9], ids=["first", "sealed", "active"])
async def test_damaged_record_costs_nothing_but_itself(tmp_path: Path, offset: int, victim: int) -> None:
    before = await filled(tmp_path, 12)
    base = max(base for base in segments.list_bases(tmp_path) if base <= before[victim].position)
    with segments.segment_path(tmp_path, base).open("r+b") as file:
        file.seek(before[victim].position - base + segments.SEGMENT_HEADER_BYTES + offset)
        file.write(b"\xff\xfe\xfd\xfc")

    metrics = Metrics()
    log = make(tmp_path, metrics=metrics)
    found = read_all(log)
    lost = found.pop(victim)
    assert found == before[:victim] + before[victim + 1 :]
    assert lost.is_damaged
    assert (lost.position, lost.next_position) == (before[victim].position, before[victim].next_position)
    assert (lost.items_before, lost.entry.item_count, lost.entry.payload) == (10 * victim, 10, b"")
    # Only a sound header says which signal it was.
    assert lost.entry.signal is (Signal.LOGS if offset > segments.RECORD_HEADER_BYTES else None)
    assert log.end() == LogEnd(before[-1].next_position, 120)
    read_all(log)
    assert damage(metrics) == (1, segments.record_bytes(entry(0)))
    log.close()


async def test_damage_at_the_end_of_the_log_is_seen_before_anything_follows(tmp_path: Path) -> None:
    metrics = Metrics()
    log = make(tmp_path, metrics=metrics)
    for number in range(3):
        await log.append(entry(number))
    before = read_all(log)
    with last_segment(tmp_path).open("r+b") as file:
        file.seek(before[1].position + segments.SEGMENT_HEADER_BYTES)
        file.write(bytes(2 * segments.record_bytes(entry(0))))
    (sound, lost) = read_all(log)
    assert sound == before[0]
    assert (lost.next_position, lost.entry.item_count) == (log.end().position, 20)
    await log.append(entry(3))
    assert read_all(log)[1:] == [lost, LogEntry(lost.next_position, lost.next_position + 140, 30, entry(3))]
    assert damage(metrics) == (1, 280)
    log.close()


async def test_last_record_that_is_there_in_full_is_kept_to_be_counted(tmp_path: Path) -> None:
    before = await filled(tmp_path, 12)
    with last_segment(tmp_path).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"X")
    log = make(tmp_path)
    assert log.end() == LogEnd(before[-1].next_position, 120)
    lost = read_all(log)[-1]
    assert (lost.is_damaged, lost.entry.signal, lost.entry.item_count) == (True, Signal.LOGS, 10)
    log.close()


@pytest.mark.parametrize("offset", range(segments.RECORD_HEADER_BYTES))
async def test_flipped_bits_in_the_header_of_the_last_record_are_put_right(tmp_path: Path, offset: int) -> None:
    before = await filled(tmp_path, 3)
    overwrite(tmp_path, before[-1].position + offset, bits=0x10 if offset % 2 else 0xFF)
    metrics = Metrics()
    log = make(tmp_path, metrics=metrics)
    assert read_all(log) == before
    assert log.end() == LogEnd(before[-1].next_position, 30)
    assert damage(metrics) == (0, 0)
    log.close()


async def test_all_records_at_the_end_are_put_right_one_after_the_other(tmp_path: Path) -> None:
    before = await filled(tmp_path, 5)
    for victim in before[2:]:
        overwrite(tmp_path, victim.position + 13, bits=0x01)
    log = make(tmp_path)
    assert read_all(log) == before
    log.close()


async def test_an_end_that_is_neither_a_record_nor_a_torn_write_is_reported(tmp_path: Path) -> None:
    before = await filled(tmp_path, 3)
    for offset in (9, 17):
        overwrite(tmp_path, before[-1].position + offset, bits=0x01)
    metrics = Metrics()
    with capture_logs() as lines:
        log = make(tmp_path, metrics=metrics)
    assert log.end() == LogEnd(before[-1].position, 20)
    assert damage(metrics) == (1, segments.record_bytes(entry(2)))
    assert [line["event"] for line in lines] == ["log_repaired", "log_end_unreadable"]
    log.close()


async def test_what_a_cursor_is_beyond_is_damaged_and_not_torn(tmp_path: Path) -> None:
    before = await filled(tmp_path, 3)
    for offset in (9, 17):
        overwrite(tmp_path, before[-1].position + offset, bits=0x01)
    metrics = Metrics()
    log = SegmentLog(tmp_path, durability="fsync", segment_bytes=1000, max_bytes=1 << 20, metrics=metrics)
    log.open(minimum_end=before[-1].next_position)
    assert log.end().position == before[-1].next_position
    for count in (0, 1):
        found = read_all(log)
        assert found[:2] == before[:2]
        assert (found[2].is_damaged, found[2].next_position) == (True, before[-1].next_position)
        assert [read.entry for read in found[3:]] == [entry(3)] * count
        await log.append(entry(3))
    assert damage(metrics) == (1, segments.record_bytes(entry(2)))
    log.close()


@pytest.mark.parametrize("victim", [0, 1, 2], ids=["first", "middle", "last_but_one"])
@pytest.mark.parametrize("kept_bytes", [None, 10, 300])
async def test_segment_that_is_gone_or_short_costs_its_own_records(
    tmp_path: Path, victim: int, kept_bytes: int | None
) -> None:
    before = await filled(tmp_path, 24)
    bases = segments.list_bases(tmp_path)
    assert len(bases) == 4
    path = segments.segment_path(tmp_path, bases[victim])
    if kept_bytes is None:
        path.unlink()
    else:
        os.truncate(path, kept_bytes)
    log = make(tmp_path)
    found = read_all(log)
    gone = [read for read in before if bases[victim] <= read.position < bases[victim + 1]]
    kept = [read for read in found if not read.is_damaged]
    assert [read for read in before if read not in gone] == [read for read in kept if read not in gone]
    # Nobody knows what came before the first segment, as if it had been released.
    if not (victim == 0 and kept_bytes is None):
        assert sum(read.entry.item_count for read in found) == 240
        assert [read.next_position for read in found[:-1]] == [read.position for read in found[1:]]
    log.close()


async def test_record_quoted_in_a_damaged_payload_is_not_taken_for_one(tmp_path: Path) -> None:
    log = make(tmp_path, segment_bytes=100_000)
    await log.append(entry(1))
    quoted = b"".join(segments.encode_record(entry(66), 0, 0))
    position = await log.append(NewEntry(Signal.LOGS, quoted * 3, 1, 1))
    await log.append(entry(2))
    log.close()
    with last_segment(tmp_path).open("r+b") as file:
        file.seek(position + segments.SEGMENT_HEADER_BYTES)
        file.write(b"XXXX")
    log = make(tmp_path)
    assert [read.entry for read in read_all(log) if not read.is_damaged] == [entry(1), entry(2)]
    log.close()


@pytest.mark.parametrize("kept_bytes", [0, 5, 31, 32])
async def test_segment_torn_at_its_birth_is_mended(tmp_path: Path, kept_bytes: int) -> None:
    before = await filled(tmp_path, 12)
    end = before[-1].next_position
    segments.segment_path(tmp_path, end).write_bytes(segments.encode_segment_header(end, 120)[:kept_bytes])
    log = make(tmp_path)
    assert log.end() == LogEnd(end, 120)
    await log.append(entry(12))
    log.close()
    log = make(tmp_path)
    assert [read.entry for read in read_all(log)] == [entry(number) for number in range(13)]
    assert log.end().item_count == 130
    log.close()


async def test_damaged_segment_header_costs_no_record(tmp_path: Path) -> None:
    before = await filled(tmp_path, 12)
    for base in segments.list_bases(tmp_path):
        with segments.segment_path(tmp_path, base).open("r+b") as file:
            file.write(b"\0" * segments.SEGMENT_HEADER_BYTES)
    log = make(tmp_path)
    assert read_all(log) == before
    log.close()


async def test_newer_format_is_refused(tmp_path: Path) -> None:
    await filled(tmp_path, 2)
    header = bytearray(segments.encode_segment_header(0, 0))
    struct.pack_into("<I", header, 8, segments.FORMAT_VERSION + 1)
    struct.pack_into("<I", header, 12, segments.crc32(header[16:], segments.crc32(header[:12])))
    with last_segment(tmp_path).open("r+b") as file:
        file.write(header)
    with pytest.raises(StorageFormatError, match="log format 2.*run the version that wrote it"):
        make(tmp_path)
    with pytest.raises(StorageFormatError):
        LogReader(tmp_path).read(0, 1000)


async def test_full_disk_refuses_and_takes_again_later(tmp_path: Path) -> None:
    disk = Disk()
    log = make(tmp_path, disk)
    await log.append(entry(0))
    for room_bytes in (0, 1, 60):
        disk.room_bytes = room_bytes
        with pytest.raises(StorageUnavailableError, match="No space left") as refusal:
            await log.append(entry(66))
        assert refusal.value.retry_after_s == 5
        assert log.end().item_count == 10
    disk.room_bytes = None
    for number in range(1, 12):
        await log.append(entry(number))
    assert [read.entry for read in read_all(log)] == [entry(number) for number in range(12)]
    log.close()
    log = make(tmp_path)
    assert [read.entry for read in read_all(log)] == [entry(number) for number in range(12)]
    log.close()


async def test_disk_is_found_to_be_well_again_though_nobody_sends(tmp_path: Path) -> None:
    disk = Disk()
    log = make(tmp_path, disk)
    await log.append(entry(0))
    disk.room_bytes = 60
    with pytest.raises(StorageUnavailableError):
        await log.append(entry(66, 500))
    assert not log.is_writable
    await asyncio.sleep(1.5)  # It is tried again meanwhile, with as many bytes as it refused.
    assert not log.is_writable
    disk.room_bytes = None
    async with asyncio.timeout(10):
        while not log.is_writable:
            await asyncio.sleep(0.01)
    size_bytes = last_segment(tmp_path).stat().st_size
    assert size_bytes == log.end().position + segments.SEGMENT_HEADER_BYTES
    await log.append(entry(1))
    assert [read.entry for read in read_all(log)] == [entry(0), entry(1)]
    log.close()


async def test_disk_that_does_not_read_is_waited_for(tmp_path: Path) -> None:
    log = make(tmp_path)
    await log.append(entry(0))
    path = last_segment(tmp_path)
    path.rename(tmp_path / "aside")
    path.symlink_to(path)
    with pytest.raises(StorageUnavailableError, match="cannot be read"):
        log.read(0, 1000)
    path.unlink()
    (tmp_path / "aside").rename(path)
    assert [read.entry for read in read_all(log)] == [entry(0)]
    log.close()


async def test_disk_that_fills_up_at_a_new_segment_loses_nothing(tmp_path: Path) -> None:
    disk = Disk()
    log = make(tmp_path, disk, segment_bytes=300)
    reader = LogReader(tmp_path)
    await log.append(entry(0))
    await log.append(entry(1, 20))
    for room_bytes in (0, 10, 40):
        disk.room_bytes = room_bytes
        with pytest.raises(StorageUnavailableError):
            await log.append(entry(66, 200))
        assert [read.entry for read in reader.read(0, 1000)] == [entry(0), entry(1, 20)]
        assert reader.read(log.end().position, 1000, log.end().position) == []
    disk.room_bytes = None
    end = log.end().position
    await log.append(entry(2, 200))
    assert [read.entry for read in reader.read(end, 1000)] == [entry(2, 200)]
    log.close()


async def test_segment_that_could_not_be_started_hides_nothing_that_is_written_later(tmp_path: Path) -> None:
    disk = Disk()
    log = make(tmp_path, disk, segment_bytes=300)
    await log.append(entry(0))
    disk.room_bytes = 10
    with pytest.raises(StorageUnavailableError):
        await log.append(entry(66, 200))
    disk.room_bytes = None
    await log.append(entry(1, 20))  # This one would have had room in the segment before.
    expected = [entry(0), entry(1, 20)]
    assert [read.entry for read in read_all(log)] == expected
    log.close()
    log = make(tmp_path, segment_bytes=300)
    assert [read.entry for read in read_all(log)] == expected
    log.close()


async def test_entry_whose_sync_failed_is_withdrawn(tmp_path: Path) -> None:
    disk = Disk()
    log = make(tmp_path, disk)
    disk.sync_error = errno.EIO
    with pytest.raises(StorageUnavailableError):
        await log.append(entry(66))
    disk.sync_error = None
    assert await log.append(entry(1, 5)) == 0
    assert [read.entry for read in read_all(log)] == [entry(1, 5)]
    log.close()


def test_file_size_limit_of_the_system_refuses_and_the_process_goes_on(tmp_path: Path) -> None:
    script = """
import asyncio, resource, sys
from pathlib import Path
from driftlock_otlp.errors import StorageUnavailableError
from driftlock_otlp.model import NewEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage.log import SegmentLog

async def main():
    log = SegmentLog(Path(sys.argv[1]), durability="fsync", segment_bytes=1 << 30, max_bytes=1 << 30, metrics=Metrics())
    log.open()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    acknowledged = refused = 0
    for number in range(200):
        if refused == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        try:
            await log.append(NewEntry(Signal.LOGS, b"x" * 1000, 1, number))
            acknowledged += 1
        except StorageUnavailableError:
            refused += 1
    entries = log.read(0, 1 << 30)
    assert len(entries) == acknowledged == 197, (len(entries), acknowledged)
    log.close()

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60, stdout=subprocess.DEVNULL)


async def test_one_sync_serves_all_who_wait(tmp_path: Path) -> None:
    disk = Disk()
    log = make(tmp_path, disk, segment_bytes=1 << 20)
    disk.may_write.clear()
    before = disk.sync_count
    appends = [asyncio.ensure_future(log.append(entry(number))) for number in range(50)]
    await asyncio.sleep(0.05)
    disk.may_write.set()
    await asyncio.gather(*appends)
    assert disk.sync_count - before <= 2
    log.close()


@pytest.mark.parametrize("durability", ["os", "memory"])
async def test_only_fsync_syncs(tmp_path: Path, durability: str) -> None:
    disk = Disk()
    log = make(tmp_path, disk, durability=durability)
    for number in range(20):
        await log.append(entry(number))
    log.close()
    assert disk.sync_count == 0
    log = make(tmp_path)
    assert [read.entry for read in read_all(log)] == [entry(number) for number in range(20)]
    log.close()


async def test_memory_acknowledges_before_the_disk_has_it(tmp_path: Path) -> None:
    disk = Disk()
    log = make(tmp_path, disk, durability="memory")
    disk.may_write.clear()
    assert await log.append(entry(0)) == 0
    assert await log.append(entry(1)) == segments.record_bytes(entry(0))
    assert log.end().position == 0
    assert list(log.read(0, 1000)) == []
    disk.may_write.set()
    log.close()
    assert [read.entry for read in read_all(LogReader(tmp_path))] == [entry(0), entry(1)]


async def test_memory_keeps_what_a_failing_disk_refuses(tmp_path: Path) -> None:
    disk = Disk()
    log = make(tmp_path, disk, durability="memory")
    disk.room_bytes = 0
    await log.append(entry(0))
    with pytest.raises(StorageUnavailableError):
        for _ in range(1000):
            await log.append(entry(1))
            await asyncio.sleep(0.01)
    disk.room_bytes = None
    while log.end().position == 0:
        await asyncio.sleep(0.01)
    assert read_all(log)[0].entry == entry(0)
    log.close()


async def test_what_has_queued_counts_against_max_bytes(tmp_path: Path) -> None:
    disk = Disk()
    log = make(tmp_path, disk, max_bytes=1000)
    disk.may_write.clear()
    appends = [asyncio.ensure_future(log.append(entry(number, 200))) for number in range(6)]
    await asyncio.sleep(0.05)
    disk.may_write.set()
    results = await asyncio.gather(*appends, return_exceptions=True)
    assert [isinstance(result, OverloadedError) for result in results] == [False] * 4 + [True] * 2
    assert log.held_bytes == 4 * segments.record_bytes(entry(0, 200))
    log.close()


async def test_entry_larger_than_the_log_is_taken_when_it_is_empty(tmp_path: Path) -> None:
    log = make(tmp_path, max_bytes=1000)
    await log.append(entry(0, 5000))
    with pytest.raises(OverloadedError):
        await log.append(entry(1))
    log.release(log.end().position)
    assert log.held_bytes == 0
    await log.append(entry(1))
    log.close()


async def test_entry_that_no_record_can_hold_is_refused_for_good(tmp_path: Path) -> None:
    log = make(tmp_path)
    with pytest.raises(PayloadTooLargeError):
        await log.append(NewEntry(Signal.LOGS, b"", 0, 0, tenant="t" * 70_000))
    log.close()


async def test_release_deletes_whole_segments_and_never_the_active_one(tmp_path: Path) -> None:
    log = make(tmp_path)
    for number in range(30):
        await log.append(entry(number))
    bases = segments.list_bases(tmp_path)
    assert len(bases) > 3
    log.release(bases[2] - 1)
    assert segments.list_bases(tmp_path) == bases[1:]
    log.release(log.end().position + 1_000_000)
    assert segments.list_bases(tmp_path) == bases[-1:]
    assert log.held_bytes == 0
    log.close()


async def test_closed_log_refuses_and_closing_again_is_harmless(tmp_path: Path) -> None:
    log = make(tmp_path)
    log.close()
    log.close()
    with pytest.raises(StorageUnavailableError):
        await log.append(entry(0))


async def test_closing_writes_what_has_queued(tmp_path: Path) -> None:
    log = make(tmp_path)
    appends = [asyncio.ensure_future(log.append(entry(number))) for number in range(20)]
    await asyncio.sleep(0)
    log.close()
    await asyncio.gather(*appends)
    assert [read.entry for read in read_all(LogReader(tmp_path))] == [entry(number) for number in range(20)]


async def test_sender_that_has_gone_does_not_disturb_the_others(tmp_path: Path) -> None:
    disk = Disk()
    log = make(tmp_path, disk)
    disk.may_write.clear()
    gone = asyncio.ensure_future(log.append(entry(0)))
    waiting = asyncio.ensure_future(log.append(entry(1)))
    await asyncio.sleep(0)
    gone.cancel()
    disk.may_write.set()
    assert await waiting == segments.record_bytes(entry(0))
    log.close()


async def test_log_never_starts_before_a_position_that_a_cursor_has_reached(tmp_path: Path) -> None:
    before = await filled(tmp_path, 3)
    cursor = before[-1].next_position + 5000
    log = SegmentLog(tmp_path, durability="fsync", segment_bytes=1000, max_bytes=1 << 20, metrics=Metrics())
    log.open(minimum_end=cursor)
    assert log.end() == LogEnd(cursor, 30)
    assert await log.append(entry(3)) == cursor
    assert [read.entry for read in log.read(cursor, 1000)] == [entry(3)]
    assert [read.entry for read in read_all(log)] == [entry(number) for number in range(4)]
    log.close()


async def test_second_writer_is_told_which_path_is_in_use(tmp_path: Path) -> None:
    directory = tmp_path / "data" / "log"
    log = make(directory)
    script = (
        "import sys; from pathlib import Path; from driftlock_otlp.storage.log import SegmentLog\n"
        "from driftlock_otlp.observability.metrics import Metrics; from driftlock_otlp.errors import ConfigError\n"
        "log = SegmentLog(Path(sys.argv[1]), durability='fsync', segment_bytes=1, max_bytes=1, metrics=Metrics())\n"
        "try:\n    log.open()\nexcept ConfigError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(directory)]
    told = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout
    assert f"{tmp_path / 'data'} is in use" in told
    assert "queue.path of its own" in told
    log.close()
    assert subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout == ""


def test_directory_that_cannot_be_used_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="queue.path"):
        make(tmp_path / "file" / "log")


async def test_reader_in_another_process_follows_the_writer(tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from driftlock_otlp.storage.log import LogReader
reader, position, numbers = LogReader(Path(sys.argv[1])), 0, []
deadline = time.monotonic() + 50
print("ready", flush=True)
while len(numbers) < 300 and time.monotonic() < deadline:
    for entry in reader.read(position, 500):
        assert len(entry.entry.payload) == 100
        numbers.append(entry.entry.received_unix_nano)
        position = entry.next_position
assert numbers == list(range(300)), numbers
print(position)
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path / "log"), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    log = make(tmp_path / "log")
    for number in range(300):
        await log.append(entry(number))
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert int(out) == log.end().position
    log.close()


async def test_reader_sees_nothing_behind_the_end_it_was_given(tmp_path: Path) -> None:
    before = await filled(tmp_path, 20)
    reader = LogReader(tmp_path)
    for count, read in enumerate(before):
        found: list[LogEntry] = []
        position = 0
        while run := reader.read(position, 300, read.next_position - 1):
            found += run
            position = run[-1].next_position
        assert found == before[:count]
    reader.close()


def test_reader_of_a_directory_that_does_not_exist_yet_reads_nothing(tmp_path: Path) -> None:
    assert LogReader(tmp_path / "log").read(0, 1000) == []


async def test_reader_passes_over_segments_released_under_it(tmp_path: Path) -> None:
    log = make(tmp_path)
    reader = LogReader(tmp_path)
    for number in range(10):
        await log.append(entry(number))
    first = reader.read(0, 1)
    for number in range(10, 40):
        await log.append(entry(number))
    log.release(log.end().position)
    rest = read_all(reader, first[-1].next_position)
    assert rest[-1].entry == entry(39)
    assert [read.position for read in rest] == sorted(read.position for read in rest)
    log.close()
