"""The streams of one partition: as many as may be followed at once, those used last.

A stream that nobody sends to makes room for a new one. What is remembered about it is handed
out with the next checkpoint, and is asked for again when it comes back: it goes on as if it had
never been away. Who makes room follows from the order of the requests alone, so a worker that
reads the same log again evicts the same streams.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from driftlock_otlp.model import StreamKey
from driftlock_otlp.windowing.tracked_stream import TrackedStream

_MOST_LOOKED_AT = 32
"""Streams looked at for one that is idle, longest unused first. Only those whose windows are open stay, and
windows close soon, so the first is idle unless nearly all are busy."""

StreamState = dict[str, Any]
"""Everything remembered about a stream, as plain values and arrays."""


def partition_of(key: StreamKey, count: int) -> int:
    """Return which of `count` partitions a stream belongs to, from 0; the same in every process and version."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % count


class StreamTable:
    """Streams by key, the least recently used first.

    Args:
        most: Streams in it at most.
        make: Makes a stream that remembers nothing.
        is_busy: Whether a stream has open windows, and so cannot be evicted.
        evict: Returns the state of a stream that is about to go.
        load: Returns the state of a stream that was evicted before and is no longer here; None if
            there is none.
    """

    def __init__(
        self,
        most: int,
        make: Callable[[StreamKey], TrackedStream],
        is_busy: Callable[[StreamKey], bool],
        evict: Callable[[StreamKey], StreamState],
        load: Callable[[StreamKey], StreamState | None],
    ) -> None:
        self._most = most
        self._make, self._is_busy, self._evict, self._load = make, is_busy, evict, load
        self._streams: OrderedDict[StreamKey, TrackedStream] = OrderedDict()
        self._evicted: dict[StreamKey, tuple[int, StreamState]] = {}
        self._uses = 0
        self.eviction_count = 0

    def __getitem__(self, key: StreamKey) -> TrackedStream:
        return self._streams[key]

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[TrackedStream]:
        return iter(self._streams.values())

    def use(self, key: StreamKey, take_over: Callable[[TrackedStream, StreamState], None]) -> TrackedStream | None:
        """Return a stream that is about to get records; None if there is no room for it.

        Args:
            key: Which.
            take_over: Gives a stream that comes back what was remembered about it.
        """
        stream = self._streams.get(key)
        if stream is None:
            if len(self._streams) >= self._most and not self._make_room():
                return None
            stream = self._streams[key] = self._make(key)
            _, state = self._evicted.pop(key, (0, None))
            if state is None:
                state = self._load(key)
            if state is not None:
                take_over(stream, state)
        self._streams.move_to_end(key)
        self._uses += 1
        stream.used = self._uses
        return stream

    def use_known(
        self, key: StreamKey, take_over: Callable[[TrackedStream, StreamState], None]
    ) -> TrackedStream | None:
        """Return a stream as `use` does, if it is here or was evicted before; else None."""
        is_known = key in self._streams or key in self._evicted or self._load(key) is not None
        return self.use(key, take_over) if is_known else None

    def put(self, key: StreamKey, used: int) -> TrackedStream | None:
        """Return a new stream at its old place, on restoring; None if there is no room.

        Args:
            key: Which; streams are to be put in ascending order of `used`.
            used: When it was used last, as `TrackedStream.used` said.
        """
        if len(self._streams) >= self._most and not self._make_room():
            return None
        stream = self._streams[key] = self._make(key)
        stream.used = used
        self._uses = max(self._uses, used)
        return stream

    def evicted(self, key: StreamKey) -> tuple[int, StreamState] | None:
        """Return when a stream was used last and its state, if it was evicted since the last checkpoint."""
        return self._evicted.get(key)

    @property
    def evicted_count(self) -> int:
        """Streams whose state waits for the next checkpoint."""
        return len(self._evicted)

    def release_evicted(self) -> None:
        """Let go of the states of evicted streams: the checkpoint has them."""
        self._evicted.clear()

    def _make_room(self) -> bool:
        for key in islice(self._streams, _MOST_LOOKED_AT):
            if not self._is_busy(key):
                self._evicted[key] = self._streams[key].used, self._evict(key)
                del self._streams[key]
                self.eviction_count += 1
                return True
        return False
