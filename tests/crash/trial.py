"""One sidecar under load on one data directory, killed as often as one likes; then everything is checked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as process_signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from driftlock_otlp.auth.keys import KeyFile, Organization, new_key, write_key_file
from driftlock_otlp.config.file import load
from driftlock_otlp.fault_points import MARK_VARIABLE, POINT_VARIABLE
from driftlock_otlp.observability.memory import resident_bytes
from driftlock_otlp.storage import quarantine
from tests.crash.arrivals import Arrivals
from tests.crash.reference import Archive, Reference, run_undisturbed
from tests.crash.report import Found, Level, Report, check, faults_of_levels, withheld_items
from tests.crash.senders import ROLES, Role, Sender
from tests.doubles.otlp_sink import OtlpSink
from tests.e2e.sidecar import Sidecar, laid_over, small_windows, wait_gone

SEGMENT_BYTES = 1 << 20
_KEEP_S = 0.1
_PATIENCE_S = 60.0
_LEVEL_S = 45.0
_LATE_S = 10.0


class Trial:
    """A sidecar, its senders and its downstream.

    Args:
        directory: For everything; empty.
        seed: Of the telemetry.
        settings: Of the sidecar, beside those of the trial.
        roles: Who sends.
        pause_s: Rest of each sender after each request.
        fault_every: Requests after which each sender has faults of its own accord; 0: never.

    Attributes:
        kills: How many of which process.
    """

    def __init__(
        self,
        directory: Path,
        seed: int,
        settings: dict[str, Any] | None = None,
        roles: Sequence[Role] = ROLES,
        pause_s: float = 0.02,
        fault_every: int = 150,
    ) -> None:
        self._directory = directory
        self._settings = settings or {}
        self.kills: Counter[str] = Counter()
        self.arrivals = Arrivals()
        self.sidecar: Sidecar
        self.restarts_s: list[float] = []
        self._released: set[int] = set()
        self._sink = OtlpSink(on_accepted=lambda request: self.arrivals.take(request, self._sink))
        keys, organizations = {}, {}
        for tenant in sorted({role.tenant for role in roles}):
            key = new_key("", datetime.now(UTC), None)
            keys[tenant], organizations[tenant] = key.text, Organization(keys=(key.stored,))
        self._keys_file = directory / "keys.yaml"
        write_key_file(self._keys_file, KeyFile(organizations=organizations))
        self.senders = [
            Sender(role, number, seed, self._ports, keys[role.tenant], pause_s, fault_every)
            for number, role in enumerate(roles)
        ]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Trial:
        await self._sink.__aenter__()
        settings = {
            **small_windows(),
            "queue": {"segment_bytes": SEGMENT_BYTES},
            # Verdicts that come late because of the kills are waited for, so that they can be compared.
            "forward": {"max_wait": "120s"},
            "auth": {"keys_file": str(self._keys_file)},
        }
        self.sidecar = Sidecar(self._directory, self._sink, laid_over(settings, self._settings))
        (self.sidecar.data / "log").mkdir(parents=True, mode=0o700)
        self._archive = Archive(self.sidecar.data / "log", self._directory / "archive")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.sidecar.close()
        await self._sink.__aexit__(kind, error, traceback)

    async def start(self, *, point: str = "", is_ready: bool = True) -> Path:
        """Start the sidecar.

        Args:
            point: Fault point at which it, or its worker, is to die: `NAME` or `NAME:COUNT`.
            is_ready: Return once it is ready, not at once.

        Returns:
            The file that appears when the fault point is reached.
        """
        mark = self._directory / f"mark-{self.arrivals.life}"
        self.sidecar.environment = {POINT_VARIABLE: point, MARK_VARIABLE: str(mark)} if point else {}
        self.arrivals.life += 1
        started_s = time.monotonic()
        self.sidecar.spawn()
        if is_ready:
            await self.sidecar.wait_ready()
            self.restarts_s.append(time.monotonic() - started_s)
        return mark

    def send(self) -> None:
        """Let the senders begin."""
        self._tasks = [asyncio.create_task(sender.run()) for sender in self.senders]
        self._tasks.append(asyncio.create_task(self._keep_log()))

    async def acknowledge(self, count: int) -> None:
        """Return when each sender has so many requests acknowledged beyond what it has."""
        goals = [len(sender.acknowledged) + count for sender in self.senders]
        await self.until(
            lambda: all(len(s.acknowledged) >= goal for s, goal in zip(self.senders, goals, strict=True)),
            "requests are not acknowledged",
        )

    async def take_downstream_away(self) -> None:
        """Close the downstream: connections are cut, nobody listens."""
        self.arrivals.cuts += 1
        await self._sink.__aexit__(None, None, None)

    async def bring_downstream_back(self) -> None:
        """Let the downstream listen again, where it did."""
        await self._sink.__aenter__()

    def slow_down(self, pause_s: float) -> None:
        """Let every sender rest longer after each request."""
        for sender in self.senders:
            sender.pause_s = pause_s

    async def until(self, condition: Callable[[], bool], complaint: str, timeout_s: float = _PATIENCE_S) -> None:
        """Return when a condition holds, whether or not the sidecar lives.

        Raises:
            AssertionError: It does not in time, or a sender has failed.
        """
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            self._check_senders()
            assert time.monotonic() < deadline_s, f"{complaint} after {timeout_s:g} s:\n" + self.sidecar.output[-4000:]
            await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """Kill the main process, unless it is dead already, and see its workers end."""
        workers = self.sidecar.worker_pids()
        self.kills["service"] += self.sidecar.is_running
        await self.sidecar.kill()
        await wait_gone(workers)

    async def kill_worker(self, index: int = 0) -> None:
        """Kill one worker, if one is up."""
        workers = self.sidecar.worker_pids()
        if not workers:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(workers[index % len(workers)], process_signal.SIGKILL)
            self.kills["worker"] += 1

    async def died_at(self, mark: Path, *, is_worker: bool = False) -> None:
        """Return when a fault point has been reached, and the sidecar is dead if it is the one that did."""
        await self.until(mark.exists, "the fault point is not reached")
        if not is_worker:
            await self.until(lambda: not self.sidecar.is_running, "the sidecar lives on")
        self.kills["process at a fault point"] += 1

    def withheld(self) -> int:
        """Return how many items the quarantine withholds."""
        with self.sidecar.state() as connection:
            return quarantine.withheld_items(connection)

    def release_quarantine(self) -> None:
        """Let everything that is withheld go downstream, as `quarantine release --all` does."""
        with self.sidecar.state() as connection:
            self._released |= withheld_items(connection)
            quarantine.release(connection, None)

    async def pause(self) -> Level:
        """Let the senders pause until everything has gone its way; return what the sidecar takes then."""
        await asyncio.gather(*(sender.pause() for sender in self.senders))
        await self._settle()
        level = await self._level()
        for sender in self.senders:
            sender.resume()
        return level

    async def finish(self, before: Level | None = None) -> Report:
        """Let the senders finish and everything go its way, then check all of it.

        Args:
            before: What the sidecar took when it was new; memory and files are compared with it.
        """
        for sender in self.senders:
            sender.finish()
        *sending, keeping = self._tasks
        await asyncio.gather(*sending)
        await self._settle()
        after = await self._level() if before is not None else None
        keeping.cancel()
        self._archive.keep()
        entries = await asyncio.to_thread(self._archive.entries)
        reference = await asyncio.to_thread(run_undisturbed, load(self._directory / "sidecar.yaml"), entries)
        deadline_s = time.monotonic() + _LATE_S
        # Facts are written once a second, events are on their way for moments.
        while True:
            report = self._report(reference)
            if not report.faults or time.monotonic() > deadline_s:
                break
            await asyncio.sleep(0.5)
        if before is not None and after is not None:
            report.levels = before, after
            report.faults += faults_of_levels(before, after)
        return report

    def _report(self, reference: Reference) -> Report:
        with self.sidecar.state() as connection:
            found = Found.read(connection)
        return check(self, self.arrivals, self.senders, reference, found, self._released)

    async def _settle(self) -> None:
        """Return when every route has passed everything and every window has its verdict."""
        await self.sidecar.wait_until(lambda: self.sidecar.total("driftlock_queue_items") == 0, "is not settled")

    async def _level(self) -> Level:
        """Return what the sidecar takes, once the log has let go of what nobody needs."""
        log = self.sidecar.data / "log"

        def log_bytes() -> int:
            return sum(path.stat().st_size for path in log.glob("*.log"))

        deadline_s = time.monotonic() + _LEVEL_S
        while log_bytes() > 2 * SEGMENT_BYTES and time.monotonic() < deadline_s:
            await asyncio.sleep(0.2)
        pids = [self.sidecar.pid, *self.sidecar.worker_pids()]
        files = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
        return Level(resident_bytes(pids), files, log_bytes())

    async def _keep_log(self) -> None:
        while True:
            self._archive.keep()
            await asyncio.sleep(_KEEP_S)

    def _ports(self) -> tuple[int, int]:
        return self.sidecar.grpc_port, self.sidecar.http_port

    def _check_senders(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
