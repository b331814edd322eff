"""What is new, for those who wait for it: the history, from where each of them was.

Nobody's place is kept here: who comes back names the last number they have seen, and misses nothing
that retention has left. So a client that is slow costs nothing but its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from driftlock_otlp.api.access import Caller
from driftlock_otlp.errors import OverloadedError, RateLimitedError, RetryableError
from driftlock_otlp.model import Anomaly
from driftlock_otlp.storage import anomalies, history
from driftlock_otlp.storage.history import HistoryEntry
from driftlock_otlp.storage.state import StateDatabase

_LOOK_S = 0.25
_MOST_AT_ONCE = 100
_MOST_CLIENTS = 256
_MOST_OF_ONE = 64
_RETRY_S = 5.0
_ID_DIGITS = 32


@dataclass(frozen=True, slots=True)
class News:
    """Something that happened to an anomaly.

    Attributes:
        entry: What.
        anomaly: The anomaly as it is now.
    """

    entry: HistoryEntry
    anomaly: Anomaly


class Feed:
    """Tells callers what is new about the anomalies they may see.

    Args:
        state: Where it stands.
        idle_s: So often something is said, in seconds, so that dead connections are noticed; keys are looked at
            again, too.
        slow_s: A client that takes nothing for so long, in seconds, is let go; it comes back with the number of
            what it saw last.
    """

    def __init__(self, state: StateDatabase, idle_s: float = 15.0, slow_s: float = 10.0) -> None:
        self._state = state
        self.idle_s = idle_s
        self.slow_s = slow_s
        self._clients: Counter[str | None] = Counter()
        self._newest = 0
        self._changed = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def client_count(self) -> int:
        """How many follow."""
        return self._clients.total()

    @contextlib.contextmanager
    def place(self, caller: Caller) -> Iterator[None]:
        """Hold a place for one who follows; there are so many and no more.

        Raises:
            RateLimitedError: The organisation has all the places that one may have.
            OverloadedError: All places are taken.
        """
        if self._clients[caller.tenant] >= _MOST_OF_ONE:
            raise RateLimitedError(f"{_MOST_OF_ONE} clients of this organisation follow already", _RETRY_S)
        if self._clients.total() >= _MOST_CLIENTS:
            raise OverloadedError("as many clients follow as may", _RETRY_S)
        self._clients[caller.tenant] += 1
        try:
            if self._looking is None:
                self._looking = asyncio.create_task(self._look())
            yield
        finally:
            self._clients[caller.tenant] -= 1
            if not self._clients.total() and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    def close(self) -> None:
        """Let all go who follow: the sidecar stops, and they come back to the next one."""
        self._is_closed = True
        self._changed.set()

    async def ends(self) -> tuple[int, int]:
        """Return the number behind which everything is still there, and the newest number."""
        return await self._state.read(history.ends)

    async def follow(self, caller: Caller, after: int) -> AsyncIterator[tuple[int, list[News]]]:
        """Yield what is new, and up to which number that is everything, until `close`; nothing new now and then.

        Args:
            caller: Who asks; they hold a `place`.
            after: The last number they know.
        """
        while not self._is_closed:
            changed = self._changed
            after, is_all, news = await self._read(caller, after)
            if news:
                yield after, news
            if not is_all:
                continue
            try:
                async with asyncio.timeout(self.idle_s):
                    await changed.wait()
            except TimeoutError:
                yield after, []

    async def _read(self, caller: Caller, after: int) -> tuple[int, bool, list[News]]:
        """Return up to which number news is told of, whether that is all, and the news."""

        def read(connection: sqlite3.Connection) -> tuple[int, bool, list[News]]:
            entries = history.following(connection, tenant=caller.tenant, after=after, limit=_MOST_AT_ONCE)
            _, newest = history.ends(connection)
            is_all = len(entries) < _MOST_AT_ONCE
            up_to = max(newest, after) if is_all else entries[-1].seq
            return up_to, is_all, [News(entry, anomaly) for entry in entries for anomaly in _about(connection, entry)]

        return await self._state.read(read)

    async def _look(self) -> None:
        """Wake those who follow when the history has grown."""
        while True:
            with contextlib.suppress(RetryableError):
                _, newest = await self.ends()
                if newest != self._newest and not self._is_closed:
                    self._newest = newest
                    self._changed.set()
                    self._changed = asyncio.Event()
            await asyncio.sleep(_LOOK_S)


def _about(connection: sqlite3.Connection, entry: HistoryEntry) -> list[Anomaly]:
    """Return the anomaly that an entry is about, if it is about one."""
    if len(entry.subject) != _ID_DIGITS:
        return []
    anomaly = anomalies.get(connection, entry.subject)
    return [anomaly] if anomaly is not None and anomaly.id == entry.subject else []
