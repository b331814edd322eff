"""Protobuf: whatever decodes is counted, divided, marked and written as JSON without loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from driftlock_otlp.errors import DecodeError
from driftlock_otlp.model import ItemRange, Signal
from driftlock_otlp.otlp import decode, json_mapping, rewrite
from tests.fuzz.inputs import signal_and_rest

_PATHS = {
    Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
    Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
}
_IDS = ("traceId", "spanId", "parentSpanId")


def check(data: bytes) -> None:
    """Read a request whose signal the first byte tells."""
    signal, payload = signal_and_rest(data)
    try:
        message = decode.decode(signal, payload)
    except DecodeError as error:
        assert str(error)
        return
    encoded = decode.encode(message)
    assert decode.encode(decode.decode(signal, encoded)) == encoded
    items = list(_items(signal, message))
    assert decode.count_items(signal, message) == len(items)
    _check_rewriting(signal, payload, items)
    _check_json(signal, message)


def _check_rewriting(signal: Signal, payload: bytes, items: list[bytes]) -> None:
    # Which items are taken follows from the payload, so that one input is one case.
    seed = sum(payload)
    ranges = [ItemRange(seed % 5 - 1, seed % 3 + 1, "a1"), ItemRange(seed % 11, 1, "a2")]
    chosen = {index for span in ranges for index in range(span.first, span.first + span.count)}
    rest, taken = rewrite.split(signal, payload, ranges)
    for side, is_taken in ((rest, False), (taken, True)):
        expected = [item for index, item in enumerate(items) if (index in chosen) is is_taken]
        assert list(_items(signal, decode.decode(signal, side))) == expected
    tagged = rewrite.tag(signal, payload, ranges)
    marked = [rewrite.ANOMALY_ID_ATTRIBUTE.encode() in item for item in _items(signal, decode.decode(signal, tagged))]
    assert all(marked[index] for index in chosen & set(range(len(items))))
    assert len(marked) == len(items)
    assert rewrite.tag(signal, tagged, ranges) == tagged or not tagged


def _check_json(signal: Signal, message: Message) -> None:
    text = json_mapping.request_to_json(signal, message)
    try:
        again = json_mapping.request_from_json(signal, text)
    except DecodeError as error:
        # Protobuf does not bound ids; OTLP/JSON has none of another length.
        assert str(error).partition(":")[0].endswith(_IDS), error
        return
    assert json_mapping.request_to_json(signal, again) == text
    # Compared as protobuf itself writes them: JSON has no unknown fields, and one NaN where doubles have many.
    assert json_format.MessageToDict(again) == json_format.MessageToDict(message)


def _items(signal: Signal, message: Any) -> Iterator[bytes]:
    resources, scopes, leaves = _PATHS[signal]
    for resource in getattr(message, resources):
        for scope in getattr(resource, scopes):
            for leaf in getattr(scope, leaves):
                if signal is Signal.METRICS:
                    kinds = [value for field, value in leaf.ListFields() if field.containing_oneof]
                    yield from (
                        point.SerializeToString(deterministic=True) for data in kinds for point in data.data_points
                    )
                else:
                    yield leaf.SerializeToString(deterministic=True)
