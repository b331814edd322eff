"""Recognises a request that is sent again: it is acknowledged and not taken a second time.

An OTLP client sends a request again when the answer to it was lost. What it sends then are the
same bytes, so a request is known by the hash of its bytes, its signal and its organisation.

The hashes are written beside the log about once a second, and always before the log lets go of a
request; after a crash those of the last moment are computed from the log again. So a request is known
for the whole window, however many segments were written and deleted meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import struct
from array import array
from bisect import bisect_left
from collections import deque
from functools import partial

import numpy as np
from numpy.typing import NDArray

from driftlock_otlp import fault_points
from driftlock_otlp.interfaces import Clock, TelemetryLog
from driftlock_otlp.model import NewEntry
from driftlock_otlp.storage import requests
from driftlock_otlp.storage.state import StateDatabase

REMEMBERED_REQUESTS = 1 << 20
"""The last so many are remembered, at 24 bytes each; of more than that the oldest are forgotten."""

_HASH_BYTES = 16
_HALVES = struct.Struct("<QQ")
_READ_BYTES = 4 << 20


class RecentRequests:
    """The requests of the last while. For one event loop; not thread-safe.

    Args:
        window_s: How long a request is remembered, in seconds.
        clock: The wall clock.
        capacity: How many are remembered at most.
    """

    def __init__(self, window_s: float, clock: Clock, capacity: int = REMEMBERED_REQUESTS) -> None:
        self._window_nano = int(window_s * 1e9)
        self._clock = clock
        self._capacity = capacity
        self._block_size, self._most_in_block = max(capacity // 256, 1), max(capacity // 16, 1)
        self._appending: dict[bytes, tuple[asyncio.Task[int], int]] = {}  # and where the log ended when it began
        self._fresh: dict[bytes, int] = {}  # When it was received, until there are enough for a block.
        self._blocks: deque[_Block] = deque()
        self._unsaved: list[tuple[int, bytes, int]] = []  # (position, key, received)
        self._saved = 0

    def load(self, log: TelemetryLog, position: int, keys: NDArray[np.void] | None = None) -> None:
        """Remember what the processes before have taken, for a crash loses answers, too.

        Args:
            log: The log.
            position: Requests from here on are known by their bytes in the log.
            keys: Requests before it, of dtype `requests.KEY`.
        """
        oldest = self._oldest_unix_nano()
        self._saved = position
        if keys is not None:
            kept = keys[keys["received_unix_nano"] > oldest][-self._capacity :]
            for start in range(0, len(kept), self._most_in_block):
                self._blocks.append(_Block(kept[start : start + self._most_in_block]))
        while entries := log.read(position, _READ_BYTES):
            for stored in entries:
                new = stored.entry
                if new.signal is not None and not stored.is_damaged and new.received_unix_nano > oldest:
                    self._take(key_of(new), new.received_unix_nano, stored.position)
            position = entries[-1].next_position

    async def is_repeated(self, key: bytes) -> bool:
        """Return True if the request of this key is in the log already, once it is.

        Raises:
            RetryableError: The same request was being appended, and that failed.
        """
        if (found := self._appending.get(key)) is not None:
            await asyncio.shield(found[0])
            return True
        received = self._fresh.get(key)
        if received is None:
            first, rest = _HALVES.unpack(key)
            received = next((r for block in reversed(self._blocks) if (r := block.find(first, rest)) is not None), None)
        return received is not None and received > self._oldest_unix_nano()

    def begin(self, key: bytes, received_unix_nano: int, appending: asyncio.Task[int], end: int) -> None:
        """Remember a request that is being appended; it is forgotten if that fails.

        Args:
            key: Of the request.
            received_unix_nano: When it came.
            appending: Returns its position.
            end: Where the log ends now.
        """
        self._appending[key] = appending, end
        appending.add_done_callback(partial(self._settle, key, received_unix_nano))

    async def save(self, state: StateDatabase, log: TelemetryLog) -> int:
        """Make durable what is remembered; return the position before which the log is not needed for it.

        Raises:
            StorageUnavailableError: The disk did not take it.
        """
        before = min((end for _, end in self._appending.values()), default=log.end().position)
        ready = [item for item in self._unsaved if item[0] < before]
        if ready:
            keys = _packed([(key, received) for _, key, received in ready])
            oldest = self._oldest_unix_nano()

            def save(connection: sqlite3.Connection) -> None:
                requests.add(connection, before, keys)
                requests.forget(connection, oldest)
                fault_points.reach("requests.saving")

            await state.write(save)
            fault_points.reach("requests.saved")
            saved = {position for position, _, _ in ready}
            self._unsaved = [item for item in self._unsaved if item[0] not in saved]
        self._saved = max(self._saved, before)
        return self._saved

    def _settle(self, key: bytes, received_unix_nano: int, task: asyncio.Task[int]) -> None:
        if self._appending[key][0] is task:
            del self._appending[key]
        if not task.cancelled() and task.exception() is None:
            self._take(key, received_unix_nano, task.result())

    def _take(self, key: bytes, received_unix_nano: int, position: int) -> None:
        self._unsaved.append((position, key, received_unix_nano))
        self._fresh[key] = received_unix_nano
        if len(self._fresh) >= self._block_size:
            self._close_block()

    def _close_block(self) -> None:
        block = _Block(_packed(list(self._fresh.items())))
        self._fresh = {}
        # Neighbours of one size are merged, so that there are few to look into.
        while self._blocks and len(self._blocks[-1]) <= len(block) <= self._most_in_block // 2:
            block = _Block(np.concatenate([self._blocks.pop().keys(), block.keys()]))
        self._blocks.append(block)
        oldest = self._oldest_unix_nano()
        while sum(map(len, self._blocks)) > self._capacity or self._blocks[0].newest_unix_nano <= oldest:
            self._blocks.popleft()
            if not self._blocks:
                return

    def _oldest_unix_nano(self) -> int:
        return self._clock() - self._window_nano


class _Block:
    """Requests in the order of their hashes.

    Args:
        keys: Of dtype `requests.KEY`, shape (n,), n >= 1, in any order.
    """

    __slots__ = ("_first", "_received", "_rest", "newest_unix_nano")

    def __init__(self, keys: NDArray[np.void]) -> None:
        ordered = keys[np.argsort(keys["first"], kind="stable")]
        # Arrays of Python's: their items are found within a microsecond, those of NumPy take several.
        self._first = array("Q", ordered["first"].astype(np.uint64).tobytes())
        self._rest = array("Q", ordered["rest"].astype(np.uint64).tobytes())
        self._received = array("q", ordered["received_unix_nano"].astype(np.int64).tobytes())
        self.newest_unix_nano = max(self._received)

    def __len__(self) -> int:
        return len(self._first)

    def find(self, first: int, rest: int) -> int | None:
        """Return when the request with these halves of a hash was received last; None if it is not here."""
        found = None
        index = bisect_left(self._first, first)
        while index < len(self._first) and self._first[index] == first:
            if self._rest[index] == rest:
                found = max(found or 0, self._received[index])
            index += 1
        return found

    def keys(self) -> NDArray[np.void]:
        """Return what it was made of, in the order of the hashes."""
        keys = np.empty(len(self), requests.KEY)
        keys["first"], keys["rest"], keys["received_unix_nano"] = self._first, self._rest, self._received
        return keys


def key_of(entry: NewEntry) -> bytes:
    """Return what a request is known by."""
    assert entry.signal is not None  # noqa: S101 - for the type checker: ticks are not received
    # SHA-256 is the fastest where processors have instructions for it: 90 µs for 155 kB, BLAKE2b 220.
    hashed = hashlib.sha256(f"{entry.signal.code}/{entry.tenant}/".encode())
    hashed.update(entry.payload)
    return hashed.digest()[:_HASH_BYTES]


def _packed(items: list[tuple[bytes, int]]) -> NDArray[np.void]:
    """Return (key, received) as an array of dtype `requests.KEY`."""
    keys = np.empty(len(items), requests.KEY)
    halves = np.frombuffer(b"".join(key for key, _ in items), "<u8").reshape(-1, 2)
    keys["first"], keys["rest"] = halves[:, 0], halves[:, 1]
    keys["received_unix_nano"] = [received for _, received in items]
    return keys
