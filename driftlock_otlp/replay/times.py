"""Times as files write them, to Unix nanoseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

# Date and time of day with the separators that logs use; the hour may be missing.
_CALENDAR = re.compile(
    r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})"
    r"(?:[T _-](\d{1,2})[:.](\d{2})(?:[:.](\d{2})(?:[.,](\d+))?)?)?"
    r"\s*(Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[+-]?\d{1,25}(?:\.\d{0,25})?(?:[eE]\+?\d{1,2})?")
# Below each bound a number counts this many nanoseconds: seconds up to the year 5138, and so on.
_NANOS_PER_UNIT = ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3), (1 << 63, 1))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_UNIX_NANO = (1 << 63) - 1


def parse_time(text: str) -> int:
    """Return the Unix time in nanoseconds that a text means.

    Numbers are seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by how
    large they are. Everything else is a date, year first, with or without a time of day; without
    a zone it is in UTC.

    >>> parse_time("1970-01-01 00:01:00"), parse_time("1117838570.5"), parse_time("1117838570500")
    (60000000000, 1117838570500000000, 1117838570500000000)

    Raises:
        ValueError: It is none of these, or lies before 1970 or after 2262.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        nanos = _of_number(Decimal(text))
    else:
        match = _CALENDAR.fullmatch(text)
        if match is None:
            raise ValueError("neither a number since 1970 nor a date such as 2026-02-14 14:30:00")
        *clock, fraction, zone = match.groups()
        nanos = _whole_seconds(tuple(int(part or 0) for part in clock), zone) * 10**9
        nanos += int((fraction or "")[:9].ljust(9, "0"))
    if not 0 <= nanos <= _LAST_UNIX_NANO:
        raise ValueError("before 1970 or after 2262")
    return nanos


def format_time(unix_nano: int) -> str:
    """Return a time as ISO 8601 in UTC, with as many digits as it needs; empty for 0.

    >>> format_time(1117838570500000000)
    '2005-06-03T22:42:50.5Z'
    """
    if not unix_nano:
        return ""
    seconds, nanos = divmod(unix_nano, 10**9)
    # Up to the year 9999; OTLP's times are unsigned and may reach further than our own.
    whole = (_EPOCH + timedelta(seconds=min(seconds, 253_402_300_799))).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{whole}{fraction}Z"


def _of_number(number: Decimal) -> int:
    for bound, nanos in _NANOS_PER_UNIT:
        if abs(number) < bound:
            return int(number * nanos)
    raise ValueError("too large for nanoseconds since 1970")


@lru_cache(maxsize=1024)
def _whole_seconds(clock: tuple[int, ...], zone: str | None) -> int:
    offset = timedelta()
    if zone and zone[0] in "+-":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        offset = -offset if zone[0] == "-" else offset
    year, month, day, hour, minute, second = clock
    leap = second == 60  # the last second of a minute with a leap second is told as the one after
    moment = datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=UTC)
    return int((moment - _EPOCH - offset).total_seconds()) + leap
