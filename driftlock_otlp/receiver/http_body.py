"""Reading one HTTP request body: decompressed on the way in, counted before and after.

No body is held beyond its limit, however small it is on the wire: decompression stops at the
first byte too many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Protocol

import cramjam
from isal import isal_zlib
from starlette.types import Receive

from driftlock_otlp.errors import DecodeError, PayloadTooLargeError, PermanentError, RetryableError
from driftlock_otlp.receiver.admission import Reservation
from driftlock_otlp.zstandard import zstd

STALL_S = 60.0
"""A body of which nothing arrives for so long is given up, since what is there holds room."""

_GZIP_WINDOW_BITS = 31
_ZLIB_WINDOW_BITS = 15

# A sender may not make us hold more than this of what it has sent already (RFC 9659 asks for 8 MiB).
_ZSTD_WINDOW_LOG = 27

_SNAPPY_STREAM = b"\xff\x06\x00\x00sNaPpY"
"""How the framing format begins; the block format cannot, since no block of this length is meant."""

_SNAPPY_CHUNK_BYTES = 65536

MAX_PARTS = 1000
"""gzip members and zstd frames of one body. Each costs as much as many kilobytes, however empty it is."""

_MAX_SNAPPY_CHUNKS = 10_000

# HTTP's "deflate" is the zlib format (RFC 9110, 8.4.1.2); the Collector also knows it as "zlib".
_WINDOW_BITS = {"gzip": _GZIP_WINDOW_BITS, "deflate": _ZLIB_WINDOW_BITS, "zlib": _ZLIB_WINDOW_BITS}
_PLAIN = frozenset({"", "identity"})
_SNAPPY = frozenset({"snappy", "x-snappy-framed"})


class UnknownCodingError(PermanentError):
    """The Content-Encoding is not supported."""


class _Sink(Protocol):
    def feed(self, data: bytes) -> None: ...

    def finish(self) -> bytes: ...


async def read_body(
    receive: Receive,
    coding: str,
    allowed: Collection[str],
    declared_bytes: int | None,
    max_bytes: int,
    room: Reservation,
    stall_s: float = STALL_S,
) -> bytes | None:
    """Read and decompress a request body.

    Args:
        receive: The ASGI callable.
        coding: Value of Content-Encoding, empty for none.
        allowed: Codings that are accepted, '' for none.
        declared_bytes: Value of Content-Length, if there is one.
        max_bytes: Limit, before and after decompression.
        room: Grows with what is held in memory.
        stall_s: Longest wait for the next part, in seconds.

    Returns:
        The uncompressed body; None if the client went away before all of it had come.

    Raises:
        UnknownCodingError: The coding is not among the allowed ones.
        PayloadTooLargeError: The body passes the limit; raised without reading on.
        DecodeError: The compressed data is corrupt or ends early.
        OverloadedError: There is no room.
        RetryableError: The body stopped arriving.
    """
    sink = _sink(coding, allowed, max_bytes, room)
    if declared_bytes is not None:
        _require_within(declared_bytes, max_bytes)
    wire_bytes = 0
    more = True
    while more:
        try:
            async with asyncio.timeout(stall_s):
                message = await receive()
        except TimeoutError:
            raise RetryableError(f"no more of the body came for {stall_s:g} s; send it again") from None
        if message["type"] == "http.disconnect":
            return None
        data: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        wire_bytes += len(data)
        _require_within(wire_bytes, max_bytes)
        sink.feed(data)
    return sink.finish()


def _require_within(n_bytes: int, max_bytes: int) -> None:
    if n_bytes > max_bytes:
        raise PayloadTooLargeError(f"the body is larger than the {max_bytes} bytes allowed; send smaller batches")


def _require_few(n_parts: int, noun: str, allowed: int = MAX_PARTS) -> None:
    if n_parts > allowed:
        raise DecodeError(f"the body consists of more than {allowed} {noun}; compress it as a whole")


def _sink(coding: str, allowed: Collection[str], max_bytes: int, room: Reservation) -> _Sink:
    coding = coding.strip().lower()
    if ("" if coding in _PLAIN else coding) not in allowed:
        known = ", ".join(name or "identity" for name in allowed)
        raise UnknownCodingError(f"Content-Encoding {coding!r} is not supported; use one of {known}")
    if coding in _PLAIN:
        return _Collector(room)
    if coding in _SNAPPY:
        return _Unsnapper(max_bytes, room)
    return _Zstd(max_bytes, room) if coding == "zstd" else _Inflater(coding, max_bytes, room)


class _Collector:
    """Takes data as it is."""

    def __init__(self, room: Reservation) -> None:
        self._room = room
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> None:
        self._room.grow(len(data))
        self._parts.append(data)

    def finish(self) -> bytes:
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


class _Inflater:
    """Takes compressed data; gzip may come in several members (RFC 1952, 2.2)."""

    def __init__(self, coding: str, max_bytes: int, room: Reservation) -> None:
        self._coding = coding
        self._max_bytes = max_bytes
        self._output = _Collector(room)
        self._output_bytes = 0
        self._members = 1
        self._stream = isal_zlib.decompressobj(wbits=_WINDOW_BITS[coding])

    def feed(self, data: bytes) -> None:
        while data:
            if self._stream.eof:
                self._next_member()
            try:
                # One byte more than allowed is enough to know that there is too much.
                output = self._stream.decompress(data, self._max_bytes + 1 - self._output_bytes)
            except isal_zlib.error as error:  # type: ignore[misc]  # the stub calls the class an instance
                raise DecodeError(f"the body is not valid {self._coding}: {error}") from None
            self._output_bytes += len(output)
            _require_within(self._output_bytes, self._max_bytes)
            self._output.feed(output)
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail

    def _next_member(self) -> None:
        if self._coding != "gzip":
            raise DecodeError(f"the body goes on after the end of its {self._coding} data")
        self._members += 1
        _require_few(self._members, "gzip members")
        self._stream = isal_zlib.decompressobj(wbits=_GZIP_WINDOW_BITS)

    def finish(self) -> bytes:
        if not self._stream.eof:
            raise DecodeError(f"the body ends in the middle of its {self._coding} data, or is none")
        return self._output.finish()


class _Zstd:
    """Takes zstd frames, of which there may be several (RFC 8878, 3)."""

    def __init__(self, max_bytes: int, room: Reservation) -> None:
        self._max_bytes = max_bytes
        self._output = _Collector(room)
        self._output_bytes = 0
        self._frames = 1
        self._frame = self._new_frame()

    @staticmethod
    def _new_frame() -> Any:
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})

    def feed(self, data: bytes) -> None:
        while True:
            if self._frame.eof:
                if not data:
                    return
                self._frames += 1
                _require_few(self._frames, "zstd frames")
                self._frame = self._new_frame()
            try:
                output = self._frame.decompress(data, self._max_bytes + 1 - self._output_bytes)
            except zstd.ZstdError as error:
                raise DecodeError(f"the body is not valid zstd: {error}") from None
            self._output_bytes += len(output)
            _require_within(self._output_bytes, self._max_bytes)
            self._output.feed(output)
            if self._frame.eof:
                data = self._frame.unused_data
            elif self._frame.needs_input:
                return
            else:
                data = b""

    def finish(self) -> bytes:
        if not self._frame.eof:
            raise DecodeError("the body ends in the middle of its zstd data, or is none")
        return self._output.finish()


class _Unsnapper:
    """Takes snappy, whose format tells the length of each part before it: nothing too long is begun.

    References:
        google/snappy, format_description.txt and framing_format.txt.
    """

    def __init__(self, max_bytes: int, room: Reservation) -> None:
        self._max_bytes = max_bytes
        self._room = room
        self._input = _Collector(room)

    def feed(self, data: bytes) -> None:
        self._input.feed(data)

    def finish(self) -> bytes:
        body = self._input.finish()
        is_framed = body.startswith(_SNAPPY_STREAM)
        try:
            declared_bytes = _framed_bytes(body) if is_framed else cramjam.snappy.decompress_raw_len(body)
            _require_within(declared_bytes, self._max_bytes)
            self._room.grow(declared_bytes)
            return bytes(cramjam.snappy.decompress(body) if is_framed else cramjam.snappy.decompress_raw(body))
        except (cramjam.DecompressionError, ValueError) as error:
            raise DecodeError(f"the body is not valid snappy: {error}") from None


def _framed_bytes(body: bytes) -> int:
    """Return the uncompressed length that the chunks of a snappy stream declare."""
    total, at, chunks = 0, 0, 0
    while at < len(body):
        chunks += 1
        _require_few(chunks, "snappy chunks", _MAX_SNAPPY_CHUNKS)
        kind, length = body[at], int.from_bytes(body[at + 1 : at + 4], "little")
        if kind == 0x00:  # compressed: a checksum, then a block
            # A declared length that is a lie is found when the block is decompressed.
            total += min(cramjam.snappy.decompress_raw_len(body[at + 8 : at + 4 + length]), _SNAPPY_CHUNK_BYTES)
        elif kind == 0x01:  # uncompressed, after a checksum
            total += max(length - 4, 0)
        at += 4 + length
    return total
