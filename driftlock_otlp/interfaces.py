"""The contracts between the parts, as protocols.

Each has one contract suite in `tests/contract` that every implementation and every double
passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from driftlock_otlp.model import LogEnd, LogEntry, NewEntry, Signal


class Component(Protocol):
    """Something that is started and stopped with the service."""

    @property
    def name(self) -> str:
        """Name in log lines and in `/readyz`."""
        ...

    async def start(self) -> None:
        """Return once the component serves; raise if it cannot."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Finish what is in flight within `grace_s` seconds, then let go. Harmless twice."""
        ...


class TelemetryLog(Protocol):
    """A durable, append-only log of OTLP requests.

    Positions are byte offsets that only grow; they survive restarts. Entries are read back in
    the order they were appended, exactly as they were. Any number of readers, in this process
    or another, may read while one writer appends.
    """

    async def append(self, entry: NewEntry) -> int:
        """Append one entry and return its position once it is as durable as configured.

        Raises:
            OverloadedError: The log holds as much as it may.
            StorageUnavailableError: The disk did not take it; nothing was acknowledged.
        """
        ...

    def read(self, position: int, max_bytes: int) -> Sequence[LogEntry]:
        """Return entries from `position` on, at most `max_bytes` of payload but at least one.

        Only entries whose append has become durable are seen. Empty at the end of the log. A
        position whose segment has been released continues at the oldest entry kept. What the disk
        has damaged comes as an entry that says so (`is_damaged`): its items have been accepted.

        Raises:
            StorageUnavailableError: The disk does not read.
        """
        ...

    def end(self) -> LogEnd:
        """Return where the next entry will go."""
        ...

    def release(self, position: int) -> None:
        """Allow everything before `position` to be deleted."""
        ...


class Room(Protocol):
    """Says whether more may be appended to the log than destinations are behind already."""

    async def take(self, entry: NewEntry) -> None:
        """Return once there is room for a request that is then appended.

        Raises:
            OverloadedError: There is none, and the sender is not to wait, or has waited long enough.
        """
        ...

    def give_back(self, entry: NewEntry) -> None:
        """Free the room of a request whose append failed."""
        ...

    def appended(self, entry: NewEntry, position: int) -> None:
        """Take notice of a request that was appended."""
        ...


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What becomes of an Export request that was taken.

    Attributes:
        rejected_item_count: Items that were not taken (`partial_success`); never retried.
        message: Why, in words for people; empty on full success.
    """

    rejected_item_count: int = 0
    message: str = ""


class Exporter(Protocol):
    """Sends one OTLP request to one destination, once; retrying is the caller's."""

    @property
    def name(self) -> str:
        """The exporter's key in the configuration, as `otlp_grpc/backup`."""
        ...

    async def export(self, signal: Signal, payload: bytes) -> ExportResult:
        """Send one Export request in OTLP protobuf.

        Raises:
            DownstreamUnavailableError: Try again, after `retry_after_s` if it is set.
            DownstreamTooLargeError: Refused for good as a whole; parts of it may pass.
            DownstreamRejectedError: Refused for good.
        """
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


class Clock(Protocol):
    """The wall clock, handed in so that tests can hold it."""

    def __call__(self) -> int:
        """Return nanoseconds since the Unix epoch."""
        ...
