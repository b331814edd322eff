"""What the outside is told of anomalies and incidents, put into the outbox in the transaction that records them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from driftlock_otlp.config.webhooks import WebhookConfig
from driftlock_otlp.exporter.webhook import destination
from driftlock_otlp.exporter.webhook_payloads import PAYLOADS, body
from driftlock_otlp.interfaces import Clock
from driftlock_otlp.model import Anomaly, AnomalyLevel
from driftlock_otlp.otlp.anomaly_event import anomaly_event, event_uid
from driftlock_otlp.storage import outbox
from driftlock_otlp.storage.incidents import StoredIncident


class Announcements:
    """Tells exporters of anomalies, and webhooks of incidents.

    Args:
        exporters: Keys of the exporters that receive anomaly events.
        webhooks: Webhooks by name.
        version: Version of the sidecar.
        clock: The wall clock.
    """

    def __init__(
        self, exporters: Sequence[str], webhooks: Mapping[str, WebhookConfig], version: str, clock: Clock
    ) -> None:
        self._exporters = exporters
        self._webhooks = {
            destination(name): (AnomalyLevel(webhook.level).rank, PAYLOADS[webhook.format])
            for name, webhook in webhooks.items()
        }
        self._version = version
        self._clock = clock

    def anomaly(self, connection: sqlite3.Connection, anomaly: Anomaly) -> None:
        """Tell how an anomaly is: that it began, goes on or has ended."""
        now = self._clock()
        payload = anomaly_event(anomaly, now, self._version)
        for name in self._exporters:
            outbox.enqueue(connection, name, event_uid(anomaly), payload, now)

    def incident(self, connection: sqlite3.Connection, incident: StoredIncident, change: str, anomaly: Anomaly) -> None:
        """Tell that an incident was `opened`, `raised` to a higher level or `resolved`."""
        now, call_id = self._clock(), f"{incident.id}-{change}-{incident.level}"
        for name, (least_rank, make) in self._webhooks.items():
            if AnomalyLevel(incident.level).rank >= least_rank:
                outbox.enqueue(connection, name, call_id, body(make, call_id, incident, change, anomaly), now)
