from __future__ import annotations

import pytest

from driftlock_otlp.errors import OverloadedError
from driftlock_otlp.receiver.admission import Admission


def test_room_is_given_back_when_the_request_is_done() -> None:
    admission = Admission(100)
    with admission.admit(60):
        assert admission.in_flight_bytes == 60
    assert admission.in_flight_bytes == 0


def test_room_is_given_back_when_the_request_fails() -> None:
    admission = Admission(100)
    with pytest.raises(ValueError, match="bad"), admission.admit(60):
        raise ValueError("bad")
    assert admission.in_flight_bytes == 0


def test_request_beyond_the_bound_is_refused_and_told_when_to_return() -> None:
    admission = Admission(100, retry_after_s=2.5)
    with admission.admit(60):
        with pytest.raises(OverloadedError) as caught:
            admission.admit(41)
        assert caught.value.retry_after_s == 2.5
        with admission.admit(40):
            assert admission.in_flight_bytes == 100


def test_request_that_is_alone_is_admitted_whatever_its_size() -> None:
    admission = Admission(100)
    with admission.admit(500), pytest.raises(OverloadedError):
        admission.admit(1)
    with admission.admit(1):
        pass


def test_growing_request_is_refused_when_others_hold_the_room() -> None:
    admission = Admission(100)
    with admission.admit(50), admission.admit(10) as growing:
        growing.grow(40)
        with pytest.raises(OverloadedError):
            growing.grow(1)
        assert admission.in_flight_bytes == 100
    assert admission.in_flight_bytes == 0


def test_checking_reserves_nothing() -> None:
    admission = Admission(100)
    with admission.admit(90):
        admission.check(10)
        with pytest.raises(OverloadedError):
            admission.check(11)
        assert admission.in_flight_bytes == 90
