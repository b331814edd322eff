"""The on-disk format of the telemetry log: how one segment file is laid out, written and checked.

Knows bytes and file descriptors; when to write, sync, roll over or delete is `storage.log`'s.

A segment is a file named `<base>.log`, the base being the position of its first record in 20
decimal digits. All integers are little-endian.

    segment header, 32 bytes                      record header, 40 bytes
      0  magic         8 s  b"DRIFTLOG"             0  magic               4 s  b"\\xabDR\\x01"
      8  version       u32                          4  header CRC          u32  of 8..40, seeded
     12  CRC           u32  of 0..12 and 16..32     8  body CRC            u32  of tenant + payload
     16  base          u64                         12  payload bytes       u32
     24  items before  u64                         16  item count          u32
                                                   20  tenant bytes        u16
    These 32 bytes keep their layout in all        22  signal code         u8   0: clock tick
    versions to come, so that any version can      23  (zero)              u8
    refuse what it does not know.                  24  received            u64  Unix nanoseconds
                                                   32  items before        u64

    A record is its header, the tenant (UTF-8) and the payload. Its position is
    base + offset in the file - 32: segment headers have no position, so a segment's base is
    the position at which the one before it ends.

Both CRCs are CRC-32 (ISO-HDLC, as in zlib). The header CRC is seeded with the position, so that
neither stale disk blocks nor records quoted inside a payload pass for records of this place; a
header that passes is believed about its length, so a damaged body costs one record only, and its
signal and items are known. A damaged header costs what lies before the next sound header; how many
items that were follows from the counts on both sides. At the very end of the log, where nothing
follows, one wrong byte of a header is put right.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from isal.isal_zlib import crc32

from driftlock_otlp.errors import StorageFormatError
from driftlock_otlp.model import LogEntry, NewEntry, Signal

FORMAT_VERSION = 1
"""The newest segment format that this version reads, and the one that it writes."""

SEGMENT_HEADER_BYTES = 32
RECORD_HEADER_BYTES = 40
MAX_PAYLOAD_BYTES = 2047 << 20
"""As much as one system call reads at once (2 GiB less a page), in whole MiB."""
MAX_TENANT_BYTES = (1 << 16) - 1

PositionedWrite = Callable[[int, Sequence[bytes | memoryview], int], int]
"""Writes buffers to a file descriptor at an offset and returns how many bytes it took, as `os.pwritev`."""

_SEGMENT_MAGIC = b"DRIFTLOG"
_RECORD_MAGIC = b"\xabDR\x01"
_VERSION = struct.Struct("<8sI")
_PLACE = struct.Struct("<QQ")
_MAGIC_AND_CRC = struct.Struct("<4sI")
_FACTS = struct.Struct("<IIIHBxQQ")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_MOST_BUFFERS = 1024  # IOV_MAX of Linux and macOS
_NAME = re.compile(r"(\d{20})\.log")
_SIGNAL_OF_CODE: dict[int, Signal | None] = {0: None, **{signal.code: signal for signal in Signal}}


def segment_path(directory: Path, base: int) -> Path:
    """Return the path of the segment whose first record has position `base`."""
    return directory / f"{base:020d}.log"


def list_bases(directory: Path) -> list[int]:
    """Return the bases of all segments in `directory`, ascending; empty if it does not exist."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)


def encode_segment_header(base: int, items_before: int) -> bytes:
    """Return the 32 bytes with which a segment begins."""
    version, place = _VERSION.pack(_SEGMENT_MAGIC, FORMAT_VERSION), _PLACE.pack(base, items_before)
    return version + _U32.pack(crc32(place, crc32(version))) + place


def segment_items_before(fd: int, base: int, path: Path) -> int | None:
    """Return the items before a segment, from its header; None if the header is damaged or torn.

    A damaged header is survived: name and records say everything else.

    Raises:
        StorageFormatError: The segment was written by a newer version.
    """
    header = os.pread(fd, SEGMENT_HEADER_BYTES, 0)
    if len(header) < SEGMENT_HEADER_BYTES:
        return None
    magic, version = _VERSION.unpack_from(header)
    stored_base, items_before = _PLACE.unpack_from(header, 16)
    crc = crc32(header[16:], crc32(header[:12]))
    if magic != _SEGMENT_MAGIC or _U32.unpack_from(header, 12)[0] != crc or stored_base != base:
        return None
    if version > FORMAT_VERSION:
        raise StorageFormatError(
            f"{path} has log format {version}; this version of driftlock_otlp reads formats up to {FORMAT_VERSION}:"
            " run the version that wrote it, or set queue.path to a new directory"
        )
    return int(items_before)


def record_bytes(entry: NewEntry) -> int:
    """Return how many bytes, and so how many positions, an entry takes."""
    tenant_bytes = len(entry.tenant) if entry.tenant.isascii() else len(entry.tenant.encode())
    return RECORD_HEADER_BYTES + tenant_bytes + len(entry.payload)


