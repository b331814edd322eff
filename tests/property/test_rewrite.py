"""For any request and any ranges: splitting loses nothing and invents nothing."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from driftlock_otlp.model import ItemRange, Signal
from driftlock_otlp.otlp.decode import decode, request_class
from driftlock_otlp.otlp.rewrite import split, tag

RESOURCES = {Signal.LOGS: "resource_logs", Signal.METRICS: "resource_metrics", Signal.TRACES: "resource_spans"}
SCOPES = {Signal.LOGS: "scope_logs", Signal.METRICS: "scope_metrics", Signal.TRACES: "scope_spans"}
LEAVES = {Signal.LOGS: "log_records", Signal.METRICS: "metrics", Signal.TRACES: "spans"}
KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary", None)

# The number of items of each scope (of each metric) of each resource, zeros among them.
_scope = st.lists(st.integers(0, 4), max_size=4)
_layouts = st.lists(st.lists(_scope, max_size=3), max_size=3)
_range = st.builds(ItemRange, st.integers(-3, 40), st.integers(0, 12), st.sampled_from(("a1", "a2")))
_ranges = st.lists(_range, max_size=5)


def build(signal: Signal, layout: list[list[list[int]]]) -> bytes:
    """Return a request whose items carry their index as their time."""
    request: Any = request_class(signal)()
    index = 0
    for resource_number, scopes in enumerate(layout):
        resource = _resources(signal, request).add(schema_url=f"resource {resource_number}")
        for scope_number, counts in enumerate(scopes):
            scope = _scopes(signal, resource).add()
            scope.scope.name = f"scope {scope_number}"
            for leaf_number, count in enumerate(counts):
                if signal is Signal.METRICS:
                    metric = scope.metrics.add(name=f"metric {leaf_number}")
                    kind = KINDS[(resource_number + scope_number + leaf_number) % len(KINDS)]
                    if kind is None:
                        continue
                    getattr(metric, kind).SetInParent()
                    items = getattr(metric, kind).data_points
                else:
                    items = getattr(scope, LEAVES[signal])
                for _ in range(count):
                    time_field = "start_time_unix_nano" if signal is Signal.TRACES else "time_unix_nano"
                    items.add(**{time_field: index + 1})
                    index += 1
    payload: bytes = request.SerializeToString()
    return payload


def _resources(signal: Signal, request: Any) -> Any:
    return getattr(request, RESOURCES[signal])


def _scopes(signal: Signal, resource: Any) -> Any:
    return getattr(resource, SCOPES[signal])


def items_of(signal: Signal, payload: bytes) -> list[tuple[tuple[str, ...], bytes]]:
    """Return each item with the envelopes it lies in, in order; fail on an empty envelope."""
    found: list[tuple[tuple[str, ...], bytes]] = []
    for resource in _resources(signal, decode(signal, payload)):
        for scope in _scopes(signal, resource):
            place = (resource.schema_url, scope.scope.name)
            if signal is Signal.METRICS:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    points = getattr(metric, kind).data_points if kind else ()
                    found += [((*place, metric.name, kind), point.SerializeToString()) for point in points]
            else:
                found += [(place, item.SerializeToString()) for item in getattr(scope, LEAVES[signal])]
    return found


def has_empty_envelope(signal: Signal, payload: bytes) -> bool:
    for resource in _resources(signal, decode(signal, payload)):
        scopes = _scopes(signal, resource)
        if not scopes:
            return True
        for scope in scopes:
            if not getattr(scope, LEAVES[signal]):
                return True
            if signal is Signal.METRICS:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    if kind is None or not getattr(metric, kind).data_points:
                        return True
    return False


@settings(max_examples=150, deadline=None)
@given(signal=st.sampled_from(list(Signal)), layout=_layouts, ranges=_ranges)
def test_split_sends_every_item_to_exactly_one_side_in_order(
    signal: Signal, layout: list[list[list[int]]], ranges: list[ItemRange]
) -> None:
    payload = build(signal, layout)
    everything = items_of(signal, payload)
    chosen = {index for span in ranges for index in range(span.first, span.first + span.count)}
    rest, taken = split(signal, payload, ranges)
    assert items_of(signal, rest) == [item for index, item in enumerate(everything) if index not in chosen]
    assert items_of(signal, taken) == [item for index, item in enumerate(everything) if index in chosen]
    if rest and taken:
        assert not has_empty_envelope(signal, rest)
        assert not has_empty_envelope(signal, taken)
    else:
        assert payload in (rest, taken)


@settings(max_examples=100, deadline=None)
@given(signal=st.sampled_from(list(Signal)), layout=_layouts, ranges=_ranges)
def test_tag_marks_each_item_once_whatever_is_repeated(
    signal: Signal, layout: list[list[list[int]]], ranges: list[ItemRange]
) -> None:
    payload = build(signal, layout)
    item_count = len(items_of(signal, payload))
    chosen = {index for span in ranges for index in range(span.first, span.first + span.count)}
    tagged = tag(signal, payload, ranges)
    marked = [index for index, (_, item) in enumerate(items_of(signal, tagged)) if b"driftlock.anomaly.id" in item]
    assert marked == sorted(chosen & set(range(item_count)))
    assert tag(signal, tagged, ranges) == tagged
