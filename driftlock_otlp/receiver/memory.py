"""The memory limiter: senders are told to wait while the processes use more than they may.

What is in memory is bounded in the first place by what may be in flight (`Admission`); this looks
at what it comes to.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable, Collection

import structlog

from driftlock_otlp.observability.memory import container_limit_bytes, resident_bytes
from driftlock_otlp.observability.metrics import Metrics

_logger = structlog.get_logger(__name__)

CONTAINER_SHARE = 0.8
"""Part of a container's limit that is used where none is configured: what is beyond gets killed."""

SOFT_SHARE = 0.8
"""From this part of the limit on senders wait: the rest is for what is under way already."""

_LOOK_S = 0.25


class MemoryLimiter:
    """Measures the resident memory of the service and its workers; a `Component`.

    Args:
        limit_bytes: Most that they may use; None for 80 % of the container's limit, if it has one.
        worker_pids: Returns the processes beside this one.
        metrics: Where limit and use are shown.
        resident: Returns the resident memory of processes in bytes.
    """

    name = "memory_limiter"

    def __init__(
        self,
        limit_bytes: int | None,
        worker_pids: Callable[[], Collection[int]],
        metrics: Metrics,
        resident: Callable[[Collection[int]], int] = resident_bytes,
    ) -> None:
        container_bytes = container_limit_bytes() if limit_bytes is None else None
        self.limit_bytes = limit_bytes if container_bytes is None else int(container_bytes * CONTAINER_SHARE)
        self._worker_pids = worker_pids
        self._metrics = metrics
        self._resident = resident
        self._task: asyncio.Task[None] | None = None
        self.used_bytes = 0
        self.is_short = False

    async def start(self) -> None:
        """Measure from now on, if there is a limit."""
        if self.limit_bytes is not None:
            self._metrics.memory_limit_bytes.set(self.limit_bytes)
            self._task = asyncio.create_task(self._run(self.limit_bytes))

    async def stop(self, grace_s: float) -> None:
        """Measure no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self, limit_bytes: int) -> None:
        while True:
            self.look(limit_bytes)
            await asyncio.sleep(_LOOK_S)

    def look(self, limit_bytes: int) -> None:
        """Measure once."""
        was_short = self.is_short
        self.used_bytes = self._resident([os.getpid(), *self._worker_pids()])
        self.is_short = self.used_bytes >= limit_bytes * SOFT_SHARE
        self._metrics.memory_used_bytes.set(self.used_bytes)
        if self.is_short:
            _give_back()
        if self.is_short and not was_short:
            _logger.warning(
                "memory_short",
                used_bytes=self.used_bytes,
                limit_bytes=limit_bytes,
                effect="senders are told to wait; one request at a time is taken",
                remedy="raise receiver.memory_limit, or lower receiver.max_in_flight_bytes",
            )
        elif was_short and not self.is_short:
            _logger.info("memory_recovered", used_bytes=self.used_bytes, limit_bytes=limit_bytes)


def _give_back() -> None:
    """Ask the C library to return to the kernel what has been freed: it keeps it otherwise."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc only
