"""Admission: a bound on the bytes of all requests being worked on at once.

Requests are refused before they are decoded, and told when to come back; what is admitted
is never dropped for lack of room.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from driftlock_otlp.errors import OverloadedError, RateLimitedError


class Sender(Protocol):
    """Whose requests they are.

    Attributes:
        name: Of the organisation.
        in_flight_bytes: Bytes of its requests in flight; kept by `Admission`.
        max_in_flight_bytes: Most that they may be, so that others find room.
    """

    name: str
    in_flight_bytes: int
    max_in_flight_bytes: int


class Admission:
    """Counts the bytes in flight, for all receivers together. For one event loop; not thread-safe.

    Args:
        max_in_flight_bytes: Bytes of requests, uncompressed, that may be in flight
            (`receiver.max_in_flight_bytes`).
        retry_after_s: Seconds after which a refused sender should try again.
        is_memory_short: Returns whether only one request at a time may be taken. None would be too
            few: memory that something else holds would keep everyone out for good.
    """

    def __init__(
        self,
        max_in_flight_bytes: int,
        retry_after_s: float = 1.0,
        is_memory_short: Callable[[], bool] = lambda: False,
    ) -> None:
        self._max_bytes = max_in_flight_bytes
        self._retry_after_s = retry_after_s
        self._is_memory_short = is_memory_short
        self._count = 0
        self._bytes = 0

    @property
    def in_flight_bytes(self) -> int:
        """Bytes admitted and not yet released."""
        return self._bytes

    def admit(self, n_bytes: int, sender: Sender) -> Reservation:
        """Reserve room for a request; leave the returned context to release it.

        A request that is alone is admitted whatever its size, else one larger than the bound
        could never pass; the receivers' own size limits hold for it.

        Args:
            n_bytes: Its size so far; `Reservation.grow` adds more.
            sender: Whose it is.

        Raises:
            OverloadedError: There is no room.
            RateLimitedError: The sender has its share of the room.
        """
        if self._count and self._is_memory_short():
            raise OverloadedError("memory is short (receiver.memory_limit); try again later", self._retry_after_s)
        reservation = Reservation(self, sender)
        reservation.grow(n_bytes)
        self._count += 1
        return reservation

    def check(self, n_bytes: int, sender: Sender) -> None:
        """Raise as `admit` would for a request of `n_bytes`; reserve nothing."""
        self._require_room(n_bytes, sender, own_bytes=0)

    def _require_room(self, n_bytes: int, sender: Sender, own_bytes: int) -> None:
        if self._bytes + n_bytes > self._max_bytes and self._bytes > own_bytes:
            raise OverloadedError(
                f"{self._bytes} bytes of requests are in flight and {self._max_bytes} may be; try again later",
                retry_after_s=self._retry_after_s,
            )
        if sender.in_flight_bytes + n_bytes > sender.max_in_flight_bytes and sender.in_flight_bytes > own_bytes:
            raise RateLimitedError(
                f"{sender.in_flight_bytes} bytes of requests of organisation {sender.name!r} are in flight and"
                f" {sender.max_in_flight_bytes} may be; try again later",
                retry_after_s=self._retry_after_s,
            )

    def _leave(self) -> None:
        self._count -= 1

    def _take(self, n_bytes: int, sender: Sender) -> None:
        self._bytes += n_bytes
        sender.in_flight_bytes += n_bytes


class Reservation:
    """Room held by one request, released when its `with` block is left."""

    __slots__ = ("_admission", "_bytes", "_sender")

    def __init__(self, admission: Admission, sender: Sender) -> None:
        self._admission = admission
        self._sender = sender
        self._bytes = 0

    def grow(self, n_bytes: int) -> None:
        """Reserve `n_bytes` more.

        Raises:
            OverloadedError, RateLimitedError: There is no room; what was reserved before is kept.
        """
        self._admission._require_room(n_bytes, self._sender, self._bytes)
        self._admission._take(n_bytes, self._sender)
        self._bytes += n_bytes

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission._take(-self._bytes, self._sender)
        self._admission._leave()
        self._bytes = 0
