"""The baseline: which windows it holds, and what it says of columns that come and go."""

from __future__ import annotations

import math

import numpy as np
import pytest

from driftlock_otlp.detection.baseline import Baseline, PreparedWindow
from driftlock_otlp.detection.columns import Columns, Counts
from driftlock_otlp.detection.numbers import NumberModel
from driftlock_otlp.detection.symbols import SymbolModel
from driftlock_otlp.detection.volume import VolumeModel
from driftlock_otlp.worker.checkpoint import decode_state, encode_state
from tests.unit.detection.examples import COMPRESSOR, number, window


def baseline(windows: int = 3, records: int = 1) -> Baseline:
    return Baseline(windows, records, COMPRESSOR)


def learn(made: Baseline, columns: Columns, log2_rate: float = 1.0) -> PreparedWindow:
    prepared = made.prepare(columns, log2_rate)
    made.learn(prepared)
    return prepared


def names(made: Baseline) -> list[tuple[str, str]]:
    return [(claim.column, claim.name) for claim in made.claims]


def test_it_is_ready_with_its_least_windows_and_then_keeps_as_many() -> None:
    made = baseline(windows=3)
    for count in range(1, 8):
        assert made.is_ready == (count > 3)
        learn(made, window({"template": "aabb"}))
        assert made.window_count == min(count, 3)
        assert made.record_count == 4 * made.window_count


def test_small_windows_add_up_to_the_least_records() -> None:
    made = baseline(windows=3, records=20)
    for _ in range(30):
        learn(made, window({"template": "aabb"}))
    assert (made.window_count, made.record_count) == (5, 20)
    learn(made, window({"template": "a" * 100}))
    assert (made.window_count, made.record_count) == (3, 108)


def test_empty_windows_do_not_pile_up_for_ever() -> None:
    made = baseline(windows=2, records=10)
    empty = Columns(0, np.zeros(0, dtype=np.int64))
    for _ in range(2100):
        learn(made, empty, math.nan)
    assert made.window_count == 2000


def test_evidence_comes_in_the_order_of_the_claims() -> None:
    made = baseline()
    columns = window({"template": "aabb" * 8, "parameter.0": "xxyy" * 8}, {"size": number(range(32))})
    columns.counts["buckets"] = Counts(np.ones((32, 2)), ["low", "high"])
    for _ in range(3):
        learn(made, columns)
    assert names(made) == [
        ("rate", "rate"),
        ("template", "shift"),
        ("template", "novelty"),
        ("template", "order"),
        # A dotted column depends on another: its order says nothing of its own.
        ("parameter.0", "shift"),
        ("parameter.0", "novelty"),
        ("buckets", "shift"),
        ("size", "shift"),
        ("size", "level"),
        ("size", "order"),
    ]
    found = made.evaluate(made.prepare(columns, 1.0))
    assert found.values.shape == (len(made.claims),)
    assert np.isfinite(found.values).all()
    assert found.sizes.window_raw == 32 + 64
    assert found.entropy_bits == pytest.approx(3.0)
    kinds = [type(made.model_of(claim)) for claim in made.claims]
    assert kinds == [VolumeModel] + [SymbolModel] * 6 + [NumberModel] * 3


def test_a_column_that_comes_up_later_is_silent_until_it_is_learned() -> None:
    made = baseline()
    for _ in range(3):
        learn(made, window({"template": "aabb"}))
    late = window({"template": "aabb", "scope": "ssss"}, {"size": number([1.0, 2.0, 3.0, 4.0])})
    values = made.evaluate(made.prepare(late, 1.0)).values
    assert names(made)[4:] == [
        ("scope", "shift"),
        ("scope", "novelty"),
        ("scope", "order"),
        ("size", "shift"),
        ("size", "level"),
        ("size", "order"),
    ]
    assert np.isnan(values[4:]).all()
    for _ in range(3):
        learn(made, late)
    values = made.evaluate(made.prepare(late, 1.0)).values
    assert np.isfinite(values[4:6]).all()
    assert math.isfinite(values[7])


def test_a_window_prepared_before_a_column_came_up_can_still_be_learned_and_forgotten() -> None:
    made = baseline(windows=2)
    early = made.prepare(window({"template": "aabb"}), 1.0)
    late = made.prepare(window({"scope": "ssss"}, {"size": number([1.0] * 4)}), 1.0)
    for prepared in (early, late):
        made.learn(prepared)
    for _ in range(4):
        learn(made, window({"template": "abab", "scope": "stst"}, {"size": number([2.0] * 4)}))
    assert made.window_count == 2
    assert made.record_count == 8


def test_clearing_forgets_the_windows_but_not_what_was_ever_seen() -> None:
    made = baseline()
    for _ in range(3):
        learn(made, window({"template": "aabb"}))
    made.clear()
    assert (made.window_count, made.record_count, made.is_ready) == (0, 0, False)
    learn(made, window({"template": "cccc"}))
    novelty = names(made).index(("template", "novelty"))
    assert made.evaluate(made.prepare(window({"template": "aaaa"}), 1.0)).values[novelty] == 0.0


def test_evaluating_and_preparing_known_columns_changes_nothing() -> None:
    made = baseline()
    columns = window({"template": "aabb" * 4}, {"size": number(range(16))})
    for _ in range(3):
        learn(made, columns)
    before = encode_state(made.state())
    prepared = made.prepare(window({"template": "zzzz" * 4}, {"size": number([99.0] * 16)}), 5.0)
    made.evaluate(prepared)
    made.record_bits(prepared, {"template": 1.0, "size": 1.0})
    assert encode_state(made.state()) == before


def test_records_are_weighed_by_column() -> None:
    made = baseline()
    for _ in range(3):
        learn(made, window({"template": "aabb" * 4}, {"size": number(range(16))}))
    odd = made.prepare(window({"template": "aabz" * 4}, {"size": number([*range(15), 999.0])}), 1.0)
    template = made.record_bits(odd, {"template": 1.0})
    assert np.flatnonzero(template).tolist() == [3, 7, 11, 15]
    both = made.record_bits(odd, {"template": 0.5, "size": 2.0, "unheard of": 1.0})
    np.testing.assert_allclose(both, 0.5 * template + 2.0 * made.record_bits(odd, {"size": 1.0}))


def test_a_restored_baseline_goes_on_alike() -> None:
    made = baseline(windows=4, records=50)
    random = np.random.default_rng(3)

    def some() -> Columns:
        symbols = list(random.choice(list("abcdef"), 16))
        return window(
            {"template": symbols}, {"size": number(random.random(16), given="template", is_positive_scale=True)}
        )

    for _ in range(9):
        learn(made, some(), float(random.random()))
    again = baseline(windows=4, records=50)
    again.restore(decode_state(encode_state(made.state())))
    assert encode_state(again.state()) == encode_state(made.state())
    assert names(again) == names(made)
    for _ in range(9):
        columns = some()
        one, other = made.prepare(columns, 2.0), again.prepare(columns, 2.0)
        np.testing.assert_array_equal(made.evaluate(one).values, again.evaluate(other).values)
        made.learn(one)
        again.learn(other)
