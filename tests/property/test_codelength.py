"""Code lengths on any counts: the fast forms agree with the plain ones, and the laws of codes hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftlock_otlp.detection.codelength import (
    alphabet_evidence,
    binary_evidence,
    entropy_bits,
    log2_gamma_half,
    log2_mean_exp2,
    novelty_evidence,
)
from tests.unit.detection.test_codelength import code_length, evidence, sequential_bits

COUNTS = st.lists(st.integers(0, 3000), min_size=1, max_size=12)


@given(st.lists(st.integers(0, 4), max_size=60))
def test_counts_cost_what_a_sequential_coder_emits(sequence: list[int]) -> None:
    counts = [sequence.count(symbol) for symbol in range(5)]
    assert code_length(counts, 5) == pytest.approx(sequential_bits(sequence, 5), abs=1e-6)


@given(st.integers(1, 1 << 22))
def test_the_table_is_the_gamma_function(m: int) -> None:
    expected = math.lgamma(m / 2) / math.log(2)
    assert float(log2_gamma_half(np.array([m]))[0]) == pytest.approx(expected, rel=1e-10, abs=1e-8)


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 300)), min_size=1, max_size=12))
def test_alphabet_and_binary_evidence_agree_with_the_plain_difference(pairs: list[tuple[int, int]]) -> None:
    b, w = [x for x, _ in pairs], [y for _, y in pairs]
    base, own = np.array(b), np.array(w)
    held = own > 0
    if held.any():
        found = alphabet_evidence(base[held], own[held], sum(b), len(b) + 1)
        assert found == pytest.approx(evidence(b, w, len(b) + 1), abs=1e-6)
    each = binary_evidence(base, own, sum(b), sum(w))
    plain = [evidence([x, sum(b) - x], [y, sum(w) - y], 2) for x, y in pairs]
    np.testing.assert_allclose(each, plain, atol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 100)), min_size=1, max_size=8), st.randoms())
def test_evidence_does_not_depend_on_the_order_of_symbols(pairs: list[tuple[int, int]], random: object) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    total = sum(x for x, _ in pairs)
    found = [
        alphabet_evidence(np.array([x for x, _ in p]), np.array([y for _, y in p]), total, len(pairs) + 1)
        for p in (pairs, shuffled)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-7)


@given(COUNTS)
def test_an_empty_baseline_gives_no_evidence(counts: list[int]) -> None:
    # L(BW) - L(B) - L(W) is 0 for an empty baseline: there is nothing to disagree with.
    own = np.array([count for count in counts if count] or [1])
    assert alphabet_evidence(np.zeros_like(own), own, 0, len(own) + 1) == pytest.approx(0.0, abs=1e-7)


@given(st.integers(1, 2000), st.integers(0, 500), st.integers(0, 500))
def test_evidence_against_the_same_shares_is_not_large(scale: int, ones: int, zeros: int) -> None:
    if ones + zeros:
        found = binary_evidence(np.array([scale * ones]), np.array([ones]), scale * (ones + zeros), ones + zeros)[0]
        assert found <= 1e-6


@given(st.integers(0, 300), st.integers(0, 300), st.floats(1e-6, 0.5))
def test_novelty_evidence_is_never_negative(count: int, rest: int, rate: float) -> None:
    found = novelty_evidence(count, count + rest, rate)
    assert found >= 0.0
    assert count > 0 or found == 0.0


@given(st.lists(st.floats(-500, 500), min_size=1, max_size=30))
def test_a_mixture_is_within_its_size_of_the_best_part(parts: list[float]) -> None:
    found = log2_mean_exp2(np.array(parts))
    assert max(parts) - math.log2(len(parts)) - 1e-9 <= found <= max(parts) + 1e-9


@given(COUNTS)
def test_entropy_lies_between_nothing_and_the_logarithm_of_the_alphabet(counts: list[int]) -> None:
    found = entropy_bits(np.array(counts))
    assert -1e-9 <= found <= math.log2(max(sum(count > 0 for count in counts), 1)) + 1e-9
