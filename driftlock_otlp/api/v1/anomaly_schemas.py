"""How anomalies are told."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from pydantic import BaseModel, Field

from driftlock_otlp.api.findings import Told
from driftlock_otlp.api.v1.streams import StreamRef, Window, ref_of
from driftlock_otlp.api.v1.values import Page, Time, time_of
from driftlock_otlp.model import Anomaly, Signal, WindowFacts
from driftlock_otlp.otlp import decode
from driftlock_otlp.otlp.json_mapping import request_to_json
from driftlock_otlp.storage.history import HistoryEntry
from driftlock_otlp.storage.quarantine import HeldRow

StateName = Literal["open", "ongoing", "resolved"]
StatusName = Literal["new", "acknowledged", "investigating", "dismissed"]
SeverityName = Literal["low", "medium", "high", "critical"]
LevelName = Literal["notice", "page", "fleet"]
VerdictName = Literal["false_alarm", "confirmed", "withdrawn"]


class AnomalySummary(BaseModel):
    """An anomaly: where, how odd, and what became of it."""

    id: str = Field(description="32 hex digits; the same anomaly always has the same.")
    stream: StreamRef
    state: StateName = Field(description="What the data do.")
    status: StatusName = Field(description="What people do about it.")
    level: LevelName = Field(description="How far it is to be heard.")
    severity: SeverityName
    is_suppressed: bool = Field(description="Whether it fell under a suppression or a maintenance window.")
    incident_id: str | None = Field(description="The incident it belongs to.")
    detected_at: Time | None = Field(description="Event time at which the window ended that raised it.")
    last_at: Time | None = Field(description="Event time of the end of its last window.")
    resolved_at: Time | None = Field(description="Event time of its end.")
    resolution: str | None = Field(description="How it ended: recovered, adopted or dismissed.")
    window_count: int = Field(description="Windows that belong to it so far.")
    record_count: int = Field(description="Records in the window that raised it.")
    score: float = Field(description="[0, 1]; 0.5 is the bar of an immediate alarm.")
    p_value: float = Field(description="Conformal p-value of the window, (0, 1].")
    bits: float = Field(description="Calibrated surprise of the window, in bits.")
    ncd: float = Field(description="Normalised compression distance of window and baseline.")
    explanation: str = Field(description="One sentence that says what changed.")
    template: str = Field(description="Log template with the strongest evidence; empty if none.")
    trace_id: str = Field(description="Trace of the strongest record, 32 hex digits, or empty.")

    @classmethod
    def of(cls, anomaly: Anomaly) -> AnomalySummary:
        """Return an anomaly as it is told in lists."""
        return cls(**summary_facts(anomaly))


def summary_facts(anomaly: Anomaly) -> dict[str, Any]:
    """Return the fields of a summary."""
    return {
        "id": anomaly.id,
        "stream": ref_of(anomaly.stream),
        "state": anomaly.state,
        "status": anomaly.status,
        "level": anomaly.level,
        "severity": anomaly.severity,
        "is_suppressed": anomaly.is_suppressed,
        "incident_id": anomaly.incident_id or None,
        "detected_at": time_of(anomaly.detected_unix_nano),
        "last_at": time_of(anomaly.last_unix_nano or anomaly.detected_unix_nano),
        "resolved_at": time_of(anomaly.resolved_unix_nano),
        "resolution": anomaly.resolution or None,
        "window_count": anomaly.window_count,
        "record_count": anomaly.record_count,
        "score": anomaly.score,
        "p_value": anomaly.p_value,
        "bits": anomaly.bits,
        "ncd": anomaly.ncd,
        "explanation": anomaly.explanation,
        "template": anomaly.template,
        "trace_id": anomaly.trace_id,
    }


class Anomalies(Page):
    """Some anomalies, newest first."""

    anomalies: list[AnomalySummary]


class EvidenceItem(BaseModel):
    """What one column of the window says."""

    column: str = Field(description="Name of the column, as template or attributes.http.route.")
    kind: str = Field(description="pattern, volume, value or sequence.")
    bits: float = Field(description="Its surprise, in bits.")
    text: str
    observed: str
    expected: str


class HistoryItem(BaseModel):
    """Something that somebody did."""

    seq: int = Field(description="Counts entries, without gaps.")
    at: Time | None = Field(description="When, on the wall clock.")
    organization: str
    actor: str = Field(description="`driftlock`, `key:<id>` of an API key, or `local`.")
    action: str = Field(description="What was done.")
    subject: str = Field(description="What to: an anomaly's id, or what the action names.")
    detail: dict[str, Any] = Field(description="The rest.")
    previous_hash: str = Field(description="Hash of the entry before.")
    hash: str = Field(description="SHA-256 of the entry, in a chain.")

    @classmethod
    def of(cls, entry: HistoryEntry) -> HistoryItem:
        """Return an entry of the history as it is told."""
        return cls(
            seq=entry.seq,
            at=time_of(entry.at_unix_nano),
            organization=entry.tenant,
            actor=entry.actor,
            action=entry.action,
            subject=entry.subject,
            detail=entry.detail,
            previous_hash=entry.previous_hash,
            hash=entry.hash,
        )


class Quoted(BaseModel):
    """The anomalous part of a request that is held."""

    signal: Literal["logs", "metrics", "traces"]
    state: str = Field(description="withheld, or released and not sent yet.")
    items: int
    request: dict[str, Any] = Field(description="An OTLP/JSON request.")


class AnomalyDetail(AnomalySummary):
    """An anomaly with everything that is known of it."""

    window_start: Time | None = Field(description="Event time of the first record of the window that raised it.")
    window_end: Time | None = Field(description="Event time of the last.")
    evidence: list[EvidenceItem] = Field(description="Columns, strongest first.")
    compression_ratio: float = Field(description="Raw bytes over compressed bytes of the window.")
    baseline_compression_ratio: float
    entropy_bits: float = Field(description="Entropy of the window's symbols, bits a record.")
    baseline_entropy_bits: float
    baseline_windows: int
    baseline_records: int
    span_id: str
    related_trace_ids: list[str]
    resource: dict[str, Any] = Field(description="Resource of the strongest record, as in OTLP/JSON.")
    fingerprint: str = Field(description="Identity of the detector.")
    compressor: str
    feedback: Literal["false_alarm", "confirmed"] | None = Field(description="What people say of it.")
    has_evidence_bundle: bool = Field(description="Whether `/evidence` has something.")
    windows: list[Window] = Field(description="The stream's last windows up to its own, newest first.")
    history: list[HistoryItem] = Field(description="What was done about it, newest first.")
    withheld_items: int = Field(description="Items of it that are withheld.")
    released_items: int = Field(description="Items of it that are released and not sent yet.")
    records: list[Quoted] | None = Field(description="Some of them, if asked for; null where quoting is off.")

    @classmethod
    def of_told(cls, told: Told, windows: list[WindowFacts]) -> AnomalyDetail:
        """Return an anomaly with all that belongs to it."""
        anomaly = told.anomaly
        return cls(
            **summary_facts(anomaly),
            window_start=time_of(anomaly.window_start_unix_nano),
            window_end=time_of(anomaly.window_end_unix_nano),
            evidence=[
                EvidenceItem(
                    column=item.column,
                    kind=item.kind,
                    bits=item.bits,
                    text=item.text,
                    observed=item.observed,
                    expected=item.expected,
                )
                for item in anomaly.evidence
            ],
            compression_ratio=anomaly.compression_ratio,
            baseline_compression_ratio=anomaly.baseline_compression_ratio,
            entropy_bits=anomaly.entropy_bits,
            baseline_entropy_bits=anomaly.baseline_entropy_bits,
            baseline_windows=anomaly.baseline_windows,
            baseline_records=anomaly.baseline_records,
            span_id=anomaly.span_id,
            related_trace_ids=list(anomaly.related_trace_ids),
            resource=_resource(anomaly),
            fingerprint=anomaly.fingerprint,
            compressor=anomaly.compressor,
            feedback=told.feedback or None,
            has_evidence_bundle=told.has_evidence,
            windows=[Window.of(facts) for facts in windows],
            history=[HistoryItem.of(entry) for entry in told.history],
            withheld_items=told.held.get("withheld", 0),
            released_items=told.held.get("released", 0),
            records=None if told.quoted is None else [_quoted(row) for row in told.quoted],
        )


def _quoted(row: HeldRow) -> Quoted:
    request = request_to_json(row.signal, decode.decode(row.signal, row.payload))
    return Quoted(signal=row.signal.plural, state=row.state, items=row.item_count, request=msgspec.json.decode(request))


def _resource(anomaly: Anomaly) -> dict[str, Any]:
    carrier = ExportLogsServiceRequest()
    carrier.resource_logs.add().resource.ParseFromString(anomaly.resource)
    told: dict[str, Any] = msgspec.json.decode(request_to_json(Signal.LOGS, carrier))
    resource: dict[str, Any] = told["resourceLogs"][0].get("resource", {})
    return resource
