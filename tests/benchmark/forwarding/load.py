"""Eight senders against one program, and what that cost it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import numpy as np

from driftlock_otlp.model import Signal
from tests.benchmark.forwarding.programs import Program, Running, Start, Wire
from tests.e2e.sidecar import free_ports
from tests.interop.collector import HOST

SENDERS = 8
_ARRIVAL_S = 120.0
_STILL_S = 1.0
_LOOK_S = 0.1
_RETRY_S = 0.05


@dataclass(frozen=True)
class Case:
    """What is sent.

    Attributes:
        signal: Of what.
        per_request: Records in a request.
        wire: How it travels.
    """

    signal: Signal
    per_request: int
    wire: Wire

    def __str__(self) -> str:
        return f"{self.signal.plural}, {self.per_request:,} a request, {self.wire}"


@dataclass(frozen=True)
class Measured:
    """What one run came to.

    Attributes:
        program: Its name.
        case: What was sent, in words.
        records: Sent and acknowledged.
        delivered: Counted downstream.
        wall_s: From the first request to the last acknowledgement.
        cpu_s: CPU time of all its processes, until everything had arrived and they had become idle.
        peak_bytes: Most resident memory of all its processes.
        p50_ms: Median time to an acknowledgement.
        p99_ms: 99th percentile.
        refusals: Requests that it asked to send again later.
        wire_bytes: Bytes of the bodies that arrived; over gRPC before compression.
    """

    program: str
    case: str
    records: int
    delivered: int
    wall_s: float
    cpu_s: float
    peak_bytes: int
    p50_ms: float
    p99_ms: float
    refusals: int
    wire_bytes: int


class Sink:
    """The destination's process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmark.forwarding.sink"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        self.grpc_port, self.http_port = int(ports["grpc"]), int(ports["http"])

    async def counts(self) -> dict[str, int]:
        """Return items, bytes and requests that have arrived."""
        async with aiohttp.ClientSession() as session, session.get(f"http://{HOST}:{self.http_port}/counts") as answer:
            found: dict[str, int] = await answer.json()
            return found

    async def reset(self) -> None:
        """Let it count anew."""
        async with aiohttp.ClientSession() as session, session.post(f"http://{HOST}:{self.http_port}/reset"):
            pass

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


async def measure(program: Program, case: Case, payloads: Sequence[bytes], directory: Path, sink: Sink) -> Measured:
    """Send everything through a program once.

    Args:
        program: Which.
        case: What the payloads are.
        payloads: One request each.
        directory: Empty; for the program's files.
        sink: Where it sends to.
    """
    grpc_port, http_port = free_ports(2)
    running = Running(program, Start(directory, case.wire, sink.grpc_port, sink.http_port, grpc_port, http_port))
    try:
        running.wait_ready()
        await sink.reset()
        records = len(payloads) * case.per_request
        before_s = running.cpu_s()
        waiting = iter(payloads)
        waits_s: list[float] = []
        refusals = [0]
        watching = asyncio.create_task(_watch(running))
        started_s = time.perf_counter()
        async with _sender(case, grpc_port, http_port) as send:
            await asyncio.gather(*(_send_all(send, waiting, waits_s, refusals) for _ in range(SENDERS)))
        wall_s = time.perf_counter() - started_s
        counts = await _arrived(sink, records)
        await _idle(running)
        watching.cancel()
        cpu_s = running.cpu_s() - before_s
    finally:
        running.stop()
    p50, p99 = np.quantile(np.array(waits_s) * 1e3, (0.5, 0.99)).tolist()
    return Measured(
        program.name, str(case), records, counts["items"], wall_s, cpu_s, running.peak_bytes, p50, p99, refusals[0],
        counts["bytes"],
    )  # fmt: skip


async def _send_all(send: Any, waiting: Any, waits_s: list[float], refusals: list[int]) -> None:
    for payload in waiting:
        started_s = time.perf_counter()
        while not await send(payload):
            refusals[0] += 1
            await asyncio.sleep(_RETRY_S)
        waits_s.append(time.perf_counter() - started_s)


@contextlib.asynccontextmanager
async def _sender(case: Case, grpc_port: int, http_port: int) -> AsyncIterator[Any]:
    """Yield what sends one request and returns whether it was taken."""
    is_gzip = case.wire.compression == "gzip"
    if case.wire.transport == "grpc":
        compression = grpc.Compression.Gzip if is_gzip else grpc.Compression.NoCompression
        async with grpc.aio.insecure_channel(f"{HOST}:{grpc_port}", compression=compression) as channel:
            export = channel.unary_unary(case.signal.grpc_method)

            async def over_grpc(payload: bytes) -> bool:
                try:
                    await export(payload)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}:
                        raise
                    return False
                return True

            yield over_grpc
        return
    headers = {"Content-Type": "application/x-protobuf"} | ({"Content-Encoding": "gzip"} if is_gzip else {})
    connector = aiohttp.TCPConnector(limit=SENDERS)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        url = f"http://{HOST}:{http_port}{case.signal.http_path}"

        async def over_http(payload: bytes) -> bool:
            body = await asyncio.to_thread(gzip.compress, payload, 1) if is_gzip else payload
            async with session.post(url, data=body) as answer:
                if answer.status in {429, 502, 503, 504}:
                    return False
                answer.raise_for_status()
                await answer.read()
            return True

        yield over_http


async def _arrived(sink: Sink, records: int) -> dict[str, int]:
    """Return what has arrived once it is everything, or nothing more comes."""
    deadline_s, seen_s, seen = time.monotonic() + _ARRIVAL_S, time.monotonic(), -1
    while True:
        counts = await sink.counts()
        if counts["items"] != seen:
            seen, seen_s = counts["items"], time.monotonic()
        is_still = time.monotonic() - seen_s > 20 * _STILL_S
        if counts["items"] >= records or is_still or time.monotonic() > deadline_s:
            return counts
        await asyncio.sleep(0.05)


async def _idle(running: Running) -> None:
    """Return when the program does nothing more: detection may go on after forwarding."""
    deadline_s, before_s = time.monotonic() + _ARRIVAL_S, -1.0
    while time.monotonic() < deadline_s:
        now_s = running.cpu_s()
        if now_s - before_s < 0.05 * _STILL_S:
            return
        before_s = now_s
        await asyncio.sleep(_STILL_S)


async def _watch(running: Running) -> None:
    while True:
        running.look_at_memory()
        await asyncio.sleep(_LOOK_S)
