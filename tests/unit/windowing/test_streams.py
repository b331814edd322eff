"""Every shaper, fed random windows: its state is plain, and a restored one continues alike."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.model import Signal, StreamKind
from driftlock_otlp.windowing.batch import StreamBatch
from driftlock_otlp.windowing.streams import new_shaper, split_request
from tests.unit.windowing.messages import SECOND, T0, logs, metrics, pairs, record, span, traces


def _log_window(rng: random.Random, number: int) -> StreamBatch:
    records = []
    for n in range(rng.randrange(1, 30)):
        body = rng.choice(["user {} in", "took {} ms", "disk {} of {} full", "job {} by " + rng.choice("abcxyz")])
        given = {"log.record.template": "given <*>"} if rng.random() < 0.1 else {}
        attributes = {rng.choice(["route", "size", "request.id", "flag"]): rng.choice(["/a", 5, 1.5, True, f"r{n}"])}
        text = body.replace("{}", str(rng.randrange(1000)))
        event = rng.choice(["", "", "paid"]) if number > 2 else ""
        records.append(record(text, {**attributes, **given}, severity_number=rng.choice([9, 17]), event_name=event))
    return split_request(Signal.LOGS, logs(records), "")[0]


def _metric_window(rng: random.Random, number: int) -> StreamBatch:
    points = []
    for n in range(rng.randrange(1, 20)):
        time = T0 + (number * 20 + n + rng.choice([0, 0, 0, -3])) * SECOND
        start = T0 - rng.choice([1, 1, 1, 1, 2]) * SECOND
        points.append(
            pb.ExponentialHistogramDataPoint(
                time_unix_nano=time,
                start_time_unix_nano=start,
                attributes=pairs({"zone": rng.choice("abc")}),
                count=number * 100 + n,
                sum=rng.random(),
                scale=rng.choice([2, 3, 3]),
                positive=pb.ExponentialHistogramDataPoint.Buckets(
                    offset=rng.choice([0, 1]), bucket_counts=[number * 50 + n] * 3
                ),
            )
        )
    data = pb.ExponentialHistogram(data_points=points, aggregation_temporality=pb.AGGREGATION_TEMPORALITY_CUMULATIVE)
    request = metrics([pb.Metric(name="m", exponential_histogram=data)], service_instance_id=rng.choice(["i", "j"]))
    return split_request(Signal.METRICS, request, "")[0]


def _trace_window(rng: random.Random, number: int) -> StreamBatch:
    spans = []
    for _ in range(rng.randrange(1, 30)):
        attributes = {rng.choice(["http.status_code", "http.route", "db.system", "x"]): rng.choice([200, "/a"])}
        parent = rng.choice([b"", rng.randbytes(1) * 8])
        ids = {"trace_id": b"t" * 16, "span_id": rng.randbytes(1) * 8, "parent_span_id": parent}
        spans.append(span(f"op {rng.choice('abc')} {rng.randrange(99)}", attributes, kind=rng.choice([1, 2, 3]), **ids))
    return split_request(Signal.TRACES, traces(spans), "")[0]


def _gen_ai_window(rng: random.Random, number: int) -> StreamBatch:
    spans = [
        span("chat", {"gen_ai.request.model": "m", "gen_ai.usage.input_tokens": number, "gen_ai.tool.name": tool})
        for tool in rng.choices("abc", k=rng.randrange(1, 20))
    ]
    return split_request(Signal.TRACES, traces(spans), "")[0]


WINDOWS: dict[str, Any] = {
    "logs": _log_window,
    "metrics": _metric_window,
    "traces": _trace_window,
    "gen_ai": _gen_ai_window,
}


def _plain(columns: Columns) -> dict[str, Any]:
    return {
        "n": columns.record_count,
        "times": columns.time_unix_nano.tolist(),
        "categories": {name: (c.codes.tolist(), c.labels) for name, c in columns.categories.items()},
        "numbers": {
            name: (repr(c.values.tolist()), c.given, c.is_positive_scale, c.unit) for name, c in columns.numbers.items()
        },
        "counts": {name: (c.counts.tolist(), c.labels) for name, c in columns.counts.items()},
    }


@pytest.mark.parametrize("kind", [kind.value for kind in StreamKind])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), split=st.integers(0, 8))
def test_a_shaper_restored_at_any_window_continues_alike(kind: str, seed: int, split: int) -> None:
    rng = random.Random(seed)
    windows = [WINDOWS[kind](rng, number) for number in range(8)]
    straight = new_shaper(kind)
    expected = [_plain(straight.shape(window)) for window in windows]
    first, second = new_shaper(kind), new_shaper(kind)
    for window in windows[:split]:
        first.shape(window)
    second.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(first.state())))
    assert [_plain(second.shape(window)) for window in windows[split:]] == expected[split:]
    assert second.state() == straight.state()


@pytest.mark.parametrize("kind", [kind.value for kind in StreamKind])
def test_columns_have_one_entry_per_record(kind: str) -> None:
    rng = random.Random(7)
    shaper = new_shaper(kind)
    for number in range(5):
        batch = WINDOWS[kind](rng, number)
        columns = shaper.shape(batch)
        n = len(batch.items)
        assert columns.record_count == n == columns.time_unix_nano.shape[0]
        for category in columns.categories.values():
            assert category.codes.shape == (n,)
            assert category.codes.dtype == np.int32
            assert category.codes.max() < len(category.labels) == len(set(category.labels))
        for column in columns.numbers.values():
            assert column.values.shape == (n,)
            assert column.given is None or column.given in columns.categories
            assert not column.is_positive_scale or not (column.values < 0).any()
        for counts in columns.counts.values():
            assert counts.counts.shape == (n, len(counts.labels))
            assert (counts.counts >= 0).all()


@pytest.mark.parametrize("kind", [kind.value for kind in StreamKind])
def test_a_window_without_records_is_fine(kind: str) -> None:
    empty = WINDOWS[kind](random.Random(1), 0)
    assert new_shaper(kind).shape(StreamBatch(empty.key)).record_count == 0


@pytest.mark.parametrize("signal", list(Signal))
def test_an_empty_request_has_no_batches(signal: Signal) -> None:
    messages = {Signal.LOGS: logs([]), Signal.METRICS: metrics([]), Signal.TRACES: traces([])}
    assert split_request(signal, messages[signal], "") == []
