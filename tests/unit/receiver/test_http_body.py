from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import Sequence
from typing import Any

import cramjam
import pytest

from driftlock_otlp.config.receivers import HttpReceiverConfig
from driftlock_otlp.errors import DecodeError, OverloadedError, PayloadTooLargeError, RetryableError
from driftlock_otlp.receiver.admission import Admission
from driftlock_otlp.receiver.http_body import UnknownCodingError, read_body
from driftlock_otlp.zstandard import zstd
from tests.unit.receiver.senders import Organization

LIMIT = 100_000
CODINGS = HttpReceiverConfig().compression_algorithms
COMPRESS: dict[str, Any] = {
    "": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
    "snappy": cramjam.snappy.compress_raw,
    "x-snappy-framed": cramjam.snappy.compress,
}


class Sender:
    """An ASGI receive callable that gives the parts it was made with, then is gone."""

    def __init__(self, parts: Sequence[bytes], complete: bool = True) -> None:
        last = len(parts) - 1
        self._messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": part, "more_body": not complete or index < last}
            for index, part in enumerate(parts)
        ]
        self.parts_read = 0

    async def __call__(self) -> dict[str, Any]:
        if self.parts_read == len(self._messages):
            return {"type": "http.disconnect"}
        self.parts_read += 1
        return self._messages[self.parts_read - 1]


async def read(*parts: bytes, coding: str = "", complete: bool = True) -> bytes | None:
    with Admission(LIMIT * 10).admit(0, Organization()) as room:
        return await read_body(Sender(parts, complete), coding, CODINGS, None, LIMIT, room)


def in_parts(compressed: Any, size: int) -> list[bytes]:
    data = bytes(compressed)
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
async def test_plain_body_is_joined_from_its_parts(coding: str) -> None:
    assert await read(b"ab", b"", b"c", coding=coding) == b"abc"
    assert await read(b"", coding=coding) == b""


@pytest.mark.parametrize("part_bytes", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("zlib", zlib.compress),
        ("zstd", zstd.compress),
        ("snappy", cramjam.snappy.compress_raw),
        ("snappy", cramjam.snappy.compress),
        ("x-snappy-framed", cramjam.snappy.compress),
    ],
)
async def test_compressed_body_is_inflated_however_it_is_cut(coding: str, compress: Any, part_bytes: int) -> None:
    data = b"driftlock " * 500
    assert await read(*in_parts(compress(data), part_bytes), coding=coding) == data


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
async def test_several_members_or_frames_are_one_body(coding: str, compress: Any) -> None:
    body = compress(b"ab") + compress(b"") + compress(b"c")
    assert await read(body, coding=coding) == await read(*in_parts(body, 1), coding=coding) == b"abc"


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("coding", ["", "gzip", "zstd", "snappy", "x-snappy-framed"])
async def test_limit_is_exact(coding: str, extra: int) -> None:
    data = bytes(LIMIT + extra)
    body = bytes(COMPRESS[coding](data))
    if extra:
        with pytest.raises(PayloadTooLargeError):
            await read(body, coding=coding)
    else:
        assert await read(body, coding=coding) == data


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_bomb_stops_at_the_limit(coding: str) -> None:
    bomb = COMPRESS[coding](bytes(100_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLargeError):
            await read(bomb, coding=coding)
        assert tracemalloc.get_traced_memory()[1] < 20 * LIMIT
    finally:
        tracemalloc.stop()


async def test_declared_length_beyond_the_limit_is_refused_unread() -> None:
    sender = Sender([b"x"])
    with Admission(LIMIT).admit(0, Organization()) as room, pytest.raises(PayloadTooLargeError):
        await read_body(sender, "", CODINGS, LIMIT + 1, LIMIT, room)
    assert sender.parts_read == 0


async def test_reading_stops_at_the_part_that_passes_the_limit() -> None:
    sender = Sender([bytes(LIMIT), b"x", b"never read"])
    with Admission(LIMIT * 2).admit(0, Organization()) as room, pytest.raises(PayloadTooLargeError):
        await read_body(sender, "", CODINGS, None, LIMIT, room)
    assert sender.parts_read == 2


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd", "snappy", "x-snappy-framed"])
async def test_truncated_compressed_body_is_refused(coding: str) -> None:
    compressed = bytes(COMPRESS[coding](b"data" * 100))
    for cut in (0, 1, len(compressed) // 2, len(compressed) - 1):
        with pytest.raises(DecodeError):
            await read(compressed[:cut], coding=coding)


@pytest.mark.parametrize("body", [b"this is not gzip at all", gzip.compress(b"abc", mtime=0)[:-8] + bytes(8)])
async def test_corrupt_gzip_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        await read(body, coding="gzip")


async def test_data_after_the_end_of_deflate_is_refused() -> None:
    with pytest.raises(DecodeError, match="goes on after the end"):
        await read(zlib.compress(b"abc") + b"more", coding="deflate")


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "none"])
async def test_unknown_coding_is_named_with_those_that_are_known(coding: str) -> None:
    with pytest.raises(UnknownCodingError, match=r"one of identity, gzip, zstd, zlib, deflate"):
        await read(b"x", coding=coding)


async def test_client_that_goes_away_leaves_nothing() -> None:
    assert await read(b"half a bo", complete=False) is None
    assert await read(gzip.compress(b"half a body"), coding="gzip", complete=False) is None


async def test_body_that_finds_no_room_is_refused() -> None:
    admission = Admission(1000)
    with admission.admit(500, Organization()):
        with admission.admit(0, Organization()) as room, pytest.raises(OverloadedError):
            await read_body(Sender([bytes(400), bytes(400)]), "", CODINGS, None, LIMIT, room)
        assert admission.in_flight_bytes == 500


async def test_body_that_stops_arriving_is_given_up_and_may_be_sent_again() -> None:
    async def nothing_more() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("never set")

    with (
        Admission(LIMIT).admit(0, Organization()) as room,
        pytest.raises(RetryableError, match="no more of the body came"),
    ):
        await read_body(nothing_more, "", CODINGS, None, LIMIT, room, stall_s=0.001)
