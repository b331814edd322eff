"""Files of OTLP requests, as the Collector's file exporter writes them, in JSON or protobuf."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec
from google.protobuf.message import Message

from driftlock_otlp.errors import ConfigError, DecodeError, InputError
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import decode, encode, request_class
from driftlock_otlp.otlp.json_mapping import request_from_json
from driftlock_otlp.replay.batches import Batch
from driftlock_otlp.replay.inputs import InputFile, frames, is_framed, lines, peek

_OFFSET = re.compile(r"\(byte (\d+)\)")
_NEWLINE = b"\n"
_WHOLE = 0x0A  # tag of field 1, length-delimited: the first of every Export request


_FIELDS = {
    Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
    Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
}


class _TopLevel(msgspec.Struct):
    """The keys that tell the signal; values stay undecoded."""

    resourceLogs: msgspec.Raw = msgspec.Raw()
    resourceMetrics: msgspec.Raw = msgspec.Raw()
    resourceSpans: msgspec.Raw = msgspec.Raw()

    def signals(self) -> list[Signal]:
        """Return the signals of which there is something."""
        values = (
            (self.resourceLogs, Signal.LOGS),
            (self.resourceMetrics, Signal.METRICS),
            (self.resourceSpans, Signal.TRACES),
        )
        return [signal for value, signal in values if bytes(value)]


def signals_of(document: bytes) -> list[Signal]:
    """Return the signals that a JSON object in OTLP's shape holds, by its top-level keys.

    Raises:
        msgspec.DecodeError: It is not a JSON object.
    """
    return msgspec.json.decode(document, type=_TopLevel).signals()


def json_batches(file: InputFile, stream: BinaryIO, expected: Signal | None, span_nano: int) -> Iterator[Batch]:
    """Yield the requests of a file in OTLP/JSON: one a line, or one document over many lines.

    Args:
        file: The file.
        stream: Its content.
        expected: The signal that the user says it holds; None for any.
        span_nano: How far apart items of one batch may be, nanoseconds.

    Raises:
        InputError: A line is not OTLP, or of another signal.
    """
    batches = _Batches(span_nano)
    for place, document in _documents(file, stream):
        try:
            found = signals_of(document)
            if not found:
                raise InputError(
                    f"{place}: a JSON object, but none of resourceLogs, resourceMetrics and resourceSpans is in it;"
                    " for plain log records write --format jsonl"
                )
            for signal in found:
                if expected not in (None, signal):
                    raise InputError(f"{place}: holds {signal.plural}; leave --signal out, each line tells its own")
                yield from batches.of(signal, request_from_json(signal, document))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"{_line_of(place, document, str(error))}: not valid JSON: {error}") from None
        except DecodeError as error:
            raise InputError(f"{place}: not valid OTLP/JSON: {error}") from None


def protobuf_batches(file: InputFile, stream: BinaryIO, signal: Signal | None, span_nano: int) -> Iterator[Batch]:
    """Yield the requests of a file in OTLP protobuf: one, or many with a 4-byte length before each.

    Raises:
        ConfigError: The signal is not given; protobuf does not tell it.
        InputError: The file is not OTLP protobuf.
    """
    if signal is None:
        raise ConfigError(f"{file.shown}: protobuf does not tell what it holds: add --signal logs, metrics or traces")
    batches = _Batches(span_nano)
    head = peek(stream)
    if is_framed(head):
        messages: Iterator[tuple[str, bytes]] = (
            (f"{file.shown}, the message at byte {offset}", message) for offset, message in frames(file, stream)
        )
    elif not head or head[0] == _WHOLE:
        messages = iter([(file.shown, stream.read())])
    else:
        raise InputError(f"{file.shown}: neither an OTLP request in protobuf nor many with a 4-byte length before each")
    has_bytes = has_items = False
    for place, message in messages:
        try:
            decoded = decode(signal, message)
        except DecodeError as error:
            raise InputError(f"{place}: {error}; is it {signal.plural}?") from None
        has_bytes = has_bytes or bool(message)
        for batch in batches.of(signal, decoded):
            has_items = True
            yield batch
    if has_bytes and not has_items:
        # A request of one signal may parse as another's, with fields that are all unknown.
        raise InputError(f"{file.shown}: holds no {signal.item_noun.replace('_', ' ')}; is it {signal.plural}?")


def _documents(file: InputFile, stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Yield the place and text of each JSON document."""
    if is_framed(peek(stream)):
        for offset, message in frames(file, stream):
            yield f"{file.shown}, the message at byte {offset}", message
        return
    is_first = True
    for number, line in lines(file, stream):
        if not line.strip():
            continue
        if is_first and _is_cut(line):
            # The document goes on in the next line: it is one, printed for people to read.
            rest = stream.read()
            if rest.strip():
                yield file.shown, b"\n" * (number - 1) + line + b"\n" + rest
                return
        is_first = False
        yield f"{file.shown}:{number}", line


