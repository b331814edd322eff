"""Whether everything is as promised after a trial, item by item."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from driftlock_otlp.model import Anomaly, Signal, StreamKey, WindowFacts
from driftlock_otlp.otlp.decode import decode
from driftlock_otlp.storage import anomalies, sync
from tests.crash.arrivals import Arrivals
from tests.crash.reference import Reference, comparable
from tests.crash.senders import Sender, item_of, items_of
from tests.e2e.traffic import times

_MIB = 1 << 20
_SPARE_BYTES = 32 * _MIB
_SPARE_SHARE = 1.25
_SPARE_FILES = 8


@dataclass(frozen=True, slots=True)
class Level:
    """What a sidecar that has settled takes: memory and open files of all processes, and the log on disk."""

    resident_bytes: int
    file_count: int
    log_bytes: int


@dataclass(frozen=True, slots=True)
class Found:
    """What the state database says."""

    anomalies: dict[str, Anomaly]
    windows: set[WindowFacts]
    withheld: set[int]
    usage: dict[tuple[int, str, str], tuple[int, int, int]]
    outbox: Counter[str]

    @staticmethod
    def read(connection: sqlite3.Connection) -> Found:
        """Read it."""
        facts = connection.execute(
            "SELECT kind, service, name, tenant, start_unix_nano, end_unix_nano, record_count, outcome, score,"
            " p_value, bits, ncd, compression_ratio, baseline_compression_ratio, entropy_bits, baseline_entropy_bits"
            " FROM windows"
        )
        usage = connection.execute("SELECT hour_unix_s, tenant, signal, items, bytes, requests FROM usage")
        outbox = connection.execute(
            "SELECT state, count(*) FROM outbox WHERE destination <> ? GROUP BY state", (sync.DESTINATION,)
        )
        return Found(
            anomalies={found.id: comparable(found) for found in anomalies.find(connection, limit=1_000_000)},
            windows={WindowFacts(StreamKey(*row[:4]), *row[4:]) for row in facts},
            withheld=withheld_items(connection),
            usage={tuple(row[:3]): tuple(row[3:]) for row in usage},
            outbox=Counter(dict(outbox.fetchall())),
        )


@dataclass(slots=True)
class Report:
    """What became of a trial.

    Attributes:
        acknowledged: Items.
        missing: Acknowledged items that are neither downstream nor withheld.
        repeated: Items that arrived more than once, counted by the times beyond the first.
        usage_difference: Items, bytes and requests that were counted too much or too little.
        windows_differing: Windows that an undisturbed run scores otherwise, or only one of the two has.
        faults: What is not as promised; empty if all is.
    """

    kills: Counter[str]
    requests: int
    resent: int
    acknowledged: int
    missing: int
    repeated: int
    withheld: int
    anomalies: int
    events: int
    event_deliveries: int
    usage_difference: int
    windows: int
    windows_differing: int
    restarts_s: list[float]
    levels: tuple[Level, Level] | None = None
    faults: list[str] = field(default_factory=list)


class Driven(Protocol):
    """What was done to the sidecar."""

    kills: Counter[str]
    restarts_s: list[float]


def check(
    driven: Driven,
    arrivals: Arrivals,
    senders: Sequence[Sender],
    reference: Reference,
    found: Found,
    released: set[int],
) -> Report:
    """Compare what was acknowledged, what arrived, what is kept, and what an undisturbed run finds.

    Args:
        driven: What was done.
        arrivals: What the downstream has.
        senders: What was acknowledged.
        reference: The undisturbed run over the very log.
        found: The state database.
        released: Items that were let out of the quarantine.
    """
    acknowledged = {item for sender in senders for item in items_of(sender.number, len(sender.acknowledged))}
    arrived = arrivals.items.keys()
    missing = acknowledged - arrived - found.withheld
    differing = found.windows ^ reference.windows
    usage_difference = sum(
        abs(left - right)
        for key in found.usage.keys() | reference.usage.keys()
        for left, right in zip(found.usage.get(key, (0, 0, 0)), reference.usage.get(key, (0, 0, 0)), strict=True)
    )
    faults: list[str] = []

    def say(count: int, what: str) -> None:
        if count:
            faults.append(f"{count} {what}")

    say(len(missing), f"acknowledged items are missing, the first ones {sorted(missing)[:5]}")
    say(len(arrived - acknowledged), "items arrived that were never acknowledged")
    say(len(found.withheld & arrived), "items are both withheld and forwarded")
    say(len((found.withheld | released) ^ reference.diverted), "items are withheld that should not be, or the reverse")
    digests = Counter(request.digest for sender in senders for request in sender.acknowledged)
    say((reference.digests - digests).total(), "requests are in the log more often than they were sent")
    say((digests - reference.digests).total(), "requests were acknowledged and are not in the log")
    say(usage_difference, f"of usage is wrong: {found.usage} instead of {reference.usage}")
    say(len(differing), f"windows are scored otherwise than without disturbance, as {sorted(map(str, differing))[:2]}")
    say(
        sum(found.anomalies.get(key) != reference.anomalies.get(key) for key in found.anomalies | reference.anomalies),
        f"anomalies differ from an undisturbed run: {len(found.anomalies)} instead of {len(reference.anomalies)}",
    )
    faults += arrivals.out_of_order(reference.diverted)
    faults += _faults_of_events(arrivals, reference.events, found)
    return Report(
        kills=driven.kills,
        requests=digests.total(),
        resent=sum(sender.retries for sender in senders),
        acknowledged=len(acknowledged),
        missing=len(missing),
        repeated=arrivals.items.total() - len(arrived),
        withheld=len(found.withheld),
        anomalies=len(found.anomalies),
        events=len(reference.events),
        event_deliveries=len(arrivals.events),
        usage_difference=usage_difference,
        windows=len(found.windows),
        windows_differing=len(differing),
        restarts_s=driven.restarts_s,
        faults=faults,
    )


def _faults_of_events(arrivals: Arrivals, expected: set[str], found: Found) -> list[str]:
    """Every anomaly has its events downstream; however often one came, it is the same event."""
    faults = []
    contents: dict[str, set[bytes]] = defaultdict(set)
    for uid, content in arrivals.events:
        contents[uid].add(content)
    if contents.keys() != expected:
        faults.append(
            f"{len(expected - contents.keys())} events are missing, {len(contents.keys() - expected)} are strange"
        )
    changed = [uid for uid, versions in contents.items() if len(versions) > 1]
    if changed:
        faults.append(f"{len(changed)} events came with different contents")
    if found.outbox["pending"] or found.outbox["dropped"]:
        faults.append(f"events are left: {found.outbox}")
    return faults


def faults_of_levels(before: Level, after: Level) -> list[str]:
    """Memory, files and log are back to where they were, give or take what a process takes to live."""
    faults = []
    if after.resident_bytes > before.resident_bytes * _SPARE_SHARE + _SPARE_BYTES:
        faults.append(f"memory grew from {before.resident_bytes // _MIB} to {after.resident_bytes // _MIB} MiB")
    if after.file_count > before.file_count + _SPARE_FILES:
        faults.append(f"open files grew from {before.file_count} to {after.file_count}")
    if after.log_bytes > max(before.log_bytes, 2 * _MIB):
        faults.append(f"the log was not released: {after.log_bytes // _MIB} MiB")
    return faults


def withheld_items(connection: sqlite3.Connection) -> set[int]:
    """Return the items that the quarantine withholds."""
    rows = connection.execute("SELECT signal, payload FROM quarantine WHERE state = 'withheld'")
    found: set[int] = set()
    for code, payload in rows:
        signal = Signal.of_code(code)
        found.update(item_of(time) for time in times(signal, decode(signal, payload)))
    return found


def table(report: Report) -> str:
    """Return a report as a table for people."""
    rows = [
        ("kills", ", ".join(f"{count} of a {what}" for what, count in report.kills.items()) or "none"),
        ("requests acknowledged", f"{report.requests:,} ({report.resent:,} sent again)"),
        ("records acknowledged", f"{report.acknowledged:,}"),
        ("missing", f"{report.missing:,}"),
        ("repeated downstream", f"{report.repeated:,}"),
        ("withheld", f"{report.withheld:,}"),
        ("anomalies", f"{report.anomalies:,}"),
        ("events", f"{report.events:,} ({report.event_deliveries:,} deliveries)"),
        ("usage difference", f"{report.usage_difference:,}"),
        ("windows", f"{report.windows:,} ({report.windows_differing:,} scored otherwise than undisturbed)"),
    ]
    if report.restarts_s:
        ordered = sorted(report.restarts_s)
        rows.append(("ready after, p50 / max", f"{ordered[len(ordered) // 2]:.2f} / {ordered[-1]:.2f} s"))
    if report.levels is not None:
        before, after = report.levels
        rows.append(("memory", f"{before.resident_bytes // _MIB} -> {after.resident_bytes // _MIB} MiB"))
        rows.append(("open files", f"{before.file_count} -> {after.file_count}"))
        rows.append(("log on disk", f"{before.log_bytes / _MIB:.1f} -> {after.log_bytes / _MIB:.1f} MiB"))
    return "\n".join(f"{name:<24} {value}" for name, value in rows)
