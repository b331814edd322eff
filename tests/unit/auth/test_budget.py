"""Token buckets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftlock_otlp.auth.budget import TokenBucket


class Watch:
    """A clock that goes on when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_burst_passes_and_then_the_rate() -> None:
    watch = Watch()
    bucket = TokenBucket(rate=10.0, burst_s=2.0, clock_s=watch)
    assert bucket.remaining == 20
    bucket.take(20)
    assert (bucket.remaining, bucket.full_in_s) == (0, 2.0)
    assert bucket.wait_s(1) == pytest.approx(0.1)
    watch.now_s += 0.5
    assert bucket.wait_s(5) == 0.0
    assert bucket.wait_s(6) == pytest.approx(0.1)


def test_a_silent_sender_saves_up_no_more_than_a_burst() -> None:
    watch = Watch()
    bucket = TokenBucket(rate=10.0, burst_s=2.0, clock_s=watch)
    watch.now_s += 3600
    assert bucket.remaining == 20


def test_what_is_larger_than_the_bucket_passes_when_it_is_full_and_is_paid_back() -> None:
    watch = Watch()
    bucket = TokenBucket(rate=10.0, burst_s=1.0, clock_s=watch)
    assert bucket.wait_s(35) == 0.0
    bucket.take(35)
    assert bucket.remaining == 0
    assert bucket.wait_s(1) == pytest.approx(2.6)
    assert bucket.wait_s(35) == pytest.approx(3.5)


def test_a_bucket_of_less_than_one_unit_lets_one_pass() -> None:
    watch = Watch()
    bucket = TokenBucket(rate=0.1, burst_s=1.0, clock_s=watch)
    assert bucket.wait_s(1) == 0.0
    bucket.take(1)
    assert bucket.wait_s(1) == pytest.approx(10.0)


@given(
    rate=st.floats(0.5, 100.0),
    burst_s=st.floats(0.1, 10.0),
    steps=st.lists(st.tuples(st.floats(0.0, 2.0), st.integers(1, 50)), max_size=60),
)
def test_no_interval_sees_more_than_rate_and_burst_and_one_overdraft(
    rate: float, burst_s: float, steps: list[tuple[float, int]]
) -> None:
    watch = Watch()
    bucket = TokenBucket(rate, burst_s, watch)
    taken: list[tuple[float, int]] = []
    for pause_s, amount in steps:
        watch.now_s += pause_s
        if bucket.wait_s(amount) == 0.0:
            bucket.take(amount)
            taken.append((watch.now_s, amount))
    for first, (start_s, _) in enumerate(taken):
        amounts = [amount for at_s, amount in taken[first:]]
        for count in range(1, len(amounts) + 1):
            elapsed_s = taken[first + count - 1][0] - start_s
            # The last of them may overdraw, by no more than itself.
            assert sum(amounts[: count - 1]) <= bucket.capacity + rate * elapsed_s + max(amounts) + 1e-6


@given(amount=st.integers(1, 100), used=st.integers(0, 100))
def test_after_the_wait_it_may_be_taken(amount: int, used: int) -> None:
    watch = Watch()
    bucket = TokenBucket(rate=7.0, burst_s=3.0, clock_s=watch)
    bucket.take(used)
    watch.now_s += bucket.wait_s(amount) + 1e-9
    assert bucket.wait_s(amount) == pytest.approx(0.0, abs=1e-6)
