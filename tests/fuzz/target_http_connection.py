"""Whole HTTP connections: raw bytes into the server's protocol, its application and the ingest behind it."""

from __future__ import annotations

import asyncio
import re
from functools import cache
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from driftlock_otlp.config.receivers import AuthConfig, HttpReceiverConfig
from driftlock_otlp.config.values import Endpoint
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.otlp import decode
from driftlock_otlp.receiver.gate import Gate
from driftlock_otlp.receiver.http_protocol import OtlpHttpProtocol
from driftlock_otlp.receiver.http_server import HttpReceiver
from driftlock_otlp.receiver.ingest import Ingest
from tests.doubles.memory_log import MemoryLog

LIMIT = 1 << 16

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")
_LENGTH = re.compile(rb"(?im)^content-length: (\d+)\r$")
_CUT = b"\xff|"
_PASSES = 60


class _Transport(asyncio.Transport):
    """A socket's place: keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class _Server:
    """The receiver without its sockets."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.log = MemoryLog()
        self.metrics = Metrics()
        self.gate = Gate(AuthConfig(), 64 << 20, self.metrics)
        http = HttpReceiverConfig(endpoint=Endpoint(host="127.0.0.1", port=0), max_request_body_size=LIMIT)
        receiver = HttpReceiver(http, Ingest(self.log, self.metrics, lambda: 1), self.gate, self.metrics)
        # As HttpListener configures it, which would also open sockets.
        self.config = uvicorn.Config(
            receiver._serve, http=OtlpHttpProtocol, interface="asgi3", ws="none", lifespan="off", log_config=None,
            access_log=False, server_header=False, date_header=False,
        )  # fmt: skip
        self.config.load()

    def serve(self, parts: list[bytes]) -> bytes:
        """Return what a client gets that sends the parts one after the other and then hangs up."""
        state = ServerState()
        protocol = OtlpHttpProtocol(self.config, state, {}, _loop=self.loop)
        transport = _Transport()

        async def connection() -> None:
            protocol.connection_made(transport)
            for part in parts:
                if transport.closed:
                    break
                protocol.data_received(part)
                for _ in range(_PASSES):
                    await asyncio.sleep(0)
            protocol.connection_lost(None)
            if state.tasks:
                await asyncio.wait(state.tasks, timeout=5)
            assert not state.tasks, "a request goes on without its client"

        self.loop.run_until_complete(connection())
        return bytes(transport.written)


@cache
def _the_server() -> _Server:
    return _Server()  # not at import: it takes a moment, and only this target needs it


def check(data: bytes) -> None:
    """Serve one connection; `ff 7c` in the input is where one read of the socket ends and the next begins."""
    server = _the_server()
    before = _answered(server.metrics)
    written = server.serve([part for part in data.split(_CUT) if part])
    statuses = _responses(written)
    assert _errors(server.metrics) == 0, "an unexpected error"
    assert server.gate.in_flight_bytes == 0
    assert 500 not in statuses
    stored = server.log.entries
    server.log.release(server.log.end().position)
    for entry in stored:
        assert entry.signal is not None
        assert decode.count_items(entry.signal, decode.decode(entry.signal, entry.payload)) == entry.item_count > 0
    assert statuses.count(200) <= _answered(server.metrics) - before
    head = data.partition(b"\r\n\r\n")[0].lower().replace(_CUT, b"")
    if b"\ntransfer-encoding:" in head and b"\ncontent-length:" in head:
        assert 200 not in statuses, "a request with two lengths was taken"
    # A client may pipeline, but no request holds another: each that was taken has a request line of its own.
    assert len(stored) <= len(re.findall(rb"POST +[^ \r\n]*/v1/", data.replace(_CUT, b"")))


def _responses(written: bytes) -> list[int]:
    """Return the statuses of well-formed responses; fail on anything else."""
    statuses = []
    while written:
        status = _STATUS.match(written)
        assert status, written[:80]
        head, found, rest = written.partition(b"\r\n\r\n")
        assert found, head
        code = int(status[1])
        if code >= 200:
            length = _LENGTH.search(head + b"\r")
            assert length, head
            assert b"connection: close" in head or len(rest) >= int(length[1]) or not rest
            if not rest.startswith(b"HTTP/1.1 "):  # then it answers HEAD, and has no body
                rest = rest[int(length[1]) :]
            statuses.append(code)
        written = rest
    return statuses


def _errors(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("driftlock_errors_total", {"component": "receiver"}) or 0.0


def _answered(metrics: Metrics) -> float:
    return sum(
        sample.value
        for metric in metrics.receiver_requests.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels["outcome"] == "accepted"
    )
