"""Routes from the durable log to destinations, each with a cursor of its own.

A route reads the log in order, takes the part of each request that is for it, and hands it to
its sink. Under `divert` and `tag` it follows the verdicts: a request goes on once every record
in it has one, or when the verdict takes too long, unscored. That decision is made once, by a
route that forwards, and closes the verdicts for all routes: a record is forwarded or diverted,
never both and never neither.

Several requests may be under way at once (`sending_queue.num_consumers`), but the cursor only
moves over those before which none is left. A restart repeats at most the requests of one step,
and nothing is repeated without one.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum

import structlog

from driftlock_otlp import fault_points
from driftlock_otlp.errors import DecodeError, RetryableError
from driftlock_otlp.exporter.sending_queue import SendingQueue
from driftlock_otlp.exporter.sinks import Outcome, Sink
from driftlock_otlp.interfaces import Clock, TelemetryLog
from driftlock_otlp.model import ItemRange, LogEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.otlp import rewrite
from driftlock_otlp.storage import usage, verdicts
from driftlock_otlp.storage.state import StateDatabase, cursors, set_cursor

_READ_BYTES = 4 << 20
_COMMIT_REQUESTS = 64
_IDLE_S = 0.02
_LOOK_NANO = 200_000_000

_NOTHING = Outcome(0)

_logger = structlog.get_logger(__name__)


class Selection(Enum):
    """Which records a route takes."""

    EVERYTHING = "everything"
    """All, at once, as they came."""
    TAGGED = "tagged"
    """All, anomalous ones marked."""
    CLEAN = "clean"
    """All but anomalous ones."""
    ANOMALOUS = "anomalous"
    """Anomalous ones only."""


class ForwardRoute:
    """One route; a `Component`.

    Args:
        selection: What it takes.
        sink: Where it goes.
        log: The durable log.
        state: Cursors and verdicts.
        watermark: Returns the position before which every record has its verdict.
        max_wait_s: How long a verdict may take.
        metrics: Where outcomes are counted.
        clock: The wall clock.
        is_metered: Whether this route adds what it passes to the usage totals; one route does.
        consumers: Requests under way at once.
        queue: Where what the route passes is taken off; None if the destination may fall behind
            as far as the log reaches.
    """

    def __init__(
        self,
        selection: Selection,
        sink: Sink,
        log: TelemetryLog,
        state: StateDatabase,
        watermark: Callable[[], int],
        max_wait_s: float,
        metrics: Metrics,
        clock: Clock,
        *,
        is_metered: bool,
        consumers: int = 1,
        queue: SendingQueue | None = None,
    ) -> None:
        self.name = f"forward:{sink.name}" if selection is not Selection.ANOMALOUS else f"divert:{sink.name}"
        self._selection = selection
        self._sink = sink
        self._log = log
        self._state = state
        self._watermark = watermark
        self._max_wait_s = max_wait_s
        self._metrics = metrics
        self._clock = clock
        self._is_metered = is_metered
        self._consumers = consumers
        self.queue = queue
        # What became of requests that the cursor has yet to pass, by position.
        self._settled: dict[int, Outcome] = {}
        self._started_unix_nano = 0
        self._unscored_said = False
        # While a request waits for its verdict it is not read again: (watermark seen, when to look anyway).
        self._waiting: tuple[int, int] | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._passed_items = 0
        self.position = 0

    @property
    def is_failing(self) -> bool:
        """Whether the destination fails; what failed will be repeated."""
        return self._sink.is_failing

    @property
    def last_error(self) -> str:
        """What the destination last failed with; empty if it never did."""
        return self._sink.last_error

    @property
    def waiting(self) -> tuple[int, int]:
        """Items, and bytes, in the log that the cursor has yet to pass."""
        end = self._log.end()
        n_bytes = max(end.position - self.position, 0)
        return (max(end.item_count - self._passed_items, 0) if n_bytes else 0), n_bytes

    async def start(self) -> None:
        """Continue at the cursor; a new route begins with what its slowest sibling has yet to pass."""
        self.position = await self._state.write(self._first_position)
        self._passed_items = self._log.end().item_count  # until the first read says better
        # Computed when asked for: they grow also while a delivery hangs.
        self._metrics.queue_items.labels(self.name).set_function(lambda: self.waiting[0])
        self._metrics.queue_bytes.labels(self.name).set_function(lambda: self.waiting[1])
        if self.queue is not None:
            await asyncio.to_thread(self.queue.load, self._log, self.position)
        self._started_unix_nano = self._clock()
        self._task = asyncio.create_task(self._run())

    async def stop(self, grace_s: float) -> None:
        """Finish the request in hand if it can be done in time, then let go."""
        self._stopping.set()
        if self._task is not None:
            deadline_s = time.monotonic() + max(grace_s - 1.0, 0.1)
            # A destination that is down will not come back just now.
            while not self._task.done() and not self._sink.is_failing and time.monotonic() < deadline_s:
                await asyncio.wait({self._task}, timeout=0.1)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._sink.close()
        self._say_undelivered()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                moved = await self._step()
            except RetryableError as error:
                _logger.error("route_waiting", route=self.name, error=str(error))
                moved = False
                await asyncio.sleep(1.0)
            except Exception:
                self._metrics.errors.labels("exporter").inc()
                _logger.exception("route_failed", route=self.name)
                moved = False
                await asyncio.sleep(1.0)
            if not moved:
                await asyncio.sleep(_IDLE_S)

    async def _step(self) -> bool:
        """Pass on some requests and commit; return whether there were any."""
        if self._is_waiting():
            return False
        entries = self._read()
        if entries:
            self._passed_items = entries[0].items_before
        entries = entries[: await self._ready_count(entries[:_COMMIT_REQUESTS])]
        if not entries:
            return False
        ranges: dict[int, list[ItemRange]] = {}
        if self._selection is not Selection.EVERYTHING:
            first, last = entries[0].position, entries[-1].next_position
            ranges = await self._state.read(lambda connection: verdicts.between(connection, first, last))
        left = iter([entry for entry in entries if entry.position not in self._settled])
        try:
            ends = await asyncio.gather(
                *(self._consume(left, ranges) for _ in range(self._consumers)), return_exceptions=True
            )
        finally:
            # Also when a delivery fails or is cancelled: what came before it is done.
            await self._commit(entries)
        for end in ends:
            if end is not None:
                raise end
        return True

    def _read(self) -> Sequence[LogEntry]:
        """Return what comes next, enough for all consumers if there is enough."""
        entries = list(self._log.read(self.position, _READ_BYTES))
        while entries and len(entries) < self._consumers:
            more = self._log.read(entries[-1].next_position, _READ_BYTES)
            if not more:
                break
            entries += more
        return entries

    async def _consume(self, left: Iterator[LogEntry], ranges: Mapping[int, Sequence[ItemRange]]) -> None:
        for entry in left:
            self._settled[entry.position] = await self._pass_on(entry, ranges.get(entry.position, ()))
            if self._stopping.is_set():
                return

    async def _commit(self, entries: Sequence[LogEntry]) -> None:
        """Move the cursor over the settled requests at the beginning."""
        passed = entries[: _count_while(entries, lambda entry: entry.position in self._settled)]
        if not passed:
            return
        position = passed[-1].next_position
        works = [work for entry in passed if (work := self._settled[entry.position].in_transaction) is not None]
        is_counted = self._is_metered and any(entry.entry.signal is not None for entry in passed)

        def commit(connection: sqlite3.Connection) -> None:
            for work in works:
                work(connection)
            if is_counted:
                usage.count(connection, passed)
            set_cursor(connection, self.name, position)
            if is_counted:
                fault_points.reach("forward.committing")

        await self._state.write(commit)
        if is_counted:
            fault_points.reach("forward.committed")
        self.position = position
        counts: Counter[tuple[str, str, str]] = Counter()
        word = "diverted" if self._selection is Selection.ANOMALOUS else "forwarded"
        for stored in passed:
            outcome, signal = self._settled.pop(stored.position), stored.entry.signal
            noun = signal.plural if signal is not None else "unknown"  # what the disk has damaged may be of any
            counts[noun, word, ""] += outcome.delivered
            for reason, count in outcome.dropped:
                counts[noun, "dropped", reason] += count
        if self.queue is not None:
            self.queue.passed(position)
        for (signal_name, kind, reason), count in (+counts).items():
            self._metrics.forward_items.labels(self._sink.name, signal_name, kind, reason).inc(count)
        self._passed_items = passed[-1].items_before + passed[-1].entry.item_count

    async def _pass_on(self, entry: LogEntry, ranges: Sequence[ItemRange]) -> Outcome:
        signal = entry.entry.signal
        if entry.is_damaged:
            # Each route says what became of its own part, since it may have been sound when the other passed.
            item_count, anomalous_count = entry.entry.item_count, _covered(ranges, entry.entry.item_count)
            parts = {Selection.ANOMALOUS: anomalous_count, Selection.CLEAN: item_count - anomalous_count}
            return Outcome(0, [("damaged", parts.get(self._selection, item_count))])
        if signal is None:
            return _NOTHING
        try:
            payload, item_count = self._part(signal, entry, ranges)
        except DecodeError as error:
            # The receiver decodes before it appends: only damage can bring this here.
            _logger.error("request_undecodable", route=self.name, position=entry.position, error=str(error))
            is_other_route = self._selection is Selection.ANOMALOUS
            return _NOTHING if is_other_route else Outcome(0, [("undecodable", entry.entry.item_count)])
        if not item_count:
            return _NOTHING
        fault_points.reach("forward.chosen")
        outcome = await self._sink.take(entry, signal, payload, item_count, ranges)
        fault_points.reach("forward.delivered")
        return outcome

    def _part(self, signal: Signal, entry: LogEntry, ranges: Sequence[ItemRange]) -> tuple[bytes, int]:
        """Return the part of a request that is for this route, and its number of items."""
        payload, item_count = entry.entry.payload, entry.entry.item_count
        if self._selection is Selection.EVERYTHING:
            return payload, item_count
        if self._selection is Selection.TAGGED:
            return (rewrite.tag(signal, payload, ranges) if ranges else payload), item_count
        anomalous_count = _covered(ranges, item_count)
        if self._selection is Selection.CLEAN:
            if not anomalous_count:
                return payload, item_count
            return rewrite.split(signal, payload, ranges)[0], item_count - anomalous_count
        return (rewrite.split(signal, payload, ranges)[1] if anomalous_count else b""), anomalous_count

    def _is_waiting(self) -> bool:
        """Whether the next request still waits for its verdict, as when it was last read."""
        if self._waiting is None:
            return False
        watermark, look_unix_nano = self._waiting
        if self._watermark() == watermark and self._clock() < look_unix_nano:
            return True
        self._waiting = None
        return False

    async def _ready_count(self, entries: Sequence[LogEntry]) -> int:
        """Return how many of the entries may go on now."""
        if self._selection is Selection.EVERYTHING or not entries:
            return len(entries)
        watermark = self._watermark()
        scored = _count_while(entries, lambda entry: entry.next_position <= watermark)
        if scored:
            return scored
        now, max_wait = self._clock(), int(self._max_wait_s * 1e9)
        waiting_since = self._waiting_since(entries[0], now)
        if now - waiting_since < max_wait:
            self._waiting = watermark, waiting_since + max_wait
            return 0
        closed = await self._state.read(verdicts.closed_before)
        passed_over = _count_while(entries, lambda entry: entry.next_position <= closed)
        if passed_over:
            return passed_over
        if self._selection is Selection.ANOMALOUS:
            # How long the downstream may be kept waiting is not for this route to say.
            self._waiting = watermark, now + _LOOK_NANO
            return 0
        late = _count_while(entries, lambda entry: now - self._waiting_since(entry, now) >= max_wait)
        last = entries[late - 1]
        await self._state.write(lambda connection: verdicts.close_before(connection, last.next_position))
        self._say_unscored(entries[:late])
        return late

    def _waiting_since(self, entry: LogEntry, now_unix_nano: int) -> int:
        """Return since when an entry has waited; for ever if the clock was set back to before it came."""
        times = (entry.entry.received_unix_nano, self._started_unix_nano)
        return max((time for time in times if time <= now_unix_nano), default=0)

    def _say_unscored(self, entries: Sequence[LogEntry]) -> None:
        for entry in entries:
            if entry.entry.signal is not None:
                self._metrics.forward_unscored_items.labels(entry.entry.signal.plural).inc(entry.entry.item_count)
        if not self._unscored_said:
            self._unscored_said = True
            _logger.warning(
                "forwarding_unscored",
                route=self.name,
                reason=f"no verdict within forward.max_wait ({self._max_wait_s:g} s): detection is down or lags",
            )

    def _first_position(self, connection: sqlite3.Connection) -> int:
        known = cursors(connection)
        routes = [position for name, position in known.items() if name.startswith(verdicts.ROUTES)]
        first = known.get(self.name, min(routes, default=0))
        set_cursor(connection, self.name, first)
        return first

    def _say_undelivered(self) -> None:
        """Record what is left for the next start (OTLP exporter specification: undelivered data)."""
        item_count, left_bytes = self.waiting
        if left_bytes > 0:
            _logger.info("undelivered_kept", route=self.name, items=item_count, bytes=left_bytes)


def _count_while(entries: Sequence[LogEntry], condition: Callable[[LogEntry], bool]) -> int:
    """Return how many entries at the beginning fulfil a condition."""
    return next((count for count, entry in enumerate(entries) if not condition(entry)), len(entries))


def _covered(ranges: Sequence[ItemRange], item_count: int) -> int:
    """Return how many items lie in at least one range."""
    covered, reached = 0, 0
    for item in sorted(ranges, key=lambda r: r.first):
        stop = min(item.first + item.count, item_count)
        covered += max(stop - max(item.first, reached), 0)
        reached = max(reached, stop)
    return covered
