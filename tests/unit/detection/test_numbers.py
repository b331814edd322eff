"""The model of numeric columns, held against counting by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import pytest

from driftlock_otlp.detection.claims import sigma_bits
from driftlock_otlp.detection.numbers import NumberModel, NumberWindow
from tests.unit.detection.examples import COMPRESSOR, category, number
from tests.unit.detection.test_codelength import evidence

SHIFT, LEVEL, ORDER = 0, 1, 2
COMMON = 2  # of a column of groups, before its order
RANDOM = np.random.default_rng(20)


def taught(*windows: Sequence[float], **nature: bool) -> NumberModel:
    made = NumberModel("value", number([], **nature))
    for values in windows:
        made.learn(made.prepare(number(values), None))
    return made


def prepared(model: NumberModel, values: Sequence[float]) -> NumberWindow:
    return model.prepare(number(values), None)


def found(model: NumberModel, values: Sequence[float]) -> np.ndarray:
    return model.evaluate(prepared(model, values), COMPRESSOR).values


def slow_shift(baseline: Sequence[float], window: Sequence[float]) -> float:
    """Evidence averaged over 16, 8, 4 and 2 bins between baseline quantiles; edges are bins of their own."""
    base = sorted(baseline)
    edges = []
    for i in range(1, 16):
        place = (len(base) - 1) * i / 16
        low = int(place)
        edges.append(base[low] * (1 - (place - low)) + base[min(low + 1, len(base) - 1)] * (place - low))
    results = []
    for step in (1, 2, 4, 8):
        chosen = sorted(set(edges[step - 1 :: step]))

        def bin_of(value: float, chosen: list[float] = chosen) -> tuple[int, bool]:
            return sum(edge < value for edge in chosen), value in chosen

        bins = sorted({bin_of(value) for value in [*baseline, *window]})
        b = [sum(bin_of(value) == one for value in baseline) for one in bins]
        w = [sum(bin_of(value) == one for value in window) for one in bins]
        results.append(evidence(b, w, max(len(bins), 2)))
    return math.log2(sum(2.0**bits for bits in results) / 4)


@pytest.mark.parametrize(
    ("baseline", "window"),
    [
        (RANDOM.standard_normal(120), RANDOM.standard_normal(30)),
        (RANDOM.standard_normal(120), RANDOM.standard_normal(30) + 2),
        (RANDOM.integers(0, 5, 100), RANDOM.integers(0, 5, 20)),
        (RANDOM.integers(0, 3, 50), [7.0] * 9),
        ([5.0] * 40, [5.0] * 12),
        ([5.0] * 40, [5.0] * 11 + [5.1]),
        ([5.0] * 40, [4.0] * 12),
        (RANDOM.standard_normal(8), [0.0]),
        ([1.0] * 30 + [2.0] * 30, [1.5] * 10),
    ],
)
def test_shift_evidence_agrees_with_counting_by_hand(baseline: Sequence[float], window: Sequence[float]) -> None:
    slow = slow_shift([float(x) for x in baseline], [float(x) for x in window])
    # One group: the sum over groups and the best group are the same.
    assert found(taught(baseline), window)[SHIFT] == pytest.approx(slow, abs=1e-8)


def test_a_flat_series_that_moves_at_all_is_evidence() -> None:
    flat = taught([5.0] * 60)
    assert found(flat, [5.0] * 12)[SHIFT] < 0
    assert found(flat, [5.0001] * 12)[SHIFT] > 20


def test_level_counts_how_far_the_median_moved_for_the_size_of_the_sample() -> None:
    values = RANDOM.standard_normal(201) * 3 + 50
    own = np.full(10, 62.0)
    median = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - median))
    expected = (62.0 - median) / (spread * math.sqrt(1.5 / 10 + 1.5 / 201 + 0.1))
    assert found(taught(values), own)[LEVEL] == pytest.approx(sigma_bits(expected))


def test_level_needs_three_values_but_one_of_a_time_series() -> None:
    values = RANDOM.standard_normal(60)
    assert math.isnan(found(taught(values), [0.0] * 2)[LEVEL])
    assert math.isfinite(found(taught(values), [0.0] * 3)[LEVEL])
    assert math.isfinite(found(taught(values, is_point_series=True), [0.0])[LEVEL])


def test_level_needs_a_baseline_that_has_a_spread() -> None:
    few = [1.0, 1.001] * 15
    assert math.isnan(found(taught(few), [2.0] * 8)[LEVEL])
    assert found(taught([*few, 1.0, 1.001]), [2.0] * 8)[LEVEL] > 5
    assert math.isfinite(found(taught(few[:8], is_point_series=True), [2.0])[LEVEL])
    assert math.isnan(found(taught(few[:7], is_point_series=True), [2.0])[LEVEL])


def test_the_group_that_is_told_is_one_that_was_judged() -> None:
    made = NumberModel("duration", number([], given="operation"))
    base = np.r_[RANDOM.standard_normal(40), [5.0, 5.0]]
    made.learn(made.prepare(number(base), category(["often"] * 40 + ["seldom"] * 2)))
    own = made.prepare(number([0.5] * 8 + [900.0] * 8), category(["often"] * 8 + ["seldom"] * 8))
    assert [made.change(own, claim, "spans").label for claim in made.claims[:2]] == ["often", "often"]


def test_level_has_a_spread_where_most_values_are_equal() -> None:
    assert found(taught([100.0] * 50), [101.0] * 8)[LEVEL] == pytest.approx(
        sigma_bits(1 / math.sqrt(1.5 / 8 + 1.5 / 50 + 0.1))
    )
    mixed = [100.0] * 45 + [120.0] * 5
    assert found(taught(mixed), [102.0] * 8)[LEVEL] == pytest.approx(
        sigma_bits(2 / (2.0 * math.sqrt(1.5 / 8 + 1.5 / 50 + 0.1)))
    )
    assert math.isfinite(found(taught([0.0] * 50), [1.0] * 8)[LEVEL])


def test_positive_scales_are_judged_by_ratios() -> None:
    values = np.exp2(np.abs(RANDOM.standard_normal(101)))
    ratios = taught(values - 1, is_positive_scale=True)
    own = ratios.prepare(number(np.exp2(np.full(9, 3.0)) - 1, is_positive_scale=True), None)
    once = ratios.evaluate(own, COMPRESSOR).values
    plain = found(taught(np.log2(values)), np.full(9, 3.0))
    np.testing.assert_allclose(once, plain)


def test_values_that_are_missing_do_not_count() -> None:
    made = taught(RANDOM.standard_normal(50))
    window = prepared(made, [math.nan, 1.0, math.inf, 2.0])
    assert window.rows.tolist() == [1, 3]
    assert window.values.tolist() == [1.0, 2.0]
    assert np.isnan(found(made, [math.nan])).all()
    assert np.isnan(found(NumberModel("value", number([])), [1.0])).all()


def test_values_are_judged_given_their_symbol() -> None:
    # Fast and slow change places: the values together stay what they were.
    def window(fast: float, slow: float) -> tuple[list[float], list[str]]:
        jitter = RANDOM.standard_normal(40) * 0.1
        return list(np.r_[fast + jitter[:20], slow + jitter[20:]]), ["fast"] * 20 + ["slow"] * 20

    made = NumberModel("duration", number([], given="operation"))
    for _ in range(6):
        values, symbols = window(1.0, 9.0)
        made.learn(made.prepare(number(values), category(symbols)))
    usual = made.evaluate(made.prepare(number(window(1.0, 9.0)[0]), category(window(1, 9)[1])), COMPRESSOR)
    values, symbols = window(9.0, 1.0)
    swapped = made.evaluate(made.prepare(number(values), category(symbols)), COMPRESSOR)
    assert usual.values[SHIFT] < 0
    assert swapped.values[SHIFT] > 50
    assert swapped.values[LEVEL] > 20


def of_groups(factors: dict[str, float], count: int = 12) -> tuple[NumberModel, NumberWindow]:
    """Return a model of durations of operations, and a window in which each is slower by a factor."""
    random = np.random.default_rng(21)
    made = NumberModel("duration", number([], given="operation", is_positive_scale=True))

    def window(factors: dict[str, float], count: int) -> NumberWindow:
        values = [factor * 100.0 * np.exp(0.3 * random.standard_normal(count)) for factor in factors.values()]
        symbols = [symbol for symbol in factors for _ in range(count)]
        return made.prepare(number(np.concatenate(values), is_positive_scale=True), category(symbols))

    for _ in range(5):
        made.learn(window(dict.fromkeys(factors, 1.0), 12))
    return made, window(factors, count)


def test_what_one_group_does_beyond_the_others_is_its_level_and_what_all_do_is_common() -> None:
    usual, one, every, both = (
        model.evaluate(window, COMPRESSOR).values
        for model, window in (
            of_groups(dict.fromkeys("abcde", 1.0)),
            of_groups({**dict.fromkeys("abcde", 1.0), "c": 2.0}),
            of_groups(dict.fromkeys("abcde", 2.0)),
            of_groups({**dict.fromkeys("abcde", 2.0), "c": 4.0}),
        )
    )
    assert max(usual[LEVEL], usual[COMMON]) < 8
    assert one[LEVEL] > 20
    assert one[COMMON] < 3
    assert every[LEVEL] < 12
    assert every[COMMON] > 15
    assert min(both[LEVEL], both[COMMON]) > 12


def test_of_two_groups_nobody_can_say_which_moved_together() -> None:
    model, window = of_groups({"a": 2.0, "b": 2.0})
    values = model.evaluate(window, COMPRESSOR).values
    assert math.isnan(values[COMMON])
    assert values[LEVEL] > 15


def test_one_value_far_away_does_not_move_the_level_of_its_group() -> None:
    model, window = of_groups(dict.fromkeys("abcde", 1.0))
    before = model.evaluate(window, COMPRESSOR).values[LEVEL]
    window.values[0] += 20.0  # a million times slower
    assert model.evaluate(window, COMPRESSOR).values[LEVEL] < before + 10


def test_what_all_groups_do_is_told_in_words() -> None:
    model, window = of_groups(dict.fromkeys("abcde", 2.0))
    change = model.change(window, model.claims[COMMON], "spans")
    assert change.label == ""
    assert re.fullmatch(
        r"duration is [23](\.\d)? usual deviations larger in most of 5 groups \(60 spans\)", change.text
    ), change.text


def test_groups_add_up_and_the_best_one_stands_for_itself() -> None:
    made = NumberModel("duration", number([], given="operation"))
    bases = {name: RANDOM.standard_normal(40) for name in "abc"}
    made.learn(made.prepare(number(np.concatenate(list(bases.values()))), category("a" * 40 + "b" * 40 + "c" * 40)))
    own = {"a": RANDOM.standard_normal(10), "c": RANDOM.standard_normal(10) + 3, "new": np.zeros(10)}
    symbols = ["a"] * 10 + ["c"] * 10 + ["new"] * 10
    values = made.evaluate(
        made.prepare(number(np.concatenate(list(own.values()))), category(symbols)), COMPRESSOR
    ).values
    parts = [slow_shift(list(bases[name]), list(own[name])) for name in "ac"]
    best = math.log2(sum(2.0**bits for bits in parts) / 2)
    assert values[SHIFT] == pytest.approx(math.log2((2.0 ** sum(parts) + 2.0**best) / 2), abs=1e-8)


def test_a_group_needs_eight_baseline_values() -> None:
    assert math.isnan(found(taught([1.0] * 7), [9.0] * 8)[SHIFT])
    assert math.isfinite(found(taught([1.0] * 8), [9.0] * 8)[SHIFT])


def test_records_without_a_symbol_are_left_out() -> None:
    made = NumberModel("duration", number([], given="operation"))
    window = made.prepare(number([1.0, 2.0, 3.0]), category(["a", None, "b"]))
    assert window.values.tolist() == [1.0, 3.0]
    assert window.labels == ["a", "b"]


def test_order_sees_what_counts_cannot() -> None:
    wave = np.tile(np.sin(np.arange(12)), 10)
    made = taught(*[wave] * 8)
    usual, mixed = found(made, wave), found(made, RANDOM.permutation(wave))
    assert mixed[SHIFT] == pytest.approx(usual[SHIFT])
    assert mixed[ORDER] > usual[ORDER] + 1.0
    assert math.isnan(found(made, wave[:31])[ORDER])
    assert math.isfinite(found(made, wave[:32])[ORDER])


def test_learning_and_forgetting_returns_to_the_same_evidence() -> None:
    first, second = RANDOM.standard_normal(50), RANDOM.standard_normal(50) + 4
    made = taught(first)
    before = found(made, second[:20])
    made = NumberModel("value", number([]))
    gone = prepared(made, second)
    made.learn(gone)
    made.learn(prepared(made, first))
    assert found(made, second[:20])[SHIFT] < before[SHIFT]
    made.forget(gone)
    np.testing.assert_array_equal(found(made, second[:20]), before)


def test_labels_that_left_the_baseline_give_their_numbers_back() -> None:
    made = NumberModel("duration", number([], given="pod"))
    windows = []
    for turn in range(30):
        symbols = [f"pod-{turn}-{i}" for i in range(400) for _ in range(2)] + ["steady"] * 20
        values = np.r_[np.zeros(800), np.arange(20.0)]
        windows.append(made.prepare(number(values), category(symbols)))
        made.learn(windows[-1])
        if turn >= 3:
            made.forget(windows[turn - 3])
    assert len(made.state()["ids"]) < 4096 + 401
    late = made.prepare(number(np.arange(20.0) + 30), category(["steady"] * 20))
    assert made.evaluate(late, COMPRESSOR).values[SHIFT] > 20
    assert made.change(late, made.claims[LEVEL], "spans").expected == "10"


def test_each_record_saves_what_its_bin_is_fuller() -> None:
    made = taught(np.arange(100.0))
    window = prepared(made, [50.0, 500.0, math.nan, 900.0, 800.0])
    saved = made.record_bits(window, 5)
    assert saved[2] == 0.0
    assert saved[0] < 1.0 < saved[1] < saved[4] < saved[3]


def test_changes_are_told_in_words() -> None:
    made = NumberModel("duration", number([], given="operation", is_positive_scale=True, unit="ms"))
    base = np.r_[np.full(40, 20.0) + np.arange(40) * 0.01, np.full(40, 300.0) + np.arange(40)]

    def of(values: Sequence[float], symbols: list[str]) -> NumberWindow:
        return made.prepare(number(values, is_positive_scale=True), category(symbols))

    made.learn(of(base, ["read"] * 40 + ["write"] * 40))
    own = of(np.r_[base[:40:4][:9], [990.0] * 9], ["read"] * 9 + ["write"] * 9)
    for claim in made.claims[:2]:
        change = made.change(own, claim, "spans")
        assert change.label == "write"
        assert change.text == "median duration of {label} is 990 ms, expected 320 ms (9 spans)"
    assert made.change(of([1.0], ["other"]), made.claims[0], "spans").text == "duration changed"


def test_an_equal_median_is_told_by_the_span() -> None:
    made = taught(np.tile([9.0, 10.0, 11.0], 20))
    change = made.change(prepared(made, [0.0, 10.0, 20.0] * 5), made.claims[0], "data points")
    assert change.text == "value lies between 0 and 20, expected 9 and 11 (15 data points)"


def test_a_restored_model_goes_on_alike() -> None:
    made = NumberModel("duration", number([], given="operation", is_positive_scale=True, unit="ms"))
    windows = [made.prepare(number(RANDOM.random(20) * 100), category(list("ab" * 10))) for _ in range(4)]
    for window in windows:
        made.learn(window)
    again = NumberModel.of_state("duration", made.state())
    again.restore(made.state(), windows)
    late = made.prepare(number(RANDOM.random(30) * 300), category(list("abc" * 10)))
    for _ in range(2):
        np.testing.assert_array_equal(again.evaluate(late, COMPRESSOR).values, made.evaluate(late, COMPRESSOR).values)
        made.forget(windows[0])
        again.forget(windows[0])


def test_where_all_series_are_noisier_than_usual_a_level_says_less() -> None:
    random = np.random.default_rng(22)
    made = NumberModel("value", number([], given="series", is_point_series=True))

    def window(shift: float, noise: float) -> NumberWindow:
        values = noise * random.standard_normal((6, 3)) + [shift, 0.0, 0.0]
        return made.prepare(number(values.reshape(-1)), category(list("abc") * 6))

    for _ in range(20):
        made.learn(window(0.0, 1.0))
    quiet, loud = ([made.evaluate(window(6.0, noise), COMPRESSOR).values[LEVEL] for _ in range(9)] for noise in (1, 3))
    assert np.median(quiet) > 2.0 * np.median(loud)
    # The step at which the level changes is one of many: it does not count as noise.
    sudden = made.prepare(
        number((random.standard_normal((6, 3)) + [[0, 0, 0]] + [[8.0 * (i >= 1), 0, 0] for i in range(6)]).reshape(-1)),
        category(list("abc") * 6),
    )
    assert made.evaluate(sudden, COMPRESSOR).values[LEVEL] > 15
