"""Code lengths, held against sequential coding and `math.lgamma`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from driftlock_otlp.detection.codelength import (
    alphabet_evidence,
    binary_evidence,
    entropy_bits,
    log2_gamma_half,
    log2_mean_exp2,
    mix,
    novelty_evidence,
)


def sequential_bits(sequence: Sequence[int], alphabet: int) -> float:
    """Bits of an arithmetic coder that starts with half a count per symbol and learns as it goes."""
    counts = [0.5] * alphabet
    bits = 0.0
    for symbol in sequence:
        bits -= math.log2(counts[symbol] / sum(counts))
        counts[symbol] += 1.0
    return bits


def code_length(counts: Sequence[int], alphabet: int) -> float:
    """The same from the counts alone, by the gamma function."""
    n = sum(counts)
    log = math.lgamma(alphabet / 2) - math.lgamma(n + alphabet / 2)
    log += sum(math.lgamma(count + 0.5) - math.lgamma(0.5) for count in counts)
    return -log / math.log(2)


def evidence(baseline: Sequence[int], window: Sequence[int], alphabet: int) -> float:
    both = [b + w for b, w in zip(baseline, window, strict=True)]
    return code_length(both, alphabet) - code_length(baseline, alphabet) - code_length(window, alphabet)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_the_gamma_table_agrees_with_lgamma() -> None:
    m = np.concatenate((np.arange(1, 3000), [8191, 8192, 8193, 65_537, 1_000_001]))
    expected = [math.lgamma(x / 2) / math.log(2) for x in m]
    np.testing.assert_allclose(log2_gamma_half(m), expected, rtol=1e-12, atol=1e-9)


def test_growing_the_table_leaves_what_was_in_it() -> None:
    small = np.arange(1, 8000)
    before = log2_gamma_half(small).copy()
    log2_gamma_half(ints(3_000_000))
    np.testing.assert_array_equal(log2_gamma_half(small), before)


def test_the_code_length_of_counts_is_what_a_sequential_coder_emits() -> None:
    sequence = [0, 2, 2, 1, 2, 0, 2, 2, 3, 2]
    counts = [2, 1, 6, 1, 0]
    assert sequential_bits(sequence, 5) == pytest.approx(code_length(counts, 5))
    assert sequential_bits(sorted(sequence), 5) == pytest.approx(code_length(counts, 5))


@pytest.mark.parametrize(
    ("baseline", "window"),
    [
        ([10, 5, 1, 0], [1, 0, 3, 2]),
        ([0, 0, 0, 0], [4, 4, 0, 0]),
        ([900, 90, 9, 1], [100, 10, 1, 0]),
        ([900, 90, 9, 1], [0, 0, 0, 100]),
    ],
)
def test_alphabet_evidence_is_the_difference_of_three_code_lengths(baseline: list[int], window: list[int]) -> None:
    alphabet = len(baseline) + 1
    held = [i for i, count in enumerate(window) if count]
    found = alphabet_evidence(
        ints(*(baseline[i] for i in held)), ints(*(window[i] for i in held)), sum(baseline), alphabet
    )
    assert found == pytest.approx(evidence(baseline, window, alphabet), abs=1e-8)


def test_binary_evidence_is_each_symbol_against_the_rest() -> None:
    baseline, window = [30, 0, 5, 965], [9, 4, 0, 87]
    found = binary_evidence(ints(*baseline), ints(*window), sum(baseline), sum(window))
    for i, value in enumerate(found):
        b, w = baseline[i], window[i]
        assert value == pytest.approx(evidence([b, sum(baseline) - b], [w, sum(window) - w], 2), abs=1e-8)


def test_evidence_is_negative_for_a_window_like_its_baseline_and_large_for_another() -> None:
    baseline = ints(500, 300, 200)
    assert alphabet_evidence(baseline, ints(50, 30, 20), 1000, 4) < 0
    assert alphabet_evidence(baseline, ints(20, 30, 50), 1000, 4) > 20


def test_an_absent_symbol_that_was_frequent_is_evidence() -> None:
    assert binary_evidence(ints(400), ints(0), 1000, 100)[0] > 20
    assert binary_evidence(ints(4), ints(0), 1000, 100)[0] < 0


def test_novelty_evidence_compares_a_rate_of_its_own_with_the_usual_rate_of_novelty() -> None:
    count, total, rate = 7, 50, 0.004
    own = code_length([count, total - count], 2)
    usual = -count * math.log2(rate) - (total - count) * math.log2(1 - rate)
    assert novelty_evidence(count, total, rate) == pytest.approx(usual - own)


def test_novelty_evidence_is_never_negative_and_nothing_without_novelty() -> None:
    assert novelty_evidence(0, 100, 0.01) == 0.0
    assert novelty_evidence(1, 1000, 0.001) == 0.0
    grown = [novelty_evidence(count, 100, 0.01) for count in range(2, 100)]
    assert grown == sorted(grown)


def test_a_mixture_lies_between_the_mean_and_the_largest_of_its_parts() -> None:
    parts = np.array([3.0, -2.0, 40.0])
    direct = math.log2(np.mean(2.0**parts))
    assert log2_mean_exp2(parts) == pytest.approx(direct)
    assert mix(3.0, -2.0, 40.0) == pytest.approx(direct)
    assert 40.0 - math.log2(3) <= direct <= 40.0
    assert mix(5000.0, 0.0) == pytest.approx(4999.0)


def test_entropy_is_that_of_the_shares() -> None:
    assert entropy_bits(ints(1, 1, 1, 1, 0)) == pytest.approx(2.0)
    assert entropy_bits(ints(7)) == 0.0
    assert entropy_bits(ints()) == 0.0
    assert entropy_bits(ints(9, 1)) == pytest.approx(-0.9 * math.log2(0.9) - 0.1 * math.log2(0.1))
