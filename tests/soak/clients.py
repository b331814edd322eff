"""Raw clients that send more than the sidecar takes, and wait when they are told to.

A request is one of a few made beforehand with a record of its own behind it: concatenated requests
are one request, and making them costs next to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc.aio
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from driftlock_otlp.model import Signal
from tests.e2e.traffic import Traffic

ITEMS = 201
"""Items in each request: two hundred, and the one that it is known by."""

_TEMPLATES = 50
_ANSWER_S = 20.0
_LONGEST_WAIT_S = 30.0
_BEHIND_S = 2.0
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
_RETRYABLE_GRPC = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
_RETRYABLE_HTTP = {429, 503}


@dataclass(slots=True)
class Tally:
    """What the clients have seen, all together.

    Attributes:
        acknowledged: Numbers of the requests that were acknowledged.
        ack_s: Seconds from sending to the acknowledgement, of each attempt that succeeded.
        refusals: By status.
        unfit: Refusals that may not be retried, or that do not say when.
        delays_s: What refused clients were told to wait.
        broken: Calls that ended without an answer.
    """

    acknowledged: set[int] = field(default_factory=set)
    ack_s: list[float] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    unfit: list[str] = field(default_factory=list)
    delays_s: Counter[float] = field(default_factory=Counter)
    broken: int = 0


class Client:
    """Sends one signal over one connection, at a pace or as fast as it is answered.

    Args:
        signal: What it sends.
        transport: `grpc` or `http`.
        number: Which client it is.
        ports: The sidecar's (gRPC, HTTP).
        tally: Where it tells what it sees.
    """

    def __init__(self, signal: Signal, transport: str, number: int, ports: tuple[int, int], tally: Tally) -> None:
        self._signal, self._transport, self._ports, self._tally = signal, transport, ports, tally
        traffic = Traffic(number, number * 1_000_000_000, f"soak-{number}")
        self._templates = [traffic.request(signal, ITEMS - 1) for _ in range(_TEMPLATES)]
        self._own = Traffic(number, number * 1_000_000_000 + 500_000_000, f"soak-{number}")
        self._next = number * 1_000_000_000 + 500_000_001
        self._random = random.Random(number)

    async def run(self, until_s: float, interval_s: float) -> None:
        """Send until then; what has begun is brought to its end.

        Args:
            until_s: Time of the loop.
            interval_s: Between the beginnings of two requests; 0: one after the other.
        """
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._random.random() * interval_s
        grpc_port, http_port = self._ports
        is_grpc = self._transport == "grpc"
        async with (
            grpc.aio.insecure_channel(
                f"127.0.0.1:{grpc_port}", options=(("grpc.use_local_subchannel_pool", 1),)
            ) as channel,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_S)) as session,
        ):
            call = channel.unary_unary(self._signal.grpc_method)
            url = f"http://127.0.0.1:{http_port}{self._signal.http_path}"
            while loop.time() < until_s:
                await asyncio.sleep(max(due_s - loop.time(), 0.0))
                # Who is far behind does not make up for it: a sender's queue is bounded, too.
                due_s = max(due_s + interval_s, loop.time() - _BEHIND_S)
                number, payload = self._next, self._random.choice(self._templates) + self._own.request(self._signal, 1)
                self._next += 1
                while True:
                    started_s = loop.time()
                    wait_s = await (self._grpc(call, payload) if is_grpc else self._http(session, url, payload))
                    if wait_s is None:
                        break
                    await asyncio.sleep(wait_s * self._random.uniform(1.0, 1.2))
                self._tally.ack_s.append(loop.time() - started_s)
                self._tally.acknowledged.add(number)

    async def _grpc(self, call: Any, payload: bytes) -> float | None:
        """Send once; return how long to wait before the next attempt, None when it is acknowledged."""
        try:
            await call(payload, timeout=_ANSWER_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._tally.broken += 1
                return 1.0
            return self._refused(error.code().name, error.code() in _RETRYABLE_GRPC, _retry_delay_s(error))
        return None

    async def _http(self, session: aiohttp.ClientSession, url: str, payload: bytes) -> float | None:
        """As `_grpc`."""
        try:
            async with session.post(url, data=payload, headers={"Content-Type": "application/x-protobuf"}) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            self._tally.broken += 1
            return 1.0
        if answer.status == 200:
            return None
        delay_s = None
        with contextlib.suppress(KeyError, ValueError):
            delay_s = float(answer.headers["Retry-After"])
        return self._refused(str(answer.status), answer.status in _RETRYABLE_HTTP, delay_s)

    def _refused(self, status: str, is_retryable: bool, delay_s: float | None) -> float:
        self._tally.refusals[status] += 1
        if not is_retryable or delay_s is None or not 0 < delay_s <= _LONGEST_WAIT_S:
            self._tally.unfit.append(f"{status}, retry after {delay_s} s")
            return 1.0
        self._tally.delays_s[delay_s] += 1
        return delay_s


def _retry_delay_s(error: grpc.aio.AioRpcError) -> float | None:
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if details is None:
        return None
    info = RetryInfo()
    for detail in Status.FromString(details).details:
        if detail.Unpack(info):
            return info.retry_delay.ToNanoseconds() / 1e9
    return None
