"""Destinations that show what a client sends, byte for byte, and answer as they are told."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

HOST = "127.0.0.1"


@dataclass(frozen=True)
class HttpRequest:
    """One request.

    Attributes:
        method: As `POST`.
        target: What stands in the request line.
        headers: Names in lower case.
        body: As it came, compressed if it was.
        connection: Number of the connection it came on, from 1.
        alpn: Protocol that the TLS handshake chose.
        arrived_s: Time of the event loop.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int
    alpn: str | None
    arrived_s: float


def http_answer(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """Return a whole response, with `content_type="…"` and the like as headers."""
    fields = {"content-length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Answer\r\n{head}\r\n".encode() + body


class _Server:
    """Serves TCP connections until it is left, and then leaves nothing open."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        raise NotImplementedError

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        task = asyncio.create_task(self._run(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Clients come and go as they like.
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            await self.serve(reader, writer)
        writer.close()

    async def open(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to another server on this host."""
        reader, writer = await asyncio.open_connection(HOST, port)
        self._writers.append(writer)
        return reader, writer


class HttpDestination(_Server):
    """A small HTTP/1.1 server, and proxy, that keeps what it gets.

    Args:
        port: 0 for any.
        tls: Serves over TLS with it.
        tunnel_to: As a proxy: the port on this host that every CONNECT leads to.
    """

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None, tunnel_to: int | None = None) -> None:
        super().__init__(port, tls)
        self.received: list[HttpRequest] = []
        self.answers: deque[bytes | None] = deque()
        """What to answer next; None: nothing, ever."""
        self._tunnel_to = tunnel_to
        self._connections = 0

    @property
    def endpoint(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        connection = self._connections
        while True:
            request = await self._read(reader, writer, connection)
            self.received.append(request)
            if request.method == "CONNECT":
                await self._tunnel(reader, writer)
                return
            answer = self.answers.popleft() if self.answers else self._success(request)
            if answer is None:
                await asyncio.Event().wait()
            else:
                writer.write(answer)
                await writer.drain()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> HttpRequest:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.rstrip().split("\r\n")
        method, target, _ = line.split(" ")
        pairs = [field.partition(":") for field in fields]
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        assert len(headers) == len(pairs), f"a header is there twice: {fields}"
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        tls = writer.get_extra_info("ssl_object")
        alpn = tls.selected_alpn_protocol() if tls is not None else None
        return HttpRequest(method, target, headers, body, connection, alpn, asyncio.get_running_loop().time())

    @staticmethod
    def _success(request: HttpRequest) -> bytes:
        content_type = request.headers["content-type"]
        return http_answer(body=b"{}" if content_type == "application/json" else b"", content_type=content_type)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._tunnel_to is None:
            writer.write(http_answer(407))
            await writer.drain()
            return
        there_reader, there_writer = await self.open(self._tunnel_to)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))


class RecordingRelay(_Server):
    """A TCP relay in front of a destination that keeps what the client sends.

    Args:
        destination: Its port.
    """

    def __init__(self, destination: int) -> None:
        super().__init__()
        self.sent = bytearray()
        self.is_stalled = False
        """While it is, nothing passes and nothing is closed: as with a cable that is cut."""
        self._destination = destination

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await self.open(self._destination)
        await asyncio.gather(self._copy(reader, there_writer, self.sent), self._copy(there_reader, writer, None))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray | None) -> None:
        while chunk := await reader.read(1 << 16):
            if record is not None:
                record += chunk
            if not self.is_stalled:
                writer.write(chunk)
        writer.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass everything on until the end."""
    while chunk := await reader.read(1 << 16):
        writer.write(chunk)
        await writer.drain()
    writer.close()
