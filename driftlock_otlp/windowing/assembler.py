"""Groups the records of each stream into windows: tumbling, or one per session.

A tumbling window closes at a count of records or at an age, whichever comes first. A session
window holds the records that share the value of one attribute, and closes when none has
arrived for that age, or at the count. Age is measured on the clock that is handed in with the
records (the durable log's, or a file's own time), never on the wall, so that the same log
gives the same windows whenever it is read. The clock is never taken to run backwards.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from driftlock_otlp.config.detection import WindowsConfig
from driftlock_otlp.model import StreamKey
from driftlock_otlp.windowing.batch import StreamBatch


@dataclass(slots=True)
class Window:
    """Records of one stream, open or closed.

    Attributes:
        key: The stream.
        session: The session's value; empty for a tumbling window.
        batch: The records, whose `items` count within their own request.
        positions: Position of each record's request in the log, in ascending order.
        sources: (first row, OTLP Resource as protobuf, its schema URL) of each run of records
            from one source.
        opened_unix_nano: Clock at its first record.
        touched_unix_nano: Clock at its last record.
        closed_unix_nano: Clock at which it closed.
    """

    key: StreamKey
    session: str
    batch: StreamBatch
    positions: list[int] = field(default_factory=list)
    sources: list[tuple[int, bytes, str]] = field(default_factory=list)
    opened_unix_nano: int = 0
    touched_unix_nano: int = 0
    closed_unix_nano: int = 0

    def source_of(self, row: int) -> tuple[bytes, str]:
        """Return the Resource of a record and its schema URL."""
        index = bisect_right(self.sources, row, key=lambda source: source[0]) - 1
        return self.sources[index][1:]


class WindowAssembler:
    """All open windows of a set of streams."""

    def __init__(self, config: WindowsConfig) -> None:
        self._config = {kind: getattr(config, kind) for kind in type(config).model_fields}
        # By kind; tumbling windows stand in the order they opened, sessions in the order they
        # were last touched, so that what expires next is always at the front.
        self._tumbling: dict[str, OrderedDict[StreamKey, Window]] = {kind: OrderedDict() for kind in self._config}
        self._sessions: dict[str, OrderedDict[tuple[StreamKey, str], Window]] = {
            kind: OrderedDict() for kind in self._config
        }
        self.clock_unix_nano = 0

    def advance(self, clock_unix_nano: int) -> Iterator[Window]:
        """Move the clock, and yield the windows that are too old now."""
        self.clock_unix_nano = max(self.clock_unix_nano, clock_unix_nano)
        for kind, config in self._config.items():
            limit = self.clock_unix_nano - int(config.max_age * 1e9)
            tumbling, sessions = self._tumbling[kind], self._sessions[kind]
            while tumbling and next(iter(tumbling.values())).opened_unix_nano <= limit:
                yield self._closed(tumbling.popitem(last=False)[1])
            while sessions and next(iter(sessions.values())).touched_unix_nano <= limit:
                yield self._closed(sessions.popitem(last=False)[1])

    def add(self, batch: StreamBatch, position: int) -> Iterator[Window]:
        """Add the records of one stream in one request, and yield the windows they fill."""
        config = self._config[batch.key.kind]
        if config.session_key is None:
            yield from self._add_run(batch, position, "", 0, len(batch.items), config.size)
            return
        key = config.session_key
        values = batch.column(key if key == "trace_id" else f"attributes.{key}")
        # What tells sessions apart is new in each: as a column it would say nothing else.
        batch.fields.pop(f"attributes.{key}", None)
        for row, value in enumerate(values):
            session = value.hex() if isinstance(value, bytes) else "" if value is None else str(value)
            yield from self._add_run(batch, position, session, row, row + 1, config.size)

    def flush(self) -> Iterator[Window]:
        """Close and yield every open window, in the order in which they would have expired."""
        for kind in self._config:
            tumbling, sessions = self._tumbling[kind], self._sessions[kind]
            while tumbling:
                yield self._closed(tumbling.popitem(last=False)[1])
            while sessions:
                yield self._closed(sessions.popitem(last=False)[1])

    def oldest_position(self) -> int | None:
        """Return the position of the oldest request of which a record awaits its window's end."""
        return min((window.positions[0] for window in self._all()), default=None)

    def oldest_opened_unix_nano(self) -> int | None:
        """Return when the oldest open window opened."""
        return min((window.opened_unix_nano for window in self._all()), default=None)

    def has_open(self, key: StreamKey) -> bool:
        """Return whether a stream has an open window."""
        return next(self._of(key), None) is not None

    def open_counts(self) -> dict[StreamKey, tuple[int, int, int]]:
        """Return (windows, records, when the oldest opened) of the streams that have open windows."""
        counts: dict[StreamKey, tuple[int, int, int]] = {}
        for window in self._all():
            opened = window.opened_unix_nano
            windows, records, oldest = counts.get(window.key, (0, 0, opened))
            counts[window.key] = windows + 1, records + len(window.positions), min(oldest, opened)
        return counts

    def open_windows(self, key: StreamKey) -> list[dict[str, Any]]:
        """Return the open windows of a stream as plain values."""
        return [
            {
                "session": window.session,
                "positions": window.positions,
                "opened": window.opened_unix_nano,
                "touched": window.touched_unix_nano,
                "items": window.batch.items,
                "times": window.batch.times_unix_nano,
                "fields": window.batch.fields,
                "sources": window.sources,
            }
            for window in self._of(key)
        ]

    def restore(self, key: StreamKey, windows: list[dict[str, Any]]) -> None:
        """Take over the open windows of a stream."""
        for saved in windows:
            batch = StreamBatch(
                key,
                list(saved["items"]),
                list(saved["times"]),
                {name: list(column) for name, column in saved["fields"].items()},
            )
            sources = [(row, resource, schema_url) for row, resource, schema_url in saved["sources"]]
            window = Window(
                key, saved["session"], batch, list(saved["positions"]), sources, saved["opened"], saved["touched"]
            )
            if window.session:
                self._sessions[key.kind][key, window.session] = window
            else:
                self._tumbling[key.kind][key] = window

    def settle(self) -> None:
        """Put restored windows into the order in which they expire."""
        for kind in self._config:
            self._tumbling[kind] = OrderedDict(
                sorted(self._tumbling[kind].items(), key=lambda pair: pair[1].opened_unix_nano)
            )
            self._sessions[kind] = OrderedDict(
                sorted(self._sessions[kind].items(), key=lambda pair: pair[1].touched_unix_nano)
            )

    def _all(self) -> Iterator[Window]:
        for kind in self._config:
            yield from self._tumbling[kind].values()
            yield from self._sessions[kind].values()

    def _of(self, key: StreamKey) -> Iterator[Window]:
        # Only a kind with session windows is searched: there may be many streams.
        tumbling = self._tumbling[key.kind].get(key)
        if tumbling is not None:
            yield tumbling
        yield from (window for (stream, _), window in self._sessions[key.kind].items() if stream == key)

    def _add_run(
        self, batch: StreamBatch, position: int, session: str, start: int, stop: int, size: int
    ) -> Iterator[Window]:
        """Add neighbouring records that go into the same window, or the next one when it is full."""
        while start < stop:
            window = self._open(batch, session)
            taken = min(stop - start, size - len(window.positions))
            source = (batch.resource, batch.resource_schema_url)
            if not window.sources or window.sources[-1][1:] != source:
                window.sources.append((len(window.positions), *source))
            window.positions.extend([position] * taken)
            window.touched_unix_nano = self.clock_unix_nano
            window.batch.extend(batch, start, start + taken)
            start += taken
            if len(window.positions) >= size:
                yield self._closed(self._take(window))

    def _open(self, batch: StreamBatch, session: str) -> Window:
        key = batch.key
        window = self._sessions[key.kind].get((key, session)) if session else self._tumbling[key.kind].get(key)
        if window is None:
            window = Window(key, session, StreamBatch(key), opened_unix_nano=self.clock_unix_nano)
            if session:
                self._sessions[key.kind][key, session] = window
            else:
                self._tumbling[key.kind][key] = window
        elif session:
            self._sessions[key.kind].move_to_end((key, session))
        return window

    def _take(self, window: Window) -> Window:
        if window.session:
            return self._sessions[window.key.kind].pop((window.key, window.session))
        return self._tumbling[window.key.kind].pop(window.key)

    def _closed(self, window: Window) -> Window:
        window.closed_unix_nano = self.clock_unix_nano
        return window
