"""The files of the telemetry log as the one thread that writes them has them.

Knows which segment is active and where the log ends in it; when to write and whom to answer is
`storage.log`'s. After a failed write the end is where it was, and what was torn is cut off, at the
latest before the next write.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from driftlock_otlp import fault_points
from driftlock_otlp.model import LogEnd, NewEntry
from driftlock_otlp.storage import log_recovery, segments


class SegmentWriter:
    """Appends to the active segment and starts the next one when it is full; for one thread.

    Args:
        directory: Where the segments are.
        is_synced: Whether what is written is made durable before `append` returns.
        segment_bytes: A segment is closed when the next entries would take it beyond this size.
        write: The system call that writes.
        sync: The system call that makes a file's data durable.

    Attributes:
        end: Where the next entry goes.
        base: Base of the active segment.
    """

    def __init__(
        self,
        directory: Path,
        *,
        is_synced: bool,
        segment_bytes: int,
        write: segments.PositionedWrite,
        sync: Callable[[int], None],
    ) -> None:
        self._directory = directory
        self._is_synced = is_synced
        self._segment_bytes = segment_bytes
        self._write = write
        self._sync = sync
        self._fd = -1
        self._has_torn_tail = False
        self._must_start_segment = False
        self.end = LogEnd(0, 0)
        self.base = 0

    def open(self, minimum_end: int) -> tuple[list[int], log_recovery.Repair | None]:
        """Repair the last segment, or start the first.

        Args:
            minimum_end: The log continues there if it ends before it.

        Returns:
            The bases of all segments, and what was repaired in the last one; None without segments.

        Raises:
            OSError: The directory cannot be used.
            StorageFormatError: A newer version wrote one of the segments.
        """
        bases = segments.list_bases(self._directory)
        log_recovery.check_formats(self._directory, bases)
        repair = None
        if bases:
            path = segments.segment_path(self._directory, bases[-1])
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            repair = log_recovery.repair_last(self._directory, bases, self._fd, minimum_end)
            if self._is_synced:
                # What the process before left to the kernel is read from now on, so it must be durable first.
                os.fsync(self._fd)
                log_recovery.sync_directory(self._directory)
            self.end, self.base = repair.end, bases[-1]
        if not bases or minimum_end > self.end.position:
            self.end = LogEnd(max(minimum_end, self.end.position), self.end.item_count)
            self._start_segment()
            bases.append(self.base)
        return bases, repair

    @property
    def room_bytes(self) -> int:
        """Bytes of entries that the active segment still takes."""
        return self._segment_bytes - (self.end.position - self.base)

    def append(self, entries: Sequence[NewEntry], size_bytes: int) -> list[int]:
        """Write entries, make them durable and move the end; return their positions.

        Args:
            entries: What to write.
            size_bytes: What they take, together.

        Raises:
            OSError: The disk did not take them; the end has not moved.
        """
        position, item_count = self.end.position, self.end.item_count
        self._cut_torn_tail()
        is_full = position > self.base and self._offset(position) + size_bytes > self._segment_bytes
        if is_full or self._must_start_segment:
            self._start_segment()
        offset = self._offset(position)
        buffers: list[bytes] = []
        positions: list[int] = []
        for entry in entries:
            record = segments.encode_record(entry, position, item_count)
            buffers += record
            positions.append(position)
            position += sum(map(len, record))
            item_count += entry.item_count
        self._write_behind_the_end(buffers, offset)
        self.end = LogEnd(position, item_count)
        return positions

    def probe(self, size_bytes: int) -> None:
        """Find out whether the disk takes so many bytes; the log stays as it is.

        Raises:
            OSError: It does not.
        """
        self._cut_torn_tail()
        if self._must_start_segment:
            self._start_segment()
        try:
            self._write_behind_the_end([bytes(size_bytes)], self._offset(self.end.position))
        finally:
            self._has_torn_tail = True
            with contextlib.suppress(OSError):
                self._cut_torn_tail()

    def close(self) -> None:
        """Let go of the file. Harmless twice."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _write_behind_the_end(self, buffers: list[bytes], offset: int) -> None:
        try:
            segments.write_fully(self._fd, buffers, offset, self._write)
            fault_points.reach("log.written")
            if self._is_synced:
                self._sync(self._fd)
            fault_points.reach("log.synced")
        except BaseException:
            self._has_torn_tail = True
            with contextlib.suppress(OSError):  # Else the next write tries again.
                self._cut_torn_tail()
            raise

    def _cut_torn_tail(self) -> None:
        if self._has_torn_tail:
            os.ftruncate(self._fd, self._offset(self.end.position))
            self._has_torn_tail = False

    def _offset(self, position: int) -> int:
        return position - self.base + segments.SEGMENT_HEADER_BYTES

    def _start_segment(self) -> None:
        """Make the segment that begins at the end of the log, and make its name durable.

        A file left over from an attempt that failed is used again rather than deleted, for a reader
        may have it open already; and it must be, for its name says that the segment before it ends here.
        """
        self._must_start_segment = True
        base, items_before = self.end.position, self.end.item_count
        path = segments.segment_path(self._directory, base)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            segments.write_fully(fd, [segments.encode_segment_header(base, items_before)], 0, self._write)
            if self._is_synced:
                self._sync(fd)
                log_recovery.sync_directory(self._directory)
        except BaseException:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self.base = fd, base
        self._must_start_segment = False
        fault_points.reach("log.segment_started")
