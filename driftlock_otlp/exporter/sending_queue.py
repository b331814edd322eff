"""How far a destination may fall behind before senders are held up (`sending_queue`).

The durable log is the queue; here it is only counted, in memory, what of it waits for one
destination. A request waits from the moment at which its route may send it on until the cursor
has passed it: what still waits for a verdict is no fault of the destination's.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence

from driftlock_otlp.config.exporters import SendingQueueConfig
from driftlock_otlp.errors import OverloadedError
from driftlock_otlp.interfaces import Clock, TelemetryLog
from driftlock_otlp.model import NewEntry
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage.log import RETRY_AFTER_S

_LONGEST_WAIT_S = 10.0
"""OTLP senders give up after this long; who waits longer would be served twice."""

_READ_BYTES = 4 << 20

_SIZERS: dict[str, Callable[[NewEntry], int]] = {
    "requests": lambda entry: 1,
    "items": lambda entry: entry.item_count,
    "bytes": lambda entry: len(entry.payload),
}


class SendingQueue:
    """What waits for one destination. For one event loop; not thread-safe.

    Every request is added once, when it becomes ready, and taken off once, when the route has
    passed its position, in whichever order these two are heard of. What is taken off is what was
    added: the disk may have damaged the request since.

    Args:
        exporter: The destination's name.
        config: How much may wait, in which unit, and what happens then.
        watermark: Returns the position before which every request has its verdict; None if
            nothing waits for verdicts.
        max_wait_s: A request is ready after this long, verdict or not.
        clock: The wall clock.
        metrics: Where overflow is counted.
    """

    def __init__(
        self,
        exporter: str,
        config: SendingQueueConfig,
        watermark: Callable[[], int] | None,
        max_wait_s: float,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.exporter = exporter
        self.blocks = config.block_on_overflow
        self._capacity = math.inf if config.queue_size is None else config.queue_size
        self._unit = config.sizer
        self._size_of = _SIZERS[config.sizer]
        self._watermark = watermark
        self._max_wait_nano = int(max_wait_s * 1e9)
        self._clock = clock
        self._metrics = metrics
        cursor = f"forward:{exporter}"
        metrics.queue_capacity.labels(cursor, config.sizer).set(self._capacity)
        self._gauge = metrics.queue_size.labels(cursor, config.sizer)
        self._waiting = 0
        self._passed = 0  # The route is done with everything before this position.
        self._unjudged: deque[tuple[int, int, int]] = deque()  # (position, received_unix_nano, size)
        self._added: deque[tuple[int, int]] = deque()  # (position, size) of what waits
        self.has_changed = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How much waits for the destination, in the configured unit, as last counted."""
        return self._waiting

    def has_room(self, entry: NewEntry) -> bool:
        """Return True if the request may be appended; one that is larger than the whole queue may if it is alone."""
        self._look_for_verdicts()
        return self._waiting <= 0 or self._waiting + self._size_of(entry) <= self._capacity

    def overflow(self, entry: NewEntry) -> OverloadedError:
        """Count a request that finds no room, and return what its sender is told."""
        if entry.signal is not None:
            self._metrics.queue_overflow_items.labels(self.exporter, entry.signal.plural).inc(entry.item_count)
        return OverloadedError(
            f"{self._waiting} {self._unit} wait for {self.exporter} and {self._capacity} may"
            f" (exporters.{self.exporter}.sending_queue.queue_size); try again later",
            RETRY_AFTER_S,
        )

    def reserve(self, entry: NewEntry) -> None:
        """Count a request that is about to be appended."""
        if self._watermark is None:
            self._add(self._size_of(entry))

    def give_back(self, entry: NewEntry) -> None:
        """Count it no more, for it was not appended."""
        if self._watermark is None:
            self._add(-self._size_of(entry))
            self.has_changed.set()

    def appended(self, entry: NewEntry, position: int) -> None:
        """Count a request that is now in the log."""
        if position < self._passed:  # The route was faster.
            self.give_back(entry)
        elif self._watermark is None:
            self._added.append((position, self._size_of(entry)))
        else:
            self._unjudged.append((position, entry.received_unix_nano, self._size_of(entry)))

    def passed(self, position: int) -> None:
        """Take off what is before a position, which the route has reached."""
        self._passed = position
        while self._unjudged and self._unjudged[0][0] < position:
            self._unjudged.popleft()
        while self._added and self._added[0][0] < position:
            self._add(-self._added.popleft()[1])
        self.has_changed.set()

    def load(self, log: TelemetryLog, position: int) -> None:
        """Count what was left in the log by the process before; call before anything is appended."""
        now = self._clock()  # Verdicts have their full time from here on.
        while entries := log.read(position, _READ_BYTES):
            for stored in entries:
                if stored.entry.signal is None:
                    continue
                size = self._size_of(stored.entry)
                if self._watermark is None:
                    self._add(size)
                    self._added.append((stored.position, size))
                else:
                    self._unjudged.append((stored.position, now, size))
            position = entries[-1].next_position

    def _add(self, size: int) -> None:
        self._waiting += size
        self._gauge.set(max(self._waiting, 0))

    def _look_for_verdicts(self) -> None:
        if not self._unjudged or self._watermark is None:
            return
        watermark, waited_long = self._watermark(), self._clock() - self._max_wait_nano
        while self._unjudged and (self._unjudged[0][0] < watermark or self._unjudged[0][1] <= waited_long):
            position, _, size = self._unjudged.popleft()
            self._add(size)
            self._added.append((position, size))


class SendingQueues:
    """The queues of all destinations, as senders meet them; a `Component` and a `Room`.

    It stops before the receivers do, so that no call in flight waits for room any more.

    Args:
        queues: Those that have a size.
        longest_wait_s: Longest that a sender waits for room, where it does.
    """

    name = "sending_queues"

    def __init__(self, queues: Sequence[SendingQueue], longest_wait_s: float = _LONGEST_WAIT_S) -> None:
        self._queues = queues
        self._longest_wait_s = longest_wait_s
        self._is_stopping = False

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self, grace_s: float) -> None:
        """Refuse those who wait; from now on nobody does."""
        self._is_stopping = True
        for queue in self._queues:
            queue.has_changed.set()

    async def take(self, entry: NewEntry) -> None:
        """See `Room`."""
        if not self._queues:
            return
        deadline_s = 0.0
        while (full := self._full(entry)) is not None:
            deadline_s = deadline_s or time.monotonic() + self._longest_wait_s
            if not full.blocks or self._is_stopping:
                raise full.overflow(entry)
            full.has_changed.clear()
            try:
                async with asyncio.timeout(deadline_s - time.monotonic()):
                    await full.has_changed.wait()
            except TimeoutError:
                raise full.overflow(entry) from None
        for queue in self._queues:
            queue.reserve(entry)

    def give_back(self, entry: NewEntry) -> None:
        """See `Room`."""
        for queue in self._queues:
            queue.give_back(entry)

    def appended(self, entry: NewEntry, position: int) -> None:
        """See `Room`."""
        for queue in self._queues:
            queue.appended(entry, position)

    def _full(self, entry: NewEntry) -> SendingQueue | None:
        """Return a queue without room; one that does not block first, for waiting would not help."""
        full = [queue for queue in self._queues if not queue.has_room(entry)]
        return min(full, key=lambda queue: queue.blocks, default=None)
