"""For any request and any number of parts: the parts together are the request, and none is hollow."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import count_items, decode, request_class
from driftlock_otlp.otlp.rewrite import divide
from tests.property.test_rewrite import KINDS, LEAVES, RESOURCES, SCOPES, has_empty_envelope

# The number of items of each scope (of each metric) of each resource, zeros among them.
_scope = st.lists(st.integers(0, 5), max_size=4)
_layouts = st.lists(st.lists(_scope, max_size=3), max_size=3)
_UNKNOWN = b"\xfa\x3e\x03abc"  # Field 1007, a string: of a version of OTLP to come.


def build(signal: Signal, layout: list[list[list[int]]]) -> bytes:
    """Return a request in which every envelope and every item says who it is."""
    request: Any = request_class(signal)()
    number = 0
    for resource_number, scopes in enumerate(layout):
        resource = getattr(request, RESOURCES[signal]).add(schema_url=f"resource {resource_number}")
        resource.resource.attributes.add(key="n").value.int_value = resource_number
        resource.resource.dropped_attributes_count = resource_number
        resource.resource.MergeFromString(_UNKNOWN)
        for scope_number, counts in enumerate(scopes):
            scope = getattr(resource, SCOPES[signal]).add(schema_url=f"scope {scope_number}")
            scope.scope.name, scope.scope.version = f"scope {scope_number}", "1"
            scope.scope.dropped_attributes_count = 7
            for leaf_number, count in enumerate(counts):
                items = getattr(scope, LEAVES[signal])
                if signal is Signal.METRICS:
                    metric = scope.metrics.add(name=f"metric {leaf_number}", unit="s", description="of something")
                    kind = KINDS[(resource_number + scope_number + leaf_number) % len(KINDS)]
                    if kind is None:
                        continue
                    data = getattr(metric, kind)
                    data.SetInParent()
                    if kind in ("sum", "histogram"):
                        data.aggregation_temporality = 2
                    items = data.data_points
                for _ in range(count):
                    number += 1
                    item = (
                        items.add(start_time_unix_nano=number)
                        if signal is not Signal.LOGS
                        else items.add(time_unix_nano=number)
                    )
                    item.attributes.add(key="n").value.int_value = number
                    item.MergeFromString(_UNKNOWN)
    payload: bytes = request.SerializeToString()
    return payload + _UNKNOWN


def items_in_place(signal: Signal, payload: bytes) -> list[tuple[bytes, ...]]:
    """Return each item with everything that is said of the envelopes it lies in, in order."""
    found: list[tuple[bytes, ...]] = []
    for resource in getattr(decode(signal, payload), RESOURCES[signal]):
        for scope in getattr(resource, SCOPES[signal]):
            leaves = list(getattr(scope, LEAVES[signal]))
            del getattr(scope, LEAVES[signal])[:]
            place = (resource.resource.SerializeToString(), resource.schema_url.encode(), scope.SerializeToString())
            for leaf in leaves:
                if signal is not Signal.METRICS:
                    found.append((*place, leaf.SerializeToString()))
                    continue
                kind = leaf.WhichOneof("data")
                points = list(getattr(leaf, kind).data_points) if kind else []
                if kind:
                    del getattr(leaf, kind).data_points[:]
                found += [(*place, leaf.SerializeToString(), point.SerializeToString()) for point in points]
    return found


@settings(max_examples=200, deadline=None)
@given(signal=st.sampled_from(list(Signal)), layout=_layouts, part_count=st.integers(1, 12))
def test_the_parts_together_are_the_request_and_none_is_hollow(
    signal: Signal, layout: list[list[list[int]]], part_count: int
) -> None:
    payload = build(signal, layout)
    everything = items_in_place(signal, payload)
    parts = divide(signal, payload, part_count)
    assert [item for part, _ in parts for item in items_in_place(signal, part)] == everything
    assert len(parts) == max(min(part_count, len(everything)), 1)
    assert [count for _, count in parts] == [count_items(signal, decode(signal, part)) for part, _ in parts]
    if len(parts) == 1:
        assert parts == [(payload, len(everything))]
        return
    counts = [count for _, count in parts]
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= 1
    assert not any(has_empty_envelope(signal, part) for part, _ in parts)
    # What is unknown of the request itself is said once.
    assert [part.endswith(_UNKNOWN) for part, _ in parts] == [True] + [False] * (len(parts) - 1)


@settings(max_examples=50, deadline=None)
@given(signal=st.sampled_from(list(Signal)), layout=_layouts)
def test_divided_down_to_single_items_nothing_is_lost(signal: Signal, layout: list[list[list[int]]]) -> None:
    payload = build(signal, layout)
    everything = items_in_place(signal, payload)
    left, singles = [(payload, len(everything))], []
    while left:
        part, count = left.pop()
        if count > 1:
            left += divide(signal, part, 2)[::-1]
        else:
            singles.append(part)
    assert [item for part in singles for item in items_in_place(signal, part)] == everything
