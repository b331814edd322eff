"""Starting and stopping components in order, within a deadline; readiness."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from driftlock_otlp.interfaces import Component

_REMINDER_S = 5.0

_logger = structlog.get_logger(__name__)


class Lifecycle:
    """Components in the order in which they start; they stop in reverse.

    Args:
        components: Downstream first, so that whoever sends finds someone who takes.
    """

    def __init__(self, components: Sequence[Component]) -> None:
        self._components = components
        self._started: list[Component] = []

    async def start(self) -> None:
        """Start all; if one fails, stop those that had started and raise its error."""
        for component in self._components:
            try:
                await component.start()
            except BaseException:
                await self.stop(_REMINDER_S)
                raise
            self._started.append(component)

    async def stop(self, grace_s: float) -> None:
        """Stop what has started, last first, within `grace_s` seconds in all; say what still runs."""
        deadline_s = time.monotonic() + grace_s
        while self._started:
            component = self._started.pop()
            left_s = max(deadline_s - time.monotonic(), 0.5)
            task = asyncio.create_task(component.stop(left_s))
            while not task.done():
                await asyncio.wait({task}, timeout=min(_REMINDER_S, left_s))
                if not task.done():
                    _logger.warning("still_stopping", component=component.name)
                if time.monotonic() > deadline_s + 1.0:
                    task.cancel()
                    await asyncio.wait({task}, timeout=1.0)
                    break
            if not task.cancelled() and task.done() and (error := task.exception()):
                _logger.error("stop_failed", component=component.name, error=repr(error))


class Readiness:
    """Whether the sidecar takes data now, as a list of conditions."""

    def __init__(self) -> None:
        self._conditions: dict[str, Callable[[], bool]] = {}

    def add(self, name: str, condition: Callable[[], bool]) -> None:
        """Add a condition that must hold."""
        self._conditions[name] = condition

    def missing(self) -> list[str]:
        """Return the names of the conditions that do not hold; empty when ready."""
        return [name for name, condition in self._conditions.items() if not condition()]
