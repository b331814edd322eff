"""Times as RFC 3339 writes them, to the nanosecond."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_UNIX_NANO = (1 << 63) - 1


def unix_nano_of(text: str) -> int:
    """Return nanoseconds since the Unix epoch, at least 0 and of 63 bits.

    Raises:
        ValueError: It is no time.

    >>> unix_nano_of("2027-01-15T09:00:00.12+01:00")
    1800000000120000000
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("not a time of RFC 3339, as 2026-11-24T10:00:00Z")
    day, time, fraction, zone = match.groups()
    moment = datetime.fromisoformat(f"{day}T{time}{'+00:00' if zone in 'Zz' else zone}")
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    return min(max(seconds * 10**9 + int((fraction or "").ljust(9, "0")), 0), _MOST_UNIX_NANO)
