"""Which anomalies are asked for, in whatever protocol."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from driftlock_otlp.api.v1.anomaly_schemas import LevelName, SeverityName, StateName, StatusName
from driftlock_otlp.api.v1.values import SignalName, TimeParameter
from driftlock_otlp.storage.anomalies import AnomalyFilter


class AnomalyQuery(BaseModel):
    """Which anomalies, which page of them, and how they are told."""

    since: TimeParameter | None = Field(None, description="Detected then or later, as event time.")
    until: TimeParameter | None = Field(None, description="Detected before.")
    signal: SignalName | None = Field(None, description="Of streams of this kind.")
    service: str | None = Field(None, max_length=1000, description="Of this service, exactly.")
    state: StateName | None = Field(None, description="What the data do.")
    status: StatusName | None = Field(None, description="What people do about it.")
    severity: SeverityName | None = Field(None, description="How bad.")
    level: LevelName | None = Field(None, description="How far it is to be heard.")
    incident_id: str | None = Field(None, pattern="^[0-9a-f]{32}$", description="Of this incident.")
    text: str | None = Field(
        None, min_length=1, max_length=200, description="In the explanation or template, in any case."
    )
    min_score: float | None = Field(None, ge=0, le=1, description="Least score.")
    max_p_value: float | None = Field(None, ge=0, le=1, description="Largest p-value.")
    is_suppressed: bool | None = Field(None, description="Whether it was suppressed.")
    limit: int = Field(100, ge=1, le=1000, description="Most to return.")
    cursor: str | None = Field(
        None, max_length=8192, pattern="^[!-~]*$", description="`next_cursor` of the page before; without, the first."
    )
    format: Literal["json", "csv"] = Field("json", description="csv: one anomaly a row, under a header.")

    def where(self) -> AnomalyFilter:
        """Return it as the store takes it; whose they must be is for who asks it."""
        return AnomalyFilter(
            since_unix_nano=self.since,
            until_unix_nano=self.until,
            kind=self.signal,
            service=self.service,
            state=self.state,
            status=self.status,
            severity=self.severity,
            level=self.level,
            incident=self.incident_id,
            text=self.text,
            min_score=self.min_score,
            max_p_value=self.max_p_value,
            is_suppressed=self.is_suppressed,
        )
