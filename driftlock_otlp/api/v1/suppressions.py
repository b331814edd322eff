"""`/v1/suppressions`: what is known already, and planned maintenance: recorded, and not heard of."""

from __future__ import annotations

import secrets
import sqlite3
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from driftlock_otlp.api.v1.backend import Backing
from driftlock_otlp.api.v1.may import Operator, Reader
from driftlock_otlp.api.v1.problems import documented
from driftlock_otlp.api.v1.values import Identifier, SignalName, Time, TimeParameter, time_of
from driftlock_otlp.errors import DecodeError, NotFoundError, RateLimitedError
from driftlock_otlp.storage import suppressions
from driftlock_otlp.storage.suppressions import FOR_GOOD, Suppression

router = APIRouter(tags=["suppressions"])

_MOST = 1000
"""Of one organisation, in force or to come."""
_RETRY_S = 60.0

PurposeName = Literal["pattern", "maintenance"]


class NewSuppression(BaseModel):
    """What is not to be heard of; what is left out takes in everything."""

    model_config = ConfigDict(extra="forbid")

    purpose: PurposeName = Field(description="pattern: known already; maintenance: planned work.")
    signal: SignalName | None = Field(None, description="Kind of stream.")
    service: str = Field("", max_length=1000, examples=["checkout"])
    name: str = Field("", max_length=1000, description="Name of the stream within the service: of a metric, say.")
    template: str = Field("", max_length=10_000, description="Log template, as an anomaly names it.")
    begins: TimeParameter | None = Field(
        None, description="Event time; without it, now.", examples=["2026-11-24T22:00:00Z"]
    )
    ends: TimeParameter | None = Field(
        None, description="Event time; without it, never: for good.", examples=["2026-11-25T02:00:00Z"]
    )
    note: str = Field("", max_length=4000, description="Why, for people.")

    @model_validator(mode="after")
    def _maintenance_ends(self) -> NewSuppression:
        if self.purpose == "maintenance" and self.ends is None:
            raise ValueError("say when the maintenance ends")
        return self


class SuppressionFacts(BaseModel):
    """What is not to be heard of."""

    id: str
    organization: str
    purpose: PurposeName
    signal: SignalName | None
    service: str
    name: str
    template: str
    begins: Time | None
    ends: Time | None = Field(description="null: for good.")
    note: str
    created_by: str
    created_at: Time | None
    removed_at: Time | None

    @classmethod
    def of(cls, known: Suppression) -> SuppressionFacts:
        """Return a suppression as it is told."""
        return cls(
            id=known.id,
            organization=known.tenant,
            purpose=suppressions.Purpose(known.purpose).value,
            signal=known.kind or None,
            service=known.service,
            name=known.name,
            template=known.template,
            begins=time_of(known.from_unix_nano),
            ends=None if known.until_unix_nano == FOR_GOOD else time_of(known.until_unix_nano),
            note=known.note,
            created_by=known.created_by,
            created_at=time_of(known.created_unix_nano),
            removed_at=time_of(known.removed_unix_nano),
        )


class Suppressions(BaseModel):
    """What is silenced now or will be, what ends first in front."""

    suppressions: list[SuppressionFacts]


class Silenced(SuppressionFacts):
    """A new suppression."""

    silenced: int = Field(description="Anomalies that go on and fall under it: they are silent from now on.")


@router.get("/v1/suppressions", operation_id="list_suppressions", summary="List suppressions and maintenance")
async def list_suppressions(
    caller: Reader, backend: Backing, limit: Annotated[int, Query(ge=1, le=_MOST, description="Most to return.")] = 100
) -> Suppressions:
    """Those that are in force or still to come, what ends first in front; there are at most 1,000."""
    found = await backend.state.read(
        lambda c: suppressions.current(c, tenant=caller.tenant, now_unix_nano=backend.clock(), limit=limit)
    )
    return Suppressions(suppressions=[SuppressionFacts.of(item) for item in found])


@router.post(
    "/v1/suppressions",
    status_code=201,
    responses=documented(400, 413),
    operation_id="add_suppression",
    summary="Suppress a pattern, or announce maintenance",
)
async def add_suppression(caller: Operator, backend: Backing, new: NewSuppression) -> Silenced:
    """What falls under it is recorded and counted all the same, but makes no event, and its records go on as clean."""
    now = backend.clock()
    suppression = Suppression(
        id=secrets.token_hex(16),
        tenant=caller.organization,
        purpose=new.purpose,
        kind=new.signal or "",
        service=new.service,
        name=new.name,
        template=new.template,
        from_unix_nano=now if new.begins is None else new.begins,
        until_unix_nano=FOR_GOOD if new.ends is None else new.ends,
        note=new.note,
        created_by=caller.actor,
        created_unix_nano=now,
    )

    def write(connection: sqlite3.Connection) -> int:
        known = suppressions.current(connection, tenant=caller.organization, now_unix_nano=now, limit=_MOST)
        if len(known) >= _MOST:
            raise RateLimitedError(f"there are {_MOST} suppressions already; remove some", _RETRY_S)
        return suppressions.add(connection, suppression)

    try:
        silenced = await backend.state.write(write)
    except ValueError as error:
        raise DecodeError(str(error)) from None
    return Silenced(**SuppressionFacts.of(suppression).model_dump(), silenced=silenced)


@router.delete(
    "/v1/suppressions/{id}",
    responses=documented(404),
    operation_id="remove_suppression",
    summary="Take a suppression away",
)
async def remove_suppression(caller: Operator, backend: Backing, id: Identifier) -> SuppressionFacts:
    """What falls under it is heard again from its next window on."""
    now = backend.clock()
    removed = await backend.state.write(
        lambda c: suppressions.remove(c, id, tenant=caller.tenant, actor=caller.actor, at_unix_nano=now)
    )
    if removed is None:
        raise NotFoundError("there is no such suppression in force")
    return SuppressionFacts.of(removed)
