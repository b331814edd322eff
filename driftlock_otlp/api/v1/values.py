"""Types that several routes share: times, pages, signals."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path, Query
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from driftlock_otlp.api.health_check import rfc3339
from driftlock_otlp.otlp.rfc3339 import unix_nano_of


def _time(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError("write a time of RFC 3339")
    try:
        return unix_nano_of(value)
    except ValueError as error:
        raise ValueError(f"{error}; in a URL, + is written %2B") from None


def time_of(unix_nano: int) -> str | None:
    """Return a time as text; None for 0, which stands for none."""
    return rfc3339(unix_nano) if unix_nano else None


_AS_TIME = WithJsonSchema({"type": "string", "format": "date-time"})

Time = Annotated[str, _AS_TIME]
"""A time in an answer."""
TimeParameter = Annotated[int, BeforeValidator(_time), _AS_TIME]
"""A time in a request, as nanoseconds since the Unix epoch."""

SignalName = Literal["logs", "metrics", "traces", "gen_ai"]

Limit = Annotated[int, Query(ge=1, le=1000, description="Most to return.")]
Cursor = Annotated[
    str | None,
    Query(max_length=8192, pattern="^[!-~]*$", description="`next_cursor` of the page before; without, the first."),
]
Identifier = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="32 hex digits.")]


class Page(BaseModel):
    """A part of a list."""

    next_cursor: str | None = Field(
        description="Where the next page begins; null at the end. A page may be short and yet not the last."
    )
