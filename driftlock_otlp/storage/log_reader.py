"""Reading the telemetry log: in the process that writes it and in any other, without locks.

`storage.log` has the invariants that this rests on.
"""

from __future__ import annotations

import bisect
import os
from pathlib import Path

import structlog

from driftlock_otlp.model import LogEntry
from driftlock_otlp.storage import segments

_log = structlog.get_logger(__name__)


class LogReader:
    """Reads the log from any process, without locks; one reader serves one thread.

    Args:
        directory: The log's directory; it need not exist yet.

    Attributes:
        damaged_count: How often damaged records had to be passed over.
    """

    def __init__(self, directory: Path) -> None:
        self.damaged_count = 0
        self._directory = directory
        self._bases: list[int] = []
        self._fd = -1
        self._base = -1

    def read(self, position: int, max_bytes: int, end: int | None = None) -> list[LogEntry]:
        """Return entries from `position` on, at most `max_bytes` of payload but at least one.

        A position in a released segment continues at the oldest entry kept.

        Args:
            position: Where to begin; 0 for the oldest.
            max_bytes: Most payload bytes to return; more than that comes with further calls.
            end: Only entries that end at or before this position are returned: the writer's
                durable end. None reads whatever is in the files, which may include entries that
                are not acknowledged yet and may still be withdrawn.

        Returns:
            Entries in order; empty when there is none yet, or when `position` is beyond the end.

        Raises:
            StorageFormatError: A newer version wrote the log.
        """
        if end is not None and position >= end:
            return []
        while True:
            at = max(0, bisect.bisect_right(self._bases, position) - 1)
            following = self._bases[at + 1] if at + 1 < len(self._bases) else None
            entries: list[LogEntry] = []
            limit = position
            if self._bases:
                base = self._bases[at]
                position = max(position, base)
                if not self._open(base):
                    self._bases = segments.list_bases(self._directory)
                    continue
                written = base + os.fstat(self._fd).st_size - segments.SEGMENT_HEADER_BYTES
                limit = min(bound for bound in (written, following, end) if bound is not None)
                entries = self._read_segment(position, limit, max_bytes)
            if entries:
                return entries
            if following is None:
                # Only now list anew: if a successor has appeared, this segment is complete and is read once more.
                bases = segments.list_bases(self._directory)
                is_longer = bool(bases) and (not self._bases or bases[-1] > self._bases[-1])
                self._bases = bases
                if not is_longer:
                    return []
                continue
            if position < limit:
                self._count_damage(position, limit)
            position = max(position, following)
            if end is not None and position >= end:
                return []

    def close(self) -> None:
        """Let go of the file; the reader may be used again."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._base = -1, -1

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
        for entries in segments.walk(self._fd, self._base, position, limit, max_bytes):
            if entries[0].position != position:
                self._count_damage(position, entries[0].position)
            return entries
        return []

    def _count_damage(self, position: int, until: int) -> None:
        self.damaged_count += 1
        _log.warning(
            "log_damage_skipped",
            segment=str(segments.segment_path(self._directory, self._base)),
            position=position,
            skipped_bytes=until - position,
        )
