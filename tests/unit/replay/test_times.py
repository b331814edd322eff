"""Times as files write them."""

from __future__ import annotations

import pytest

from driftlock_otlp.replay.times import format_time, parse_time

_SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "unix_nano"),
    [
        ("1117838570", 1117838570 * _SECOND),
        ("1117838570.675872", 1117838570675872000),
        ("1117838570675", 1117838570675 * 10**6),
        ("1117838570675872", 1117838570675872 * 10**3),
        ("1117838570675872123", 1117838570675872123),
        ("1.117838570e9", 1117838570 * _SECOND),
        (" 0 ", 0),
        ("2014-02-14 14:30:00", 1392388200 * _SECOND),
        ("2014-02-14T14:30:00", 1392388200 * _SECOND),
        ("2014-02-14T14:30:00Z", 1392388200 * _SECOND),
        ("2014-02-14 14:30:00 UTC", 1392388200 * _SECOND),
        ("2014-02-14T14:30:00.25+01:00", 1392384600 * _SECOND + 250_000_000),
        ("2014-02-14T14:30:00-0530", (1392388200 + 19800) * _SECOND),
        ("2014-02-14T14:30:00.123456789Z", 1392388200 * _SECOND + 123_456_789),
        ("2014-02-14 14:30:00,978", 1392388200 * _SECOND + 978_000_000),
        ("2014/02/14 14:30", 1392388200 * _SECOND),
        ("2014-02-14", 1392336000 * _SECOND),
        ("2005-06-03-15.42.50.675872", 1117813370 * _SECOND + 675_872_000),
        ("2016-12-31T23:59:60Z", 1483228800 * _SECOND),
    ],
)
def test_times_are_read_in_every_spelling(text: str, unix_nano: int) -> None:
    assert parse_time(text) == unix_nano


@pytest.mark.parametrize(
    "text", ["", "yesterday", "14:30:00", "2014-13-01", "2014-02-30 10:00:00", "-5", "1e40", "1969-12-31", "9999-01-01"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)


def test_times_are_written_with_the_digits_they_need() -> None:
    assert format_time(0) == ""
    assert format_time(1392388200 * _SECOND) == "2014-02-14T14:30:00Z"
    assert format_time(1392388200 * _SECOND + 120_000_000) == "2014-02-14T14:30:00.12Z"
    assert parse_time(format_time(1117838570675872123)) == 1117838570675872123


def test_a_time_beyond_all_calendars_can_be_written() -> None:
    assert format_time((1 << 64) - 1).startswith("2554-")
