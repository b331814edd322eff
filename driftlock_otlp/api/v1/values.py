"""Types that several routes share: times, pages, signals."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import Path, Query
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from driftlock_otlp.api.health_check import rfc3339

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_UNIX_NANO = (1 << 63) - 1


def unix_nano_of(value: object) -> int:
    """Return nanoseconds since the Unix epoch, at least 0 and of 63 bits, from a time of RFC 3339.

    Raises:
        ValueError: It is none.

    >>> unix_nano_of("2027-01-15T09:00:00.12+01:00")
    1800000000120000000
    """
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a time of RFC 3339, as 2026-11-24T10:00:00Z, with + as %2B in a URL")
    day, time, fraction, zone = match.groups()
    moment = datetime.fromisoformat(f"{day}T{time}{'+00:00' if zone in 'Zz' else zone}")
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    nanoseconds = int((fraction or "").ljust(9, "0"))
    return min(max(seconds * 10**9 + nanoseconds, 0), _MOST_UNIX_NANO)


def time_of(unix_nano: int) -> str | None:
    """Return a time as text; None for 0, which stands for none."""
    return rfc3339(unix_nano) if unix_nano else None


_AS_TIME = WithJsonSchema({"type": "string", "format": "date-time"})

Time = Annotated[str, _AS_TIME]
"""A time in an answer."""
TimeParameter = Annotated[int, BeforeValidator(unix_nano_of), _AS_TIME]
"""A time in a request, as nanoseconds since the Unix epoch."""

SignalName = Literal["logs", "metrics", "traces", "gen_ai"]

Limit = Annotated[int, Query(ge=1, le=1000, description="Most to return.")]
Cursor = Annotated[
    str | None, Query(max_length=8192, description="`next_cursor` of the page before; without it, the first page.")
]
Identifier = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="32 hex digits.")]


class Page(BaseModel):
    """A part of a list."""

    next_cursor: str | None = Field(
        description="Where the next page begins; null at the end. A page may be short and yet not the last."
    )
