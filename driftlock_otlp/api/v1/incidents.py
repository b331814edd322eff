"""`/v1/incidents` and `/v1/audit`: what belongs together, and who did what."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from driftlock_otlp.api.cursors import Count, opaque, plain
from driftlock_otlp.api.v1.anomaly_schemas import AnomalySummary, HistoryItem, LevelName, StateName
from driftlock_otlp.api.v1.backend import Backing
from driftlock_otlp.api.v1.may import Reader
from driftlock_otlp.api.v1.problems import documented
from driftlock_otlp.api.v1.values import Cursor, Identifier, Limit, Page, Time, time_of
from driftlock_otlp.storage.anomalies import AnomalyFilter
from driftlock_otlp.storage.incidents import StoredIncident

router = APIRouter()

_MOST_ANOMALIES = 100
_start_decoder: msgspec.json.Decoder[tuple[Count, str]] = msgspec.json.Decoder(tuple[Count, str])
_seq_decoder: msgspec.json.Decoder[Count] = msgspec.json.Decoder(Count)


class Incident(BaseModel):
    """Anomalies of several streams that belong together."""

    id: str
    organization: str
    level: LevelName = Field(description="Highest level of its anomalies.")
    state: StateName
    title: str = Field(description="One sentence.")
    origin_anomaly_id: str = Field(description="The anomaly that is its likeliest origin.")
    started_at: Time | None
    last_at: Time | None
    resolved_at: Time | None

    @classmethod
    def of(cls, incident: StoredIncident) -> Incident:
        """Return an incident as it is told."""
        return cls(**_facts(incident))


class Incidents(Page):
    """Some incidents, newest first."""

    incidents: list[Incident]


class IncidentDetail(Incident):
    """An incident with its anomalies."""

    anomalies: list[AnomalySummary] = Field(description="The newest of them; all by `/v1/anomalies?incident_id=`.")


class Audit(Page):
    """Who did what, newest first."""

    entries: list[HistoryItem]


@router.get(
    "/v1/incidents",
    tags=["incidents"],
    responses=documented(400),
    operation_id="list_incidents",
    summary="List incidents",
)
async def list_incidents(
    caller: Reader,
    backend: Backing,
    state: Annotated[StateName | None, Query(description="What the data do.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Incidents:
    """Incidents, newest first."""
    before = None if cursor is None else plain(cursor, _start_decoder, "cursor")
    found = await backend.findings.incidents(caller, state, before, limit + 1)
    page = found[:limit]
    last = (page[-1].started_unix_nano, page[-1].id) if len(found) > limit else None
    return Incidents(incidents=[Incident.of(item) for item in page], next_cursor=last and opaque(last))


@router.get(
    "/v1/incidents/{id}",
    tags=["incidents"],
    responses=documented(404),
    operation_id="get_incident",
    summary="Look at an incident",
)
async def get_incident(caller: Reader, backend: Backing, id: Identifier) -> IncidentDetail:
    """An incident with its newest anomalies."""
    incident = await backend.findings.incident(caller, id)
    page = await backend.findings.page(caller, AnomalyFilter(incident=id), _MOST_ANOMALIES, None)
    return IncidentDetail(**_facts(incident), anomalies=[AnomalySummary.of(anomaly) for anomaly in page.anomalies])


@router.get(
    "/v1/audit", tags=["audit"], responses=documented(400), operation_id="get_audit", summary="See who did what"
)
async def get_audit(
    caller: Reader,
    backend: Backing,
    subject: Annotated[
        str | None,
        Query(max_length=8192, pattern="^[!-~]*$", description="Only what was done to this: an anomaly's id, say."),
    ] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Audit:
    """The history: append-only, each entry with the hash of the one before."""
    before = None if cursor is None else plain(cursor, _seq_decoder, "cursor")
    found = await backend.findings.audit(caller, subject, before, limit + 1)
    page = found[:limit]
    return Audit(
        entries=[HistoryItem.of(entry) for entry in page],
        next_cursor=opaque(page[-1].seq) if len(found) > limit else None,
    )


def _facts(incident: StoredIncident) -> dict[str, str | None]:
    return {
        "id": incident.id,
        "organization": incident.tenant,
        "level": incident.level,
        "state": incident.state,
        "title": incident.title,
        "origin_anomaly_id": incident.origin_anomaly_id,
        "started_at": time_of(incident.started_unix_nano),
        "last_at": time_of(incident.last_unix_nano),
        "resolved_at": time_of(incident.resolved_unix_nano),
    }
