"""What a webhook is told of an incident, in the words of each format; pure.

References:
    PagerDuty, "Events API v2"; Slack, "Sending messages using incoming webhooks" and "Formatting text".
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from driftlock_otlp.model import Anomaly
from driftlock_otlp.storage.incidents import StoredIncident

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND = 253_402_300_799
_MOST_SUMMARY = 1024
"""Longest summary that PagerDuty takes, in characters."""
_MOST_TEXT = 3000
"""Longest text of a block in Slack."""
_PAGERDUTY_SEVERITIES = {"low": "info", "medium": "warning", "high": "error", "critical": "critical"}
_SLACK_MARKS = {
    "low": ":large_blue_circle:",
    "medium": ":warning:",
    "high": ":red_circle:",
    "critical": ":rotating_light:",
}
_SLACK_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})

Payload = Callable[[str, StoredIncident, str, Anomaly], dict[str, Any]]
"""Makes the body of a call from its id, the incident, what changed, and the anomaly that did it."""


def driftlock(call_id: str, incident: StoredIncident, change: str, anomaly: Anomaly) -> dict[str, Any]:
    """Return everything known, but for the records themselves."""
    return {
        "id": call_id,
        "type": f"incident.{change}",
        "incident": {
            "id": incident.id,
            "organization": incident.tenant,
            "level": incident.level,
            "state": incident.state,
            "title": incident.title,
            "started": rfc3339(incident.started_unix_nano),
            "last": rfc3339(incident.last_unix_nano),
            "resolved": rfc3339(incident.resolved_unix_nano) if incident.resolved_unix_nano else None,
            "origin_anomaly_id": incident.origin_anomaly_id,
        },
        "anomaly": {
            "id": anomaly.id,
            "kind": anomaly.stream.kind,
            "service": anomaly.stream.service,
            "name": anomaly.stream.name,
            "level": anomaly.level,
            "severity": anomaly.severity,
            "state": anomaly.state,
            "detected": rfc3339(anomaly.detected_unix_nano),
            "explanation": anomaly.explanation,
            "p_value": anomaly.p_value,
            "bits": anomaly.bits,
            "score": anomaly.score,
            "trace_id": anomaly.trace_id,
            "template": anomaly.template,
        },
    }


def slack(call_id: str, incident: StoredIncident, change: str, anomaly: Anomaly) -> dict[str, Any]:
    """Return a message; `text` alone is what compatible services and notifications show."""
    is_over = change == "resolved"
    mark = ":white_check_mark:" if is_over else _SLACK_MARKS[anomaly.severity]
    title = incident.title[: _MOST_TEXT // 6].translate(_SLACK_ESCAPES)
    text = f"{mark} *{incident.level} incident {change}*: {title}"
    service = anomaly.stream.service[:200].translate(_SLACK_ESCAPES)
    context = f"{service} · {anomaly.severity} · incident {incident.id[:8]} · anomaly {anomaly.id[:8]}"
    return {
        "text": text,
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": text}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": context}]},
        ],
    }


def pagerduty(call_id: str, incident: StoredIncident, change: str, anomaly: Anomaly) -> dict[str, Any]:
    """Return an event; whoever sends it adds the routing key. A higher level updates the same alert."""
    if change == "resolved":
        return {"event_action": "resolve", "dedup_key": incident.id}
    return {
        "event_action": "trigger",
        "dedup_key": incident.id,
        "payload": {
            "summary": incident.title[:_MOST_SUMMARY],
            "source": anomaly.stream.service or "unknown_service",
            "severity": _PAGERDUTY_SEVERITIES[anomaly.severity],
            "timestamp": rfc3339(incident.started_unix_nano),
            "component": anomaly.stream.service,
            "group": incident.tenant or "default",
            "class": f"{anomaly.stream.kind} anomaly",
            "custom_details": driftlock(call_id, incident, change, anomaly),
        },
    }


PAYLOADS: dict[str, Payload] = {"driftlock": driftlock, "slack": slack, "pagerduty": pagerduty}
"""By the name of the format in the configuration."""


def body(make: Payload, call_id: str, incident: StoredIncident, change: str, anomaly: Anomaly) -> bytes:
    """Return a call's body as JSON."""
    return msgspec.json.encode(make(call_id, incident, change, anomaly))


def rfc3339(unix_nano: int) -> str:
    """Return a time in UTC to the microsecond.

    >>> rfc3339(1_700_000_000_250_000_000)
    '2023-11-14T22:13:20.250000Z'
    """
    seconds, nanos = divmod(unix_nano, 10**9)
    moment = _EPOCH + timedelta(seconds=min(seconds, _LAST_SECOND), microseconds=nanos // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
