from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from driftlock_otlp.detection.columns import Category, Columns
from driftlock_otlp.model import Signal
from driftlock_otlp.windowing import traces as traces_module
from driftlock_otlp.windowing.streams import split_request
from driftlock_otlp.windowing.traces import MAX_ATTRIBUTE_COLUMNS, TraceShaper, operation_of
from tests.unit.windowing.messages import T0, only, span, traces

TRACE = b"t" * 16


def _id(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _child(name: str, number: int, parent: int | None, **fields: Any) -> Span:
    fields.update(trace_id=TRACE, span_id=_id(number), parent_span_id=b"" if parent is None else _id(parent))
    return span(name, fields.pop("attributes", None), **fields)


def _texts(column: Category) -> list[str | None]:
    return [column.labels[code] if code >= 0 else None for code in column.codes]


def _shape(spans: list[Span], shaper: TraceShaper | None = None) -> Columns:
    return (shaper or TraceShaper()).shape(only(Signal.TRACES, traces(spans)))


@pytest.mark.parametrize(
    ("name", "kind", "operation"),
    [
        ("GET /users/4711/orders", 2, "server GET /users/<*>/orders"),
        ("GET /api/v1/s3/oauth2", 3, "client GET /api/v1/s3/oauth2"),
        ("load 6fa459ea-ee8a-3ca4-894e-db77e160355e", 1, "load <*>"),
        ("blob 9f86d081884c7d65 0xff", 0, "blob <*> <*>"),
        ("job-20261122 run", 4, "producer job-<*> run"),
        ("deadbeef added", 5, "consumer deadbeef added"),
        ("worker-3 batch_2 order_4711", 1, "worker-<*> batch_2 order_<*>"),
        ("odd kind", 99, "odd kind"),
    ],
)
def test_operations_are_kind_and_name_without_ids(name: str, kind: int, operation: str) -> None:
    assert operation_of(name, kind) == operation


def test_a_span_keeps_its_facts() -> None:
    found = _child(
        "GET /cart", 2, 1, kind=Span.SPAN_KIND_SERVER, status=Status(code=Status.STATUS_CODE_ERROR),
        attributes={"http.route": "/cart"},
    )  # fmt: skip
    found.events.add(name="exception")
    found.events.add(name="retry")
    batch = only(Signal.TRACES, traces([found]))
    assert {name: batch.column(name)[0] for name in batch.fields} == {
        "operation": "server GET /cart",
        "status": "error",
        "duration_ms": 10.0,
        "trace_id": TRACE,
        "span_id": _id(2),
        "parent_span_id": _id(1),
        "exceptions": 1,
        "scope": None,
        "attributes.http.route": "/cart",
    }
    assert batch.times_unix_nano == [T0]


def test_spans_with_impossible_times_have_no_duration() -> None:
    backwards = span("a", start_time_unix_nano=T0 + 1)
    unfinished = span("a", end_time_unix_nano=0)
    batch = only(Signal.TRACES, traces([backwards, unfinished]))
    assert batch.column("duration_ms") == [None, None]
    assert batch.times_unix_nano[1] == unfinished.start_time_unix_nano


def test_gen_ai_spans_go_to_a_stream_of_their_own_and_keep_their_item_numbers() -> None:
    request = traces([span("a"), span("chat m", {"gen_ai.request.model": "m"}), span("b")])
    found = {(batch.key.kind, batch.key.name): batch.items for batch in split_request(Signal.TRACES, request, "")}
    assert found == {("traces", ""): [0, 2], ("gen_ai", "m"): [1]}


def test_columns_of_a_window() -> None:
    server = {"kind": Span.SPAN_KIND_SERVER}
    columns = _shape(
        [
            _child("SELECT cart", 2, 1),  # a child ends, and so arrives, before its parent
            _child("GET /cart", 1, None, status=Status(code=Status.STATUS_CODE_ERROR), **server),
            _child("render", 3, 99),
        ]
    )
    assert {name: _texts(column) for name, column in columns.categories.items()} == {
        "operation": ["SELECT cart", "server GET /cart", "render"],
        "status": ["SELECT cart unset", "server GET /cart error", "render unset"],
        "call": ["server GET /cart -> SELECT cart", "root -> server GET /cart", "? -> render"],
        "attributes.error.type": ["none", "none", "none"],
    }
    duration = columns.numbers["duration"]
    assert (duration.given, duration.is_positive_scale, duration.unit) == ("operation", True, "ms")
    np.testing.assert_array_equal(duration.values, [10, 10, 10])
    assert columns.numbers["exceptions"].values.tolist() == [0, 0, 0]


def test_parents_of_earlier_windows_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces_module, "MAX_REMEMBERED_SPANS", 2)
    shaper = TraceShaper()
    _shape([_child(f"op{chr(97 + n)}", n + 1, None) for n in range(3)], shaper)
    columns = _shape([_child("x", 9, 1), _child("x", 10, 3)], shaper)
    assert _texts(columns.categories["call"]) == ["? -> x", "opc -> x"]


def test_ids_of_wrong_length_are_not_remembered() -> None:
    shaper = TraceShaper()
    columns = _shape([span("a", trace_id=b"t", span_id=b"s"), span("b", trace_id=b"t", parent_span_id=b"s")], shaper)
    assert _texts(columns.categories["call"]) == ["root -> a", "? -> b"]
    assert shaper.state()["span_ids"] == b""


def test_attributes_of_old_and_new_conventions_share_a_column() -> None:
    columns = _shape(
        [
            span("a", {"http.status_code": 200}),
            span("a", {"http.response.status_code": 500, "error.type": "500"}),
            span("a", {"user.id": "not a column"}),
        ]
    )
    found = {name: _texts(column) for name, column in columns.categories.items() if name.startswith("attributes.")}
    assert found == {
        "attributes.error.type": ["none", "500", "none"],
        "attributes.http.response.status_code": ["200", "500", None],
    }


def test_attribute_columns_are_few_and_stay() -> None:
    shaper = TraceShaper()
    every = dict.fromkeys(traces_module._ATTRIBUTE_COLUMNS, "v")
    first = _shape([span("a", every)], shaper)
    later = _shape([span("a")], shaper)
    names = [name for name in first.categories if name.startswith("attributes.")]
    assert len(names) == MAX_ATTRIBUTE_COLUMNS
    assert [name for name in later.categories if name.startswith("attributes.")] == names


def test_the_spans_of_one_trace_are_a_session_and_spans_without_trace_are_of_none() -> None:
    spans = [_child("a", 1, None), span("b"), _child("c", 2, 1)]
    spans[1].ClearField("trace_id")
    other = _child("d", 3, None)
    other.trace_id = b"u" * 16
    sessions = _shape([*spans, other]).sessions
    assert sessions is not None
    assert sessions.tolist() == [0, -1, 0, 1]
