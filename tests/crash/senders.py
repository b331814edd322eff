"""Senders that behave as OTLP asks: what is not acknowledged is sent again, the very same bytes.

Each sends one request after the other, so that its requests have an order; every item has an id of
its own, its time, by which it is found again wherever it went.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc.aio

from driftlock_otlp.model import Signal
from tests.e2e.traffic import START_UNIX_NANO, STEP_NANO, Traffic

ITEMS = 20
"""Items in each request."""

_ITEMS_A_SENDER = 100_000_000
_ANSWER_S = 10.0
_PAUSE_S = 0.05
_CALM_REQUESTS = 10
"""After a fault, for the anomaly to end."""
_RETRYABLE_GRPC = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_RETRYABLE_HTTP = {429, 502, 503, 504}
_CHANNEL_OPTIONS = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200))


@dataclass(frozen=True, slots=True)
class Role:
    """What one sender sends, and how."""

    signal: Signal
    transport: str
    tenant: str = ""


ROLES: Sequence[Role] = (
    Role(Signal.LOGS, "grpc", "acme"),
    Role(Signal.METRICS, "http", "acme"),
    Role(Signal.TRACES, "grpc", "acme"),
    Role(Signal.LOGS, "http", "globex"),
    Role(Signal.METRICS, "grpc", "globex"),
    Role(Signal.TRACES, "http", "globex"),
)
"""All signals over both transports, for two organisations."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One request that was acknowledged."""

    digest: bytes
    size_bytes: int


class Sender:
    """Sends one signal without end; waits while nobody listens.

    Args:
        role: What it sends.
        number: Which sender it is.
        seed: Of what it says.
        target: Returns the sidecar's (gRPC, HTTP) ports.
        key: API key; empty for none.
        pause_s: Rest after each acknowledgement.
        fault_every: A stretch of faulty requests begins after so many; 0 for none.
        fault_length: Requests in such a stretch.

    Attributes:
        acknowledged: In the order in which they were sent.
        retries: Requests sent again.
    """

    def __init__(
        self,
        role: Role,
        number: int,
        seed: int,
        target: Callable[[], tuple[int, int]],
        key: str = "",
        pause_s: float = 0.02,
        fault_every: int = 150,
        fault_length: int = 15,
    ) -> None:
        self.role = role
        self.number = number
        self.acknowledged: list[Acknowledged] = []
        self.retries = 0
        self.pause_s = pause_s
        self._target = target
        self._headers = {"x-api-key": key} if key else {}
        self._fault_every, self._fault_length = fault_every, fault_length
        self._fault_left = 0
        self._traffic = Traffic(seed * 100 + number, number * _ITEMS_A_SENDER, f"shop-{number}")
        self._finishing = False
        self._may_send = asyncio.Event()
        self._may_send.set()
        self._is_waiting = asyncio.Event()

    async def run(self) -> None:
        """Send until told to finish; what has begun is brought to its end."""
        grpc_port, http_port = self._target()
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}", options=_CHANNEL_OPTIONS) as channel,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_S)) as session,
        ):
            call = channel.unary_unary(self.role.signal.grpc_method)
            url = f"http://127.0.0.1:{http_port}{self.role.signal.http_path}"
            while not self._finishing:
                self._is_waiting.set()
                await self._may_send.wait()
                self._is_waiting.clear()
                payload = self._request()
                while not await (
                    self._send_grpc(call, payload)
                    if self.role.transport == "grpc"
                    else self._send_http(session, url, payload)
                ):
                    self.retries += 1
                    await asyncio.sleep(_PAUSE_S)
                self.acknowledged.append(Acknowledged(digest_of(self.role.tenant, payload), len(payload)))
                await asyncio.sleep(self.pause_s)

    def finish(self) -> None:
        """Let `run` return once the request in hand is acknowledged."""
        self._finishing = True

    async def pause(self) -> None:
        """Return once the request in hand is acknowledged; send no more until `resume`."""
        self._may_send.clear()
        self._is_waiting.clear()
        await self._is_waiting.wait()

    def resume(self) -> None:
        """Go on."""
        self._may_send.set()

    def break_down(self) -> None:
        """Begin a stretch of faulty requests now."""
        self._fault_left = self._fault_length

    def _request(self) -> bytes:
        count = len(self.acknowledged)
        if self._fault_every and count:
            if count % self._fault_every == 0:
                self.break_down()
            elif count % self._fault_every == self._fault_length + _CALM_REQUESTS and count > self._fault_every:
                # A stream is less surprised by its second fault: the next one has a stream of its own.
                self._traffic.service = f"shop-{self.number}-{count // self._fault_every}"
        is_faulty = self._fault_left > 0
        self._fault_left -= is_faulty
        if self.role.signal is Signal.LOGS:
            return self._traffic.logs(ITEMS, fault_share=0.8 if is_faulty else 0.0)
        if self.role.signal is Signal.TRACES:
            return self._traffic.traces(ITEMS, slow_factor=20.0 if is_faulty else 1.0)
        return self._traffic.metrics(ITEMS, level=40.0 if is_faulty else 0.0)

    async def _send_grpc(self, call: Any, payload: bytes) -> bool:
        try:
            await call(payload, timeout=_ANSWER_S, metadata=tuple(self._headers.items()))
        except grpc.aio.AioRpcError as error:
            assert error.code() in _RETRYABLE_GRPC, f"told not to retry: {error.code()} {error.details()}"
            return False
        return True

    async def _send_http(self, session: aiohttp.ClientSession, url: str, payload: bytes) -> bool:
        headers = {"Content-Type": "application/x-protobuf", **self._headers}
        try:
            async with session.post(url, data=payload, headers=headers) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            return False
        assert answer.status == 200 or answer.status in _RETRYABLE_HTTP, f"told not to retry: {answer.status}"
        return answer.status == 200


def digest_of(tenant: str, payload: bytes) -> bytes:
    """Return what a request is known by."""
    return hashlib.blake2b(payload, digest_size=16, key=tenant.encode()).digest()


def item_of(time_unix_nano: int) -> int:
    """Return the number of the item that has this time."""
    return (time_unix_nano - START_UNIX_NANO) // STEP_NANO


def sender_of(item: int) -> int:
    """Return whose item it is."""
    return (item - 1) // _ITEMS_A_SENDER


def request_of(item: int) -> int:
    """Return the number of the request that an item was in, counted by its sender from 0."""
    return ((item - 1) % _ITEMS_A_SENDER) // ITEMS


def items_of(number: int, request_count: int) -> range:
    """Return the items in the first requests of a sender."""
    first = number * _ITEMS_A_SENDER + 1
    return range(first, first + request_count * ITEMS)
