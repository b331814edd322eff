"""The records of one stream in one request, before they become typed columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.model import StreamKey


@dataclass(slots=True)
class StreamBatch:
    """Records of one stream, row-aligned lists of plain values.

    Attributes:
        key: The stream.
        items: Index of each record in its request, counting records (data points, spans) in
            the order in which they stand in the message.
        times_unix_nano: Event time of each record; 0 where it has none.
        fields: Raw fields by name: str, int, float, bool, bytes, None (absent), or lists of
            numbers. Plain values only, so that an open window can be written to disk.
        resource: The source's OTLP Resource, as protobuf bytes.
        resource_schema_url: Its schema URL.
    """

    key: StreamKey
    items: list[int] = field(default_factory=list)
    times_unix_nano: list[int] = field(default_factory=list)
    fields: dict[str, list[Any]] = field(default_factory=dict)
    resource: bytes = b""
    resource_schema_url: str = ""

    def append(self, item: int, time_unix_nano: int, fields: dict[str, Any]) -> None:
        """Add one record; fields it lacks become None."""
        row = len(self.items)
        self.items.append(item)
        self.times_unix_nano.append(time_unix_nano)
        for name, value in fields.items():
            column = self.fields.get(name)
            if column is None:
                column = self.fields[name] = [None] * row
            elif len(column) < row:
                column.extend([None] * (row - len(column)))
            column.append(value)

    def extend(self, other: StreamBatch, start: int, stop: int) -> None:
        """Add the records `start` to `stop` of another batch; fields that either lacks become None."""
        row = len(self.items)
        self.items.extend(other.items[start:stop])
        self.times_unix_nano.extend(other.times_unix_nano[start:stop])
        for name, theirs in other.fields.items():
            column = self.fields.get(name)
            if column is None:
                column = self.fields[name] = []
            if len(column) < row:
                column.extend([None] * (row - len(column)))
            column.extend(theirs[start:stop])

    def column(self, name: str) -> list[Any]:
        """Return one field of every record, None where absent; length n."""
        column = self.fields.get(name, [])
        return column + [None] * (len(self.items) - len(column))


class Shaper(Protocol):
    """Turns the raw fields of a closed window into typed columns; one per stream.

    It may remember what later windows need (templates mined, counters' last values, operations
    of recent spans), and so is part of the stream's state.
    """

    def shape(self, batch: StreamBatch) -> Columns:
        """Return the typed columns of one window, windows being given in order."""
        ...

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values (str, int, float, bytes, list, dict)."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Become the shaper that returned this state."""
        ...
