"""The ends of a route: an OTLP destination, the quarantine, or nowhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from driftlock_otlp import fault_points
from driftlock_otlp.exporter.delivery import Deliverer
from driftlock_otlp.interfaces import Clock
from driftlock_otlp.model import ItemRange, LogEntry, Signal
from driftlock_otlp.storage import anomalies, quarantine

Work = Callable[[sqlite3.Connection], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the items of one part of a request.

    Attributes:
        delivered: Items that reached the sink.
        dropped: (reason, items) of those that did not and never will.
        in_transaction: What must be committed together with the cursor, if anything.
    """

    delivered: int
    dropped: Sequence[tuple[str, int]] = ()
    in_transaction: Work | None = None


class Sink(Protocol):
    """Takes parts of requests; several at once if it is asked to."""

    @property
    def name(self) -> str:
        """Name in cursors and metrics."""
        ...

    @property
    def is_failing(self) -> bool:
        """Whether what is being taken may take any time, since the destination fails."""
        ...

    @property
    def last_error(self) -> str:
        """What the destination last failed with; empty if it never did."""
        ...

    async def take(
        self, entry: LogEntry, signal: Signal, payload: bytes, item_count: int, ranges: Sequence[ItemRange]
    ) -> Outcome:
        """Take one part and return once its fate is settled.

        Args:
            entry: The request it comes from.
            signal: Its signal.
            payload: The part, as OTLP protobuf.
            item_count: Items in it.
            ranges: Anomalous ranges of the request.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class ExporterSink:
    """Sends to an OTLP destination."""

    def __init__(self, deliverer: Deliverer) -> None:
        self._deliverer = deliverer

    @property
    def name(self) -> str:
        """The exporter's name."""
        return self._deliverer.exporter.name

    @property
    def is_failing(self) -> bool:
        """See `Sink`."""
        return self._deliverer.is_failing

    @property
    def last_error(self) -> str:
        """See `Sink`."""
        return self._deliverer.last_error

    async def take(
        self, entry: LogEntry, signal: Signal, payload: bytes, item_count: int, ranges: Sequence[ItemRange]
    ) -> Outcome:
        """See `Sink`."""
        dropped = (await self._deliverer.deliver(signal, payload, item_count)).dropped
        return Outcome(item_count - sum(dropped.values()), tuple(dropped.items()))

    async def close(self) -> None:
        """See `Sink`."""
        await self._deliverer.exporter.close()


class QuarantineSink:
    """Withholds in the state database, in the very transaction that moves the cursor."""

    name = "quarantine"
    is_failing = False
    last_error = ""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def take(
        self, entry: LogEntry, signal: Signal, payload: bytes, item_count: int, ranges: Sequence[ItemRange]
    ) -> Outcome:
        """See `Sink`."""
        anomaly_ids = list(dict.fromkeys(item.anomaly_id for item in ranges))

        def withhold(connection: sqlite3.Connection) -> None:
            anomaly = anomalies.get(connection, anomaly_ids[0])
            quarantine.add(
                connection,
                position=entry.position,
                signal=signal,
                anomaly_ids=anomaly_ids,
                stream=str(anomaly.stream) if anomaly else "",
                payload=payload,
                item_count=item_count,
                now_unix_nano=self._clock(),
            )
            fault_points.reach("forward.withholding")

        return Outcome(item_count, in_transaction=withhold)

    async def close(self) -> None:
        """See `Sink`."""


class DiscardSink:
    """Drops, counted: the sidecar has no downstream and only detects."""

    name = "none"
    is_failing = False
    last_error = ""

    async def take(
        self, entry: LogEntry, signal: Signal, payload: bytes, item_count: int, ranges: Sequence[ItemRange]
    ) -> Outcome:
        """See `Sink`."""
        return Outcome(0, [("no_exporter", item_count)])

    async def close(self) -> None:
        """See `Sink`."""
