"""The undisturbed run: the whole log, kept aside as it was written, scored once from its beginning."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.model import Anomaly, AnomalyState, LogEntry, Signal, WindowFacts
from driftlock_otlp.orders import decode as decode_order
from driftlock_otlp.otlp.anomaly_event import event_uid
from driftlock_otlp.otlp.decode import decode
from driftlock_otlp.storage.log_reader import LogReader
from driftlock_otlp.windowing.clock import LogClock
from driftlock_otlp.windowing.scoring import StreamScoring
from driftlock_otlp.windowing.verdicts import Verdicts
from tests.crash.senders import digest_of, item_of
from tests.e2e.traffic import times

_READ_BYTES = 4 << 20
_HOUR_S = 3600


class Archive:
    """Keeps the files of a log that releases them: a second name for each is all it takes.

    Args:
        log: The log's directory.
        directory: Where the second names go; on the same disk.
    """

    def __init__(self, log: Path, directory: Path) -> None:
        self._log = log
        self._directory = directory
        directory.mkdir()

    def keep(self) -> None:
        """Keep what is there now; to be called more often than segments are released."""
        for path in self._log.glob("*.log"):
            kept = self._directory / path.name
            if not kept.exists():
                try:
                    os.link(path, kept)
                except FileNotFoundError:  # It was released this very moment: it is missed below.
                    continue

    def entries(self) -> Sequence[LogEntry]:
        """Return every entry there ever was.

        Raises:
            AssertionError: Some were released before they were kept.
        """
        reader = LogReader(self._directory)
        found: list[LogEntry] = []
        position = 0
        while entries := reader.read(position, _READ_BYTES):
            found += entries
            position = entries[-1].next_position
        reader.close()
        assert not any(entry.is_damaged for entry in found), "the log has lost something"
        assert all(before.next_position == after.position for before, after in itertools.pairwise(found))
        return found


@dataclass(slots=True)
class Reference:
    """What an undisturbed run finds.

    Attributes:
        anomalies: As they stand at the end, by id; without what depends on which worker was heard first.
        events: `log.record.uid` of every event.
        windows: Facts of every window.
        diverted: Items of anomalous windows.
        digests: How often each request is in the log.
        usage: (items, bytes, requests) by (hour, tenant, signal).
        end: Position behind the last entry.
        told_unix_nano: Of which time each anomaly was told last.
    """

    anomalies: dict[str, Anomaly] = field(default_factory=dict)
    events: set[str] = field(default_factory=set)
    windows: set[WindowFacts] = field(default_factory=set)
    diverted: set[int] = field(default_factory=set)
    digests: Counter[bytes] = field(default_factory=Counter)
    usage: dict[tuple[int, str, str], tuple[int, int, int]] = field(default_factory=dict)
    end: int = 0
    told_unix_nano: dict[str, int] = field(default_factory=dict)


def run_undisturbed(config: Config, entries: Sequence[LogEntry]) -> Reference:
    """Score a log from its beginning in one go."""
    reference = Reference(end=entries[-1].next_position if entries else 0)
    scorings = [
        StreamScoring(config, new_compressor(config.detection.compressor), (index, config.detection.workers))
        for index in range(config.detection.workers)
    ]
    items_at: dict[int, list[int]] = {}
    clock = LogClock()
    for stored in entries:
        new = stored.entry
        if new.signal is not None:
            items_at[stored.position] = [item_of(time) for time in _times(new.signal, new.payload)]
            _count(reference, stored)
        now = clock.advance(new.received_unix_nano)
        for scoring in scorings:
            if new.signal is None:
                verdicts = scoring.obey(decode_order(new.payload), now) if new.payload else scoring.advance(now)
            else:
                verdicts = scoring.feed(new.signal, new.payload, stored.position, now, new.tenant)
            _take(reference, verdicts, items_at, int(config.events.update_interval * 1e9))
        oldest = min((p for s in scorings if (p := s.oldest_position()) is not None), default=stored.next_position)
        for position in [position for position in items_at if position < oldest]:
            del items_at[position]
    return reference


def _count(reference: Reference, stored: LogEntry) -> None:
    new = stored.entry
    assert new.signal is not None
    reference.digests[digest_of(new.tenant, new.payload)] += 1
    key = (new.received_unix_nano // 1_000_000_000 // _HOUR_S * _HOUR_S, new.tenant, new.signal.plural)
    items, size, requests = reference.usage.get(key, (0, 0, 0))
    reference.usage[key] = (items + new.item_count, size + len(new.payload), requests + 1)


def comparable(anomaly: Anomaly) -> Anomaly:
    """Return an anomaly without what depends on the order in which workers are heard: level, severity, incident."""
    return replace(anomaly, level="", severity="", incident_id="")


def _take(reference: Reference, verdicts: Verdicts, items_at: dict[int, list[int]], update_nano: int) -> None:
    for anomaly in verdicts.opened:
        known = comparable(replace(anomaly, last_unix_nano=anomaly.detected_unix_nano))
        reference.anomalies[anomaly.id] = known
        reference.told_unix_nano[anomaly.id] = anomaly.detected_unix_nano
        reference.events.add(event_uid(known))
    for window in verdicts.ongoing:
        known = reference.anomalies[window.anomaly_id]
        known = reference.anomalies[known.id] = replace(
            known,
            state=AnomalyState.ONGOING.value,
            window_count=window.window_count,
            last_unix_nano=max(known.last_unix_nano, window.end_unix_nano),
        )
        if window.end_unix_nano - reference.told_unix_nano[known.id] >= update_nano:
            reference.told_unix_nano[known.id] = window.end_unix_nano
            reference.events.add(event_uid(known))
    for anomaly_id, at_unix_nano, resolution in verdicts.resolved:
        known = reference.anomalies[anomaly_id] = replace(
            reference.anomalies[anomaly_id],
            state=AnomalyState.RESOLVED.value,
            resolved_unix_nano=at_unix_nano,
            resolution=resolution,
        )
        reference.events.add(event_uid(known))
    reference.windows.update(verdicts.facts)
    for position, ranges in verdicts.diverted.items():
        for run in ranges:
            reference.diverted.update(items_at[position][run.first : run.first + run.count])


def _times(signal: Signal, payload: bytes) -> list[int]:
    return times(signal, decode(signal, payload))
