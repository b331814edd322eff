"""Named steps at which a process can be made to die, to prove that dying there does no harm.

A process started with `DRIFTLOCK_FAULT_POINT=log.written:3` in its environment kills itself with
SIGKILL the third time it reaches `log.written`. Workers inherit the environment, so a step of
theirs kills the worker that reaches it. With `DRIFTLOCK_FAULT_MARK=<path>` this happens once: the
file is made before the kill, and a process that finds it lives.

Without these variables, which only tests set, a step costs one comparison.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Mapping

POINT_VARIABLE = "DRIFTLOCK_FAULT_POINT"
MARK_VARIABLE = "DRIFTLOCK_FAULT_MARK"

FAULT_POINTS: Mapping[str, str] = {
    # Receiving, in the main process.
    "receive.decoded": "the request is decoded and counted; nothing of it is written",
    "log.segment_started": "the next segment has its file and header; no entry is in it",
    "log.written": "entries are handed to the kernel; they are not synced, nobody is answered",
    "log.synced": "entries are on disk; the log's end has not moved, nobody is answered",
    "receive.appended": "the request is durable and readers may see it; its sender is not answered",
    "receive.answered": "the answer is handed to the connection (OTLP/HTTP)",
    # Scoring, in a worker.
    "worker.read": "entries are read; no window has them",
    "worker.scored": "windows are scored; the service does not know",
    "worker.reported": "the service is told; the worker does not know whether it is durable",
    "worker.checkpointing": "a checkpoint is written, but not committed",
    "worker.checkpointed": "a checkpoint is committed; the service does not know",
    # Verdicts, in the main process.
    "verdicts.received": "a worker's verdicts are in memory; nothing is written",
    "verdicts.recording": "anomalies, events, verdicts and cursor are written, but not committed",
    "verdicts.recorded": "they are committed; the watermark has not moved, the worker is not told",
    "verdicts.opening": "an anomaly and its events are written, but not committed",
    "verdicts.opened": "an anomaly and its events are committed; the watermark has not moved",
    # Forwarding, in the main process.
    "forward.chosen": "a request's part is cut out; it is not sent",
    "forward.delivered": "the sink has taken it; the cursor has not moved",
    "forward.withholding": "an anomalous part is put into the quarantine, but not committed",
    "forward.committing": "the cursor of clean data and usage are written, but not committed",
    "forward.committed": "they are committed; the position in memory has not moved",
    "events.chosen": "an event is taken from the outbox; it is not sent",
    "events.delivered": "the destination has the event; the outbox does not know",
    "events.marked": "the outbox knows that the event is delivered",
    "quarantine.delivered": "a released part is delivered; it is still in the quarantine",
    # House-keeping, starting and stopping, in the main process.
    "requests.saving": "what requests are known by is written, but not committed",
    "requests.saved": "it is committed; segments may be deleted",
    "log.releasing": "a segment is about to be deleted",
    "log.released": "a segment's file is deleted",
    "service.opened": "storage is open and repaired; nothing else has started",
    "service.stopping": "receivers, workers and routes have stopped; storage is open",
}
"""Every step, with what has and what has not happened when it is reached."""


class _Fault:
    """One step to die at."""

    def __init__(self, name: str, count: int, mark: str | None) -> None:
        self._name = name
        self._left = count
        self._mark = mark
        self._lock = threading.Lock()

    def reach(self, name: str) -> None:
        if name != self._name:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0 and self._is_first():
                os.kill(os.getpid(), signal.SIGKILL)

    def _is_first(self) -> bool:
        if self._mark is None:
            return True
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            return True
        return False


def _armed_by(environment: Mapping[str, str]) -> _Fault | None:
    """Return the step that the environment names.

    Raises:
        ValueError: There is no such step, or it is to be reached less than once.
    """
    value = environment.get(POINT_VARIABLE)
    if not value:
        return None
    name, _, count = value.partition(":")
    if name not in FAULT_POINTS or not (count or "1").isdecimal() or int(count or "1") < 1:
        raise ValueError(
            f"{POINT_VARIABLE}={value}: expected NAME or NAME:COUNT, NAME one of {', '.join(FAULT_POINTS)}"
        )
    return _Fault(name, int(count or "1"), environment.get(MARK_VARIABLE))


_armed = _armed_by(os.environ)


def reach(name: str) -> None:
    """Die here if the process was started to; `name` is one of `FAULT_POINTS`."""
    if _armed is not None:
        _armed.reach(name)