def _line_of(place: str, document: bytes, message: str) -> str:
    """Return the place of a mistake within a document of many lines, as far as the message tells it."""
    offset = _OFFSET.search(message)
    if _NEWLINE not in document or offset is None:
        return place
    return f"{place}:{document.count(_NEWLINE, 0, int(offset[1])) + 1}"


def _is_cut(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        return "truncated" in str(error)
    return False


class _Batches:
    """Divides requests into batches of items that happened at about the same time.

    The Collector's requests are short and stay as they are; a whole day in one request becomes
    many.
    """

    def __init__(self, span_nano: int) -> None:
        self._span_nano = span_nano
        self._clock_unix_nano = 0
        self._row_count = 0

    def of(self, signal: Signal, request: Message) -> Iterator[Batch]:
        """Yield the batches of one request in order of time; none if it has no items."""
        times = item_times(signal, request)
        first_row = self._row_count
        self._row_count += len(times)
        known = [time for time in times if time]
        if not times:
            return
        if not known or max(known) - min(known) <= self._span_nano:
            yield self._batch(signal, request, times, range(first_row, self._row_count), times)
            return
        slices: dict[int, list[int]] = {}
        at = known[0]
        for item, time in enumerate(times):
            at = time or at  # an item without a time is where the one before it is
            slices.setdefault(at // max(self._span_nano, 1), []).append(item)
        parts = _split(signal, request, slices)
        for index, part in enumerate(sorted(slices)):
            items = slices[part]
            rows = [first_row + item for item in items]
            # Rows are announced once, all with the first batch, since batches take them out of order.
            yield self._batch(signal, parts[part], times if index == 0 else [], rows, [times[item] for item in items])

    def _batch(
        self, signal: Signal, request: Message, row_times: list[int], rows: Any, item_times_unix_nano: list[int]
    ) -> Batch:
        self._clock_unix_nano = max(self._clock_unix_nano, *item_times_unix_nano)
        return Batch(signal, encode(request), self._clock_unix_nano, row_times, list(rows))


def item_times(signal: Signal, request: Any) -> list[int]:
    """Return the event time of each log record, data point or span in order; 0 where it has none."""
    return [_time_of(signal, item) for _, item in _items(signal, request)]


def _time_of(signal: Signal, item: Any) -> int:
    if signal is Signal.LOGS:
        return int(item.time_unix_nano or item.observed_time_unix_nano)
    if signal is Signal.TRACES:
        return int(item.end_time_unix_nano or item.start_time_unix_nano)
    return int(item.time_unix_nano)


_Envelope = tuple[Any, ...]
"""Resource and scope of an item, and its metric."""


def _items(signal: Signal, request: Any) -> Iterator[tuple[_Envelope, Any]]:
    """Yield each item with what it stands in, in order; the envelope is the same object while it lasts."""
    envelope: _Envelope
    if signal is Signal.METRICS:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind, envelope = metric.WhichOneof("data"), (resource, scope, metric)
                    for point in getattr(metric, kind).data_points if kind else ():
                        yield envelope, point
        return
    resources, scopes, leaves = _FIELDS[signal]
    for resource in getattr(request, resources):
        for scope in getattr(resource, scopes):
            envelope = (resource, scope)
            for item in getattr(scope, leaves):
                yield envelope, item


def _split(signal: Signal, request: Message, slices: dict[int, list[int]]) -> dict[int, Message]:
    """Return one request per slice with its items, each in the envelope it came in."""
    slice_of = {item: part for part, items in slices.items() for item in items}
    requests: dict[int, Message] = {part: request_class(signal)() for part in slices}
    opened: dict[int, tuple[_Envelope, Any]] = {}
    for item, (envelope, message) in enumerate(_items(signal, request)):
        part = slice_of[item]
        before, items = opened.get(part, ((), None))
        if before is not envelope:
            items = _open(signal, requests[part], envelope)
            opened[part] = (envelope, items)
        items.append(message)
    return requests


def _open(signal: Signal, request: Any, envelope: _Envelope) -> Any:
    """Add an empty copy of an item's envelope to a request; return the list that takes the item."""
    resource, scope, *metrics = envelope
    resources, scopes, leaves = _FIELDS[signal]
    new_resource = getattr(request, resources).add(resource=resource.resource, schema_url=resource.schema_url)
    new_scope = getattr(new_resource, scopes).add(scope=scope.scope, schema_url=scope.schema_url)
    if signal is not Signal.METRICS:
        return getattr(new_scope, leaves)
    metric = metrics[0]
    new_metric = new_scope.metrics.add(name=metric.name, description=metric.description, unit=metric.unit)
    kind = metric.WhichOneof("data")
    data, new_data = getattr(metric, kind), getattr(new_metric, kind)
    new_data.SetInParent()
    for name in ("aggregation_temporality", "is_monotonic"):
        if hasattr(data, name):
            setattr(new_data, name, getattr(data, name))
    return new_data.data_points
