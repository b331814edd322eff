"""HTTP by hand: bytes that no client would send, and whatever comes back."""

from __future__ import annotations

import asyncio
import re

from tests.conformance.receivers import JSON_LOG, Receivers

CHUNKED = b"Transfer-Encoding: chunked\r\n"
TRACE = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"smuggled"}]}]}]}'

_DEADLINE_S = 10.0
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


def request(
    body: bytes = JSON_LOG, headers: bytes = b"", *, target: bytes = b"/v1/logs", length: int | None = -1,
    line: bytes = b"",
) -> bytes:  # fmt: skip
    """Return a request in OTLP/JSON.

    Args:
        body: What follows the head.
        headers: Further header lines.
        target: Of the request line.
        length: Content-Length; -1 for the right one, None for none.
        line: The whole request line, if not the usual one.
    """
    head = line or b"POST " + target + b" HTTP/1.1\r\n"
    head += b"Host: x\r\nContent-Type: application/json\r\n" + headers
    if length is not None:
        head += b"Content-Length: %d\r\n" % (len(body) if length == -1 else length)
    return head + b"\r\n" + body


SMUGGLED = request(TRACE, target=b"/v1/traces")
"""A whole request, to hide in another's body: it must never be served."""


def chunks(*bodies: bytes) -> bytes:
    """Return a chunked body."""
    return b"".join(b"%x\r\n" % len(body) + body + b"\r\n" for body in (*bodies, b""))


async def exchange(receivers: Receivers, *parts: bytes) -> list[int]:
    """Send the parts, each when the one before has left; return the statuses that come until the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", receivers.http.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        answer = await asyncio.wait_for(reader.read(), _DEADLINE_S)
    except ConnectionError:
        answer = b""
    finally:
        writer.close()
    return [int(status) for status in _STATUS.findall(answer)]
