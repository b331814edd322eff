"""Takes over what people did in Supabase: changes of status, and verdicts for the detector."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from driftlock_otlp.interfaces import Clock, TelemetryLog
from driftlock_otlp.model import Anomaly, AnomalyStatus, NewEntry
from driftlock_otlp.orders import Feedback, encode
from driftlock_otlp.storage import anomalies, history, sync
from driftlock_otlp.supabase.client import Project
from driftlock_otlp.supabase.organizations import Organizations
from driftlock_otlp.supabase.rows import FEEDBACK_GIVEN, STATUS_CHANGED, Row, unix_nano
from driftlock_otlp.supabase.sender import State

_MOST = 500
_OVERLAP = 100
"""Rows that are read again: a transaction may commit after one that began later."""


class People:
    """What people did in a project. Of two changes the one made later wins, here as there.

    Args:
        project: The project.
        organizations: Whose is whose there.
        state: The state database.
        log: Where orders to detectors go.
        clock: The wall clock.
    """

    def __init__(
        self, project: Project, organizations: Organizations, state: State, log: TelemetryLog, clock: Clock
    ) -> None:
        self._project = project
        self._organizations = organizations
        self._state = state
        self._log = log
        self._clock = clock

    async def take_over(self) -> int:
        """Take over what is new; return how many changes won.

        Raises:
            RetryableError: It cannot be read, or not be written here, now.
        """
        count = 0
        for tenant in sorted(await self._state.read(_tenants)):
            organization = await self._organizations.id_of(tenant)
            count += await self._take(
                "anomaly_status_history", "status", "changed_at", organization, STATUS_CHANGED, _set_status
            )
            count += await self._take(
                "anomaly_feedback", "verdict", "given_at", organization, FEEDBACK_GIVEN, _give_feedback
            )
        return count

    async def _take(
        self,
        table: str,
        value: str,
        time: str,
        organization: str,
        action: str,
        change: Callable[[sqlite3.Connection, Anomaly, str, str, str, int], None],
    ) -> int:
        name = f"{table}:{organization}"
        cursor = await self._state.read(lambda connection: sync.project_cursor(connection, name))
        rows = await self._project.select(
            table,
            f"seq,anomaly_id,note,actor,{value},{time}",
            equal={"organization_id": organization, "origin": "dashboard"},
            above={"seq": cursor - _OVERLAP},
            order="seq",
            limit=_MOST,
        )
        if not rows:
            return 0
        news = await self._state.read(lambda connection: _news(connection, rows, time, action))
        # The order first: if the process ends before the history has it, it is given again, which changes nothing.
        if action == FEEDBACK_GIVEN:
            for row, anomaly, _ in news:
                order = encode(Feedback(anomaly.stream, anomaly.id, row["verdict"]))
                await self._log.append(NewEntry(None, order, 0, self._clock(), anomaly.stream.tenant))

        def write(connection: sqlite3.Connection) -> int:
            count = 0
            for row in rows:
                # Looked at again: it may have changed meanwhile, and one row may follow another.
                for _, anomaly, at in _news(connection, [row], time, action):
                    change(connection, anomaly, row[value], str(row["actor"]), str(row["note"]), at)
                    count += 1
            sync.set_project_cursor(connection, name, int(rows[-1]["seq"]))
            return count

        # Nothing is written, and no disk woken, for what is known.
        return await self._state.write(write) if news or rows[-1]["seq"] > cursor else 0


def _set_status(
    connection: sqlite3.Connection, anomaly: Anomaly, value: str, actor: str, note: str, at_unix_nano: int
) -> None:
    status = AnomalyStatus(value)
    anomalies.set_status(connection, anomaly.id, status, actor=actor, note=note, at_unix_nano=at_unix_nano)


def _give_feedback(
    connection: sqlite3.Connection, anomaly: Anomaly, value: str, actor: str, note: str, at_unix_nano: int
) -> None:
    history.record(
        connection,
        at_unix_nano=at_unix_nano,
        tenant=anomaly.stream.tenant,
        actor=actor,
        action=FEEDBACK_GIVEN,
        subject=anomaly.id,
        detail={"verdict": value, "note": note},
    )


def _tenants(connection: sqlite3.Connection) -> list[str]:
    return [tenant for (tenant,) in connection.execute("SELECT DISTINCT tenant FROM anomalies")]


def _news(
    connection: sqlite3.Connection, rows: Sequence[Row], time: str, action: str
) -> list[tuple[Row, Anomaly, int]]:
    """Return the rows, with anomaly and time, that were made later than the last one known here."""
    found = []
    for row in rows:
        anomaly_id, at = str(row["anomaly_id"]).replace("-", ""), unix_nano(str(row[time]))
        known = anomalies.get(connection, anomaly_id)
        if known is not None and known.id == anomaly_id and at > _last(connection, anomaly_id, action):
            found.append((row, known, at))
    return found


def _last(connection: sqlite3.Connection, anomaly_id: str, action: str) -> int:
    """Return when something was last done about an anomaly, to the microsecond as Supabase keeps it."""
    entries = history.entries(connection, tenant=None, subject=anomaly_id, limit=1_000)
    return max((entry.at_unix_nano // 1_000 * 1_000 for entry in entries if entry.action == action), default=0)
