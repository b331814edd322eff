"""What a window costs after its baseline, by a compressor whose sizes are written down."""

from __future__ import annotations

import math

import numpy as np
import pytest

from driftlock_otlp.detection.compressor import Array
from driftlock_otlp.detection.order import OrderJudge
from tests.unit.detection.examples import COMPRESSOR


class Priced:
    """A compressor that asks the same price for all columns of a length, and counts its calls."""

    fingerprint = "priced"

    def __init__(self, prices: dict[int, int]) -> None:
        self.prices = prices
        self.asked: list[int] = []

    def compressed_size(self, column: Array) -> int:
        """Return the price of the column's length."""
        self.asked.append(len(column))
        return self.prices[len(column)]


def column(size: int) -> np.ndarray:
    return np.zeros(size, dtype=np.uint8)


@pytest.mark.parametrize(("after_all", "after_newer", "bits"), [(130, 130, 6.0), (190, 85, 3.0)])
def test_the_cheaper_of_two_baselines_counts(after_all: int, after_newer: int, bits: float) -> None:
    # 80 records cost 70 bytes, the newer 40 of them 55; with a window of 80 either way.
    priced = Priced({80: 70, 40: 55, 160: after_all, 120: after_newer})
    found, sizes = OrderJudge().judge(column(80), column(80), priced)
    assert found == bits
    assert (sizes.baseline_raw, sizes.baseline, sizes.both) == (80, 70, after_all)


def test_a_window_of_few_records_has_sizes_but_no_cost_a_record() -> None:
    found, sizes = OrderJudge().judge(column(80), column(31), COMPRESSOR)
    assert math.isnan(found)
    assert sizes.window_raw == 31
    assert sizes.both > 0


def test_the_baseline_is_compressed_once_until_it_changes() -> None:
    priced = Priced({80: 70, 40: 55, 120: 130, 50: 60, 25: 40, 90: 100, 65: 70})
    judge = OrderJudge()
    judge.judge(column(80), column(40), priced)
    priced.asked.clear()
    judge.judge(column(80), column(40), priced)
    assert priced.asked.count(40) == 1  # the window itself, not the newer half again
    judge.forget()
    judge.judge(column(50), column(40), priced)
    assert 25 in priced.asked


def test_a_border_between_two_methods_of_the_compressor_does_not_look_like_a_change() -> None:
    # Symbols of clean streams near such a border: after one baseline alone some cost threefold.
    random = np.random.default_rng(6)
    one, two = [], []
    for _ in range(300):
        base = (random.random(800) < random.uniform(0.1, 0.25)).astype(np.uint8) + 1
        base[:: int(random.integers(150, 900))] = 3
        own = (random.random(100) < 0.15).astype(np.uint8) + 1
        bits, sizes = OrderJudge().judge(base, own, COMPRESSOR)
        one.append(8.0 * (sizes.both - sizes.baseline) / 100)
        two.append(bits)
    assert np.median(two) == pytest.approx(np.median(one), abs=0.3)
    assert max(two) <= max(one)
