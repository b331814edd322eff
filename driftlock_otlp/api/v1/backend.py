"""What the routes stand on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Request

from driftlock_otlp.api.feed import Feed
from driftlock_otlp.api.findings import Findings
from driftlock_otlp.interfaces import Clock
from driftlock_otlp.observability.live import LiveStream, LiveWorker
from driftlock_otlp.storage.state import StateDatabase


class Workers(Protocol):
    """The detection processes."""

    async def look(self) -> tuple[list[LiveWorker], list[LiveStream]]:
        """Return how they and their streams are."""
        ...


@dataclass(frozen=True, slots=True)
class Backend:
    """What the routes stand on.

    Attributes:
        version: Of the sidecar.
        state: What was found, and what was done about it.
        workers: Who scores.
        clock: The wall clock.
        findings: What was found, for who asks.
        feed: What is new.
        pdf: Returns an evidence bundle as a document for people.
    """

    version: str
    state: StateDatabase
    workers: Workers
    clock: Clock
    findings: Findings
    feed: Feed
    pdf: Callable[[bytes], Awaitable[bytes]]


async def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


Backing = Annotated[Backend, Depends(_backend)]
