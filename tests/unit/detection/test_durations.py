"""Slow spans and slow traces: what they cost, whom they blame, and what is remembered."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from driftlock_otlp.detection import durations
from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.detection.durations import DurationCode, SpanDurations, log_duration, naming_bits
from driftlock_otlp.worker.checkpoint import decode_state, encode_state
from tests.unit.detection.examples import number, window

CALLS = ("request", "cart", "price", "stock")
USUAL_MS = np.array([120.0, 20.0, 30.0, 8.0])


def traces(durations_ms: Sequence[Sequence[float]]) -> Columns:
    """One trace per row, of one span for each operation."""
    count = len(durations_ms)
    columns = window(
        {"operation": [*CALLS] * count},
        {"duration": number([ms for trace in durations_ms for ms in trace], "operation", is_positive_scale=True)},
    )
    columns.sessions = np.repeat(np.arange(count), len(CALLS)).astype(np.int32)
    return columns


def usual(random: np.random.Generator, count: int) -> list[list[float]]:
    made: list[list[float]] = (USUAL_MS * np.exp(0.1 * random.standard_normal((count, len(CALLS))))).tolist()
    return made


def taught(windows: int = 40, each: int = 25) -> SpanDurations:
    random = np.random.default_rng(3)
    made = SpanDurations()
    for _ in range(windows):
        columns = traces(usual(random, each))
        made.learn_one(columns, made.score_one(columns))
    return made


def test_bulk_and_tail_bits_are_what_the_equations_say() -> None:
    values = log_duration(np.linspace(10.0, 30.0, 1001))
    code = DurationCode()
    code.learn(["a"], np.zeros(len(values), np.int32), values)
    edge = np.floor(values * 16) / 16
    middle, upper = (np.sort(edge)[int(share * len(edge))] for share in (0.5, 0.7))
    asked = log_duration(np.array([20.0, 29.0, 200.0]))
    slots = np.zeros(3, np.int64)
    bulk = math.log2(0.5 / 0.3) * (asked - middle) / max(upper - middle, 0.2) + 1.0
    assert code.bulk_bits(slots, asked) == pytest.approx(np.maximum(bulk, 0.0))
    rank = [(edge >= math.floor(x * 16) / 16).sum() for x in asked]
    tail = -np.log2((np.array(rank) + 1.0) / (len(values) + 1.0))
    assert code.tail_bits(slots, asked)[:2] == pytest.approx(tail[:2], abs=0.01)
    excess = edge - np.sort(edge)[int(0.98 * len(edge))]
    inside = excess[excess > 0]
    scale = (inside.sum() + 5 * 0.25) / (len(inside) + 5)
    beyond = (asked[2] - edge.max()) / scale / math.log(2)
    assert code.tail_bits(slots, asked)[2] == pytest.approx(tail[2] + beyond, rel=1e-3)


def test_the_slow_call_is_to_blame_and_not_the_request_that_waits_for_it() -> None:
    made = taught()
    columns = traces([[120, 20, 30, 8], [200, 20, 30, 88], [120, 21, 31, 8]])
    found = made.score_one(columns)
    assert found is not None
    assert found.strongest == 7
    assert np.delete(found.margins, [4, 7]).max() < found.margins[7] < 0.0
    column, change = made.explain(columns, 7)
    assert (column, change.label, change.observed) == ("duration", "stock", "88 ms")
    assert "usually 8" in change.text or "usually 7" in change.text


def test_a_trace_costs_what_its_whole_and_its_oddest_call_cost_less_a_name() -> None:
    made = taught()
    found = [
        made.score_one(traces([[whole, 20, 30, call]])) for whole, call in ((200, 88), (150, 8), (200, 8), (150, 88))
    ]
    both, neither, slow_whole, slow_call = (float(item.bits.max()) for item in found if item is not None)
    assert neither > 0.0
    assert both - slow_whole == pytest.approx(slow_call - neither)
    assert both - slow_call == pytest.approx(slow_whole - neither)


def test_a_single_slow_span_is_ranked_and_never_an_alarm() -> None:
    made = taught()
    margins = []
    for slow_ms in (10.0, 100.0, 10_000.0, 1e9):
        found = made.score_one(traces([[120, 20, 30, slow_ms]]))
        assert found is not None
        margins.append(float(found.margins[3]))
    assert margins == sorted(margins)
    assert len(set(margins)) == len(margins)
    assert margins[-1] < 0.0


def test_a_new_operation_says_nothing() -> None:
    made = taught()
    unknown = window({"operation": ["never seen"]}, {"duration": number([5_000.0], "operation")})
    found = made.score_one(unknown)
    assert found is not None and found.bits[0] == 0.0 and found.margins[0] < 0.0


def test_windows_without_durations_have_nothing_to_judge() -> None:
    made = SpanDurations()
    for columns in (
        window({"operation": ["a"]}),
        window({"operation": ["a"]}, {"duration": number([math.nan], "operation")}),
    ):
        assert made.score_one(columns) is None
        made.learn_one(columns, None)
    assert made.state() == SpanDurations().state()


def test_restored_durations_give_the_same_evidence() -> None:
    made = taught()
    restored = SpanDurations()
    restored.restore(decode_state(encode_state(made.state())))
    columns = traces([[200, 20, 30, 88], [120, 20, 30, 8]])
    for _ in range(2):
        ours, theirs = made.score_one(columns), restored.score_one(columns)
        assert ours is not None and theirs is not None
        assert ours.bits.tolist() == theirs.bits.tolist()
        assert ours.margins.tolist() == theirs.margins.tolist()
        made.learn_one(columns, ours)
        restored.learn_one(columns, theirs)


def test_the_operation_not_seen_for_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durations, "_MOST_OPERATIONS", 3)
    code = DurationCode()
    for name in ("a", "b", "c", "a", "d"):
        code.learn([name], np.zeros(40, np.int32), np.full(40, 3.0))
    assert (code.slots(["a", "b", "c", "d"]) >= 0).tolist() == [True, False, True, True]
    assert code.bulk_bits(code.slots(["d"]), np.array([3.0]))[0] == pytest.approx(1.0)
    code.learn([*"vwxyz"], np.arange(5, dtype=np.int32), np.full(5, 3.0))  # more in one window than there is room
    assert (code.slots([*"vwxyz"]) >= 0).sum() == 3


def test_old_calls_fade() -> None:
    code = DurationCode()
    at = np.zeros(1, np.int64)
    code.learn(["a"], np.zeros(2_000, np.int32), np.full(2_000, 8.0))
    for _ in range(80):
        code.learn(["a"], np.zeros(2_000, np.int32), np.full(2_000, 4.0))
    assert code.usual_ms(0) == pytest.approx(15.0)
    assert code.tail_bits(at, np.array([8.0]))[0] > 13.0
    assert sum(float(counts.sum()) for _, _, counts in code.state()) <= 16_384


def test_naming_all_traces_there_will_ever_be_costs_no_more_than_there_is() -> None:
    assert sum(2.0 ** -naming_bits(n) for n in range(1, 20_000)) < 0.5


def test_an_operation_that_never_had_a_duration_says_nothing() -> None:
    made = SpanDurations()
    first = window({"operation": ["a", "b"]}, {"duration": number([math.nan, 5.0], "operation")})
    made.learn_one(first, made.score_one(first))
    found = made.score_one(window({"operation": ["a", "b"]}, {"duration": number([9.0, 5.0], "operation")}))
    assert found is not None
    assert found.bits.tolist() == [0.0, 0.0]
