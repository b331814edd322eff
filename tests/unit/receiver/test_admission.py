from __future__ import annotations

import pytest

from driftlock_otlp.errors import OverloadedError, RateLimitedError
from driftlock_otlp.receiver.admission import Admission
from tests.unit.receiver.senders import Organization


def test_room_is_given_back_when_the_request_is_done() -> None:
    admission, sender = Admission(100), Organization()
    with admission.admit(60, sender):
        assert admission.in_flight_bytes == 60
    assert admission.in_flight_bytes == 0


def test_room_is_given_back_when_the_request_fails() -> None:
    admission, sender = Admission(100), Organization()
    with pytest.raises(ValueError, match="bad"), admission.admit(60, sender):
        raise ValueError("bad")
    assert admission.in_flight_bytes == 0


def test_request_beyond_the_bound_is_refused_and_told_when_to_return() -> None:
    admission, sender = Admission(100, retry_after_s=2.5), Organization()
    with admission.admit(60, sender):
        with pytest.raises(OverloadedError) as caught:
            admission.admit(41, sender)
        assert caught.value.retry_after_s == 2.5
        with admission.admit(40, sender):
            assert admission.in_flight_bytes == 100


def test_request_that_is_alone_is_admitted_whatever_its_size() -> None:
    admission, sender = Admission(100), Organization()
    with admission.admit(500, sender), pytest.raises(OverloadedError):
        admission.admit(1, sender)
    with admission.admit(1, sender):
        pass


def test_growing_request_is_refused_when_others_hold_the_room() -> None:
    admission, sender = Admission(100), Organization()
    with admission.admit(50, sender), admission.admit(10, sender) as growing:
        growing.grow(40)
        with pytest.raises(OverloadedError):
            growing.grow(1)
        assert admission.in_flight_bytes == 100
    assert admission.in_flight_bytes == 0


def test_checking_reserves_nothing() -> None:
    admission, sender = Admission(100), Organization()
    with admission.admit(90, sender):
        admission.check(10, sender)
        with pytest.raises(OverloadedError):
            admission.check(11, sender)
        assert admission.in_flight_bytes == 90


def test_one_sender_cannot_take_the_room_of_others() -> None:
    admission = Admission(100, retry_after_s=2.5)
    greedy, modest = Organization("greedy", 60), Organization("modest", 60)
    with admission.admit(50, greedy) as first:
        with pytest.raises(RateLimitedError, match="'greedy'") as caught:
            admission.admit(11, greedy)
        assert caught.value.retry_after_s == 2.5
        with pytest.raises(RateLimitedError):
            admission.check(11, greedy)
        with admission.admit(50, modest):
            assert (greedy.in_flight_bytes, modest.in_flight_bytes, admission.in_flight_bytes) == (50, 50, 100)
            with pytest.raises(OverloadedError):
                first.grow(1)
    assert (greedy.in_flight_bytes, modest.in_flight_bytes, admission.in_flight_bytes) == (0, 0, 0)


def test_request_larger_than_its_senders_share_passes_when_it_is_the_only_one() -> None:
    admission, sender = Admission(100), Organization("small", 10)
    with admission.admit(50, sender), pytest.raises(RateLimitedError):
        admission.admit(1, sender)
