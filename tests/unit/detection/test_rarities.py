from __future__ import annotations

import numpy as np

from driftlock_otlp.detection.columns import Category, Columns, Number
from driftlock_otlp.detection.rarities import RareValues


def _columns(hidden: list[float], tokens: list[float] | None = None, seed: int = 0) -> Columns:
    n = len(hidden)
    random = np.random.default_rng(seed)
    columns = Columns(n, np.arange(n, dtype=np.int64))
    columns.categories["operation"] = Category((np.arange(n) % 2).astype(np.int32), ["chat", "embed"])
    columns.numbers["hidden"] = Number(np.array(hidden), is_positive_scale=True, unit="chars")
    usual = 2.0 ** random.normal(8.0, 0.5, n)
    columns.numbers["tokens"] = Number(
        usual if tokens is None else np.array(tokens), given="operation", is_positive_scale=True, unit="tokens"
    )
    columns.numbers["offset"] = Number(random.normal(0, 1, n))
    return columns


def _warm() -> RareValues:
    rare = RareValues()
    for seed in range(40):
        rare.learn_one(_columns([0.0] * 50, seed=seed), None)
    return rare


def test_usual_values_are_far_below_the_bar() -> None:
    rare = _warm()
    for seed in range(100, 140):
        found = rare.score_one(_columns([0.0] * 50, seed=seed))
        assert found is not None
        assert found.margins.max() < 0


def test_a_single_value_far_beyond_all_others_is_an_alarm_and_is_told() -> None:
    rare = _warm()
    columns = _columns([0.0] * 49 + [40.0], seed=100)
    found = rare.score_one(columns)
    assert found is not None
    assert found.strongest == 49
    assert found.margins[49] > 0
    column, change = rare.explain(columns, 49)
    assert (column, change.observed, change.expected) == ("hidden", "40 chars", "0 chars")


def test_a_value_is_judged_given_its_symbol() -> None:
    rare = RareValues()
    for seed in range(40):
        columns = _columns([0.0] * 50, seed=seed)
        columns.numbers["tokens"].values[1::2] *= 1000.0
        rare.learn_one(columns, None)
    odd = _columns([0.0] * 50, seed=100)
    odd.numbers["tokens"].values[1::2] *= 1000.0
    odd.numbers["tokens"].values[0] *= 1000.0
    found = rare.score_one(odd)
    assert found is not None
    assert found.strongest == 0
    column, change = rare.explain(odd, 0)
    assert (column, change.label) == ("tokens", "chat")


def test_scoring_changes_nothing_and_a_restored_scorer_scores_the_same() -> None:
    rare = _warm()
    columns = _columns([0.0] * 49 + [3.0], seed=7)
    first, again = rare.score_one(columns), rare.score_one(columns)
    restored = RareValues()
    restored.restore(rare.state())
    other = restored.score_one(columns)
    assert first is not None
    assert again is not None
    assert other is not None
    np.testing.assert_array_equal(first.bits, again.bits)
    np.testing.assert_array_equal(first.bits, other.bits)
    np.testing.assert_array_equal(first.margins, other.margins)


def test_a_window_without_such_numbers_is_not_judged() -> None:
    assert RareValues().score_one(Columns(3, np.zeros(3, np.int64))) is None
