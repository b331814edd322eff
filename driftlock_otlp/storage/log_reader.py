"""Reading the telemetry log: in the process that writes it and in any other, without locks.

`storage.log` has the invariants that this rests on.
"""

from __future__ import annotations

import bisect
import os
from pathlib import Path

from driftlock_otlp.model import LogEntry
from driftlock_otlp.storage import segments

_COUNT_BYTES = 4 << 20
_ANYWHERE = 1 << 62


class LogReader:
    """Reads the log from any process, without locks; one reader serves one thread.

    Args:
        directory: The log's directory; it need not exist yet.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._bases: list[int] = []
        self._fd = -1
        self._base = -1
        self._passed = (0, 0)  # A position that was read up to, and the items in all entries before it.

    def read(
        self, position: int, max_bytes: int, end: int | None = None, end_items: int | None = None
    ) -> list[LogEntry]:
        """Return entries from `position` on, at most `max_bytes` of payload but at least one.

        A position in a released segment continues at the oldest entry kept. What is damaged comes as
        an entry that says so, alone.

        Args:
            position: Where to begin; 0 for the oldest.
            max_bytes: Most payload bytes to return; more than that comes with further calls.
            end: Only entries that end at or before this position are returned: the writer's
                durable end. None reads whatever is in the files, which may include entries that
                are not acknowledged yet and may still be withdrawn.
            end_items: Items in all entries before `end`, if the caller knows.

        Returns:
            Entries in order; empty when there is none yet, or when `position` is beyond the end.

        Raises:
            StorageFormatError: A newer version wrote the log.
        """
        entries = self._read(position, max_bytes, end, end_items)
        if entries:
            last = entries[-1]
            self._passed = last.next_position, last.items_before + last.entry.item_count
        return entries

    def close(self) -> None:
        """Let go of the file; the reader may be used again."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._base = -1, -1

    def _read(self, position: int, max_bytes: int, end: int | None, end_items: int | None) -> list[LogEntry]:
        while end is None or position < end:
            at = max(0, bisect.bisect_right(self._bases, position) - 1)
            following = self._bases[at + 1] if at + 1 < len(self._bases) else None
            written = 0
            if self._bases:
                base = self._bases[at]
                position = max(position, base)
                if not self._open(base):
                    self._bases = segments.list_bases(self._directory)
                    continue
                written = base + os.fstat(self._fd).st_size - segments.SEGMENT_HEADER_BYTES
                limit = min(bound for bound in (written, following, end) if bound is not None)
                if entries := self._read_segment(position, limit, max_bytes):
                    return entries
            if following is None:
                # Only now list anew: if a successor has appeared, this segment is complete and is read once more.
                bases = segments.list_bases(self._directory)
                is_longer = bool(bases) and (not self._bases or bases[-1] > self._bases[-1])
                self._bases = bases
                if is_longer:
                    continue
                return self._lost_before_end(position, end, end_items)
            if end is not None and following > end:
                return []
            # At its end the log may have begun a segment whose header the disk has not taken yet.
            if lost := self._lost_before(following, position, written, end_items if following == end else None):
                return lost
            position = max(position, following)
        return []

    def _open(self, base: int) -> bool:
        """Open the segment; False if it has been released meanwhile."""
        if self._base == base:
            return True
        self.close()
        path = segments.segment_path(self._directory, base)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self._fd, self._base = fd, base
        try:
            segments.segment_items_before(fd, base, path)
        except BaseException:
            self.close()
            raise
        return True

    def _read_segment(self, position: int, limit: int, max_bytes: int) -> list[LogEntry]:
        if position >= limit:
            return []
        if run := segments.read_run(self._fd, self._base, position, limit, max_bytes):
            return run
        before = self._items_before(position)
        return next(segments.walk(self._fd, self._base, position, limit, max_bytes, before), [])

    def _lost_before(self, following: int, position: int, written: int, following_items: int | None) -> list[LogEntry]:
        """Return what is lost between the last record of a segment and the segment after it."""
        if position >= following:
            return []
        before = self._items_before(position)
        after = self._items_at(following) if following_items is None else following_items
        lost = segments.damaged_stretch(position, following, before, after)
        # A log that went on further ahead, at a cursor, has a gap in which nothing ever was.
        return [lost] if lost.entry.item_count or position < written else []

    def _lost_before_end(self, position: int, end: int | None, end_items: int | None) -> list[LogEntry]:
        """Return what is lost between the last record of the log and its durable end."""
        if end is None or self._fd < 0 or position >= end:
            return []
        record = segments.damaged_record(self._fd, self._base, position, _ANYWHERE)
        if record is None:
            return [segments.damaged_stretch(position, end, self._items_before(position), end_items)]
        # An end within a record is one that nobody has acknowledged.
        return [record] if record.next_position <= end else []

    def _items_before(self, position: int) -> int | None:
        """Return the items in all entries before a position of the open segment, if anything says so."""
        if self._passed[0] == position:
            return self._passed[1]
        path = segments.segment_path(self._directory, self._base)
        count = segments.segment_items_before(self._fd, self._base, path)
        for run in segments.walk(self._fd, self._base, self._base, position, _COUNT_BYTES, count):
            count = run[-1].items_before + run[-1].entry.item_count
        return count

    def _items_at(self, base: int) -> int | None:
        """Return the items in all entries before a segment, if anything says so."""
        try:
            fd = os.open(segments.segment_path(self._directory, base), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            count = segments.segment_items_before(fd, base, segments.segment_path(self._directory, base))
            if count is None:
                limit = base + os.fstat(fd).st_size - segments.SEGMENT_HEADER_BYTES
                first = next(segments.walk(fd, base, base, limit, 0), None)
                count = first[0].items_before if first is not None else None
            return count
        finally:
            os.close(fd)
