"""The model of symbol columns, held against counting by hand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from driftlock_otlp.detection.codelength import novelty_evidence
from driftlock_otlp.detection.columns import Counts
from driftlock_otlp.detection.symbols import SymbolModel, SymbolWindow
from tests.unit.detection.examples import COMPRESSOR, category
from tests.unit.detection.test_codelength import evidence

SHIFT, NOVELTY, ORDER = 0, 1, 2


def taught(*windows: str, has_order: bool = False) -> SymbolModel:
    """A model that has learned these windows of one-letter symbols."""
    made = SymbolModel("template", has_order=has_order)
    for text in windows:
        made.learn(made.prepare(category(text)))
    return made


def values(model: SymbolModel, text: str) -> np.ndarray:
    return model.evaluate(model.prepare(category(text)), COMPRESSOR).values


def slow_shift(baseline: str, window: str) -> float:
    """Even mixture of the whole alphabet and of each symbol against the rest."""
    symbols = sorted(set(baseline) | set(window))
    b, w = [baseline.count(s) for s in symbols], [window.count(s) for s in symbols]
    whole = evidence(b, w, len(symbols) + 1)
    each = [evidence([x, len(baseline) - x], [y, len(window) - y], 2) for x, y in zip(b, w, strict=True)]
    binary = math.log2(sum(2.0**bits for bits in each) / len(each))
    return math.log2((2.0**whole + 2.0**binary) / 2)


@pytest.mark.parametrize("window", ["aaabbc", "cccccc", "xyzxyz", "aab" * 20, "d"])
def test_shift_evidence_agrees_with_counting_by_hand(window: str) -> None:
    first, second = "aabbabcaab", "aaaabbbbcd" * 3
    assert values(taught(first, second), window)[SHIFT] == pytest.approx(slow_shift(first + second, window), abs=1e-8)


def test_learning_and_forgetting_returns_to_the_same_evidence() -> None:
    one, both = taught("aabbb"), taught("aabbb")
    extra = both.prepare(category("bbqqz"))
    both.learn(extra)
    kept = taught("aabbb")
    gone = kept.prepare(category("bbqqz"))
    first = SymbolWindow(["a", "b"], np.array([2, 3]), None, np.array([1, 2]))
    both.forget(first)
    assert values(both, "bbqz")[SHIFT] == values(taught("bbqqz"), "bbqz")[SHIFT]
    kept.learn(gone)
    kept.forget(gone)
    assert values(kept, "aab")[SHIFT] == values(one, "aab")[SHIFT]
    assert kept.baseline_entropy_bits() == one.baseline_entropy_bits()


def test_what_left_the_baseline_is_still_not_new() -> None:
    made = taught("aaaa")
    window = made.prepare(category("qqqq"))
    assert made.evaluate(window, COMPRESSOR).values[NOVELTY] > 0
    made.learn(window)
    made.forget(window)
    assert values(made, "aaqq")[NOVELTY] == 0.0
    assert values(made, "aarr")[NOVELTY] > 0.0


def test_novelty_counts_the_most_frequent_new_symbol_against_the_usual_rate() -> None:
    made = taught("aaaaaaaaaa", "aaaaaaaaab", "aaaaaaaacc")  # b and c came as news: 2 of 30
    rate = (2 + 0.5) / (30 + 1.0)
    assert values(made, "aaaaaxxxxyy")[NOVELTY] == pytest.approx(novelty_evidence(4, 11, rate))


def test_nothing_is_claimed_without_symbols_or_without_a_baseline() -> None:
    assert np.isnan(values(taught("abc"), "")).all()
    assert np.isnan(values(SymbolModel("template", has_order=True), "abc")).all()
    assert np.isnan(SymbolModel("x", has_order=False).evaluate(taught("a").prepare(None), COMPRESSOR).values).all()


def test_records_without_a_value_do_not_count() -> None:
    made = taught("aab")
    window = made.prepare(category(["a", None, "b", None]))
    assert window.total == 2
    assert window.codes is not None
    assert window.codes.tolist() == [0, -1, 1, -1]


def test_labels_that_no_record_has_are_dropped() -> None:
    column = category("aab")
    column.labels.append("never")
    assert SymbolModel("x", has_order=False).prepare(column).labels == ["a", "b"]


def test_order_is_bits_a_record_of_the_compressor_and_needs_32_records() -> None:
    made = taught(*["abc" * 30] * 12, has_order=True)
    usual = values(made, "abc" * 30)[ORDER]
    shuffled = np.random.default_rng(1).permutation(list("abc" * 30))
    assert values(made, "".join(shuffled))[ORDER] > usual + 0.3
    assert math.isnan(values(made, "abc" * 10 + "a")[ORDER])
    assert math.isfinite(values(made, "abc" * 10 + "ab")[ORDER])


def test_order_evidence_is_what_the_window_adds_to_the_compressed_baseline() -> None:
    made = taught("aabbabab" * 3, "abababab" * 3, has_order=True)
    known = {"a": 1, "b": 2}
    base = np.array([known[s] for s in "aabbabab" * 3 + "abababab" * 3], dtype=np.uint8)
    own = np.array([known.get(s, 3) for s in "bbbbbbbbzz" * 4], dtype=np.uint8)
    added, after_newer = (
        COMPRESSOR.compressed_size(np.concatenate((part, own))) - COMPRESSOR.compressed_size(part)
        for part in (base, base[24:])
    )
    found = made.evaluate(made.prepare(category("bbbbbbbbzz" * 4)), COMPRESSOR)
    assert found.values[ORDER] == pytest.approx(8.0 * min(added, after_newer) / 40)
    assert found.sizes.both - found.sizes.baseline == added
    assert found.sizes.window_raw == 40


def test_evaluating_changes_nothing() -> None:
    made = taught("aabb" * 5, "abab" * 5, has_order=True)
    first = values(made, "aazzzzzz")
    np.testing.assert_array_equal(values(made, "aazzzzzz"), first)


def test_a_histogram_column_counts_its_bins_and_claims_a_shift_only() -> None:
    made = SymbolModel("buckets", has_order=False, is_histogram=True)
    assert [claim.name for claim in made.claims] == ["shift"]
    column = Counts(np.array([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]]), ["le 1", "le 5", "le 10"])
    window = made.prepare(column)
    assert dict(zip(window.labels, window.counts.tolist(), strict=True)) == {"le 1": 4, "le 5": 2}
    made.learn(window)
    late = made.prepare(Counts(np.array([[0.0, 0.0, 40.0]]), column.labels))
    assert made.evaluate(late, COMPRESSOR).values[0] == pytest.approx(slow_shift("aaaabb", "c" * 40), abs=1e-8)
    assert (
        made.change(late, made.claims[0], "data points").text == "100% of observations fall into {label}, expected 0%"
    )


def test_a_histogram_of_millions_counts_as_some_hundred_records() -> None:
    made = SymbolModel("buckets", has_order=False, is_histogram=True)
    window = made.prepare(Counts(np.array([[3e6, 1e6]]), ["low", "high"]))
    assert window.counts.tolist() == [192, 64]


def test_symbols_beyond_the_limit_share_one_name_and_are_not_called_new() -> None:
    made = SymbolModel("template", has_order=True)
    many = [f"t{i}" for i in range(6000)]
    for start in range(0, 6000, 500):
        made.learn(made.prepare(category(many[start : start + 500])))
    state = made.state()
    assert len(state["labels"]) == 4096
    assert state["labels"][0] == "<other>"
    assert state["learned"][0] == 6000 - 4095
    late = made.prepare(category(["one more", "and another"] * 50))
    found = made.evaluate(late, COMPRESSOR).values
    assert found[NOVELTY] == 0.0
    assert np.isfinite(found).all()
    change = made.change(late, made.claims[SHIFT], "log records")
    assert change.label == "<other>"
    assert change.observed == "100"
    made.learn(late)
    assert len(made.state()["labels"]) == 4096
    made.forget(late)
    assert made.evaluate(made.prepare(category(["one more"])), COMPRESSOR).values[NOVELTY] == 0.0


def test_each_record_saves_what_its_symbol_is_more_frequent() -> None:
    made = taught("aaaabbbbbb")
    window = made.prepare(category(["a", "z", None, "z"]))
    saved = made.record_bits(window, 4)
    alphabet = 2 + 1 + 1  # in the baseline, new in the window, and one for what was never seen
    z = math.log2((2 + 0.5) / (3 + alphabet / 2)) - math.log2(0.5 / (10 + alphabet / 2))
    assert saved.tolist() == pytest.approx([0.0, z, 0.0, z])


def test_changes_are_told_in_words() -> None:
    made = taught("a" * 90 + "b" * 10)
    shift, novelty = made.claims
    new = made.change(made.prepare(category("a" * 7 + "zzz")), novelty, "log records")
    assert (new.label, new.text) == ("z", "3 of 10 log records have a new template {label}")
    gone = made.change(made.prepare(category("b" * 20)), shift, "log records")
    assert gone.text in {
        "no template {label} any more, expected 18 of 20 log records",
        "20 of 20 log records have template {label}, expected 2.0",
    }
    more = made.change(made.prepare(category("a" * 50 + "b" * 50)), shift, "spans")
    assert (more.label, more.text) in {
        ("b", "50 of 100 spans have template {label}, expected 10"),
        ("a", "50 of 100 spans have template {label}, expected 90"),
    }


def test_a_missing_symbol_is_told_as_missing() -> None:
    made = taught("a" * 50 + "b" * 25 + "c" * 25)
    change = made.change(made.prepare(category("b" * 50 + "c" * 50)), made.claims[0], "log records")
    assert (change.label, change.observed, change.expected) == ("a", "0", "50")
    assert change.text == "no template {label} any more, expected 50 of 100 log records"


def test_a_restored_model_goes_on_alike() -> None:
    texts = ["aabb" * 4, "abcd" * 4, "dddd" * 4]
    made = SymbolModel("template", has_order=True)
    windows = [made.prepare(category(text)) for text in texts]
    for window in windows:
        made.learn(window)
    again = SymbolModel("template", has_order=True)
    again.restore(made.state(), windows)
    np.testing.assert_array_equal(values(again, "aazz" * 4), values(made, "aazz" * 4))
    made.forget(windows[0])
    again.forget(windows[0])
    np.testing.assert_array_equal(values(again, "aazz" * 4), values(made, "aazz" * 4))


def test_entropy_is_reported_in_bits_a_record() -> None:
    made = taught("ab" * 8)
    assert made.baseline_entropy_bits() == 1.0
    assert made.window_entropy_bits(made.prepare(category("aaaa"))) == 0.0


def test_counts_of_the_baseline_are_those_of_its_windows() -> None:
    made = taught("aab", "bcc")
    state = made.state()
    learned = {label: int(n) for label, n in zip(state["labels"], state["learned"], strict=False) if n}
    assert learned == dict(Counter("aabbcc"))
