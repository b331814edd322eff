"""What was found, for who asks, and what they do about it; whatever protocol they speak.

Everything here sees the caller's organisation alone, and writes who did what into the history.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from driftlock_otlp.api.access import Caller
from driftlock_otlp.errors import DecodeError, NotFoundError, RetryableError
from driftlock_otlp.interfaces import Clock, TelemetryLog
from driftlock_otlp.model import Anomaly, AnomalyStatus, NewEntry, StreamKey
from driftlock_otlp.orders import Feedback, FeedbackVerdict, Order, Sensitivity, encode
from driftlock_otlp.storage import anomalies, evidence, history, incidents, quarantine
from driftlock_otlp.storage.anomalies import AnomalyFilter, AnomalyPage
from driftlock_otlp.storage.history import HistoryEntry
from driftlock_otlp.storage.incidents import StoredIncident
from driftlock_otlp.storage.quarantine import HeldRow
from driftlock_otlp.storage.state import StateDatabase

T = TypeVar("T")

FEEDBACK_GIVEN = "feedback_given"
SENSITIVITY_SET = "sensitivity_set"

_MOST_HISTORY = 100
_MOST_QUOTED_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Told:
    """An anomaly with what belongs to it.

    Attributes:
        anomaly: The anomaly.
        history: What was done about it, newest first.
        feedback: What people say of it; empty if nothing.
        held: Items that are held of it, by state.
        quoted: Some of them; None if they may not be quoted.
        has_evidence: Whether its evidence bundle is kept.
    """

    anomaly: Anomaly
    history: list[HistoryEntry]
    feedback: str
    held: Mapping[str, int]
    quoted: list[HeldRow] | None
    has_evidence: bool


class Findings:
    """What was found.

    Args:
        state: Where it is.
        log: Where orders to detectors go.
        clock: The wall clock.
        quotes: Returns whether payload of a kind of stream may be quoted.
    """

    def __init__(self, state: StateDatabase, log: TelemetryLog, clock: Clock, quotes: Callable[[str], bool]) -> None:
        self._state = state
        self._log = log
        self._clock = clock
        self._quotes = quotes

    async def page(self, caller: Caller, where: AnomalyFilter, limit: int, cursor: str | None) -> AnomalyPage:
        """Return anomalies, newest first.

        Raises:
            DecodeError: The cursor is none of ours.
        """
        mine = replace(where, tenant=caller.tenant)
        try:
            return await self._state.read(lambda connection: anomalies.page(connection, mine, limit, cursor))
        except (ValueError, OverflowError):
            raise DecodeError("cursor: not one that this API has given out") from None

    async def anomaly(self, caller: Caller, anomaly_id: str) -> Anomaly:
        """Return an anomaly.

        Raises:
            NotFoundError: There is none with this id.
        """
        return await self._state.read(lambda connection: _mine(connection, caller, anomaly_id))

    async def told(self, caller: Caller, anomaly_id: str, most_quoted: int) -> Told:
        """Return an anomaly with what belongs to it.

        Raises:
            NotFoundError: There is none with this id.
        """

        def read(connection: sqlite3.Connection) -> Told:
            anomaly = _mine(connection, caller, anomaly_id)
            may_quote = self._quotes(anomaly.stream.kind)
            done = history.entries(connection, tenant=caller.tenant, subject=anomaly_id, limit=_MOST_HISTORY)
            said = [entry for entry in done if entry.action == FEEDBACK_GIVEN]
            verdict = str(said[0].detail.get("verdict", "")) if said else ""
            return Told(
                anomaly,
                done,
                "" if verdict == "withdrawn" else verdict,
                quarantine.item_counts(connection, anomaly_id),
                quarantine.held(connection, anomaly_id, most_quoted, _MOST_QUOTED_BYTES) if may_quote else None,
                evidence.get(connection, anomaly_id) is not None,
            )

        return await self._state.read(read)

    async def evidence(self, caller: Caller, anomaly_id: str) -> bytes:
        """Return the evidence bundle of an anomaly.

        Raises:
            NotFoundError: There is none with this id, or no evidence of it is kept.
        """

        def read(connection: sqlite3.Connection) -> bytes:
            bundle = evidence.get(connection, _mine(connection, caller, anomaly_id).id)
            if bundle is None:
                raise NotFoundError("no evidence of this anomaly is kept; see detection.evidence_max_bytes")
            return bundle

        return await self._state.read(read)

    async def set_status(self, caller: Caller, anomaly_id: str, status: AnomalyStatus, note: str) -> Anomaly:
        """Say what the caller does about an anomaly.

        Raises:
            NotFoundError: There is none with this id.
        """

        def write(connection: sqlite3.Connection) -> Anomaly:
            _mine(connection, caller, anomaly_id)
            now = self._clock()
            changed = anomalies.set_status(
                connection, anomaly_id, status, actor=caller.actor, note=note, at_unix_nano=now
            )
            assert changed is not None  # noqa: S101 - found above, in this transaction
            return changed

        return await self._state.write(write)

    async def give_feedback(self, caller: Caller, anomaly_id: str, verdict: FeedbackVerdict, note: str) -> None:
        """Tell the detector what the caller thinks of an anomaly.

        Raises:
            NotFoundError: There is none with this id.
            RetryableError: The log does not take it now.
        """

        def write(connection: sqlite3.Connection) -> StreamKey:
            stream = _mine(connection, caller, anomaly_id).stream
            self._note(connection, caller, stream, FEEDBACK_GIVEN, anomaly_id, {"verdict": verdict, "note": note})
            return stream

        stream = await self._state.write(write)
        await self._tell(caller, Feedback(stream, anomaly_id, verdict), anomaly_id)

    async def set_sensitivity(
        self, caller: Caller, stream: StreamKey, subject: str, significance: float | None
    ) -> None:
        """Give a stream a significance of its own; None gives the configured one its place back.

        Raises:
            RetryableError: The log does not take it now.
        """
        detail = {"stream": str(stream), "significance": significance}
        await self._state.write(lambda c: self._note(c, caller, stream, SENSITIVITY_SET, subject, detail))
        await self._tell(caller, Sensitivity(stream, significance), subject)

    async def own_significance(self, caller: Caller, subject: str) -> float | None:
        """Return the significance that somebody has set for a stream; None if the configured one holds.

        Args:
            caller: Who asks.
            subject: What the history calls the stream.
        """
        done = await self.audit(caller, subject, None, _MOST_HISTORY)
        value = next((entry.detail.get("significance") for entry in done if entry.action == SENSITIVITY_SET), None)
        return value if isinstance(value, float) else None

    async def release(self, caller: Caller, anomaly_id: str, note: str) -> int:
        """Let what is withheld of an anomaly go downstream; return how many items.

        Raises:
            NotFoundError: There is none with this id.
        """
        return await self._decide(caller, anomaly_id, note, "records_released", quarantine.release)

    async def drop(self, caller: Caller, anomaly_id: str, note: str) -> int:
        """Delete what is withheld of an anomaly for good; return how many items.

        Raises:
            NotFoundError: There is none with this id.
        """
        return await self._decide(caller, anomaly_id, note, "records_dropped", quarantine.drop)

    async def incidents(
        self, caller: Caller, state: str | None, before: tuple[int, str] | None, limit: int
    ) -> list[StoredIncident]:
        """Return incidents, newest first."""
        return await self._state.read(
            lambda c: incidents.newest(c, tenant=caller.tenant, state=state, before=before, limit=limit)
        )

    async def incident(self, caller: Caller, incident_id: str) -> StoredIncident:
        """Return an incident.

        Raises:
            NotFoundError: There is none with this id.
        """
        found = await self._state.read(lambda connection: incidents.get(connection, incident_id, caller.tenant))
        if found is None:
            raise NotFoundError("there is no such incident")
        return found

    async def audit(self, caller: Caller, subject: str | None, before: int | None, limit: int) -> list[HistoryEntry]:
        """Return who did what, newest first."""
        return await self._state.read(
            lambda c: history.entries(c, tenant=caller.tenant, subject=subject, before=before, limit=limit)
        )

    async def _decide(
        self,
        caller: Caller,
        anomaly_id: str,
        note: str,
        action: str,
        change: Callable[[sqlite3.Connection, str], int],
    ) -> int:
        def write(connection: sqlite3.Connection) -> int:
            stream = _mine(connection, caller, anomaly_id).stream
            count = change(connection, anomaly_id)
            if count:
                self._note(connection, caller, stream, action, anomaly_id, {"items": count, "note": note})
            return count

        return await self._state.write(write)

    async def _tell(self, caller: Caller, order: Order, subject: str) -> None:
        """Put an order into the log, where its stream's detector comes upon it; it stands in the history already."""
        tenant = order.stream.tenant
        try:
            await self._log.append(NewEntry(None, encode(order), 0, self._clock(), tenant))
        except RetryableError as error:
            detail = {"error": str(error)}
            await self._state.write(lambda c: self._note(c, caller, order.stream, "order_refused", subject, detail))
            raise

    def _note(
        self,
        connection: sqlite3.Connection,
        caller: Caller,
        stream: StreamKey,
        action: str,
        subject: str,
        detail: Mapping[str, object],
    ) -> None:
        history.record(
            connection,
            at_unix_nano=self._clock(),
            tenant=stream.tenant,
            actor=caller.actor,
            action=action,
            subject=subject,
            detail=detail,
        )


def _mine(connection: sqlite3.Connection, caller: Caller, anomaly_id: str) -> Anomaly:
    found = anomalies.get(connection, anomaly_id, caller.tenant)
    if found is None or found.id != anomaly_id:
        raise NotFoundError("there is no such anomaly")
    return found
