"""Point series of a stream: which ones are followed, and what each owes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from driftlock_otlp.detection import points
from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.detection.novelty import PointSeries
from driftlock_otlp.detection.points import StreamPoints
from driftlock_otlp.worker.checkpoint import decode_state, encode_state
from tests.unit.detection.examples import category, number


def one_window(time_s: float, values: dict[str, float], step_s: float = 0.0) -> Columns:
    """One point of each series."""
    times = (time_s + step_s * np.arange(len(values))) * 1e9
    return Columns(
        len(values),
        times.astype(np.int64),
        {"series": category(list(values))},
        {"value": number(list(values.values()), "series", is_point_series=True)},
    )


def learn(made: StreamPoints, columns: Columns) -> None:
    made.learn_one(columns, made.score_one(columns))


def told(made: StreamPoints, name: str, value: float) -> str:
    return made.explain(one_window(0.0, {name: value}), 0)[1].text


def taught(count: int, names: str = "a", step_s: float = 300.0) -> StreamPoints:
    random = np.random.default_rng(4)
    made = StreamPoints()
    for i in range(count):
        learn(made, one_window(i * step_s, {name: 50 + float(random.standard_normal()) for name in names}))
    return made


def test_columns_that_are_no_point_series_have_no_points() -> None:
    columns = one_window(0.0, {"a": 1.0})
    columns.numbers = {"duration": number([1.0])}
    made = StreamPoints()
    assert made.score_one(columns) is None
    made.learn_one(columns, None)
    assert made.state() == []


def test_a_series_is_armed_after_150_points() -> None:
    for count, can_alarm in ((149, False), (150, True)):
        scores = taught(count).score_one(one_window(count * 300.0, {"a": 500.0}))
        assert scores is not None
        assert scores.bits[0] > 10
        assert (scores.margins[0] >= 0) == can_alarm


def test_the_first_point_of_a_series_says_nothing() -> None:
    scores = taught(200).score_one(one_window(60_000.0, {"a": 50.0, "b": 1e9}))
    assert scores is not None
    assert scores.bits[1] == 0.0
    assert scores.margins[1] == -math.inf
    assert scores.strongest == 0


def test_naming_one_of_many_series_costs_its_bits() -> None:
    made = taught(200, "abcdefgh")
    columns = one_window(60_000.0, {"a": 500.0})
    alone = StreamPoints()
    alone.restore(made.state()[:1])
    one, many = alone.score_one(columns), made.score_one(columns)
    assert one is not None
    assert many is not None
    assert one.bits[0] - many.bits[0] == pytest.approx(3.0)


def test_a_fast_series_owes_more() -> None:
    margins = []
    for step_s in (600.0, 300.0, 75.0):
        made = taught(200, step_s=step_s)
        scores = made.score_one(one_window(200 * step_s, {"a": 500.0}))
        assert scores is not None
        margins.append(scores.margins[0] - scores.bits[0])
    assert margins[0] == pytest.approx(margins[1])
    # Four times as many points a day: two doublings at three bits each.
    assert margins[1] - margins[2] == pytest.approx(6.0)


def test_missing_values_are_no_points() -> None:
    made = taught(60)
    before = encode_state(made.state())
    learn(made, one_window(60_000.0, {"a": math.nan}))
    assert encode_state(made.state()) == before


def test_the_least_recently_seen_series_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "_MOST_SERIES", 3)
    made = StreamPoints()
    for time_s, name in enumerate("abcad"):
        learn(made, one_window(float(time_s), {name: 1.0}))
    assert [key for key, *_ in made.state()] == [["value", "c"], ["value", "a"], ["value", "d"]]
    assert "nearest value seen before is nan" in told(made, "b", 1.0)
    assert "nearest value seen before is 1" in told(made, "a", 7.0)


def test_points_after_an_alarm_are_graded_by_how_odd_the_last_ones_were() -> None:
    made = taught(300)
    usual = made.score_one(one_window(90_000.0, {"a": 50.0}))
    learn(made, one_window(90_000.0, {"a": 500.0}))
    graded = []
    for i in range(1, 30):
        found = made.score_one(one_window(90_000.0 + 300 * i, {"a": 50.0}))
        assert found is not None
        graded.append(float(found.margins[0]))
        learn(made, one_window(90_000.0 + 300 * i, {"a": 50.0}))
    assert usual is not None
    assert all(usual.margins[0] < margin < 0.0 for margin in graded[:5])
    assert graded[0] > graded[5] > graded[-1]


def test_two_points_of_a_series_in_one_window_are_graded_one_after_the_other() -> None:
    together, apart = taught(200), taught(200)
    columns = one_window(60_000.0, {"a": 500.0, "b": 500.0}, step_s=300.0)
    columns.categories["series"] = category(["a", "a"])
    both = together.score_one(columns)
    assert both is not None
    assert both.lasting is not None
    first = apart.score_one(one_window(60_000.0, {"a": 500.0}))
    assert first is not None
    assert first.lasting is not None
    assert both.lasting[0] == first.lasting[0]
    assert both.lasting[1] > both.lasting[0]


def test_how_many_windows_are_missing_until_it_may_alarm_is_told() -> None:
    for count, missing in ((0, 150), (149, 1), (150, 0), (200, 0)):
        found = taught(count).score_one(one_window(count * 300.0, {"a": 50.0}))
        assert found is not None
        assert found.windows_to_warm == missing


def test_an_alarm_is_not_repeated_while_it_is_held() -> None:
    made = taught(300)
    first = one_window(90_000.0, {"a": 500.0})
    scores = made.score_one(first)
    assert scores is not None
    assert scores.margins[0] >= 0
    made.learn_one(first, scores)
    again = made.score_one(one_window(90_300.0, {"a": 900.0}))
    assert again is not None
    assert again.bits[0] > 10
    assert -3.0 < again.margins[0] < 0.0


def test_scoring_changes_nothing_and_a_restored_stream_goes_on_alike() -> None:
    made = taught(200, "ab")
    again = StreamPoints()
    again.restore(decode_state(encode_state(made.state())))
    for i in range(50):
        columns = one_window(60_000.0 + 300 * i, {"a": 50.0 + i % 7, "b": 900.0 if i == 20 else 49.0, "c": i})
        before = encode_state(made.state())
        one, other = made.score_one(columns), again.score_one(columns)
        assert encode_state(made.state()) == before
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(one.bits, other.bits)
        np.testing.assert_array_equal(one.margins, other.margins)
        made.learn_one(columns, one)
        again.learn_one(columns, other)


def test_a_series_without_a_symbol_has_the_empty_name() -> None:
    columns = Columns(1, np.zeros(1, dtype=np.int64), {}, {"value": number([3.0], is_point_series=True)})
    made = StreamPoints()
    learn(made, columns)
    column, change = made.explain(columns, 0)
    assert (column, change.label, change.expected) == ("value", "", "3")
    assert isinstance(PointSeries.of_state(made.state()[0][1]), PointSeries)


def test_values_that_people_called_bad_are_novel_again_until_that_is_taken_back() -> None:
    made = taught(400)
    columns = [one_window((400 + i) * 300.0, {"a": 120.0 + i}) for i in range(20)]
    odd = []
    for turn, window in enumerate(columns):
        evidence = made.score_one(window)
        assert evidence is not None
        assert (evidence.margins[0] >= 0) == (turn == 0)
        made.learn_one(window, evidence)
        odd += made.odd(window, evidence)
    for i in range(100):
        learn(made, one_window((420 + i) * 300.0, {"a": 50.0 + 0.01 * i}))
    later = one_window(520 * 300.0, {"a": 125.0})
    silent = made.score_one(later)
    assert silent is not None
    assert silent.margins[0] < 0
    before = encode_state(made.state())
    made.judge(odd, is_good=False)
    for _ in range(3):
        again = StreamPoints()
        again.restore(decode_state(encode_state(made.state())))
        evidence = again.score_one(later)
        assert evidence is not None
        assert evidence.margins[0] > 0
        learn(made, later)  # and it is not learned this time
    usual = made.score_one(one_window(521 * 300.0, {"a": 50.2}))
    assert usual is not None
    assert usual.margins[0] < 0
    made.restore(decode_state(before))
    made.judge(odd, is_good=False)
    made.judge(odd, is_good=None)
    assert encode_state(made.state()) == before
