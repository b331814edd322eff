"""Items with ids that cannot be."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from driftlock_otlp.model import Signal
from driftlock_otlp.otlp import decode
from driftlock_otlp.otlp.identifiers import malformed_items

ids = st.sampled_from([0, 1, 7, 8, 9, 15, 16, 17]).map(bytes)


def is_possible(trace_id: bytes, *span_ids: bytes) -> bool:
    return len(trace_id) in (0, 16) and all(len(span_id) in (0, 8) for span_id in span_ids)


def envelopes(sizes: list[int], length: int) -> list[int]:
    """Return for each item after how many it begins a new envelope."""
    return [index for index in range(length) if index == 0 or index in sizes]


@given(st.lists(st.tuples(ids, ids)), st.lists(st.integers(1, 10)))
def test_log_records_are_found_across_envelopes(records: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    request: Any = decode.request_class(Signal.LOGS)()
    starts = envelopes(cuts, len(records))
    for index, (trace_id, span_id) in enumerate(records):
        if index in starts:
            scope = request.resource_logs.add().scope_logs.add()
        scope.log_records.add(trace_id=trace_id, span_id=span_id)
    expected = [index for index, (trace_id, span_id) in enumerate(records) if not is_possible(trace_id, span_id)]
    assert malformed_items(Signal.LOGS, request) == expected


@given(st.lists(st.tuples(ids, ids, ids, st.lists(st.tuples(ids, ids), max_size=2))))
def test_spans_are_found_by_their_own_parents_and_links_ids(
    spans: list[tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]]],
) -> None:
    request: Any = decode.request_class(Signal.TRACES)()
    scope = request.resource_spans.add().scope_spans.add()
    expected = []
    for index, (trace_id, span_id, parent_span_id, links) in enumerate(spans):
        span = scope.spans.add(trace_id=trace_id, span_id=span_id, parent_span_id=parent_span_id)
        for linked_trace, linked_span in links:
            span.links.add(trace_id=linked_trace, span_id=linked_span)
        if not is_possible(trace_id, span_id, parent_span_id) or not all(is_possible(*link) for link in links):
            expected.append(index)
    assert malformed_items(Signal.TRACES, request) == expected


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["gauge", "sum", "histogram", "exponential_histogram", "summary", "none"]),
            st.lists(st.lists(st.tuples(ids, ids), max_size=2), max_size=3),
        )
    )
)
def test_data_points_are_found_by_their_exemplars_ids(
    metrics: list[tuple[str, list[list[tuple[bytes, bytes]]]]],
) -> None:
    request: Any = decode.request_class(Signal.METRICS)()
    scope = request.resource_metrics.add().scope_metrics.add()
    expected: list[int] = []
    index = 0
    for kind, points in metrics:
        metric = scope.metrics.add()
        if kind == "none":
            continue
        for exemplars in points:
            point = getattr(metric, kind).data_points.add()
            if kind != "summary":
                for trace_id, span_id in exemplars:
                    point.exemplars.add(trace_id=trace_id, span_id=span_id)
                if not all(is_possible(*exemplar) for exemplar in exemplars):
                    expected.append(index)
            index += 1
    assert malformed_items(Signal.METRICS, request) == expected
