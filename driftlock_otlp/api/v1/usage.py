"""`/v1/usage`: what was sent."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from driftlock_otlp.api.cursors import Count, opaque, plain
from driftlock_otlp.api.v1.backend import Backing
from driftlock_otlp.api.v1.may import Reader
from driftlock_otlp.api.v1.problems import documented
from driftlock_otlp.api.v1.values import Cursor, Limit, Page, Time, TimeParameter, time_of
from driftlock_otlp.storage import usage

router = APIRouter(tags=["usage"])

_PERIODS_S = {"hour": 3600, "day": 86_400, "total": 1 << 40}
_LAST_S = 1 << 40
_decoder: msgspec.json.Decoder[tuple[Count, str, str]] = msgspec.json.Decoder(tuple[Count, str, str])


class Usage(BaseModel):
    """What one organisation has sent of one signal in one period."""

    start: Time | None = Field(description="When the period began; null for the total.")
    organization: str = Field(description="Who has sent it; empty without keys.")
    signal: Literal["logs", "metrics", "traces"]
    items: int = Field(description="Log records, data points or spans.")
    bytes: int = Field(description="Bytes of the requests, uncompressed.")
    requests: int


class UsagePage(Page):
    """What was sent, by period, organisation and signal."""

    usage: list[Usage]


@router.get("/v1/usage", responses=documented(400), operation_id="get_usage", summary="See what was sent")
async def get_usage(
    caller: Reader,
    backend: Backing,
    since: Annotated[TimeParameter | None, Query(description="Only hours that began then or later.")] = None,
    until: Annotated[TimeParameter | None, Query(description="Only hours that began before.")] = None,
    by: Annotated[Literal["hour", "day", "total"], Query(description="Length of a period; days are UTC.")] = "total",
    limit: Limit = 100,
    cursor: Cursor = None,
) -> UsagePage:
    """What was accepted, as it is billed: what was sent twice, or refused, does not count."""
    after = (-1, "", "") if cursor is None else plain(cursor, _decoder, "cursor")
    found = await backend.state.read(
        lambda connection: usage.periods(
            connection,
            tenant=caller.tenant,
            since_unix_s=(since or 0) // 10**9,
            until_unix_s=_LAST_S if until is None else until // 10**9,
            period_s=_PERIODS_S[by],
            after=after,
            limit=limit + 1,
        )
    )
    page = found[:limit]
    last = page[-1] if len(found) > limit else None
    return UsagePage(
        usage=[
            Usage(
                start=time_of(period.start_unix_s * 10**9),
                organization=period.total.tenant,
                signal=period.total.signal.plural,
                items=period.total.item_count,
                bytes=period.total.payload_bytes,
                requests=period.total.request_count,
            )
            for period in page
        ],
        next_cursor=opaque((last.start_unix_s, last.total.tenant, last.total.signal.plural)) if last else None,
    )
