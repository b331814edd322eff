"""Connections that no client should make: none stops the receivers, holds room, or smuggles a request in."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from driftlock_otlp.model import Signal
from tests.conformance.raw_http import CHUNKED, SMUGGLED, chunks, exchange, request
from tests.conformance.receivers import JSON_LOG, Receivers, request_of, running

_HEAD_S, _READ_S, _IDLE_S = 0.4, 0.5, 0.2
_DEADLINE_S = 10.0


@pytest_asyncio.fixture
async def receivers() -> AsyncIterator[Receivers]:
    """Both receivers, impatient; they must be as good as new when the test is over."""
    http = {"read_header_timeout": _HEAD_S, "read_timeout": _READ_S, "idle_timeout": _IDLE_S}
    async with running(http=http) as both:
        yield both
        await both.assert_still_serving()
        assert both.metrics.registry.get_sample_value("driftlock_errors_total", {"component": "receiver"}) in (None, 0)


ONE = chunks(JSON_LOG)
SIZE = b"%x" % len(JSON_LOG)
REST = b"\r\n" + JSON_LOG + b"\r\n0\r\n\r\n"


def chunked(body: bytes) -> bytes:
    return request(body, CHUNKED, length=None)


def coded(coding: bytes, body: bytes = ONE + SMUGGLED) -> bytes:
    return request(body, b"Transfer-Encoding: " + coding + b"\r\n", length=None)


def length(text: bytes) -> bytes:
    return request(JSON_LOG + SMUGGLED, b"Content-Length: " + text + b"\r\n", length=None)


def lines(text: bytes) -> bytes:
    return request(headers=text + b"\r\n")


REFUSED = {
    # Two ways to read where the body ends.
    "a length and chunks": request(ONE + SMUGGLED, CHUNKED),
    "chunks and a length": request(chunks(JSON_LOG + SMUGGLED), CHUNKED + b"Content-Length: 4\r\n", length=None),
    "two lengths": request(JSON_LOG + SMUGGLED, b"Content-Length: %d\r\n" % len(JSON_LOG)),
    "one length twice": request(headers=b"Content-Length: %d\r\n" % len(JSON_LOG)),
    "a list of lengths": length(b"%d, %d" % (len(JSON_LOG), len(JSON_LOG))),
    "no length": request(JSON_LOG + SMUGGLED, length=None),
    "a folded coding": coded(b"\r\n chunked"),
    "a folded field": lines(b"X: a\r\n Transfer-Encoding: chunked"),
    "xchunked": coded(b"xchunked"),
    "chunked first": coded(b"chunked, identity"),
    "chunked last": coded(b"gzip, chunked"),
    "chunked twice": coded(b"chunked\r\nTransfer-Encoding: chunked"),
    "chunked and identity": coded(b"chunked\r\nTransfer-Encoding: identity"),
    "identity and chunked": coded(b"identity\r\nTransfer-Encoding: chunked"),
    "a vertical tab": coded(b"\x0bchunked"),
    "quotes": coded(b'"chunked"'),
    "a parameter": coded(b"chunked;x=1"),
    "no coding": coded(b""),
    "a space before the colon": request(ONE + SMUGGLED, b"Transfer-Encoding : chunked\r\n"),
    "a space before the name": request(ONE + SMUGGLED, b" Transfer-Encoding: chunked\r\n"),
    "a second length with a space": request(JSON_LOG + SMUGGLED, b"Content-Length : 5\r\n", length=len(JSON_LOG)),
    # Numbers.
    **{f"the length {text.decode()!r}": length(text) for text in (
        b"-1", b"+5", b"0x24", b"3 6", b"", b"1e1", b"3_6", b"36.0", b"9" * 30, b"18446744073709551652", b"\x00",
    )},
    **{f"the chunk size {text.decode()!r}": chunked(text + REST + SMUGGLED) for text in (
        b"-1", b"+" + SIZE, b"0x" + SIZE, b"3_6", b" " + SIZE, SIZE + b" ", b"", SIZE + b"g", b"1" + b"0" * 14 + SIZE,
        b"1" + b"0" * 15 + SIZE, SIZE + b"\r", SIZE + b"\n",
    )},
    "a chunk without its line end": chunked(SIZE + b"\r\n" + JSON_LOG + b"0\r\n\r\n" + SMUGGLED),
    "a chunk longer than it says": chunked(b"5\r\n" + JSON_LOG + b"\r\n0\r\n\r\n" + SMUGGLED),
    "a chunk shorter than it says": chunked(SIZE + b"\r\n" + JSON_LOG[:-9] + b"\r\n0\r\n\r\n" + SMUGGLED),
    "a bare LF after a size": chunked(SIZE + b"\n" + JSON_LOG + b"\r\n0\r\n\r\n"),
    "a bare LF after a chunk": chunked(SIZE + b"\r\n" + JSON_LOG + b"\n0\r\n\r\n"),
    "a bare LF in an extension": chunked(SIZE + b";\n" + SMUGGLED),
    "a bare LF at the end": chunked(SIZE + b"\r\n" + JSON_LOG + b"\r\n0\r\n\n" + SMUGGLED),
    "framing in a trailer": chunked(SIZE + b"\r\n" + JSON_LOG + b"\r\n0\r\nContent-Length: 5\r\n\r\n"),
    # Lines and fields.
    "bare LFs": request().replace(b"\r\n", b"\n"),
    "bare CRs": request().replace(b"\r\n", b"\r"),
    "a bare LF in a field": lines(b"X: a\nTransfer-Encoding: chunked"),
    "a bare CR in a field": lines(b"X: a\rTransfer-Encoding: chunked"),
    "NUL in a value": lines(b"X: a\0b"),
    "NUL in a name": lines(b"X\0: a"),
    "a control character": lines(b"X: a\x01b"),
    "a line without colon": lines(b"garbage"),
    "a field without name": lines(b": a"),
    "a name with a space": lines(b"X Y: a"),
    "no Host": request().replace(b"Host: x\r\n", b""),
    "two Hosts": lines(b"Host: y"),
    "two media types": lines(b"Content-Type: application/x-protobuf"),
    "two content codings": lines(b"Content-Encoding: gzip\r\nContent-Encoding: identity"),
    "two authorizations": lines(b"Authorization: Bearer a\r\nAuthorization: Bearer b"),
    # Request lines.
    **{repr(line.decode("latin-1")): request(line=line + b"\r\n") for line in (
        b"post /v1/logs HTTP/1.1", b"POST v1/logs HTTP/1.1", b"POST x:4318 HTTP/1.1", b"POST /v1/l\xc3\xb6gs HTTP/1.1",
        b"POST http://[::1/v1/logs HTTP/1.1", b"POST /v1/logs x HTTP/1.1", b"POST /v1/logs HTTP/0.9",
        b"POST /v1/logs HTTP/1.2", b"POST /v1/logs HTTP/2.0", b"POST /v1/logs HTTP/1.10", b"POST /v1/logs http/1.1",
        b"POST /v1/logs", b"CONNECT x:1 HTTP/1.1", b"CONNECT /v1/logs HTTP/1.1", b"\0", b"\x80\x81",
        b"POST /" + b"a" * 70_000 + b" HTTP/1.1",
    )},
    # Other protocols.
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "TLS": bytes.fromhex("16030100a5010000a10303") + bytes(160),
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
    "a response": b"HTTP/1.1 200 OK\r\n\r\n",
    "every byte": bytes(range(256)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_http_request_is_refused_and_the_connection_closed(receivers: Receivers, name: str) -> None:
    statuses = await exchange(receivers, REFUSED[name])
    assert statuses == [400]
    assert receivers.log.entries == []


ONCE = {
    "chunks": chunked(ONE),
    "chunks of one byte": chunked(chunks(*(bytes([byte]) for byte in JSON_LOG))),
    "a chunk extension": chunked(SIZE + b';a="b"' + REST),
    "a chunk extension of 100,000 bytes": chunked(SIZE + b";" + b"a" * 100_000 + REST),
    "CHUNKED": request(ONE, b"TRANSFER-ENCODING: CHUNKED\r\n", length=None),
    "a field that looks like another": lines(b"Transfer_Encoding: chunked"),
    "a length with zeros before it": request(headers=b"Content-Length: 00%d\r\n" % len(JSON_LOG), length=None),
    "HTTP/1.0 with chunks": request(ONE + SMUGGLED, CHUNKED, length=None, line=b"POST /v1/logs HTTP/1.0\r\n"),
    "a request after Connection: close": request(headers=b"Connection: close\r\n") + SMUGGLED,
    "an offer of HTTP/2": lines(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"),
    "an offer of HTTP/2 with chunks": request(
        ONE, CHUNKED + b"Connection: upgrade\r\nUpgrade: h2c\r\n", length=None
    ),
    "an offer of a WebSocket": lines(b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket"),
    "Expect: 100-continue": lines(b"Expect: 100-continue"),
    "an unknown expectation": lines(b"Expect: wonders"),
    "the absolute form": request(target=b"http://elsewhere/v1/logs"),
    "a query": request(target=b"/v1/logs?path=/v1/traces"),
    "an escaped path": request(target=b"/v1/%6cogs"),
    "empty lines before it": b"\r\n\r\n" + request(),
    "bytes beyond ASCII in a value": lines(b"X: \xff\xfe"),
    "1,000 fields": lines(b"\r\n".join(b"x%d: y" % number for number in range(1000))),
}  # fmt: skip


@pytest.mark.parametrize("name", ONCE)
async def test_what_is_odd_but_allowed_is_one_request(receivers: Receivers, name: str) -> None:
    statuses = await exchange(receivers, ONCE[name])
    assert [status for status in statuses if status >= 200] == [200]
    assert [entry.signal for entry in receivers.log.entries] == [Signal.LOGS]


NOT_SERVED = {
    "a body that is a request": (request(SMUGGLED), 400),
    "a body that is a request, with an offer": (
        request(SMUGGLED, b"Connection: upgrade\r\nUpgrade: h2c\r\n"), 400
    ),
    "GET with a body": (request(SMUGGLED, line=b"GET /v1/logs HTTP/1.1\r\n"), 405),
    "HEAD with a body": (request(SMUGGLED, line=b"HEAD /v1/logs HTTP/1.1\r\n"), 405),
    "OPTIONS *": (request(SMUGGLED, line=b"OPTIONS * HTTP/1.1\r\n"), 404),
    "a path with dots": (request(target=b"/v1/traces/../logs"), 404),
    "a path with NUL": (request(target=b"/v1/logs%00"), 404),
    "a path with a broken escape": (request(target=b"/v1/logs%zz"), 404),
    "a length of 4 EiB": (request(JSON_LOG + SMUGGLED, length=1 << 62), 413),
    "a chunk of 16 EiB": (chunked(b"f" * 16 + b"\r\n" + JSON_LOG + SMUGGLED), 503),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_SERVED)
async def test_body_of_a_refused_request_is_not_taken_for_the_next(receivers: Receivers, name: str) -> None:
    sent, status = NOT_SERVED[name]
    assert await exchange(receivers, sent) == [status]
    assert receivers.log.entries == []


async def test_request_in_small_pieces_is_one_request(receivers: Receivers) -> None:
    sent = request()
    assert await exchange(receivers, *(sent[at : at + 1] for at in range(len(sent)))) == [200]
    assert len(receivers.log.entries) == 1


async def drip(receivers: Receivers, head: bytes, drop: bytes) -> bytes:
    """Send a head, then a little at a time until the server has enough of it; return its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", receivers.http.port)
    writer.write(head)
    answer = asyncio.create_task(reader.read())
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(_DEADLINE_S):
            while not answer.done():
                writer.write(drop)
                await writer.drain()
                await asyncio.sleep(0.02)
    writer.close()
    try:
        return await answer
    except ConnectionError:
        return b"HTTP/1.1 reset"


