"""The telemetry log: every acknowledged OTLP request, in order, on disk until all cursors have passed.

    <queue.path>/log/
      lock                          held by the one writing process (flock)
      00000000000000000000.log      ┐ sealed: never written again, deleted whole by release()
      00000000000067108912.log      ┘
      00000000000134217921.log      active: the last one

      position  0           67108912          134217921              end
                ├────────────┼─────────────────┼──────────────────────┤╌╌╌╌╌╌╌╌╌┐
                │ released   │ ▲ a cursor      │    ▲ another cursor  │ being   ┊
                ├────────────┼─────────────────┼──────────────────────┤ written ┊
                                                              durable ◀┘╌╌╌╌╌╌╌╌┘ nobody reads this

`storage.segments` has the format of the files, `storage.segment_writer` writes them, `storage.log_reader`
reads them. What holds at every moment:

1. Positions are byte offsets over the whole life of the log; they only grow and never name two
   entries. A segment is named after the position at which the one before it ends.
2. One process writes (flock); in it one thread writes. It takes all that has queued, writes it with
   one system call, makes it durable with one `fdatasync` (durability `fsync`), and only then moves
   the end and acknowledges: one sync serves all senders who waited for it (group commit).
3. Bytes before the end are never changed. Behind it there may be a write that is under way; one that
   has failed is cut off, at the latest before the next.
4. A sealed segment was complete before its successor's file was made.
5. Readers take no locks: they see only what lies before an end that the writer gave them and check
   every CRC. What is damaged they return as an entry that says so, so that each of its items has an
   outcome, too. Nothing on disk makes them raise but a newer format and a disk that does not read.
6. `open` cuts off what is behind the last whole record of the last segment: a torn write, never
   acknowledged. What a cursor is beyond was durable, and stays. It never starts before a position that
   a cursor has reached (`minimum_end`), so that entries lost with the power (durability `os`) do not
   let new ones hide behind an old cursor.

Durability `memory` acknowledges from RAM: `append` returns as soon as the entry has queued, the
writer thread follows without any sync, and readers see the entry once it is written. A crash of the
process loses what had queued; a failing disk loses nothing while the process lives, since the writer
tries again and new entries are refused meanwhile.

A disk that has failed is tried again once a second, with as many bytes as it refused, whether or not
anybody sends: readiness comes back by itself.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from driftlock_otlp import fault_points
from driftlock_otlp.errors import ConfigError, OverloadedError, PayloadTooLargeError, StorageUnavailableError
from driftlock_otlp.model import LogEnd, LogEntry, NewEntry
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import segments
from driftlock_otlp.storage.lock import lock_log
from driftlock_otlp.storage.log_reader import LogReader
from driftlock_otlp.storage.log_recovery import Repair
from driftlock_otlp.storage.segment_writer import SegmentWriter

__all__ = ["RETRY_AFTER_S", "Durability", "LogReader", "SegmentLog"]

Durability = Literal["fsync", "os", "memory"]
"""When an entry is acknowledged: on disk, handed to the kernel, or kept in RAM."""

RETRY_AFTER_S = 5.0
"""What senders are told to wait when the disk or the log is full."""

_BATCH_BYTES = 8 << 20  # Bounds how long a commit may take; far above what one sync interval brings.
_DISK_RETRY_S = 1.0

_log = structlog.get_logger(__name__)
_sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync.


@dataclass(frozen=True, slots=True)
class _Pending:
    """An entry that waits for the writer; without a future it is acknowledged already."""

    entry: NewEntry
    size_bytes: int
    future: asyncio.Future[int] | None


class SegmentLog:
    """The telemetry log as the one process that writes it has it: a `TelemetryLog`.

    `append` belongs to one asyncio loop; everything else may be called from any thread.

    Args:
        directory: Where the segments are; made if it does not exist.
        durability: When an entry is acknowledged.
        segment_bytes: A segment is closed when the next entries would take it beyond this size.
        max_bytes: Most bytes of entries that are not released. Released entries may take up to
            one segment more on disk.
        metrics: Where commits and errors are counted.
        write: The system call that writes, handed in so that a disk can fail on purpose.
        sync: The system call that makes a file's data durable, likewise.
    """

    def __init__(
        self,
        directory: Path,
        *,
        durability: Durability,
        segment_bytes: int,
        max_bytes: int,
        metrics: Metrics,
        write: segments.PositionedWrite = os.pwritev,
        sync: Callable[[int], None] = _sync_data,
    ) -> None:
        self._directory = directory
        self._durability = durability
        self._max_bytes = max_bytes
        metrics.log_max_bytes.set(max_bytes)
        self._metrics = metrics
        self._writer = SegmentWriter(
            directory, is_synced=durability == "fsync", segment_bytes=segment_bytes, write=write, sync=sync
        )
        self._reader = LogReader(directory)
        self._reader_lock = threading.Lock()
        self._seen_damage: set[int] = set()  # Positions; guarded by the reader's lock.
        self._lock_fd = -1
        self._refused_bytes = 0  # Most that the disk has refused at once; the writer thread's.
        self._end = LogEnd(0, 0)  # Only the writer thread changes it once the log is open.
        # Everything below is guarded by this condition.
        self._changed = threading.Condition()
        self._bases: list[int] = []
        self._released = 0
        self._queue: deque[_Pending] = deque()
        self._queued_bytes = 0
        self._promised = 0  # Where the next entry to be queued goes, as long as none fails.
        self._is_failing = False
        self._is_closing = True
        self._thread: threading.Thread | None = None

    def open(self, minimum_end: int = 0) -> None:
        """Lock the directory, repair the last segment and start the writer thread.

        Args:
            minimum_end: The highest position that any cursor has reached: the log continues there
                if it ends before it, as it may after a power cut or when its files were removed.

        Raises:
            ConfigError: Another process writes this directory, or it cannot be used.
            StorageFormatError: A newer version wrote it.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_fd = lock_log(self._directory)
            self._bases, repair = self._writer.open(minimum_end)
        except OSError as error:
            self._let_go()
            raise ConfigError(
                f"queue.path: cannot use {self._directory}: {error.strerror}; make it writable or choose another one"
            ) from error
        except BaseException:
            self._let_go()
            raise
        if repair is not None:
            self._report_repair(repair)
        self._end = self._writer.end
        self._released = self._bases[0]
        self._promised = self._end.position
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()
        self._metrics.log_bytes.set(self.held_bytes)

    async def append(self, entry: NewEntry) -> int:
        """Append one entry and return its position once it is as durable as configured.

        Raises:
            OverloadedError: The log holds as much as it may.
            PayloadTooLargeError: No segment can take an entry of this size.
            StorageUnavailableError: The disk did not take it, or the log is closed.
        """
        if len(entry.payload) > segments.MAX_PAYLOAD_BYTES or len(entry.tenant) > segments.MAX_TENANT_BYTES // 4:
            raise PayloadTooLargeError(f"{len(entry.payload)} bytes are more than one log entry can hold")
        size_bytes = segments.record_bytes(entry)
        is_acknowledged = self._durability == "memory"
        future = None if is_acknowledged else asyncio.get_running_loop().create_future()
        with self._changed:
            if self._is_closing:
                raise StorageUnavailableError("the telemetry log is closed", RETRY_AFTER_S)
            if is_acknowledged and self._is_failing:
                raise StorageUnavailableError("the disk does not take the data", RETRY_AFTER_S)
            held_bytes = self.held_bytes + self._queued_bytes
            # An entry larger than the whole log is let into an empty one: else its sender would wait for ever.
            if held_bytes and held_bytes + size_bytes > self._max_bytes:
                raise OverloadedError(
                    f"the telemetry log holds {held_bytes} of {self._max_bytes} bytes (queue.max_bytes)", RETRY_AFTER_S
                )
            position = self._promised
            self._promised += size_bytes
            self._queued_bytes += size_bytes
            self._queue.append(_Pending(entry, size_bytes, future))
            self._changed.notify()
        return position if future is None else await future

    def read(self, position: int, max_bytes: int) -> Sequence[LogEntry]:
        """Return entries that are durable, as `TelemetryLog.read` promises.

        Raises:
            StorageUnavailableError: The disk does not read.
        """
        with self._reader_lock:
            end = self._end
            try:
                entries = self._reader.read(position, max_bytes, end.position, end.item_count)
            except OSError as error:
                self._reader.close()
                raise StorageUnavailableError(f"the log cannot be read: {error.strerror}", RETRY_AFTER_S) from error
            if entries and entries[0].is_damaged:
                self._report_damage(entries[0])
        return entries

    def end(self) -> LogEnd:
        """Return where the next entry will go; readers may read up to here."""
        return self._end

    @property
    def recent_position(self) -> int:
        """Where the last segment but one begins: what was appended last is behind it, and not too much."""
        return self._bases[-2:][0]

    @property
    def oldest_position(self) -> int:
        """Where the oldest entry begins that can still be read."""
        return self._bases[0]

    @property
    def held_bytes(self) -> int:
        """Bytes of entries that are not released."""
        return max(0, self._end.position - self._released)

    @property
    def is_writable(self) -> bool:
        """Whether the disk took the last write."""
        return not self._is_failing

    def release(self, position: int) -> None:
        """Delete the segments that lie before `position` as a whole; the active one always stays."""
        with self._changed:
            self._released = max(self._released, min(position, self._end.position))
            while len(self._bases) > 1 and self._bases[1] <= self._released:
                path = segments.segment_path(self._directory, self._bases[0])
                fault_points.reach("log.releasing")
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    self._metrics.errors.labels("storage.log").inc()
                    _log.error("log_segment_not_deleted", path=str(path), error=error.strerror)
                    break
                fault_points.reach("log.released")
                del self._bases[0]
        self._metrics.log_bytes.set(self.held_bytes)

    def close(self) -> None:
        """Write what has queued, stop the writer and unlock the directory. Harmless twice."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._let_go()

    def _report_repair(self, repair: Repair) -> None:
        """Count and log what was not as it should be when the log was opened."""
        path = str(segments.segment_path(self._directory, self._bases[-1]))
        if repair.torn_bytes or repair.has_new_header or repair.mended_records:
            self._metrics.errors.labels("storage.log").inc()
            _log.warning(
                "log_repaired", segment=path, torn_bytes=repair.torn_bytes, mended_records=repair.mended_records
            )
        if repair.unreadable_bytes:
            self._metrics.log_damaged_entries.inc()
            self._metrics.log_damaged_bytes.inc(repair.unreadable_bytes)
            _log.error(
                "log_end_unreadable",
                segment=path,
                size_bytes=repair.unreadable_bytes,
                effect="it is cut off; if it was acknowledged, its items are lost, and nobody knows how many",
            )

    def _report_damage(self, lost: LogEntry) -> None:
        """Count and log a damaged entry, once however many read it."""
        if lost.position in self._seen_damage:
            return
        self._seen_damage = {position for position in self._seen_damage if position >= self._released}
        self._seen_damage.add(lost.position)
        size_bytes = lost.next_position - lost.position
        self._metrics.log_damaged_entries.inc()
        self._metrics.log_damaged_bytes.inc(size_bytes)
        with self._changed:
            base = self._bases[max(0, bisect.bisect_right(self._bases, lost.position) - 1)]
        _log.error(
            "log_entry_damaged",
            file=str(segments.segment_path(self._directory, base)),
            position=lost.position,
            file_offset=lost.position - base + segments.SEGMENT_HEADER_BYTES,
            size_bytes=size_bytes,
            items=lost.entry.item_count,
            effect="it is passed over; its items are counted as dropped, reason damaged",
        )

    # The writer thread.

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            if not batch:
                self._probe()
                continue
            started = time.perf_counter()
            size_bytes = sum(pending.size_bytes for pending in batch)
            try:
                positions = self._writer.append([pending.entry for pending in batch], size_bytes)
            except Exception as error:  # The border of the thread: whatever fails, the next batch may not.
                self._refused_bytes = min(max(self._refused_bytes, size_bytes), _BATCH_BYTES)
                self._metrics.errors.labels("storage.log").inc()
                if not self._is_failing:
                    _log.error("log_append_failed", directory=str(self._directory), error=str(error))
                self._refuse(batch, size_bytes, error)
                continue
            self._metrics.log_append_seconds.observe(time.perf_counter() - started)
            with self._changed:
                if self._bases[-1] != self._writer.base:
                    self._bases.append(self._writer.base)
                self._end = self._writer.end
                self._queued_bytes -= size_bytes
            self._is_well()
            self._metrics.log_bytes.set(self.held_bytes)
            self._resolve(batch, positions)

    def _take(self) -> list[_Pending] | None:
        """Wait for entries and return those of the next commit; none if it is time to probe, None when closed."""
        batch: list[_Pending] = []
        batch_bytes = 0
        with self._changed:
            self._changed.wait_for(
                lambda: self._queue or self._is_closing, timeout=_DISK_RETRY_S if self._is_failing else None
            )
            room_bytes = self._writer.room_bytes
            while self._queue:
                batch_bytes += self._queue[0].size_bytes
                # An entry that this segment has no room for goes on its own and starts the next.
                if batch and batch_bytes > min(_BATCH_BYTES, room_bytes):
                    break
                batch.append(self._queue.popleft())
            return None if self._is_closing and not batch else batch

    def _probe(self) -> None:
        """Find out whether the disk takes again what it has refused."""
        with contextlib.suppress(OSError):
            self._writer.probe(self._refused_bytes)
            self._is_well()

    def _is_well(self) -> None:
        if self._is_failing:
            self._refused_bytes = 0
            with self._changed:
                self._is_failing = False
            _log.info("log_append_works_again", directory=str(self._directory))

    def _resolve(self, batch: list[_Pending], outcomes: Sequence[int | BaseException]) -> None:
        """Hand each waiting append its position or its error, with one wake-up of the loop."""
        waiting = [
            (pending.future, outcome)
            for pending, outcome in zip(batch, outcomes, strict=True)
            if pending.future is not None
        ]
        if waiting:
            # A loop that has been closed has nobody waiting any more.
            with contextlib.suppress(RuntimeError):
                waiting[0][0].get_loop().call_soon_threadsafe(_settle, waiting)

    def _refuse(self, batch: list[_Pending], size_bytes: int, error: Exception) -> None:
        if self._durability != "memory":
            with self._changed:
                self._is_failing = True
                self._queued_bytes -= size_bytes
            reason = error.strerror if isinstance(error, OSError) else str(error)
            message = f"the disk did not take the data: {reason}"
            self._resolve(batch, [StorageUnavailableError(message, RETRY_AFTER_S) for _ in batch])
            return
        with self._changed:
            self._is_failing = True
            if self._is_closing:
                _log.error("log_entries_lost", entries=len(batch) + len(self._queue), reason="closed while disk fails")
                self._queue.clear()
                return
            self._queue.extendleft(reversed(batch))
            self._changed.wait_for(lambda: self._is_closing, timeout=_DISK_RETRY_S)

    # Opening and closing.

    def _let_go(self) -> None:
        with self._reader_lock:
            self._reader.close()
        self._writer.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
        self._lock_fd = -1


def _settle(waiting: list[tuple[asyncio.Future[int], int | BaseException]]) -> None:
    for future, outcome in waiting:
        if future.done():
            continue  # The sender has gone: the entry stays, for it is durable.
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
