"""The delays between attempts, and the reading of `Retry-After`."""

from __future__ import annotations

from random import Random

import pytest

from driftlock_otlp.config.exporters import RetryConfig
from driftlock_otlp.retry import LONGEST_RETRY_AFTER_S, Backoff, bounded_retry_after_s, parse_retry_after_s

NOON = 1_794_916_800.0  # Tue, 17 Nov 2026 12:00:00 GMT


def backoff(seed: int = 1, **settings: float | bool) -> Backoff:
    return Backoff(RetryConfig.model_validate(settings), Random(seed))


def test_delays_grow_by_the_multiplier_up_to_the_longest() -> None:
    steady = backoff(initial_interval=1.0, multiplier=2.0, max_interval=5.0, randomization_factor=0.0)
    assert [steady.next_delay_s() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_delays_are_spread_and_never_exceed_the_longest() -> None:
    jittered = backoff(initial_interval=1.0, multiplier=1.5, max_interval=30.0, randomization_factor=0.5)
    delays = [jittered.next_delay_s() for _ in range(400)]
    assert 0.5 <= delays[0] <= 1.5
    assert max(delays) <= 30.0
    assert min(delays[50:]) >= 10.0
    # No heap at the longest delay, where all senders would return together.
    assert len(set(delays)) == len(delays)


def test_first_delay_never_exceeds_the_longest() -> None:
    assert backoff(initial_interval=60.0, max_interval=2.0).next_delay_s() <= 2.0


def test_same_seed_gives_the_same_delays() -> None:
    one, other = backoff(seed=7), backoff(seed=7)
    assert [one.next_delay_s() for _ in range(20)] == [other.next_delay_s() for _ in range(20)]


@pytest.mark.parametrize("seed", range(20))
def test_a_wish_of_the_destination_is_never_undercut_and_may_exceed_the_longest(seed: int) -> None:
    patient = backoff(seed=seed, initial_interval=1.0, max_interval=30.0)
    assert 100.0 <= patient.next_delay_s(100.0) <= 101.0
    assert patient.next_delay_s(0.0) >= 0.75


def test_reset_begins_with_the_first_delay() -> None:
    steady = backoff(initial_interval=1.0, multiplier=2.0, randomization_factor=0.0, max_elapsed_time=10.0)
    assert not steady.is_exhausted(0.0)
    steady.next_delay_s()
    steady.reset()
    assert steady.next_delay_s() == 1.0
    assert not steady.is_exhausted(1000.0)


def test_data_is_given_up_after_the_longest_time_since_the_first_failure() -> None:
    mortal = backoff(max_elapsed_time=10.0)
    assert [mortal.is_exhausted(now_s) for now_s in (100.0, 109.9, 110.0)] == [False, False, True]


def test_without_a_longest_time_data_is_never_given_up() -> None:
    patient = backoff(max_elapsed_time=0.0)
    assert not patient.is_exhausted(0.0)
    assert not patient.is_exhausted(1e12)


def test_disabled_retries_give_up_at_once() -> None:
    assert backoff(enabled=False).is_exhausted(0.0)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("-3", 0.0),
        ("Tue, 17 Nov 2026 12:00:30 GMT", 30.0),
        ("Tuesday, 17-Nov-26 12:00:30 GMT", 30.0),
        ("Tue Nov 17 12:00:30 2026", 30.0),
        ("Tue, 17 Nov 2026 11:00:00 GMT", 0.0),
        ("Tue, 17 Nov 2099 11:00:00 GMT", LONGEST_RETRY_AFTER_S),
        ("999999999999", LONGEST_RETRY_AFTER_S),
        ("inf", LONGEST_RETRY_AFTER_S),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Tue, 99 Nov 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_any_http_date(header: str | None, seconds: float | None) -> None:
    """Conformance 67; RFC 9110, section 5.6.7 has the three forms of a date."""
    assert parse_retry_after_s(header, NOON) == seconds


def test_bounds_hold_for_any_number() -> None:
    assert [bounded_retry_after_s(seconds) for seconds in (-1.0, 2.5, 1e300)] == [0.0, 2.5, LONGEST_RETRY_AFTER_S]
