"""The one path that both receivers share: validate, count, append, acknowledge.

Success is returned only after the log has made the request durable. Every request is counted
once, by its outcome.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from driftlock_otlp import fault_points
from driftlock_otlp.errors import RetryableError
from driftlock_otlp.interfaces import Clock, ExportResult, Room, TelemetryLog
from driftlock_otlp.model import ItemRange, NewEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.otlp import decode, rewrite, scanning
from driftlock_otlp.otlp.identifiers import malformed_items
from driftlock_otlp.otlp.json_mapping import request_from_json
from driftlock_otlp.receiver.resends import RecentRequests, key_of

_WRONG_IDS = (
    "a trace_id must have 16 bytes and a span_id 8, or none; the items whose own, parent, link or exemplar id has"
    " another length were left out: correct the instrumentation that sets them"
)


class Ingest:
    """Takes whole, uncompressed Export requests into the durable log.

    Args:
        log: Where they go.
        metrics: Where they are counted.
        clock: When they were received.
        room: What destinations have to say first, if anything.
        recent: Recognises requests that are sent again; None takes them anew.
    """

    def __init__(
        self,
        log: TelemetryLog,
        metrics: Metrics,
        clock: Clock,
        room: Room | None = None,
        recent: RecentRequests | None = None,
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._room = room
        self._recent = recent
        self._appending: set[asyncio.Task[int]] = set()

    async def ingest_protobuf(self, signal: Signal, payload: bytes, transport: str, tenant: str = "") -> ExportResult:
        """Take one request in protobuf; the log keeps these very bytes, unless items have to be left out.

        Args:
            signal: Which request it is.
            payload: The request.
            transport: `grpc` or `http`, for the metrics.
            tenant: Organisation it belongs to.

        Returns:
            What was not accepted: items with ids that cannot be. All else is in the log; an empty
            request is not logged.

        Raises:
            DecodeError: It is not a valid request.
            OverloadedError: The log is full, or a destination is too far behind.
            StorageUnavailableError: The log cannot take it now.
        """
        started_s = time.perf_counter()
        with self.counting_failures(signal, transport):
            item_count, malformed = self._check(signal, payload)
            if malformed:
                payload, _ = rewrite.split(signal, payload, [ItemRange(index, 1, "") for index in malformed])
            entry = NewEntry(signal, payload, item_count - len(malformed), self._clock(), tenant)
            await self._accept(entry, transport, started_s)
        if not malformed:
            return ExportResult()
        self._metrics.receiver_items.labels(signal.plural, transport, "rejected").inc(len(malformed))
        return ExportResult(len(malformed), _WRONG_IDS)

    def _check(self, signal: Signal, payload: bytes) -> tuple[int, list[int]]:
        """Return the number of items of a request, and which of them have ids that cannot be."""
        scanned = scanning.check(signal, payload)
        self._metrics.receiver_checks.labels(signal.plural, "protobuf" if scanned is None else "scanner").inc()
        if scanned is not None:
            return scanned, []
        message = decode.decode(signal, payload)
        return decode.count_items(signal, message), malformed_items(signal, message)

    async def ingest_json(self, signal: Signal, body: bytes, transport: str, tenant: str = "") -> ExportResult:
        """Take one request in OTLP/JSON; the log keeps it re-encoded as protobuf.

        Arguments and errors are those of `ingest_protobuf`; an id that cannot be is a `DecodeError`.
        """
        started_s = time.perf_counter()
        with self.counting_failures(signal, transport):
            message = request_from_json(signal, body)
            item_count = decode.count_items(signal, message)
            payload = decode.encode(message)
            await self._accept(NewEntry(signal, payload, item_count, self._clock(), tenant), transport, started_s)
        return ExportResult()

    @contextmanager
    def counting_failures(self, signal: Signal, transport: str) -> Iterator[None]:
        """Count a request that fails within the block.

        The `ingest_*` methods count their own failures; receivers put around it what comes
        before, such as limits and decompression.
        """
        try:
            yield
        except Exception as error:
            outcome = "refused" if isinstance(error, RetryableError) else "rejected"
            self._metrics.receiver_requests.labels(signal.plural, transport, outcome).inc()
            raise

    async def _accept(self, entry: NewEntry, transport: str, started_s: float) -> None:
        if entry.item_count == 0:
            self._count_accepted(entry, transport, started_s)
            return
        fault_points.reach("receive.decoded")
        key = b""
        if self._recent is not None:
            key = key_of(entry)
            try:
                is_repeated = await self._recent.is_repeated(key)
            except RetryableError:
                self._count_refused(entry, transport)
                raise
            if is_repeated:
                self._count_taken(entry, transport, "duplicate")
                return
        # Shielded: when the caller goes away the append still happens, must still be counted, and is
        # what the caller finds when it sends the request again.
        task = asyncio.create_task(self._append(entry, transport, started_s))
        self._appending.add(task)
        if self._recent is not None:
            self._recent.begin(key, entry.received_unix_nano, task, self._log.end().position)
        task.add_done_callback(self._appending.discard)
        await asyncio.shield(task)

    async def _append(self, entry: NewEntry, transport: str, started_s: float) -> int:
        """Append one request and return its position."""
        try:
            if self._room is not None:
                await self._room.take(entry)
            try:
                position = await self._log.append(entry)
            except BaseException:
                if self._room is not None:
                    self._room.give_back(entry)
                raise
        except (RetryableError, asyncio.CancelledError):
            self._count_refused(entry, transport)
            raise
        if self._room is not None:
            self._room.appended(entry, position)
        self._count_accepted(entry, transport, started_s)
        fault_points.reach("receive.appended")
        return position

    def _count_refused(self, entry: NewEntry, transport: str) -> None:
        assert entry.signal is not None  # noqa: S101 - for the type checker: ticks are not received
        self._metrics.receiver_items.labels(entry.signal.plural, transport, "refused").inc(entry.item_count)

    def _count_accepted(self, entry: NewEntry, transport: str, started_s: float) -> None:
        assert entry.signal is not None  # noqa: S101 - for the type checker: ticks are not received
        labels = (entry.signal.plural, transport)
        self._count_taken(entry, transport, "accepted")
        self._metrics.receiver_bytes.labels(*labels).inc(len(entry.payload))
        self._metrics.receiver_ack_seconds.labels(*labels).observe(time.perf_counter() - started_s)

    def _count_taken(self, entry: NewEntry, transport: str, outcome: str) -> None:
        assert entry.signal is not None  # noqa: S101 - for the type checker: ticks are not received
        labels = (entry.signal.plural, transport, outcome)
        self._metrics.receiver_requests.labels(*labels).inc()
        self._metrics.receiver_items.labels(*labels).inc(entry.item_count)
