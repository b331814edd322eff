"""What people do about anomalies, and with what is withheld of them."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from driftlock_otlp.api.v1.anomaly_schemas import AnomalySummary, StatusName, VerdictName
from driftlock_otlp.api.v1.backend import Backing
from driftlock_otlp.api.v1.may import Operator
from driftlock_otlp.api.v1.problems import documented
from driftlock_otlp.api.v1.values import Identifier
from driftlock_otlp.model import AnomalyStatus

router = APIRouter(tags=["anomalies"], responses=documented(400, 404, 413))

_NOTE = Field("", max_length=4000, description="Why, for people; the history keeps it.", examples=["known deploy"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Note(_Body):
    """Why."""

    note: str = _NOTE


class NewStatus(_Body):
    """What is done about an anomaly."""

    status: StatusName = Field(examples=["acknowledged"])
    note: str = _NOTE


class NewFeedback(_Body):
    """What somebody thinks of an anomaly."""

    verdict: VerdictName = Field(
        description="false_alarm: its pattern is normal, and becomes part of the baseline; confirmed: it is bad, and is"
        " never learned; withdrawn: what was said before is taken back."
    )
    note: str = _NOTE


class Decided(BaseModel):
    """What became of what was withheld."""

    items: int = Field(description="Log records, data points or spans; 0 if nothing was withheld any more.")


@router.patch("/v1/anomalies/{id}/status", operation_id="set_status", summary="Say what is done about an anomaly")
async def set_status(caller: Operator, backend: Backing, id: Identifier, new: NewStatus) -> AnomalySummary:
    """The status is what people do; the state, what the data do, stays as it is."""
    anomaly = await backend.findings.set_status(caller, id, AnomalyStatus(new.status), new.note)
    return AnomalySummary.of(anomaly)


@router.post(
    "/v1/anomalies/{id}/feedback",
    status_code=202,
    operation_id="give_feedback",
    summary="Say whether an anomaly was one",
)
async def give_feedback(caller: Operator, backend: Backing, id: Identifier, new: NewFeedback) -> NewFeedback:
    """The detector learns from it with the stream's next window."""
    await backend.findings.give_feedback(caller, id, new.verdict, new.note)
    return new


@router.post("/v1/anomalies/{id}/release", operation_id="release_records", summary="Let what is withheld go on")
async def release_records(caller: Operator, backend: Backing, id: Identifier, why: Note | None = None) -> Decided:
    """What is withheld of the anomaly goes downstream; with it what belongs to other anomalies, too."""
    return Decided(items=await backend.findings.release(caller, id, why.note if why else ""))


@router.post("/v1/anomalies/{id}/drop", operation_id="drop_records", summary="Delete what is withheld for good")
async def drop_records(caller: Operator, backend: Backing, id: Identifier, why: Note | None = None) -> Decided:
    """What is withheld of the anomaly is deleted; with it what belongs to other anomalies, too."""
    return Decided(items=await backend.findings.drop(caller, id, why.note if why else ""))
