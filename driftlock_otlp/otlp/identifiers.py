"""Finds items whose trace or span ids have a length that no id can have.

Protobuf carries ids as bytes of any length. An item with such an id belongs to nothing, and a
destination that checks (the OpenTelemetry Collector does) refuses the whole request for it; so
these items are rejected one by one, and the others go on.

References:
    opentelemetry-proto 1.11, trace.proto and logs.proto: trace_id has 16 bytes and span_id 8, an
    empty one means that there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from google.protobuf.message import Message

from driftlock_otlp.model import Signal

_TRACE_ID_BYTES = frozenset({0, 16})
_SPAN_ID_BYTES = frozenset({0, 8})


def malformed_items(signal: Signal, message: Message) -> list[int]:
    """Return the indices, in the request's own order, of items with an id of an impossible length.

    Args:
        signal: Which request it is.
        message: The decoded Export request.
    """
    return _FINDERS[signal](message)


# One comprehension per signal: a call per record would double the price.


def _malformed_log_records(request: Any) -> list[int]:
    records = chain.from_iterable(scope.log_records for entry in request.resource_logs for scope in entry.scope_logs)
    return [
        index
        for index, record in enumerate(records)
        if len(record.trace_id) not in _TRACE_ID_BYTES or len(record.span_id) not in _SPAN_ID_BYTES
    ]


def _malformed_spans(request: Any) -> list[int]:
    spans = chain.from_iterable(scope.spans for entry in request.resource_spans for scope in entry.scope_spans)
    return [
        index
        for index, span in enumerate(spans)
        if len(span.trace_id) not in _TRACE_ID_BYTES
        or len(span.span_id) not in _SPAN_ID_BYTES
        or len(span.parent_span_id) not in _SPAN_ID_BYTES
        or any(map(_is_malformed, span.links))
    ]


def _malformed_data_points(request: Any) -> list[int]:
    return [index for index, point in enumerate(_data_points(request)) if any(map(_is_malformed, point.exemplars))]


def _data_points(request: Any) -> Iterator[Any]:
    """Yield every data point; summaries, which have no exemplars, as an empty one in their place."""
    for entry in request.resource_metrics:
        for scope in entry.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                if kind == "summary":
                    yield from [_NO_EXEMPLARS] * len(metric.summary.data_points)
                elif kind is not None:
                    yield from getattr(metric, kind).data_points


class _NoExemplars:
    exemplars = ()


_NO_EXEMPLARS = _NoExemplars()


def _is_malformed(link: Any) -> bool:
    return len(link.trace_id) not in _TRACE_ID_BYTES or len(link.span_id) not in _SPAN_ID_BYTES


_FINDERS: dict[Signal, Callable[[Any], list[int]]] = {
    Signal.LOGS: _malformed_log_records,
    Signal.METRICS: _malformed_data_points,
    Signal.TRACES: _malformed_spans,
}
