"""Opening the telemetry log after whatever happened to it: find its end, cut off what is torn.

Runs before the writer starts, in the process that holds the directory's lock.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from driftlock_otlp.model import LogEnd, LogEntry
from driftlock_otlp.storage import segments

_READ_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Repair:
    """What was found in the last segment, and what it took to make it sound.

    Attributes:
        end: Where the log ends now.
        torn_bytes: Bytes cut off behind the last record: a write that was never acknowledged.
        unreadable_bytes: Those of them that no torn write leaves behind: what they were is lost.
        mended_records: Records at the end in whose header one byte was put right.
        has_new_header: Whether the segment's header was damaged or torn.
    """

    end: LogEnd
    torn_bytes: int
    unreadable_bytes: int
    mended_records: int
    has_new_header: bool


def check_formats(directory: Path, bases: list[int]) -> None:
    """Make sure that this version reads all these segments.

    Raises:
        StorageFormatError: A newer version wrote one of them.
    """
    for base in bases:
        path = segments.segment_path(directory, base)
        with path.open("rb") as file:
            segments.segment_items_before(file.fileno(), base, path)


def repair_last(directory: Path, bases: list[int], fd: int, minimum_end: int) -> Repair:
    """Cut the last segment off behind its last record; give it a header if it has none.

    A record counts as one if its header is sound, or becomes so by one byte, and it is there in full: a
    write that was torn is shorter, so a body that does not pass is damage to something that may have
    been acknowledged, and stays to be counted by those who read it. So does what lies before a position
    that is known to have been durable.

    Args:
        directory: The log's directory.
        bases: Bases of all its segments, ascending; at least one.
        fd: The last segment, open for reading and writing.
        minimum_end: The log is known to have been durable up to here.

    Raises:
        OSError: The disk does not take the repair.
    """
    base = bases[-1]
    stored = segments.segment_items_before(fd, base, segments.segment_path(directory, base))
    limit = base + os.fstat(fd).st_size - segments.SEGMENT_HEADER_BYTES
    position, first_items, item_count, mended = base, stored, stored, 0
    while True:
        for entries in segments.walk(fd, base, position, limit, _READ_BYTES, item_count):
            if first_items is None:
                first_items = entries[0].items_before
            position = entries[-1].next_position
            item_count = entries[-1].items_before + entries[-1].entry.item_count
        header = segments.mended_header(fd, base, position, limit)
        if header is None:
            break
        segments.write_fully(fd, [header], position - base + segments.SEGMENT_HEADER_BYTES, os.pwritev)
        mended += 1
    if item_count is None:
        item_count = _items_in(directory, bases[:-1])
    if stored is None:
        header = segments.encode_segment_header(base, item_count if first_items is None else first_items)
        segments.write_fully(fd, [header], 0, os.pwritev)
    end = max(position, min(minimum_end, limit))
    torn_bytes = max(0, limit - end)
    unreadable_bytes = torn_bytes if segments.is_unreadable(fd, base, end, limit) else 0
    os.ftruncate(fd, end - base + segments.SEGMENT_HEADER_BYTES)
    return Repair(LogEnd(end, item_count), torn_bytes, unreadable_bytes, mended, stored is None)


def sync_directory(directory: Path) -> None:
    """Make the names of new files durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _items_in(directory: Path, bases: list[int]) -> int:
    """Return the items in all entries up to the end of these segments, from the last sound entry."""
    for base in reversed(bases):
        with segments.segment_path(directory, base).open("rb") as file:
            fd = file.fileno()
            limit = base + os.fstat(fd).st_size - segments.SEGMENT_HEADER_BYTES
            last: LogEntry | None = None
            for entries in segments.walk(fd, base, base, limit, _READ_BYTES):
                last = entries[-1]
            if last is not None:
                return last.items_before + last.entry.item_count
    return 0
