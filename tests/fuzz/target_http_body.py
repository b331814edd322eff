"""HTTP bodies: read alike however they are cut, and as the reference decompressors read them."""

from __future__ import annotations

import asyncio
import gzip
import re
import zlib
from typing import Any

import cramjam

from driftlock_otlp.config.receivers import AuthConfig
from driftlock_otlp.errors import DecodeError, PayloadTooLargeError
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.receiver.gate import Gate
from driftlock_otlp.receiver.http_body import MAX_PARTS, read_body
from driftlock_otlp.zstandard import zstd

LIMIT = 1 << 16
"""Small, so that bombs are cheap to find."""

CODINGS = ("", "gzip", "zlib", "deflate", "zstd", "snappy", "x-snappy-framed")
_PACK = 128
"""Bit of the first byte: the body is not yet compressed."""

_SNAPPY_STREAM = b"\xff\x06\x00\x00sNaPpY"

# Before such a block libzstd compares what it has with what the frame says it holds only if all comes at once.
_EMPTY_LAST_BLOCK = re.compile(rb"[\x01\x05]\0\0")

# ISA-L does not look at these two; the data has a checksum of its own.
_UNCHECKED = re.compile("unknown header flags set|header crc mismatch")

_gate = Gate(AuthConfig(), 64 << 20, Metrics())
_tenant = _gate.authenticate(None, None)


def check(data: bytes) -> None:
    """Read a body; the first byte tells its coding and whether to compress it first, the second where to cut."""
    head, body = data[:2].ljust(2, b"\0"), data[2:]
    coding = CODINGS[head[0] % 128 % len(CODINGS)]
    if head[0] & _PACK:
        packed = _packed(coding, body)
        assert _read(packed, coding, head[1] + 1) == (body if len(body) <= LIMIT else PayloadTooLargeError)
        return
    if coding == "zstd" and _EMPTY_LAST_BLOCK.search(body):
        return
    outcome = _read(body, coding, head[1] + 1)
    assert outcome == _read(body, coding, len(body) + 1), "how a body is cut changes how it is read"
    if len(body) > LIMIT:
        assert outcome is PayloadTooLargeError
        return
    try:
        expected = _reference(coding, body)
    except _UncheckedError:
        return
    if isinstance(outcome, type) and isinstance(expected, type):
        return  # both refuse it; what is too long as well as corrupt may be called either
    assert outcome == expected, f"{coding}: {outcome!r:.60} instead of {expected!r:.60}"


class _UncheckedError(Exception):
    """Only the reference looks at what is wrong here."""


def _read(body: bytes, coding: str, part_bytes: int) -> bytes | type[Exception] | None:
    parts = [body[start : start + part_bytes] for start in range(0, len(body), part_bytes)] or [b""]
    messages = [
        {"type": "http.request", "body": part, "more_body": index < len(parts) - 1} for index, part in enumerate(parts)
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def read() -> bytes | type[Exception] | None:
        with _gate.admit(_tenant, 0) as room:
            try:
                return await read_body(receive, coding, CODINGS, None, LIMIT, room)
            except (DecodeError, PayloadTooLargeError) as error:
                assert str(error)
                return type(error)

    outcome = _loop.run_until_complete(read())
    assert _gate.in_flight_bytes == 0
    return outcome


_loop = asyncio.new_event_loop()


def _packed(coding: str, body: bytes) -> bytes:
    match coding:
        case "":
            return body
        case "gzip":
            half = len(body) // 2
            return gzip.compress(body[:half], 1) + gzip.compress(body[half:], 9)
        case "zlib" | "deflate":
            return zlib.compress(body)
        case "zstd":
            return zstd.compress(body)
        case "snappy":
            return bytes(cramjam.snappy.compress_raw(body))
        case _:
            return bytes(cramjam.snappy.compress(body)) or _SNAPPY_STREAM  # of nothing it makes nothing


def _reference(coding: str, body: bytes) -> bytes | type[Exception]:
    """Decompress in another way than the receiver does."""
    try:
        output = _unpacked(coding, body)
    except (ValueError, EOFError, OSError, zlib.error, zstd.ZstdError, cramjam.DecompressionError):
        return DecodeError
    return output if len(output) <= LIMIT else PayloadTooLargeError


def _unpacked(coding: str, body: bytes) -> bytes:
    if coding == "":
        return body
    if coding in ("gzip", "zlib", "deflate"):
        output = b""
        while body or not output:
            stream = zlib.decompressobj(wbits=31 if coding == "gzip" else 15)
            try:
                output += stream.decompress(body, LIMIT + 1 - len(output))
            except zlib.error as error:
                if _UNCHECKED.search(str(error)):
                    raise _UncheckedError from None
                raise
            if len(output) > LIMIT:
                return output
            if not stream.eof:
                raise EOFError
            body = stream.unused_data
            if coding != "gzip" and body:
                raise ValueError("more than one stream")
            if not body:
                break
        return output
    if coding == "zstd":
        return _unzstd(body)
    if body.startswith(_SNAPPY_STREAM):
        return bytes(cramjam.snappy.decompress(body))
    if cramjam.snappy.decompress_raw_len(body) > LIMIT:
        return bytes(LIMIT + 1)
    return bytes(cramjam.snappy.decompress_raw(body))


def _unzstd(body: bytes) -> bytes:
    output = b""
    for _ in range(MAX_PARTS):
        frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 27})
        output += frame.decompress(body, LIMIT + 1 - len(output))
        if len(output) > LIMIT:
            return output
        if not frame.eof:
            raise EOFError
        body = frame.unused_data
        if not body:
            return output
    raise ValueError("too many frames")
