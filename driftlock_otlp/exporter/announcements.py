"""What the outside is told of anomalies and incidents, put into the outbox in the transaction that records them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from driftlock_otlp.interfaces import Clock
from driftlock_otlp.model import Anomaly
from driftlock_otlp.otlp.anomaly_event import anomaly_event, event_uid
from driftlock_otlp.storage import outbox
from driftlock_otlp.storage.incidents import StoredIncident


class Announcements:
    """Tells exporters of anomalies.

    Args:
        exporters: Keys of the exporters that receive anomaly events.
        version: Version of the sidecar.
        clock: The wall clock.
    """

    def __init__(self, exporters: Sequence[str], version: str, clock: Clock) -> None:
        self._exporters = exporters
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
