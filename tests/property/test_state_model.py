"""The state database as a state machine with crashes, held against plain dictionaries.

What a worker reports is one transaction: anomaly, events, verdicts and cursor. What a route has
passed is another: quarantine, usage and cursor. After a crash both are there as a whole or not at all,
and what is repeated afterwards changes nothing. A crash leaves the files as they are at that moment,
with a write-ahead log that may end anywhere within a transaction that was not committed.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from driftlock_otlp.model import ItemRange, LogEntry, NewEntry, Signal
from driftlock_otlp.storage import anomalies, history, outbox, quarantine, usage, verdicts
from driftlock_otlp.storage.state import StateDatabase, cursors, reached, set_cursor
from tests.unit.storage.test_anomalies import ANOMALY

WORKER, ROUTE = "detect:0-of-1", "divert:quarantine"
ENTRY = 100


def entries_between(start: int, until: int) -> list[LogEntry]:
    """Return entries of one item each for each position."""
    new = NewEntry(Signal.LOGS, b"", ENTRY, 1)
    return [LogEntry(position, position + ENTRY, position, new) for position in range(start, until, ENTRY)]


class StateMachine(RuleBasedStateMachine):
    """Workers report, routes pass, and now and then the process dies; positions are multiples of `ENTRY`."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.generation = 0
        self.judged = self.passed = 0
        self.anomalous: dict[int, int] = {}  # by position: items
        self.events: Counter[str] = Counter()
        self.sent: set[str] = set()
        self.withheld: dict[int, int] = {}
        self.open()

    def open(self) -> None:
        self.state = StateDatabase(self.directory / "state.db", durability="os")
        self.state.open()

    def teardown(self) -> None:
        if hasattr(self, "state"):
            self.state.close()
            self.loop.close()
            shutil.rmtree(self.directory)

    def report(self, connection: sqlite3.Connection, found: dict[int, int], until: int) -> None:
        for position, items in found.items():
            outbox.enqueue(connection, "otlp_grpc", f"anomaly-{position}", b"event", 1000 + position)
            verdicts.add(connection, position, [ItemRange(0, items, f"{position:032x}")])
            if anomalies.record(connection, replace(ANOMALY, id=f"{position:032x}"), 1000 + position):
                history.record(
                    connection,
                    at_unix_nano=1000 + position,
                    tenant="acme",
                    actor=history.SERVICE,
                    action="opened",
                    subject=f"{position:032x}",
                    detail={},
                )
        set_cursor(connection, WORKER, until)

    def withhold(self, connection: sqlite3.Connection, until: int) -> None:
        for position, ranges in verdicts.between(connection, self.passed, until).items():
            quarantine.add(
                connection,
                position=position,
                signal=Signal.LOGS,
                anomaly_ids=[ranges[0].anomaly_id],
                stream="logs/shop",
                payload=bytes(ranges[0].count),
                item_count=ranges[0].count,
                now_unix_nano=1000 + position,
            )
        usage.count(connection, entries_between(self.passed, until))
        set_cursor(connection, ROUTE, until)

    @rule(counts=st.lists(st.integers(0, 3), min_size=1, max_size=5))
    def worker_reports(self, counts: list[int]) -> None:
        found = {self.judged + ENTRY * index: items for index, items in enumerate(counts) if items}
        until = self.judged + ENTRY * len(counts)
        self.loop.run_until_complete(self.state.write(lambda connection: self.report(connection, found, until)))
        self.commit_report(found, until)

    def commit_report(self, found: dict[int, int], until: int) -> None:
        self.anomalous |= found
        self.events.update(f"anomaly-{position}" for position in found)
        self.judged = until

    @precondition(lambda self: self.judged)
    @rule(back=st.integers(1, 5))
    def worker_repeats_itself_after_a_restart(self, back: int) -> None:
        start = max(0, self.judged - back * ENTRY)
        found = {position: items for position, items in self.anomalous.items() if position >= start}
        until = self.judged
        self.loop.run_until_complete(self.state.write(lambda connection: self.report(connection, found, until)))

    @rule(entries=st.integers(1, 5))
    def route_passes(self, entries: int) -> None:
        until = min(self.judged, self.passed + entries * ENTRY)
        if until > self.passed:
            self.loop.run_until_complete(self.state.write(lambda connection: self.withhold(connection, until)))
            self.commit_pass(until)

    def commit_pass(self, until: int) -> None:
        self.withheld |= {p: items for p, items in self.anomalous.items() if self.passed <= p < until}
        self.passed = until

    @rule()
    def events_are_sent(self) -> None:
        rows = self.loop.run_until_complete(
            self.state.read(lambda connection: outbox.pending(connection, "otlp_grpc", 3))
        )
        for row in rows:
            assert row.key not in self.sent, "sent twice"
            self.sent.add(row.key)
        ids = [row.id for row in rows]
        self.loop.run_until_complete(self.state.write(lambda connection: outbox.mark_sent(connection, ids)))

    @rule(max_bytes=st.integers(0, 20))
    def oldest_expire(self, max_bytes: int) -> None:
        self.loop.run_until_complete(
            self.state.write(lambda c: quarantine.expire(c, before_unix_nano=None, max_bytes=max_bytes, most_rows=1000))
        )
        for position in sorted(self.withheld):
            if sum(self.withheld.values()) <= max_bytes:
                break
            del self.withheld[position]

    @rule()
    def old_verdicts_are_forgotten(self) -> None:
        self.loop.run_until_complete(self.state.write(lambda c: verdicts.forget_before(c, self.passed)))

    @rule(steps=st.integers(0, 3), is_report=st.booleans())
    def disk_fails_within_a_transaction(self, steps: int, is_report: bool) -> None:
        def work(connection: sqlite3.Connection) -> None:
            if steps and is_report:
                self.report(connection, {self.judged + ENTRY: 2}, self.judged + 2 * ENTRY)
            elif steps:
                self.withhold(connection, self.passed + ENTRY)
            raise RuntimeError("told to fail")

        with suppress(RuntimeError):
            self.loop.run_until_complete(self.state.write(work))

    @precondition(lambda self: self.passed)
    @rule(back=st.integers(1, 5))
    def route_repeats_itself_after_its_cursor_was_lost(self, back: int) -> None:
        start = max(0, self.passed - back * ENTRY)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM cursors WHERE name = ?", (ROUTE,))
            usage.count(connection, entries_between(start, self.passed))
            set_cursor(connection, ROUTE, self.passed)

        self.loop.run_until_complete(self.state.write(work))

    @rule()
    def restart(self) -> None:
        self.state.close()
        self.open()

    @rule(torn_share=st.floats(0, 1), is_committed=st.booleans(), flip=st.booleans())
    def crash(self, torn_share: float, is_committed: bool, flip: bool) -> None:
        """Go on with the files as a dead process left them, the last transaction committed, torn or damaged."""
        files = ("state.db", "state.db-wal")
        before = {name: self.content(name) for name in files}
        found, until = {self.judged: 1}, self.judged + ENTRY
        self.loop.run_until_complete(self.state.write(lambda connection: self.report(connection, found, until)))
        after = {name: self.content(name) for name in files}
        self.state.close()
        self.generation += 1
        self.directory = self.directory / f"crash-{self.generation}"
        self.directory.mkdir()
        wal = after["state.db-wal"]
        is_whole = is_committed or after["state.db"] != before["state.db"]
        if not is_whole:
            # The log starts anew when all of it is in the database: then none of this is known of before.
            known = next((n for n, (a, b) in enumerate(zip(before["state.db-wal"], wal, strict=False)) if a != b), None)
            start = len(before["state.db-wal"]) if known is None else known
            torn = bytearray(wal[: start + int((len(wal) - 1 - start) * torn_share)] if len(wal) > start else wal)
            if flip and len(torn) > start:
                torn[-1] ^= 0x55
            wal = bytes(torn)
            is_whole = len(after["state.db-wal"]) <= start
        (self.directory / "state.db").write_bytes(after["state.db"])
        (self.directory / "state.db-wal").write_bytes(wal)
        if is_whole:
            self.commit_report(found, until)
        self.open()

    def content(self, name: str) -> bytes:
        path = self.directory / name
        return path.read_bytes() if path.exists() else b""

    @invariant()
    def everything_agrees(self) -> None:
        if not hasattr(self, "state"):
            return
        read = self.loop.run_until_complete
        known = read(self.state.read(cursors))
        assert (known.get(WORKER, 0), known.get(ROUTE, 0)) == (self.judged, self.passed)
        ahead = {p: [ItemRange(0, n, f"{p:032x}")] for p, n in self.anomalous.items() if p >= self.passed}
        assert read(self.state.read(lambda c: verdicts.between(c, self.passed, 1 << 60))) == ahead
        waiting = read(self.state.read(lambda c: outbox.pending(c, "otlp_grpc", 10_000)))
        assert sorted(row.key for row in waiting) == sorted(self.events.keys() - self.sent)
        level = read(self.state.read(quarantine.level))
        assert (level.item_count, level.payload_bytes) == (sum(self.withheld.values()),) * 2
        assert read(self.state.read(reached)) >= self.passed
        found = read(self.state.read(lambda c: anomalies.find(c, limit=10_000)))
        assert {anomaly.id for anomaly in found} == {f"{position:032x}" for position in self.anomalous}
        told = read(self.state.read(lambda c: history.entries(c, tenant=None, limit=10_000)))
        assert sorted(entry.subject for entry in told) == sorted(anomaly.id for anomaly in found)
        assert read(self.state.read(history.verify)) is None
        totals = read(self.state.read(usage.totals))
        assert sum(total.item_count for total in totals) == self.passed
        with closing(sqlite3.connect(self.directory / "state.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


TestStateMachine = StateMachine.TestCase
TestStateMachine.settings = settings(
    max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
