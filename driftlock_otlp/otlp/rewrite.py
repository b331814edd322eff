"""Takes items out of an OTLP request, marks them, or divides a request; everything else stays as it was.

An item is a log record, a data point or a span. Items are numbered in the order in which they
stand in the message: resource by resource, scope by scope, record by record; in metrics metric
by metric, point by point. Fields that this version of OTLP does not know are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.unknown_fields import UnknownFieldSet

from driftlock_otlp.model import ItemRange, Signal
from driftlock_otlp.otlp.decode import decode

ANOMALY_ID_ATTRIBUTE = "driftlock.anomaly.id"
"""Attribute with which `tag` marks the items of an anomaly."""

# The messages' types differ from signal to signal but their shape does not, so they are walked
# by field name: Any stands for a protobuf message or a repeated field of messages.

_Runs = list[tuple[int, int]]
"""Half-open index ranges: sorted, not empty, not overlapping."""


def _points(metric: Any) -> Any:
    kind = metric.WhichOneof("data")
    return () if kind is None else getattr(metric, kind).data_points


@dataclass(frozen=True, slots=True)
class _Shape:
    """Names of the nested repeated fields of a signal's Export request.

    Attributes:
        resources: Field of the request.
        scopes: Field of a resource.
        leaves: Field of a scope that holds the items; in metrics, the metrics.
        items: Returns the items that one leaf holds, where it is not an item itself.
    """

    resources: str
    scopes: str
    leaves: str
    items: Callable[[Any], Any] | None = None

    def item_lists(self, request: Any) -> Iterator[Any]:
        """Yield every repeated field of items, in order."""
        for resource in getattr(request, self.resources):
            for scope in getattr(resource, self.scopes):
                leaves = getattr(scope, self.leaves)
                if self.items is None:
                    yield leaves
                else:
                    yield from map(self.items, leaves)


_SHAPES = {
    Signal.LOGS: _Shape("resource_logs", "scope_logs", "log_records"),
    Signal.METRICS: _Shape("resource_metrics", "scope_metrics", "metrics", _points),
    Signal.TRACES: _Shape("resource_spans", "scope_spans", "spans"),
}


def split(signal: Signal, payload: bytes, ranges: Sequence[ItemRange]) -> tuple[bytes, bytes]:
    """Divide a request in two: what lies outside the ranges, and what lies in them.

    Both sides keep the order of the items, their resources, scopes and schema URLs. Envelopes
    that hold no item are left out; one with fields unknown to us may hold items unknown to us,
    and stays with the first side.

    Args:
        signal: What the request holds.
        payload: The request as OTLP protobuf.
        ranges: Items to take out, in any order; they may overlap, and what reaches past the
            last item is ignored.

    Returns:
        (request without these items, request with only these items). A side without items is
        `b""`, and then the other is `payload` itself.

    Raises:
        DecodeError: The payload is not a request of this signal.
    """
    shape = _SHAPES[signal]
    rest: Any = decode(signal, payload)
    item_count = sum(map(len, shape.item_lists(rest)))
    taken_runs = _merge(ranges, item_count)
    if not taken_runs:
        return payload, b""
    if taken_runs == [(0, item_count)]:
        return b"", payload
    taken = type(rest)()
    taken.CopyFrom(rest)
    _remove(shape, rest, taken_runs)
    _remove(shape, taken, _complement(taken_runs, item_count))
    _prune(shape, rest, keeps_unknown=True)
    _prune(shape, taken, keeps_unknown=False)
    return rest.SerializeToString(), taken.SerializeToString()


def divide(signal: Signal, payload: bytes, part_count: int) -> list[tuple[bytes, int]]:
    """Divide a request into smaller ones that together say the same.

    Every part has about as many items as the others, in their resources, scopes and, in metrics,
    metrics; a metric may be divided between its points. The parts have the order of the request.
    Envelopes that hold no item in a part are left out of it; as with `split`, one with fields
    unknown to us may hold items unknown to us, and is in the first part in any case. Unknown
    fields of the request itself are there, too.

    Args:
        signal: What the request holds.
        payload: The request as OTLP protobuf.
        part_count: How many parts, at most; no part is without items.

    Returns:
        (request, number of its items) of each part; `payload` itself if it cannot be divided.

    Raises:
        DecodeError: The payload is not a request of this signal.
    """
    shape = _SHAPES[signal]
    request: Any = decode(signal, payload)
    item_count = sum(map(len, shape.item_lists(request)))
    part_count = min(part_count, item_count)
    if part_count < 2:
        return [(payload, item_count)]
    hollow = type(request)()
    hollow.CopyFrom(request)
    for items in shape.item_lists(hollow):
        if len(items):  # a metric without data has no list to delete from
            del items[:]
    parts = []
    for number in range(part_count):
        start, stop = number * item_count // part_count, (number + 1) * item_count // part_count
        part = type(request)()
        if number == 0:
            part.CopyFrom(hollow)
        else:
            getattr(part, shape.resources).extend(getattr(hollow, shape.resources))
        _fill(shape, request, part, start, stop)
        _prune(shape, part, keeps_unknown=number == 0)
        parts.append((part.SerializeToString(), stop - start))
    return parts


def tag(signal: Signal, payload: bytes, ranges: Sequence[ItemRange]) -> bytes:
    """Return the request with `driftlock.anomaly.id` on every item in the ranges.

    An attribute of that name which an item already has is replaced: keys stay unique. Where
    ranges overlap, the later one wins.

    Args:
        signal: What the request holds.
        payload: The request as OTLP protobuf.
        ranges: Items to mark; what reaches past the last item is ignored.

    Returns:
        The request; `payload` itself if no item lies in the ranges.

    Raises:
        DecodeError: The payload is not a request of this signal.
    """
    shape = _SHAPES[signal]
    request: Any = decode(signal, payload)
    items = [item for item_list in shape.item_lists(request) for item in item_list]
    anomaly_ids: dict[int, str] = {}
    for span in ranges:
        for start, stop in _merge((span,), len(items)):
            anomaly_ids.update(dict.fromkeys(range(start, stop), span.anomaly_id))
    if not anomaly_ids:
        return payload
    for index, anomaly_id in anomaly_ids.items():
        _set_attribute(items[index].attributes, ANOMALY_ID_ATTRIBUTE, anomaly_id)
    tagged: bytes = request.SerializeToString()
    return tagged


def _merge(ranges: Sequence[ItemRange], item_count: int) -> _Runs:
    """Return the indices in the ranges, from 0 to `item_count`."""
    runs: _Runs = []
    for span in sorted(ranges, key=lambda span: span.first):
        start, stop = max(span.first, 0), min(span.first + span.count, item_count)
        if start >= stop:
            continue
        if runs and start <= runs[-1][1]:
            runs[-1] = (runs[-1][0], max(runs[-1][1], stop))
        else:
            runs.append((start, stop))
    return runs


def _complement(runs: _Runs, item_count: int) -> _Runs:
    edges = [0, *(edge for run in runs for edge in run), item_count]
    return [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop]


def _remove(shape: _Shape, request: Any, runs: _Runs) -> None:
    """Delete the items whose index lies in the runs."""
    current = 0
    first = 0  # Index of the first item of the list at hand.
    for items in shape.item_lists(request):
        end = first + len(items)
        if end == first:  # also a metric without data, which has no list to delete from
            continue
        while current < len(runs) and runs[current][1] <= first:
            current += 1
        last = current
        while last < len(runs) and runs[last][0] < end:
            last += 1
        # Backwards, so that the places of those still to be deleted do not move.
        for start, stop in reversed(runs[current:last]):
            del items[max(start - first, 0) : min(stop, end) - first]
        first = end


def _fill(shape: _Shape, request: Any, part: Any, start: int, stop: int) -> None:
    """Copy the items with these indices into the same envelopes of a request that has no items."""
    first = 0  # Index of the first item of the list at hand.
    for items, into in zip(shape.item_lists(request), shape.item_lists(part), strict=True):
        end = first + len(items)
        if max(first, start) < min(end, stop):
            into.extend(items[max(start - first, 0) : stop - first])
        first = end


def _prune(shape: _Shape, request: Any, *, keeps_unknown: bool) -> None:
    """Delete the envelopes without content, from the inside out."""
    resources = getattr(request, shape.resources)
    for resource in resources:
        scopes = getattr(resource, shape.scopes)
        if shape.items is not None:
            for scope in scopes:
                _delete_empty(getattr(scope, shape.leaves), shape.items, keeps_unknown)
        _delete_empty(scopes, lambda scope: getattr(scope, shape.leaves), keeps_unknown)
    _delete_empty(resources, lambda resource: getattr(resource, shape.scopes), keeps_unknown)


def _delete_empty(envelopes: Any, contents: Callable[[Any], Any], keeps_unknown: bool) -> None:
    for index in range(len(envelopes) - 1, -1, -1):
        envelope = envelopes[index]
        if not len(contents(envelope)) and not (keeps_unknown and len(UnknownFieldSet(envelope))):
            del envelopes[index]


def _set_attribute(attributes: Any, key: str, text: str) -> None:
    places = [index for index, attribute in enumerate(attributes) if attribute.key == key]
    for index in reversed(places[1:]):
        del attributes[index]
    attribute = attributes[places[0]] if places else attributes.add(key=key)
    attribute.value.string_value = text
