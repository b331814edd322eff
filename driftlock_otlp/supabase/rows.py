"""Rows as the tables of `supabase/migrations` want them. Pure."""

from __future__ import annotations

import math
import re
import uuid
from datetime import UTC, datetime
from typing import Any

from driftlock_otlp.model import Anomaly, AnomalyState
from driftlock_otlp.storage.history import HistoryEntry
from driftlock_otlp.storage.sync import UsageEvent

Row = dict[str, Any]

FROM_DASHBOARD = "user:"
"""Actors of what was done in Supabase begin so, there and here."""

STATUS_CHANGED = "status_changed"
FEEDBACK_GIVEN = "feedback_given"
"""What the history calls them."""

_TRACE_ID = re.compile("[0-9a-f]{32}")
_SPAN_ID = re.compile("[0-9a-f]{16}")


def anomaly_row(anomaly: Anomaly, organization_id: str) -> Row:
    """Return an anomaly's row, without its status: people's word has its own way."""
    is_over = anomaly.state == AnomalyState.RESOLVED.value
    last = anomaly.last_unix_nano or anomaly.detected_unix_nano
    return {
        "id": _uuid(anomaly.id),
        "organization_id": organization_id,
        "detected_at": _time(anomaly.detected_unix_nano),
        "service": _text(anomaly.stream.service),
        "signal": anomaly.stream.kind,
        "stream": _text(anomaly.stream.name),
        "severity": anomaly.severity,
        "level": anomaly.level,
        "state": anomaly.state,
        "explanation": _text(anomaly.explanation),
        "score": _number(anomaly.score),
        "p_value": _number(anomaly.p_value),
        "bits": _number(anomaly.bits),
        "ncd": _number(anomaly.ncd),
        "compression_ratio": _number(anomaly.compression_ratio),
        "baseline_compression_ratio": _number(anomaly.baseline_compression_ratio),
        "entropy_bits": _number(anomaly.entropy_bits),
        "baseline_entropy_bits": _number(anomaly.baseline_entropy_bits),
        "record_count": anomaly.record_count,
        "window_count": anomaly.window_count,
        "baseline_windows": anomaly.baseline_windows,
        "baseline_records": anomaly.baseline_records,
        "window_start_at": _time(anomaly.window_start_unix_nano),
        "window_end_at": _time(anomaly.window_end_unix_nano),
        "last_at": _time(last),
        "resolved_at": _time(anomaly.resolved_unix_nano or last) if is_over else None,
        "resolution": anomaly.resolution if is_over else "",
        "template": _text(anomaly.template),
        "trace_id": anomaly.trace_id if _TRACE_ID.fullmatch(anomaly.trace_id) else "",
        "span_id": anomaly.span_id if _SPAN_ID.fullmatch(anomaly.span_id) else "",
        "related_trace_ids": [_text(trace) for trace in anomaly.related_trace_ids],
        "incident_id": _text(anomaly.incident_id),
        "is_suppressed": anomaly.is_suppressed,
        "detector": _text(anomaly.fingerprint),
        "compressor": _text(anomaly.compressor),
    }


def evidence_rows(anomaly: Anomaly, organization_id: str) -> list[Row]:
    """Return what the fields of an anomaly say, strongest first."""
    return [
        {
            "anomaly_id": _uuid(anomaly.id),
            "rank": rank,
            "organization_id": organization_id,
            "field": _text(item.column),
            "kind": item.kind,
            "bits": _number(item.bits),
            "sentence": _text(item.text),
            "observed": _text(item.observed),
            "expected": _text(item.expected),
        }
        for rank, item in enumerate(anomaly.evidence, start=1)
    ]


def usage_row(event: UsageEvent, organization_id: str, source: uuid.UUID) -> Row:
    """Return the row of a usage event."""
    return {
        "id": event.id,
        "hour": _time(event.hour_unix_s * 1_000_000_000),
        "organization_id": organization_id,
        "source": str(source),
        "signal": event.signal,
        "log_position": event.log_position,
        "items": event.items,
        "bytes": event.bytes,
        "requests": event.requests,
    }


def audit_row(entry: HistoryEntry, organization_id: str, source: uuid.UUID) -> Row:
    """Return the row of something that somebody did, with an id that a repeat shares."""
    return {
        "id": str(uuid.uuid5(source, f"audit\n{entry.seq}")),
        "organization_id": organization_id,
        "at": _time(entry.at_unix_nano),
        "actor": _text(entry.actor),
        "action": _text(entry.action),
        "subject": _text(entry.subject),
        "detail": _plain(entry.detail),
        "origin": "sidecar",
    }


def status_row(entry: HistoryEntry, organization_id: str, source: uuid.UUID) -> Row | None:
    """Return the row of a change of status that was made here; None if an entry is something else."""
    if entry.action != STATUS_CHANGED or entry.actor.startswith(FROM_DASHBOARD):
        return None
    return {
        "id": str(uuid.uuid5(source, f"status\n{entry.seq}")),
        "anomaly_id": _uuid(entry.subject),
        "organization_id": organization_id,
        "status": entry.detail.get("to"),
        "note": _text(str(entry.detail.get("note", "")))[:10_000],
        "actor": _text(entry.actor),
        "origin": "sidecar",
        "changed_at": _time(entry.at_unix_nano),
    }


def feedback_row(entry: HistoryEntry, organization_id: str, source: uuid.UUID) -> Row | None:
    """Return the row of a verdict that was given here; None if an entry is something else."""
    if entry.action != FEEDBACK_GIVEN or entry.actor.startswith(FROM_DASHBOARD):
        return None
    return {
        "id": str(uuid.uuid5(source, f"feedback\n{entry.seq}")),
        "anomaly_id": _uuid(entry.subject),
        "organization_id": organization_id,
        "verdict": entry.detail.get("verdict"),
        "note": _text(str(entry.detail.get("note", "")))[:10_000],
        "actor": _text(entry.actor),
        "origin": "sidecar",
        "given_at": _time(entry.at_unix_nano),
    }


def unix_nano(text: str) -> int:
    """Return the time of a timestamp as the database writes it, in nanoseconds since the Unix epoch."""
    moment = datetime.fromisoformat(text)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND * 1_000


_MICROSECOND = datetime.resolution


def _uuid(digits: str) -> str:
    """Return 32 hex digits as a UUID is written."""
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _time(unix_nano_: int) -> str:
    """Return a timestamp in UTC, to the microsecond."""
    seconds, nanos = divmod(unix_nano_, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{nanos // 1000:06}+00:00"


def _number(value: float) -> float | str:
    """Return a number, or PostgreSQL's word for what JSON cannot say."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _text(text: str) -> str:
    """Return `text` without what PostgreSQL cannot hold: the character 0 and lone surrogates."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def _plain(value: Any) -> Any:
    """Return plain JSON values whose texts PostgreSQL can hold."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_text(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return _number(value) if isinstance(value, float) else value
