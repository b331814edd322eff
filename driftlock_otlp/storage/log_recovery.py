"""Opening the telemetry log after whatever happened to it: find its end, cut off what is torn.

Runs before the writer starts, in the process that holds the directory's lock.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from driftlock_otlp.model import LogEnd
from driftlock_otlp.storage import segments

_READ_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Repair:
    """What was found in the last segment, and what it took to make it sound.

    Attributes:
        end: Where the log ends now.
        torn_bytes: Bytes cut off behind the last record: a write that was never acknowledged.
        unreadable_bytes: Those of them that no torn write leaves behind: what they were is lost.
        mended_records: Records at the end of the log in whose header one byte was put right.
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
    passed = _pass_and_mend(fd, base, limit, stored)
    item_count, mended = passed.item_count, passed.mended
    if item_count is None:
        item_count, mended = _items_in(directory, bases[:-1])
    if stored is None:
        header = segments.encode_segment_header(base, item_count if passed.first_items is None else passed.first_items)
        segments.write_fully(fd, [header], 0, os.pwritev)
    end = max(passed.end, min(minimum_end, limit))
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


@dataclass(frozen=True, slots=True)
class _Passed:
    """A segment from its first record to its last.

    Attributes:
        end: Position behind the last record.
        first_items: Items in all entries before the segment; None if nothing says so.
        item_count: Items in all entries before `end`, likewise.
        mended: Records in whose header one byte was put right.
    """

    end: int
    first_items: int | None
    item_count: int | None
    mended: int


def _pass_and_mend(fd: int, base: int, limit: int, stored: int | None) -> _Passed:
    """Pass over all records of a segment; headers behind which nothing is sound are put right if one byte does it."""
    position, first_items, item_count, mended = base, stored, stored, 0
    while True:
        for entries in segments.walk(fd, base, position, limit, _READ_BYTES, item_count):
            if first_items is None:
                first_items = entries[0].items_before
            position = entries[-1].next_position
            item_count = entries[-1].items_before + entries[-1].entry.item_count
        header = segments.mended_header(fd, base, position, limit)
        if header is None:
            return _Passed(position, first_items, item_count, mended)
        segments.write_fully(fd, [header], position - base + segments.SEGMENT_HEADER_BYTES, os.pwritev)
        mended += 1


def _items_in(directory: Path, bases: list[int]) -> tuple[int, int]:
    """Return the items in all entries up to the end of these segments, and how many records were mended for it.

    Asked when the segment behind them has neither header nor record: then nothing but the last record
    here says how many items there are, so it is put right as it would be at the end of the log.
    """
    for base in reversed(bases):
        path = segments.segment_path(directory, base)
        with path.open("r+b") as file:
            fd = file.fileno()
            limit = base + os.fstat(fd).st_size - segments.SEGMENT_HEADER_BYTES
            passed = _pass_and_mend(fd, base, limit, segments.segment_items_before(fd, base, path))
            if passed.item_count is not None:
                return passed.item_count, passed.mended
    return 0, 0