def encode_record(entry: NewEntry, position: int, items_before: int) -> tuple[bytes, bytes]:
    """Return what to write for an entry: header with tenant, and the payload as it is."""
    tenant = entry.tenant.encode()
    code = 0 if entry.signal is None else entry.signal.code
    body_crc = crc32(entry.payload, crc32(tenant))
    facts = _FACTS.pack(
        body_crc, len(entry.payload), entry.item_count, len(tenant), code, entry.received_unix_nano, items_before
    )
    return _MAGIC_AND_CRC.pack(_RECORD_MAGIC, _header_crc(facts, position)) + facts + tenant, entry.payload


def write_fully(fd: int, buffers: list[bytes], offset: int, write: PositionedWrite) -> None:
    """Write all buffers one after the other from `offset` on.

    Raises:
        OSError: The system did not take them all; what is behind `offset` is undefined.
    """
    remaining: list[bytes | memoryview] = list(filter(None, buffers))
    first = 0
    while first < len(remaining):
        written = write(fd, remaining[first : first + _MOST_BUFFERS], offset)
        offset += written
        while first < len(remaining) and written >= len(remaining[first]):
            written -= len(remaining[first])
            first += 1
        if written:
            remaining[first] = memoryview(remaining[first])[written:]


def read_run(fd: int, base: int, position: int, limit: int, max_bytes: int) -> list[LogEntry]:
    """Return sound entries from `position` on, up to the first that is not, or not complete.

    Args:
        fd: The segment, open for reading.
        base: The segment's base.
        position: Where a record begins.
        limit: Position at which no record may end later.
        max_bytes: Most payload to return; one entry is returned however large it is.
    """
    entries: list[LogEntry] = []
    payload_bytes = 0
    start = position
    chunk = os.pread(fd, min(limit - start, max_bytes + RECORD_HEADER_BYTES), _offset(start, base))
    while position < limit:
        offset = position - start
        if entries and offset + RECORD_HEADER_BYTES > len(chunk):
            break
        size = _size_at(chunk, offset, position)
        if size is None or position + size > limit:
            break
        if offset + size > len(chunk):
            if entries:
                break
            chunk, start, offset = os.pread(fd, size, _offset(position, base)), position, 0
        entry = _entry_at(chunk, offset, size, position)
        if entry is None:
            break
        payload_bytes += len(entry.entry.payload)
        if entries and payload_bytes > max_bytes:
            break
        entries.append(entry)
        position += size
    return entries


def next_record(fd: int, base: int, position: int, limit: int) -> int | None:
    """Return where the next record after a damaged one begins; None if there is none before `limit`.

    Args:
        fd: The segment, open for reading.
        base: The segment's base.
        position: Where the damaged record begins.
        limit: Position at which no record may end later.
    """
    rest = os.pread(fd, max(0, limit - position), _offset(position, base))
    size = _size_at(rest, 0, position)
    # A sound header is believed about its length, so what the payload quotes is never taken for a record.
    offset = rest.find(_RECORD_MAGIC, 1) if size is None else size
    while 0 <= offset < len(rest):
        size = _size_at(rest, offset, position + offset)
        if size is not None and offset + size <= len(rest):
            return position + offset
        offset = rest.find(_RECORD_MAGIC, offset + 1)
    return None


def damaged_record(fd: int, base: int, position: int, limit: int) -> LogEntry | None:
    """Return what the header of a record says whose body is damaged; None if the header is, or is not complete.

    Args:
        fd: The segment, open for reading.
        base: The segment's base.
        position: Where the record begins.
        limit: Position at which no record may end later.
    """
    chunk = os.pread(fd, max(0, min(RECORD_HEADER_BYTES, limit - position)), _offset(position, base))
    size = _size_at(chunk, 0, position)
    if size is None or position + size > limit:
        return None
    _, _, item_count, _, code, received_unix_nano, items_before = _FACTS.unpack_from(chunk, _MAGIC_AND_CRC.size)
    new = NewEntry(_SIGNAL_OF_CODE.get(code), b"", item_count, received_unix_nano)
    return LogEntry(position, position + size, items_before, new, is_damaged=True)