@pytest.mark.parametrize("head", [b"", b"POST /v1/logs HTTP/1.1\r\nX: ", b"POST /"])
async def test_head_that_drips_is_given_up(receivers: Receivers, head: bytes) -> None:
    answer = await drip(receivers, head or b"P", b"a" if head else b"O")
    assert answer.startswith((b"HTTP/1.1 408", b"HTTP/1.1 400", b"HTTP/1.1 reset"))


@pytest.mark.parametrize("framing", [b"Content-Length: 100000\r\n", CHUNKED])
async def test_body_that_drips_is_given_up_and_may_be_sent_again(receivers: Receivers, framing: bytes) -> None:
    sent = request(b"", framing, length=None)
    reader, writer = await asyncio.open_connection("127.0.0.1", receivers.http.port)
    writer.write(sent)
    answer = asyncio.create_task(reader.readuntil(b"\r\n"))
    async with asyncio.timeout(_DEADLINE_S):
        while not answer.done():
            writer.write(b"1\r\n{\r\n" if framing == CHUNKED else b"{")
            await asyncio.sleep(0.02)
    assert (await answer).startswith(b"HTTP/1.1 503")
    writer.close()


@pytest.mark.parametrize("rst", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("part", [0, 1, 30, -len(JSON_LOG), -1], ids=lambda part: f"at {part}")
async def test_client_that_vanishes_leaves_nothing(receivers: Receivers, part: int, rst: bool) -> None:
    for sent in (request(), request(headers=b"Content-Encoding: gzip\r\n")):
        client = socket.create_connection(("127.0.0.1", receivers.http.port))
        client.sendall(sent[:part])
        if rst:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    await receivers.assert_still_serving()
    await until_nothing_is_in_flight(receivers)
    assert len(receivers.log.entries) == 2  # those of assert_still_serving


async def until_nothing_is_in_flight(receivers: Receivers) -> None:
    async with asyncio.timeout(_DEADLINE_S):
        while receivers.gate.in_flight_bytes:
            await asyncio.sleep(0.01)


async def test_client_that_stops_sending_but_stays_is_disconnected(receivers: Receivers) -> None:
    for sent in (b"", b"POST /v1/logs HTTP/1.1\r\n", request()[:-1]):
        statuses = await exchange(receivers, sent)
        assert statuses in ([408], [503])
    assert receivers.gate.in_flight_bytes == 0


@pytest.mark.parametrize("transport", ["http", "grpc"])
async def test_hundreds_of_idle_connections_keep_nobody_out(receivers: Receivers, transport: str) -> None:
    port = getattr(receivers, transport).port
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
    await receivers.assert_still_serving()
    if transport == "http":
        answers = await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in opened)), _DEADLINE_S)
        assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers)
    for _, writer in opened:
        writer.close()


