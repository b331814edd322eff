"""What the routes stand on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request

from driftlock_otlp.api.feed import Feed
from driftlock_otlp.api.findings import Findings
from driftlock_otlp.interfaces import Clock, ExportResult
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.live import LiveStream, LiveWorker
from driftlock_otlp.storage.state import StateDatabase


class Workers(Protocol):
    """The detection processes."""

    async def look(self) -> tuple[list[LiveWorker], list[LiveStream]]:
        """Return how they and their streams are."""
        ...


class Gate(Protocol):
    """Says how much may be sent, as to the receivers."""

    def tenant(self, organization: str) -> Any:
        """Return what is known of an organisation, and its budget."""
        ...

    def admit(self, tenant: Any, n_bytes: int) -> AbstractContextManager[Any]:
        """Reserve room for a request.

        Raises:
            RetryableError: Nothing may be taken now, or there is no room.
        """
        ...


class Ingest(Protocol):
    """Takes requests into the durable log, as from the receivers."""

    async def ingest_protobuf(self, signal: Signal, payload: bytes, transport: str, tenant: str = "") -> ExportResult:
        """Take one request; return once it is durable."""
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
        significance: Returns the configured significance of a kind of stream.
        gate: How much may be sent.
        ingest: What takes it.
    """

    version: str
    state: StateDatabase
    workers: Workers
    clock: Clock
    findings: Findings
    feed: Feed
    pdf: Callable[[bytes], Awaitable[bytes]]
    significance: Callable[[str], float]
    gate: Gate
    ingest: Ingest


async def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


Backing = Annotated[Backend, Depends(_backend)]
