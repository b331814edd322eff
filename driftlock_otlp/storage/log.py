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

`storage.segments` has the format of the files, `storage.log_reader` the readers. What holds at every moment:

1. Positions are byte offsets over the whole life of the log; they only grow and never name two
   entries. A segment is named after the position at which the one before it ends.
2. One process writes (flock); in it one thread writes. It takes all that has queued, writes it with
   one system call, makes it durable with one `fdatasync` (durability `fsync`), and only then moves
   the end and acknowledges: one sync serves all senders who waited for it (group commit).
3. Bytes before the end are never changed. Behind it there may be a write that is under way; one that
   has failed is cut off, at the latest before the next.
4. A sealed segment was complete before its successor's file was made.
5. Readers take no locks: they see only what lies before an end that the writer gave them, check
   every CRC, and pass over what is damaged, counting it. Nothing on disk makes them raise but a newer
   format.
6. `open` cuts off what is behind the last sound record of the last segment: a torn write, never
   acknowledged. It never starts before a position that a cursor has reached (`minimum_end`), so that
   entries lost with the power (durability `os`) do not let new ones hide behind an old cursor.

Durability `memory` acknowledges from RAM: `append` returns as soon as the entry has queued, the
writer thread follows without any sync, and readers see the entry once it is written. A crash of the
process loses what had queued; a failing disk loses nothing while the process lives, since the writer
tries again and new entries are refused meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from driftlock_otlp.errors import ConfigError, OverloadedError, PayloadTooLargeError, StorageUnavailableError
from driftlock_otlp.model import LogEnd, LogEntry, NewEntry
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import log_recovery, segments
from driftlock_otlp.storage.log_reader import LogReader

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
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        metrics.log_max_bytes.set(max_bytes)
        self._metrics = metrics
        self._write = write
        self._sync = sync
        self._reader = LogReader(directory)
        self._reader_lock = threading.Lock()
        self._lock_fd = -1
        # Only the writer thread changes these once the log is open.
        self._fd = -1
        self._has_torn_tail = False
        self._must_start_segment = False
        self._end = LogEnd(0, 0)
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
            self._acquire_lock()
            self._recover(minimum_end)
        except OSError as error:
            self._let_go()
            raise ConfigError(
                f"queue.path: cannot use {self._directory}: {error.strerror}; make it writable or choose another one"
            ) from error
        except BaseException:
            self._let_go()
            raise
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
        """Return entries that are durable, as `TelemetryLog.read` promises."""
        with self._reader_lock:
            damaged_before = self._reader.damaged_count
            entries = self._reader.read(position, max_bytes, self._end.position)
            if self._reader.damaged_count > damaged_before:
                self._metrics.errors.labels("storage.log").inc(self._reader.damaged_count - damaged_before)
        return entries

    def end(self) -> LogEnd:
        """Return where the next entry will go; readers may read up to here."""
        return self._end

    @property
    def recent_position(self) -> int:
        """Where the last segment but one begins: what was appended last is behind it, and not too much."""
        return self._bases[-2:][0]

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
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    self._metrics.errors.labels("storage.log").inc()
                    _log.error("log_segment_not_deleted", path=str(path), error=error.strerror)
                    break
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

    # The writer thread.

    def _run(self) -> None:
        while batch := self._take():
            started = time.perf_counter()
            try:
                positions, end = self._commit(batch)
            except Exception as error:  # The border of the thread: whatever fails, the next batch may not.
                self._has_torn_tail = True
                with contextlib.suppress(OSError):  # Else the next commit tries again.
                    self._cut_torn_tail()
                self._metrics.errors.labels("storage.log").inc()
                _log.error("log_append_failed", directory=str(self._directory), entries=len(batch), error=str(error))
                self._refuse(batch, error)
                continue
            self._metrics.log_append_seconds.observe(time.perf_counter() - started)
            with self._changed:
                self._end = end
                self._queued_bytes -= sum(pending.size_bytes for pending in batch)
                self._is_failing = False
            self._metrics.log_bytes.set(self.held_bytes)
            self._resolve(batch, positions)

    def _take(self) -> list[_Pending]:
        """Wait for entries and return those of the next commit; none when the log is closed."""
        batch: list[_Pending] = []
        batch_bytes = 0
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closing)
            room_bytes = self._segment_bytes - (self._end.position - self._bases[-1])
            while self._queue:
                batch_bytes += self._queue[0].size_bytes
                # An entry that this segment has no room for goes on its own and starts the next.
                if batch and batch_bytes > min(_BATCH_BYTES, room_bytes):
                    break
                batch.append(self._queue.popleft())
        return batch

    def _commit(self, batch: list[_Pending]) -> tuple[list[int], LogEnd]:
        """Write a batch and make it durable; return the positions and the new end."""
        position, item_count = self._end.position, self._end.item_count
        batch_bytes = sum(pending.size_bytes for pending in batch)
        if self._has_torn_tail:
            self._cut_torn_tail()
        is_full = position > self._bases[-1] and self._file_offset(position) + batch_bytes > self._segment_bytes
        if is_full or self._must_start_segment:
            self._start_segment(position, item_count)
        offset = self._file_offset(position)
        buffers: list[bytes] = []
        positions: list[int] = []
        for pending in batch:
            buffers += segments.encode_record(pending.entry, position, item_count)
            positions.append(position)
            position += pending.size_bytes
            item_count += pending.entry.item_count
        segments.write_fully(self._fd, buffers, offset, self._write)
        if self._durability == "fsync":
            self._sync(self._fd)
        return positions, LogEnd(position, item_count)

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

    def _refuse(self, batch: list[_Pending], error: Exception) -> None:
        if self._durability != "memory":
            with self._changed:
                self._is_failing = True
                self._queued_bytes -= sum(pending.size_bytes for pending in batch)
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

    def _cut_torn_tail(self) -> None:
        os.ftruncate(self._fd, self._file_offset(self._end.position))
        self._has_torn_tail = False

    def _file_offset(self, position: int) -> int:
        return position - self._bases[-1] + segments.SEGMENT_HEADER_BYTES

    def _start_segment(self, base: int, items_before: int) -> None:
        """Make the segment that begins at the end of the log, and make its name durable.

        A file left over from an attempt that failed is used again rather than deleted, for a reader
        may have it open already; and it must be, for its name says that the segment before it ends here.
        """
        self._must_start_segment = True
        fd = os.open(
            segments.segment_path(self._directory, base), os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        try:
            segments.write_fully(fd, [segments.encode_segment_header(base, items_before)], 0, self._write)
            if self._durability == "fsync":
                self._sync(fd)
                log_recovery.sync_directory(self._directory)
        except BaseException:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        with self._changed:
            self._bases.append(base)
        self._must_start_segment = False

    # Opening and closing.

    def _acquire_lock(self) -> None:
        self._lock_fd = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"queue.path: {self._directory.parent} is in use by another running sidecar;"
                " stop that one, or give this one a queue.path of its own"
            ) from None

    def _recover(self, minimum_end: int) -> None:
        bases = segments.list_bases(self._directory)
        log_recovery.check_formats(self._directory, bases)
        if bases:
            path = segments.segment_path(self._directory, bases[-1])
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            repair = log_recovery.repair_last(self._directory, bases, self._fd)
            if self._durability == "fsync":
                # What the process before left to the kernel is read from now on, so it must be durable first.
                os.fsync(self._fd)
                log_recovery.sync_directory(self._directory)
            if repair.torn_bytes or repair.damaged_bytes or repair.has_new_header:
                self._metrics.errors.labels("storage.log").inc()
                _log.warning(
                    "log_repaired", segment=str(path), torn_bytes=repair.torn_bytes, damaged_bytes=repair.damaged_bytes
                )
            self._end = repair.end
        self._bases = bases
        if not bases or minimum_end > self._end.position:
            self._end = LogEnd(max(minimum_end, self._end.position), self._end.item_count)
            self._start_segment(self._end.position, self._end.item_count)

    def _let_go(self) -> None:
        with self._reader_lock:
            self._reader.close()
        for fd in (self._fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._fd, self._lock_fd = -1, -1


def _settle(waiting: list[tuple[asyncio.Future[int], int | BaseException]]) -> None:
    for future, outcome in waiting:
        if future.done():
            continue  # The sender has gone: the entry stays, for it is durable.
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
