from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from driftlock_otlp.detection.columns import Category, Columns
from driftlock_otlp.model import Signal, StreamKey
from driftlock_otlp.windowing.logs import MAX_ATTRIBUTE_COLUMNS, LogShaper
from driftlock_otlp.windowing.streams import split_request
from tests.unit.windowing.messages import T0, logs, only, record, resource


def _texts(column: Category) -> list[str | None]:
    return [column.labels[code] if code >= 0 else None for code in column.codes]


def _shape(records: list[Any], shaper: LogShaper | None = None) -> Columns:
    return (shaper or LogShaper()).shape(only(Signal.LOGS, logs(records)))


def test_items_count_all_records_in_message_order() -> None:
    request = ExportLogsServiceRequest()
    for service, bodies in (("a", ["0", "1"]), ("b", ["2"]), (None, ["3"]), ("a", ["4", "5"])):
        group = request.resource_logs.add(resource=resource(service))
        for body in bodies:
            group.scope_logs.add(log_records=[record(body)])
    batches = split_request(Signal.LOGS, request, "acme")
    assert {batch.key: (batch.items, batch.column("body")) for batch in batches} == {
        StreamKey("logs", "a", "", "acme"): ([0, 1, 4, 5], ["0", "1", "4", "5"]),
        StreamKey("logs", "b", "", "acme"): ([2], ["2"]),
        StreamKey("logs", "unknown_service", "", "acme"): ([3], ["3"]),
    }


def test_our_own_events_are_left_out_but_counted_in_item_numbers() -> None:
    request = logs([record("a"), record("b", event_name="driftlock.anomaly.detected"), record("c")])
    request.resource_logs[0].scope_logs.add(log_records=[record("d")]).scope.name = "driftlock.cbad"
    assert only(Signal.LOGS, request).items == [0, 2]


def test_a_request_of_own_events_alone_has_no_batch() -> None:
    assert split_request(Signal.LOGS, logs([record("x")], scope="driftlock.cbad"), "") == []


def test_gen_ai_records_go_to_a_stream_of_their_own() -> None:
    request = logs([record("a"), record("b", {"gen_ai.system": "x"}), record("c", event_name="gen_ai.choice")])
    assert {(b.key.kind, b.key.name): b.items for b in split_request(Signal.LOGS, request, "")} == {
        ("logs", ""): [0],
        ("gen_ai", "unknown"): [1, 2],
    }


def test_a_record_keeps_its_facts() -> None:
    attributes = {"n": 3, "f": 0.5, "b": True, "l": ["x", "y"], "m": {"k": 1}, "raw": b"abc", "s": "text", "none": None}
    request = logs(
        [record("hello", attributes, severity_text="warn", trace_id=b"t" * 16, span_id=b"s" * 8, event_name="e")],
        scope="lib",
    )
    batch = only(Signal.LOGS, request)
    fields = {name: batch.column(name)[0] for name in batch.fields}
    assert fields == {
        "body": "hello",
        "body_length": 5,
        "severity": "WARN",
        "scope": "lib",
        "event_name": "e",
        "trace_id": b"t" * 16,
        "span_id": b"s" * 8,
        "attributes.n": 3,
        "attributes.f": 0.5,
        "attributes.b": True,
        "attributes.l": "array[2]",
        "attributes.m": "map[1]",
        "attributes.raw": "bytes[3]",
        "attributes.s": "text",
        "attributes.none": None,
    }
    assert batch.times_unix_nano == [T0]
    assert resource("shop").SerializeToString() == batch.resource


def test_time_falls_back_to_when_the_record_was_observed() -> None:
    assert only(Signal.LOGS, logs([record("x", time=0, observed_time_unix_nano=7)])).times_unix_nano == [7]


@pytest.mark.parametrize(
    ("number", "severity"),
    [(0, None), (1, "TRACE"), (5, "DEBUG"), (12, "INFO"), (13, "WARN"), (20, "ERROR"), (24, "FATAL")],
)
def test_severity_without_text_is_the_band_of_its_number(number: Any, severity: str | None) -> None:
    assert only(Signal.LOGS, logs([record("x", severity_number=number)])).column("severity") == [severity]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"b": 1, "a": {"z": "x y", "c": [1, None, True]}}, "a={c=[1, null, true] z=x y} b=1"),
        ([1, "two"], "[1, two]"),
        (b"1234", "bytes[4]"),
        (5, "5"),
        ('{"level": "info", "msg": "cart saved"}', "level=info msg=cart saved"),
        ("{not json}", "{not json}"),
        ("{" * 2000 + "}", "{" * 2000),
        (None, None),
    ],
)
def test_structured_bodies_become_the_same_text_every_time(body: Any, text: str | None) -> None:
    assert only(Signal.LOGS, logs([record(body)])).column("body") == [text]