def mended_header(fd: int, base: int, position: int, limit: int) -> bytes | None:
    """Return the header of a record as it was, if one byte of it is wrong and the record is whole otherwise.

    The checksum of the body proves that the header found is the right one. Meant for the end of the
    log: in the middle the records on both sides say what a damaged header does not.

    Args:
        fd: The segment, open for reading.
        base: The segment's base.
        position: Where the record begins.
        limit: Position at which no record may end later.
    """
    stored = os.pread(fd, max(0, min(RECORD_HEADER_BYTES, limit - position)), _offset(position, base))
    if len(stored) < RECORD_HEADER_BYTES:
        return None
    magic_bytes = len(_RECORD_MAGIC)
    wrong = [index for index in range(magic_bytes) if stored[index] != _RECORD_MAGIC[index]]
    if wrong:
        candidates = iter([_RECORD_MAGIC + stored[magic_bytes:]] if len(wrong) == 1 else [])
    else:
        candidates = (
            stored[:index] + bytes([value]) + stored[index + 1 :]
            for index in range(magic_bytes, RECORD_HEADER_BYTES)
            for value in range(256)
        )
    for header in candidates:
        size = _size_at(header, 0, position)
        if size is not None and position + size <= limit:
            rest = os.pread(fd, size - RECORD_HEADER_BYTES, _offset(position, base) + RECORD_HEADER_BYTES)
            if _entry_at(header + rest, 0, size, position) is not None:
                return header
    return None


def is_unreadable(fd: int, base: int, position: int, limit: int) -> bool:
    """Return True if a header's bytes are there and no header: a write that was torn has it whole, or zeros."""
    chunk = os.pread(fd, max(0, min(RECORD_HEADER_BYTES, limit - position)), _offset(position, base))
    return len(chunk) == RECORD_HEADER_BYTES and any(chunk) and _size_at(chunk, 0, position) is None


def damaged_stretch(position: int, until: int, items_before: int | None, items_after: int | None) -> LogEntry:
    """Return what is known of a stretch in which not even a header is sound.

    Args:
        position: Where it begins.
        until: Where it ends.
        items_before: Items in all entries before it, None if nobody knows.
        items_after: Items in all entries before `until`, likewise.
    """
    known = items_before is not None and items_after is not None
    item_count = max(0, items_after - items_before) if known else 0  # type: ignore[operator]  # known says so
    first = items_before if items_before is not None else (items_after or 0)
    return LogEntry(position, until, first, NewEntry(None, b"", item_count, 0), is_damaged=True)


def walk(
    fd: int, base: int, position: int, limit: int, max_bytes: int, items_before: int | None = None
) -> Iterator[list[LogEntry]]:
    """Yield runs of entries from `position` on; what is damaged comes alone, as an entry that says so.

    It ends where nothing sound follows.

    Args:
        fd: As for `read_run`, like the next four.
        base: The segment's base.
        position: Where a record begins.
        limit: Position at which no record may end later.
        max_bytes: Most payload in a run.
        items_before: Items in all entries before `position`, None if nobody knows.
    """
    while position < limit:
        run = read_run(fd, base, position, limit, max_bytes)
        if not run:
            record = damaged_record(fd, base, position, limit)
            if record is None:
                until = next_record(fd, base, position, limit)
                if until is None:
                    return
                after = damaged_record(fd, base, until, limit)  # of a sound record it says the same
                record = damaged_stretch(position, until, items_before, after.items_before if after else None)
            run = [record]
        yield run
        position = run[-1].next_position
        items_before = run[-1].items_before + run[-1].entry.item_count


def _offset(position: int, base: int) -> int:
    return position - base + SEGMENT_HEADER_BYTES


def _header_crc(facts: bytes, position: int) -> int:
    return crc32(facts, crc32(_U64.pack(position)))


def _size_at(chunk: bytes, offset: int, position: int) -> int | None:
    """Return the size of the record at `offset` if a sound header is there."""
    if offset + RECORD_HEADER_BYTES > len(chunk):
        return None
    magic, crc = _MAGIC_AND_CRC.unpack_from(chunk, offset)
    if magic != _RECORD_MAGIC:
        return None
    facts = chunk[offset + _MAGIC_AND_CRC.size : offset + RECORD_HEADER_BYTES]
    if crc != _header_crc(facts, position):
        return None
    _, payload_bytes, _, tenant_bytes, _, _, _ = _FACTS.unpack(facts)
    return int(RECORD_HEADER_BYTES + tenant_bytes + payload_bytes)


def _entry_at(chunk: bytes, offset: int, size: int, position: int) -> LogEntry | None:
    """Return the record of `size` bytes at `offset` if its body is sound."""
    if offset + size > len(chunk):
        return None
    body_crc, _, item_count, tenant_bytes, code, received_unix_nano, items_before = _FACTS.unpack_from(
        chunk, offset + _MAGIC_AND_CRC.size
    )
    body = offset + RECORD_HEADER_BYTES
    if code not in _SIGNAL_OF_CODE or crc32(memoryview(chunk)[body : offset + size]) != body_crc:
        return None
    new = NewEntry(
        signal=_SIGNAL_OF_CODE[code],
        payload=chunk[body + tenant_bytes : offset + size],
        item_count=item_count,
        received_unix_nano=received_unix_nano,
        tenant=chunk[body : body + tenant_bytes].decode() if tenant_bytes else "",
    )
    return LogEntry(position=position, next_position=position + size, items_before=items_before, entry=new)
