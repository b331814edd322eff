"""The telemetry log as a state machine with crashes and a bad disk, held against a plain list.

Cursors follow the log as routes do: they read, remember, commit, and go on after a crash from what
was committed. Every item that was acknowledged has passed them exactly once by the end, read or said
to be damaged.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from driftlock_otlp.errors import StorageUnavailableError
from driftlock_otlp.model import LogEntry, NewEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import segments
from driftlock_otlp.storage.log import LogReader, SegmentLog

SEGMENT_BYTES = 600

entries = st.builds(
    NewEntry,
    signal=st.sampled_from([None, *Signal]),
    payload=st.one_of(st.binary(max_size=200), st.just(b"\xabDR\x01" * 30), st.just(bytes(2 * SEGMENT_BYTES))),
    item_count=st.integers(0, 1 << 31),
    received_unix_nano=st.integers(0, (1 << 64) - 1),
    tenant=st.text(st.characters(codec="utf-8"), max_size=5),
)


@dataclass
class Room:
    """How many bytes the disk still takes; None for any number."""

    left_bytes: int | None = None

    def write(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        if self.left_bytes is None:
            return os.pwritev(fd, buffers, offset)
        data = b"".join(buffers)[: self.left_bytes]
        if not data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.left_bytes -= len(data)
        return os.pwrite(fd, data, offset)


class LogMachine(RuleBasedStateMachine):
    """Appends, reads, releases, fails, stops and crashes; the model is the list of what was acknowledged."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.room = Room()
        self.model: list[LogEntry] = []
        self.end = 0
        self.item_count = 0
        self.released = 0
        self.damaged: set[int] = set()  # Positions of records whose header or body is.
        self.damaged_headers: set[int] = set()
        self.cursor = self.committed = 0
        self.reader = LogReader(self.directory)
        self.open()

    def open(self) -> None:
        self.log = SegmentLog(
            self.directory,
            durability="fsync",
            segment_bytes=SEGMENT_BYTES,
            max_bytes=1 << 30,
            metrics=Metrics(),
            write=self.room.write,
            sync=lambda fd: None,
        )
        self.mend_the_end()
        self.log.open(minimum_end=self.committed)
        self.cursor = self.committed

    def mend_the_end(self) -> None:
        """Headers at the end of the last segment, behind which nothing is sound, are put right at the start."""
        # A segment whose header never came to the disk says nothing: the end is that of the one before it.
        last_base = max(
            (
                base
                for base in segments.list_bases(self.directory)
                if segments.segment_path(self.directory, base).stat().st_size >= segments.SEGMENT_HEADER_BYTES
            ),
            default=0,
        )
        for entry in reversed(self.model):
            if entry.position < last_base or entry.position not in self.damaged_headers:
                break
            self.damaged.discard(entry.position)
            self.damaged_headers.discard(entry.position)

    def expect(self, entry: NewEntry) -> None:
        read = LogEntry(self.end, self.end + segments.record_bytes(entry), self.item_count, entry)
        self.model.append(read)
        self.end, self.item_count = read.next_position, self.item_count + entry.item_count

    @rule(new=st.lists(entries, min_size=1, max_size=6))
    def append(self, new: list[NewEntry]) -> None:
        async def all_at_once() -> list[int]:
            return list(await asyncio.gather(*(self.log.append(entry) for entry in new)))

        positions = self.loop.run_until_complete(all_at_once())
        for entry, position in zip(new, positions, strict=True):
            assert position == self.end
            self.expect(entry)

    @rule(new=entries, room_bytes=st.integers(0, 300))
    def append_to_a_full_disk(self, new: NewEntry, room_bytes: int) -> None:
        # One at a time: which of several share a write is a matter of timing.
        self.room.left_bytes = room_bytes
        try:
            position = self.loop.run_until_complete(self.log.append(new))
        except StorageUnavailableError:
            assert not self.log.is_writable
        else:
            assert position == self.end
            self.expect(new)
        finally:
            self.room.left_bytes = None

    @precondition(lambda self: self.model)
    @rule(data=st.data(), max_bytes=st.integers(0, 2000), through_a_reader=st.booleans())
    def read(self, data: st.DataObject, max_bytes: int, through_a_reader: bool) -> None:
        index = data.draw(st.integers(0, len(self.model) - 1))
        position = self.model[index].position
        if through_a_reader:
            found: Sequence[LogEntry] = self.reader.read(position, max_bytes, self.end, self.item_count)
        else:
            found = self.log.read(position, max_bytes)
        if self.released == self.end:
            return  # The segments may be gone, each with all its entries.
        assert found
        self.check(found, max(self.released, 0), position)
        assert len(found) == 1 or sum(len(entry.entry.payload) for entry in found) <= max_bytes

    def check(self, found: Sequence[LogEntry], released: int, position: int) -> None:
        """Check entries that were read from a position on: each is the model's, or says which of it are lost."""
        first = found[0].position
        assert first == position or (position < released and first <= released)
        expected = iter([entry for entry in self.model if entry.position >= first])
        for read in found:
            if not read.is_damaged:
                assert read == next(expected)
                continue
            stretch = [next(expected)]
            while stretch[-1].next_position < read.next_position:
                stretch.append(next(expected))
            assert (stretch[0].position, stretch[-1].next_position) == (read.position, read.next_position)
            assert {entry.position for entry in stretch} <= self.damaged
            # Nothing says how the items of damaged headers are shared out, if one begins to read among them.
            before = self.items_of_damaged_headers_before(read.position) if read is found[0] else 0
            items = sum(entry.entry.item_count for entry in stretch)
            assert items <= read.entry.item_count <= items + before
            assert stretch[0].items_before - before <= read.items_before <= stretch[0].items_before
            assert read.entry.signal in {None, stretch[0].entry.signal}

    def items_of_damaged_headers_before(self, position: int) -> int:
        items = 0
        for entry in reversed([entry for entry in self.model if entry.position < position]):
            if entry.position not in self.damaged_headers:
                break
            items += entry.entry.item_count
        return items

    @rule(max_bytes=st.integers(0, 2000))
    def follow(self, max_bytes: int) -> None:
        """Read on from a cursor, as a route does."""
        if found := self.log.read(self.cursor, max_bytes):
            self.check(found, self.committed, self.cursor)
            self.cursor = found[-1].next_position
        else:
            assert self.cursor == self.end

    @rule()
    def commit(self) -> None:
        self.committed = self.cursor
        self.log.release(self.committed)
        self.released = max(self.released, self.committed)

    @precondition(lambda self: any(entry.position >= self.released for entry in self.model))
    @rule(data=st.data(), is_header=st.booleans(), flip=st.integers(1, 255))
    def damage(self, data: st.DataObject, is_header: bool, flip: int) -> None:
        """Flip bits of one byte of a record, beneath the log."""
        victim = data.draw(st.sampled_from([entry for entry in self.model if entry.position >= self.released]))
        body_bytes = victim.next_position - victim.position - segments.RECORD_HEADER_BYTES
        if victim.position in self.damaged or not (is_header or body_bytes):
            return
        offset = data.draw(st.integers(0, segments.RECORD_HEADER_BYTES - 1))
        if not is_header:
            offset = segments.RECORD_HEADER_BYTES + data.draw(st.integers(0, body_bytes - 1))
        base = max(base for base in segments.list_bases(self.directory) if base <= victim.position)
        with segments.segment_path(self.directory, base).open("r+b") as file:
            file.seek(victim.position - base + segments.SEGMENT_HEADER_BYTES + offset)
            (byte,) = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ flip]))
        self.damaged.add(victim.position)
        if is_header:
            self.damaged_headers.add(victim.position)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        # The last entry is never released here, so that every position of the model has something to read.
        position = data.draw(st.sampled_from([entry.position for entry in self.model]))
        self.log.release(min(position, self.committed))
        self.released = max(self.released, min(position, self.committed))

    @rule()
    def reopen(self) -> None:
        self.log.close()
        self.open()

    @rule(new=entries, data=st.data(), damage=st.sampled_from(["cut", "flip", "zeros", "none"]))
    def crash_while_writing(self, new: NewEntry, data: st.DataObject, damage: str) -> None:
        """End the process within a write that was never acknowledged, and start again."""
        self.log.close()
        record = bytearray(b"".join(segments.encode_record(new, self.end, self.item_count)))
        if damage == "cut":
            del record[data.draw(st.integers(0, len(record) - 1)) :]
        elif damage == "flip":
            offset = data.draw(st.integers(0, len(record) - 1))
            record[offset] ^= 0x55
            # It is there in full, so it may have been acknowledged: its items are accounted for.
            self.damaged.add(self.end)
            if offset < segments.RECORD_HEADER_BYTES:
                self.damaged_headers.add(self.end)
        elif damage == "zeros":
            record[:] = bytes(len(record))
        base = segments.list_bases(self.directory)[-1]
        with segments.segment_path(self.directory, base).open("r+b") as file:
            if len(file.read(segments.SEGMENT_HEADER_BYTES)) < segments.SEGMENT_HEADER_BYTES:
                file.seek(0)
                file.write(segments.encode_segment_header(base, self.item_count))
            file.seek(self.end - base + segments.SEGMENT_HEADER_BYTES)
            file.write(record)
        if damage in {"none", "flip"}:
            self.expect(new)
        self.open()

    @rule(kept_bytes=st.integers(0, segments.SEGMENT_HEADER_BYTES))
    def crash_while_starting_a_segment(self, kept_bytes: int) -> None:
        self.log.close()
        path = segments.segment_path(self.directory, self.end)
        if not path.exists():
            path.write_bytes(segments.encode_segment_header(self.end, self.item_count)[:kept_bytes])
        self.open()

    @invariant()
    def end_is_what_was_acknowledged(self) -> None:
        if hasattr(self, "log"):
            assert self.log.end().position == self.end
            assert self.log.end().item_count == self.item_count

    @invariant()
    def everything_kept_is_read_back(self) -> None:
        if not hasattr(self, "log"):
            return
        found: list[LogEntry] = []
        position = self.released
        while run := self.log.read(position, 1000):
            found.extend(run)
            position = run[-1].next_position
        assert position == self.end
        if found:
            self.check(found, self.released, self.released)
        lost = {entry.position for entry in found if entry.is_damaged}
        assert lost <= self.damaged
        sound = {entry.position for entry in self.model if entry.position >= self.released} - self.damaged
        assert sound == {entry.position for entry in found if not entry.is_damaged}

    def teardown(self) -> None:
        if not hasattr(self, "log"):
            return
        self.log.close()
        self.reader.close()
        self.loop.close()
        shutil.rmtree(self.directory)


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
