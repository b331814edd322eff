"""What the workers said, made durable in one transaction: what is new of it, how far it is heard, and by whom.

Here an alarm becomes an anomaly with a level and an incident, or is suppressed. All that it needs to
remember is in the state database, so that what is said again after a crash changes nothing and is
told to nobody twice.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from driftlock_otlp import fault_points
from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.incidents import Finding, Incident, IncidentJoiner
from driftlock_otlp.detection.levels import Tick, severity_at
from driftlock_otlp.interfaces import Clock
from driftlock_otlp.model import Anomaly, AnomalyLevel, AnomalySeverity, AnomalyState, AnomalyWindow, ItemRange
from driftlock_otlp.storage import (
    anomalies,
    anomaly_course,
    evidence,
    history,
    incidents,
    suppressions,
    verdicts,
    windows,
)
from driftlock_otlp.storage.incidents import StoredIncident
from driftlock_otlp.storage.state import set_cursor
from driftlock_otlp.worker import messages

_SEVERITIES = {severity.label: severity for severity in AnomalySeverity}
_RESOLVED = AnomalyState.RESOLVED.value


class Announcer(Protocol):
    """Tells the outside, by what it stores in the transaction of what it tells of."""

    def anomaly(self, connection: sqlite3.Connection, anomaly: Anomaly) -> None:
        """Tell how an anomaly is: that it began, goes on or has ended."""

    def incident(self, connection: sqlite3.Connection, incident: StoredIncident, change: str, anomaly: Anomaly) -> None:
        """Tell that an incident was `opened`, `raised` to a higher level or `resolved`, and the anomaly that did it."""


@dataclass(slots=True)
class Recorded:
    """What a transaction has brought, to be counted and logged once it is committed.

    Attributes:
        opened: Anomalies that began, also suppressed ones.
        resolved: Anomalies that ended.
        incidents: (incident, change, anomaly) as `Announcer.incident` was told.
        spared_items: Items of anomalous windows that go on as clean, by reason: `level` or `suppressed`.
        open_anomalies: Anomalies that go on.
        open_incidents: Incidents that do.
    """

    opened: list[Anomaly] = field(default_factory=list)
    resolved: list[Anomaly] = field(default_factory=list)
    incidents: list[tuple[StoredIncident, str, Anomaly]] = field(default_factory=list)
    spared_items: Counter[str] = field(default_factory=Counter)
    open_anomalies: int = 0
    open_incidents: int = 0


class Recorder:
    """Writes what workers say.

    Args:
        config: All settings.
        clock: The wall clock.
        announcer: Tells the outside.
    """

    def __init__(self, config: Config, clock: Clock, announcer: Announcer) -> None:
        self._divert_from = AnomalyLevel(config.forward.divert_from)
        self._update_nano = int(config.events.update_interval * 1e9)
        self._clock = clock
        self._announcer = announcer
        self._ticks: dict[str, Tick] = {}

    def record(
        self, connection: sqlite3.Connection, said: Iterable[tuple[str, Sequence[messages.Progress]]]
    ) -> Recorded:
        """Write what workers said; to be called in a transaction.

        Args:
            connection: The state database.
            said: For each worker, the name of its cursor and its messages, at least one.
        """
        run = _Run(connection, self._clock(), self._announcer, self._update_nano, self._ticks)
        for cursor_name, batch in said:
            for message in batch:
                run.take(message)
                first_heard: dict[str, int | None] = {}
                for position, ranges in message.diverted:
                    verdicts.add(connection, position, self._heard(run, ranges, first_heard))
            set_cursor(connection, cursor_name, batch[-1].watermark)
        return run.finish()

    def _heard(self, run: _Run, ranges: Sequence[ItemRange], first_heard: dict[str, int | None]) -> list[ItemRange]:
        """Return the ranges of windows that are heard far enough for their records to be withheld or marked."""
        heard = []
        for items in ranges:
            name = items.anomaly_id
            if name not in first_heard:
                first_heard[name] = anomaly_course.heard_from(run.connection, name, self._divert_from)
            first = first_heard[name]
            if first is None or items.window >= first:  # Of an anomaly that is forgotten, nothing is known.
                heard.append(items)
            else:
                reason = "suppressed" if anomaly_course.is_suppressed(run.connection, name) else "level"
                run.recorded.spared_items[reason] += items.count
        return heard


@dataclass(slots=True)
class _Joined:
    """The joiner of one organisation, with the ids of its open incidents by their numbers."""

    joiner: IncidentJoiner
    ids: dict[int, str]


class _Run:
    """One transaction."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        now_unix_nano: int,
        announcer: Announcer,
        update_nano: int,
        ticks: dict[str, Tick],
    ) -> None:
        self.connection = connection
        self.recorded = Recorded()
        self._now = now_unix_nano
        self._announcer = announcer
        self._update_nano = update_nano
        self._ticks = ticks
        # Loaded anew by each transaction: one that was rolled back must not leave anything behind.
        self._joined: dict[str, _Joined] = {}

    def take(self, message: messages.Progress) -> None:
        for fact in message.facts:
            tick = self._ticks.setdefault(fact.stream.tenant, Tick())
            tick.take(str(fact.stream), fact.end_unix_nano, fact.bits)
        for anomaly in message.opened:
            self._open(anomaly)
        for window in message.ongoing:
            self._go_on(window)
        for anomaly_id, at_unix_nano, resolution in message.resolved:
            self._resolve(anomaly_id, at_unix_nano, resolution)
        windows.add(self.connection, message.facts)
        evidence.keep(self.connection, message.evidence, self._now)

    def finish(self) -> Recorded:
        for tenant, joined in self._joined.items():
            open_numbers = {incident.number for incident in joined.joiner.open}
            ids = [[number, incident_id] for number, incident_id in joined.ids.items() if number in open_numbers]
            incidents.keep_joiner_state(self.connection, tenant, {"joiner": joined.joiner.state(), "ids": ids})
        fault_points.reach("verdicts.recording")
        self.recorded.open_anomalies = anomalies.open_count(self.connection)
        self.recorded.open_incidents = incidents.open_count(self.connection)
        return self.recorded

    def _open(self, found: Anomaly) -> None:
        if anomaly_course.heard_from(self.connection, found.id, AnomalyLevel.NOTICE) is not None:
            return
        suppression = suppressions.covering(self.connection, found, found.detected_unix_nano)
        level = AnomalyLevel(found.level)
        tick = self._ticks.get(found.stream.tenant)
        if level is AnomalyLevel.NOTICE and tick is not None and tick.stands_out(str(found.stream)):
            level = AnomalyLevel.PAGE
        anomaly = replace(
            found,
            level=level.value,
            severity=severity_at(level, _SEVERITIES[found.severity]).label,
            is_suppressed=bool(suppression),
        )
        anomalies.record(self.connection, anomaly, self._now)
        detail: dict[str, object] = {"level": anomaly.level, "severity": anomaly.severity}
        if suppression:
            detail["suppression"] = suppression
        self._write(anomaly, "opened", detail)
        if not suppression:
            anomaly = self._hear(anomaly, anomaly.bits, anomaly.detected_unix_nano, is_odd=True)
            self._announcer.anomaly(self.connection, anomaly)
        self.recorded.opened.append(anomaly)
        fault_points.reach("verdicts.opening")

    def _go_on(self, window: AnomalyWindow) -> None:
        known = anomalies.get(self.connection, window.anomaly_id)
        if known is None:
            return
        level = max(AnomalyLevel(known.level), AnomalyLevel(window.level), key=lambda level: level.rank)
        severity = severity_at(level, _SEVERITIES[known.severity], _SEVERITIES[window.severity]).label
        end, count = window.end_unix_nano, window.window_count
        if not anomaly_course.go_on(self.connection, known.id, end, count, severity):
            return
        anomaly = replace(
            known, state=AnomalyState.ONGOING.value, severity=severity, window_count=count, last_unix_nano=end
        )
        if known.is_suppressed:
            if suppressions.covering(self.connection, known, end):
                return
            anomaly = replace(anomaly, is_suppressed=False)
            self._write(anomaly, "suppression_ended", {})
        anomaly = self._raise(anomaly, level)
        anomaly = self._hear(anomaly, window.bits, end, is_odd=window.is_odd or not anomaly.incident_id)
        if end - anomaly_course.told_unix_nano(self.connection, anomaly.id) >= self._update_nano:
            self._announcer.anomaly(self.connection, anomaly)
            anomaly_course.set_told(self.connection, anomaly.id, end)

    def _resolve(self, anomaly_id: str, at_unix_nano: int, resolution: str) -> None:
        if not anomaly_course.resolve(self.connection, anomaly_id, at_unix_nano, resolution):
            return
        anomaly = anomalies.get(self.connection, anomaly_id)
        if anomaly is None:
            return
        self._write(anomaly, "resolved", {"resolution": resolution, "windows": anomaly.window_count})
        self.recorded.resolved.append(anomaly)
        if anomaly_course.told_unix_nano(self.connection, anomaly_id):
            self._announcer.anomaly(self.connection, anomaly)
        for incident in incidents.resolve_ended(self.connection, [anomaly.incident_id], at_unix_nano):
            self._tell(incident, "resolved", anomaly)

    def _hear(self, anomaly: Anomaly, bits: float, at_unix_nano: int, *, is_odd: bool) -> Anomaly:
        """Join a window of an anomaly with an incident; return the anomaly as it is then."""
        key = anomaly.stream
        joined = self._joiner(key.tenant)
        traces = {trace for trace in (anomaly.trace_id, *anomaly.related_trace_ids) if trace}
        finding = Finding(str(key), key.service, at_unix_nano, bits, is_odd, frozenset(traces), anomaly.template)
        # Incidents end by the time of the data; a clock that is ahead must not end those of others.
        found = joined.joiner.take([finding], min(at_unix_nano, self._now))
        if not found:
            return anomaly
        (incident,) = found
        before = anomaly.incident_id
        incident_id = joined.ids.setdefault(incident.number, before or _id_of(anomaly))
        for number in incident.absorbed:
            self._absorb(joined.ids.pop(number, incident_id), incident_id, anomaly)
        has_changed = bool(incident.absorbed) or before != incident_id
        incident.absorbed.clear()
        is_fleet = incident.is_lasting or incident.stream_count > 1
        anomaly = self._raise(
            replace(anomaly, incident_id=incident_id), AnomalyLevel.FLEET if is_fleet else AnomalyLevel(anomaly.level)
        )
        if is_fleet:
            for other in anomalies.of_incident(self.connection, incident_id, below=AnomalyLevel.FLEET):
                self._raise(other, AnomalyLevel.FLEET)
        self._keep_incident(incident_id, incident, anomaly, has_changed=has_changed)
        if before and before != incident_id:
            for ended in incidents.resolve_ended(self.connection, [before], at_unix_nano):
                self._tell(ended, "resolved", anomaly)
        return anomaly

    def _keep_incident(self, incident_id: str, incident: Incident, anomaly: Anomaly, *, has_changed: bool) -> None:
        """Store an incident as it is with this anomaly, and tell of it if it is new or heard further."""
        known = incidents.get(self.connection, incident_id)
        level = AnomalyLevel(anomaly.level)
        if known is not None:
            level = max(level, AnomalyLevel(known.level), key=lambda level: level.rank)
            if not has_changed and level.value == known.level and known.state != _RESOLVED:
                incidents.put(self.connection, replace(known, last_unix_nano=incident.last_unix_nano))
                return
        members = anomalies.of_incident(self.connection, incident_id)
        likeliest = incident.origins({})[0][0]
        origin = next((member for member in members if member.stream.service == likeliest), members[0])
        others = incident.stream_count - 1
        more = {0: "", 1: " (and another stream)"}.get(others, f" (and {others} more streams)")
        now = StoredIncident(
            id=incident_id,
            tenant=anomaly.stream.tenant,
            level=level.value,
            state=(AnomalyState.ONGOING if len(members) > 1 else AnomalyState.OPEN).value,
            started_unix_nano=incident.started_unix_nano if known is None else known.started_unix_nano,
            last_unix_nano=incident.last_unix_nano,
            resolved_unix_nano=0,
            origin_anomaly_id=origin.id,
            title=origin.explanation + more,
        )
        incidents.put(self.connection, now)
        if known is None:
            self._tell(now, "opened", anomaly)
        elif level.rank > AnomalyLevel(known.level).rank:
            self._tell(now, "raised", anomaly)

    def _absorb(self, incident_id: str, into: str, anomaly: Anomaly) -> None:
        """Let the anomalies of an incident belong to another one, with which it has turned out to be one."""
        known = incidents.get(self.connection, incident_id)
        if known is None or incident_id == into:
            return
        anomaly_course.move(self.connection, incident_id, into)
        gone = replace(known, state=_RESOLVED, resolved_unix_nano=known.last_unix_nano, title=f"Part of {into}")
        incidents.put(self.connection, gone)
        self._tell(gone, "resolved", anomaly)

    def _raise(self, anomaly: Anomaly, level: AnomalyLevel) -> Anomaly:
        """Store an anomaly as it is, heard as far as `level` at least, and return it so."""
        before = AnomalyLevel(anomaly.level)
        if level.rank > before.rank:
            severity = severity_at(level, _SEVERITIES[anomaly.severity]).label
            anomaly = replace(anomaly, level=level.value, severity=severity)
            self._write(anomaly, "level_raised", {"from": before.value, "to": level.value, "severity": severity})
        anomaly_course.put(self.connection, anomaly)
        return anomaly

    def _tell(self, incident: StoredIncident, change: str, anomaly: Anomaly) -> None:
        history.record(
            self.connection,
            at_unix_nano=self._now,
            tenant=incident.tenant,
            actor=history.SERVICE,
            action=f"incident_{change}",
            subject=incident.id,
            detail={"level": incident.level, "anomaly": anomaly.id, "title": incident.title},
        )
        self.recorded.incidents.append((incident, change, anomaly))
        self._announcer.incident(self.connection, incident, change, anomaly)

    def _write(self, anomaly: Anomaly, action: str, detail: dict[str, object]) -> None:
        history.record(
            self.connection,
            at_unix_nano=self._now,
            tenant=anomaly.stream.tenant,
            actor=history.SERVICE,
            action=action,
            subject=anomaly.id,
            detail=detail,
        )

    def _joiner(self, tenant: str) -> _Joined:
        if tenant not in self._joined:
            # Windows come one by one here: what stands out of all of them is for `Tick` to say.
            joined = self._joined[tenant] = _Joined(IncidentJoiner(false_discovery_rate=0.0), {})
            state = incidents.joiner_state(self.connection, tenant)
            if state is not None:
                joined.joiner.restore(state["joiner"])
                joined.ids = {int(number): str(incident_id) for number, incident_id in state["ids"]}
        return self._joined[tenant]


def _id_of(anomaly: Anomaly) -> str:
    """Return the id of the incident that an anomaly begins."""
    return hashlib.blake2b(f"incident\0{anomaly.id}".encode(), digest_size=16).hexdigest()