# gRPC: HTTP/2 by hand.

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4

# The status among the trailers, as a literal; or a frame RST_STREAM for stream 1.
_GRPC_END = re.compile(rb"grpc-status[\x01\x02](\d+)|\x00\x00\x04\x03\x00\x00\x00\x00\x01", re.DOTALL)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return an HTTP/2 frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def fields(**more: str) -> bytes:
    """Return a header block of literals (RFC 7541, 6.2.2) for a call of Export."""
    block = b""
    named = {
        ":method": "POST", ":scheme": "http", ":path": Signal.LOGS.grpc_method, ":authority": "x",
        "te": "trailers", "content-type": "application/grpc", **{key.replace("_", "-"): v for key, v in more.items()},
    }  # fmt: skip
    for name, value in named.items():
        block += b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return block


def message(payload: bytes, flag: int = 0, says: int | None = None) -> bytes:
    """Return a length-prefixed message of gRPC."""
    return bytes([flag]) + struct.pack(">I", len(payload) if says is None else says) + payload


def call(data: bytes, block: bytes = b"") -> bytes:
    """Return a whole connection with one call."""
    return (
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, block or fields())
        + frame(0, END_STREAM, 1, data)
    )  # fmt: skip


LOG = request_of(Signal.LOGS)
# What grpcio answers: it takes the first message of a call, whatever the media type, and for a message
# with a flag that is neither 0 nor 1 it passes on an empty one.
GRPC = {
    "a good call": (call(message(LOG)), "0"),
    "a message longer than it says": (call(message(LOG, says=3)), "3"),
    "a message that says it has 4 GiB": (call(message(LOG, says=0xFFFFFFFF)), "8"),
    "two messages": (call(message(LOG) * 2), "0"),
    "a compressed message without a coding": (call(message(LOG, flag=1)), "13"),
    "an unknown flag": (call(message(LOG, flag=2)), "0"),
    "an unknown coding": (call(message(LOG, flag=1), fields(grpc_encoding="zstd")), "13"),
    "gzip that is none": (call(message(LOG, flag=1), fields(grpc_encoding="gzip")), "13"),
    "no path": (call(message(LOG), fields()[:9]), "13"),
    "GET": (call(message(LOG), fields().replace(b"\x04POST", b"\x03GET")), "reset"),
    "an unknown method": (call(message(LOG), fields().replace(b"Export", b"Import")), "12"),
    "another media type": (call(message(LOG), fields().replace(b"application/grpc", b"application/json")), "0"),
}  # fmt: skip
TAKEN = {"a good call", "two messages", "another media type"}
GARBAGE = {
    # grpcio waits for the rest of these as long as the connection lasts.
    "a message shorter than it says": call(message(LOG, says=len(LOG) + 9)),
    "a cut prefix": call(b"\0\0"),
    "no message": call(b""),
    "text": b"hello\r\n\r\n",
    "HTTP/1.1": request(),
    "TLS": bytes.fromhex("16030100a5010000a10303") + bytes(160),
    "every byte": bytes(range(256)) * 100,
    "a preface and every byte": PREFACE + bytes(range(256)) * 100,
    "half a preface": PREFACE[:10],
    "a frame of 16 MiB": PREFACE + frame(SETTINGS, 0, 0) + b"\xff\xff\xff\0\0\0\0\0\1" + bytes(100_000),
    "settings of 5 bytes": PREFACE + frame(SETTINGS, 0, 0, bytes(5)),
    "headers on stream 0": PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 0, fields()),
    "headers on an even stream": PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 2, fields()),
    "data on an idle stream": PREFACE + frame(SETTINGS, 0, 0) + frame(0, 0, 9, LOG),
    "a window that overflows": PREFACE + frame(SETTINGS, 0, 0) + frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 3,
    "headers that are no HPACK": PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, b"\xff" * 100),
    "an endless head": PREFACE
    + frame(SETTINGS, 0, 0)
    + frame(HEADERS, 0, 1, fields())
    + frame(CONTINUATION, 0, 1, b"\0\1a\x7f\x80\x7f" + b"b" * 16_000) * 200,
    "1,000 streams that are reset": PREFACE
    + frame(SETTINGS, 0, 0)
    + b"".join(
        frame(HEADERS, END_HEADERS, stream, fields()) + frame(RST_STREAM, 0, stream, bytes(4))
        for stream in range(1, 2001, 2)
    ),
    "10,000 pings": PREFACE + frame(SETTINGS, 0, 0) + frame(PING, 0, 0, bytes(8)) * 10_000,
    "10,000 settings": PREFACE + frame(SETTINGS, 0, 0) * 10_000,
}