def test_many_attribute_names_do_not_blow_a_batch_up() -> None:
    batch = only(Signal.LOGS, logs([record("x", {f"k{n}-{i}": 1 for i in range(20)}) for n in range(50)]))
    assert len(batch.fields) <= 128
    assert batch.column("body") == ["x"] * 50


def test_repeated_attribute_keys_keep_rows_aligned() -> None:
    doubled = record("x", {"k": "a"})
    doubled.attributes.extend(record("", {"k": "b"}).attributes)
    assert only(Signal.LOGS, logs([doubled, record("y", {"k": "c"})])).column("attributes.k") == ["b", "c"]


def test_columns_of_a_window() -> None:
    columns = _shape(
        [
            record("took 5 ms", {"route": "/a", "size": 10, "status_code": 200}, severity_text="INFO"),
            record("took 7 ms", {"route": "/b", "size": 2.5, "status_code": 500}, severity_text="INFO"),
            record(None, {"size": float("inf")}, severity_text="ERROR"),
        ]
    )
    assert columns.record_count == 3
    assert columns.time_unix_nano.tolist() == [T0] * 3
    assert {name: _texts(column) for name, column in columns.categories.items()} == {
        "template": ["took <*> ms", "took <*> ms", None],
        "severity": ["INFO", "INFO", "ERROR"],
        "attributes.route": ["/a", "/b", None],
        "attributes.status_code": ["200", "500", None],
    }
    np.testing.assert_array_equal(columns.numbers["body_length"].values, [9, 9, np.nan])
    np.testing.assert_array_equal(columns.numbers["attributes.size"].values, [10, 2.5, np.nan])
    assert columns.numbers["body_length"].is_positive_scale


def test_scope_and_event_name_are_columns_once_the_stream_has_shown_them() -> None:
    shaper = LogShaper()
    assert "event_name" not in _shape([record("x")], shaper).categories
    assert _texts(_shape([record("x", event_name="e")], shaper).categories["event_name"]) == ["e"]
    assert _texts(_shape([record("x")], shaper).categories["event_name"]) == [None]


def test_attribute_columns_stay_those_first_seen() -> None:
    shaper = LogShaper()
    first = _shape([record("x", {f"a{n:02}": "v" for n in range(40)})], shaper)
    later = _shape([record("x", {"zz": "v", "a00": "w"})], shaper)
    names = [f"attributes.a{n:02}" for n in range(MAX_ATTRIBUTE_COLUMNS)]
    assert [name for name in first.categories if name.startswith("attributes.")] == names
    assert [name for name in later.categories if name.startswith("attributes.")] == names
    assert _texts(later.categories["attributes.a00"]) == ["w"]


def test_an_attribute_keeps_its_kind_when_its_values_change_theirs() -> None:
    shaper = LogShaper()
    _shape([record("x", {"size": 5, "name": "n"})], shaper)
    later = _shape([record("x", {"size": "big", "name": 5})], shaper)
    np.testing.assert_array_equal(later.numbers["attributes.size"].values, [np.nan])
    assert _texts(later.categories["attributes.name"]) == ["5"]


def test_a_template_of_the_sender_wins_over_mining() -> None:
    columns = _shape([record("a 1 b", {"log.record.template": "a <num> b"}), record("c 2"), record(None)])
    assert _texts(columns.categories["template"]) == ["a <num> b", "c <*>", None]
    assert not any("template" in name for name in columns.categories if name.startswith("attributes."))


def test_ids_change_over_to_their_shape_for_good() -> None:
    shaper = LogShaper()
    first = _shape([record("x", {"request": f"order-{n}"}) for n in range(600)], shaper)
    assert len(first.categories["attributes.request"].labels) == 600
    second = _shape([record("x", {"request": f"order-{n}"}) for n in range(600, 1200)], shaper)
    assert second.categories["attributes.request"].labels == ["a-0"]
    third = _shape([record("x", {"request": "order-1"}), record("x")], shaper)
    assert _texts(third.categories["attributes.request"]) == ["a-0", None]
