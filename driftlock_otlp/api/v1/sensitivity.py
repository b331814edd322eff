"""`/v1/streams/{id}/sensitivity` and `/what-if`: how sensitive a detector is, and what if it were otherwise."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from driftlock_otlp.api.access import Caller
from driftlock_otlp.api.health_check import rfc3339
from driftlock_otlp.api.v1.backend import Backend, Backing
from driftlock_otlp.api.v1.may import Admin, Reader
from driftlock_otlp.api.v1.problems import documented
from driftlock_otlp.api.v1.streams import StreamId, find_stream
from driftlock_otlp.api.v1.values import Time
from driftlock_otlp.detection.what_if import fired
from driftlock_otlp.model import StreamKey
from driftlock_otlp.storage import windows

router = APIRouter(tags=["streams"], responses=documented(400, 404, 413))

_MOST_WINDOWS = 1000

Significance = Annotated[float, Field(gt=0, lt=0.5, examples=[0.001])]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class NewSensitivity(_Body):
    """How sensitive a stream's detector is to be."""

    significance: Significance | None = Field(
        description="p-value at or below which a window is flagged: smaller is less sensitive; null: as configured."
    )


class Supposed(_Body):
    """What to suppose."""

    significance: Significance = Field(description="p-value at or below which a window would be flagged.")
    windows: int = Field(200, ge=1, le=_MOST_WINDOWS, description="How many of the newest windows to look at.")


class SupposedWindow(BaseModel):
    """A stored window, and whether it fires."""

    start: Time
    end: Time
    outcome: str = Field(description="What became of it: clean, flagged, anomalous or warming_up.")
    bits: float = Field(description="Calibrated surprise, in bits.")
    fires: bool = Field(description="Whether its bits are an alarm at the significance in force.")
    would_fire: bool = Field(description="Whether they would be at the other one.")


class WhatIf(BaseModel):
    """What would have been."""

    significance: float = Field(description="That in force.")
    supposed_significance: float
    fired: int = Field(description="Windows that fire at the significance in force.")
    would_have_fired: int
    windows: list[SupposedWindow] = Field(description="Oldest first.")


@router.put(
    "/v1/streams/{id}/sensitivity",
    status_code=202,
    operation_id="set_sensitivity",
    summary="Set how sensitive a stream's detector is",
)
async def set_sensitivity(caller: Admin, backend: Backing, id: StreamId, new: NewSensitivity) -> NewSensitivity:
    """It holds from the stream's next window on, and stays after a restart."""
    key = await find_stream(backend, caller, id)
    await backend.findings.set_sensitivity(caller, key, id, new.significance)
    return new


@router.post(
    "/v1/streams/{id}/what-if", operation_id="suppose", summary="See what another sensitivity would have alarmed"
)
async def suppose(caller: Reader, backend: Backing, id: StreamId, supposed: Supposed) -> WhatIf:
    """Judges the stored windows again, by their bits; nothing is changed.

    Single records that are odd by themselves, and what the detector would have learned otherwise, are left out:
    `driftlock-otlp replay --significance` judges data as a whole.
    """
    key = await find_stream(backend, caller, id)
    now = await _in_force(backend, caller, key, id)
    found = await backend.state.read(lambda connection: windows.find(connection, key, supposed.windows))
    found.reverse()
    configured = backend.significance(key.kind)
    is_fired, would_fire = (fired(found, configured, value) for value in (now, supposed.significance))
    return WhatIf(
        significance=now,
        supposed_significance=supposed.significance,
        fired=sum(is_fired),
        would_have_fired=sum(would_fire),
        windows=[
            SupposedWindow(
                start=rfc3339(facts.start_unix_nano),
                end=rfc3339(facts.end_unix_nano),
                outcome=facts.outcome,
                bits=facts.bits,
                fires=fires,
                would_fire=would,
            )
            for facts, fires, would in zip(found, is_fired, would_fire, strict=True)
        ],
    )


async def _in_force(backend: Backend, caller: Caller, key: StreamKey, stream_id: str) -> float:
    own = await backend.findings.own_significance(caller, stream_id)
    return backend.significance(key.kind) if own is None else own