async def grpc_answer(receivers: Receivers, sent: bytes) -> str:
    """Send bytes to the gRPC port; return the status that comes, `reset`, or nothing if the server just hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", receivers.grpc.port)
    answer = b""
    with contextlib.suppress(ConnectionError):
        writer.write(sent)
        async with asyncio.timeout(_DEADLINE_S):
            while not (found := _GRPC_END.search(answer)) and (data := await reader.read(1 << 16)):
                answer += data
        if found:
            writer.close()
            return (found[1] or b"reset").decode()
    writer.close()
    return ""


@pytest.mark.parametrize("name", GRPC)
async def test_call_with_a_bad_message_fails(receivers: Receivers, name: str) -> None:
    sent, status = GRPC[name]
    assert await grpc_answer(receivers, sent) == status
    assert len(receivers.log.entries) == (name in TAKEN)


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_on_the_grpc_port_is_survived(receivers: Receivers, name: str) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", receivers.grpc.port)
    with contextlib.suppress(ConnectionError):
        writer.write(GARBAGE[name])
        await writer.drain()
    await receivers.assert_still_serving()
    writer.close()
    assert len(receivers.log.entries) == 2  # those of assert_still_serving


async def test_oversized_metadata_is_refused(receivers: Receivers) -> None:
    error = await receivers.failing_call(LOG, metadata=[("x", "a" * 100_000)])
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
