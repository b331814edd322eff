"""A TelemetryLog in memory, with switches for the failures that a disk can have."""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Sequence
from dataclasses import replace

from driftlock_otlp.errors import OverloadedError
from driftlock_otlp.model import LogEnd, LogEntry, NewEntry, Signal

_HEADER_BYTES = 16
"""Every entry takes room beyond its payload, so that empty entries too have positions of their own."""


class MemoryLog:
    """Keeps entries in a list.

    Args:
        max_bytes: Most it may hold; beyond it `append` raises `OverloadedError`.

    Attributes:
        failure: If set, `append` raises it and stores nothing.
        gate: While not set, `append` waits, as for a slow disk.
    """

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self._max_bytes = max_bytes
        self._entries: list[LogEntry] = []
        self._end = LogEnd(position=0, item_count=0)

    @property
    def entries(self) -> list[NewEntry]:
        """Everything appended and not released, oldest first."""
        return [stored.entry for stored in self._entries]

    async def append(self, entry: NewEntry) -> int:
        """Store the entry; see `TelemetryLog`."""
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        position = self._end.position
        next_position = position + _HEADER_BYTES + len(entry.payload)
        oldest = self._entries[0].position if self._entries else position
        if next_position - oldest > self._max_bytes:
            raise OverloadedError("the log is full", retry_after_s=5.0)
        self._entries.append(LogEntry(position, next_position, self._end.item_count, entry))
        self._end = LogEnd(next_position, self._end.item_count + entry.item_count)
        return position

    def read(self, position: int, max_bytes: int) -> Sequence[LogEntry]:
        """Return entries from `position` on; see `TelemetryLog`."""
        taken: list[LogEntry] = []
        room = max_bytes
        for stored in self._entries[bisect.bisect_left(self._entries, position, key=lambda e: e.position) :]:
            room -= len(stored.entry.payload)
            if taken and room < 0:
                break
            taken.append(stored)
        return taken

    def damage(self, position: int, signal: Signal | None) -> None:
        """Lose the entry at `position`; what its header said is known if it names the signal."""
        index = next(index for index, stored in enumerate(self._entries) if stored.position == position)
        stored = self._entries[index]
        left = NewEntry(signal, b"", stored.entry.item_count, 0 if signal is None else stored.entry.received_unix_nano)
        self._entries[index] = replace(stored, entry=left, is_damaged=True)

    def end(self) -> LogEnd:
        """Return where the next entry will go."""
        return self._end

    def release(self, position: int) -> None:
        """Delete what ends at or before `position`."""
        kept = bisect.bisect_right(self._entries, position, key=lambda e: e.next_position)
        del self._entries[:kept]
