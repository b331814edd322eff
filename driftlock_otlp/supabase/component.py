"""The sidecar's part that sends to Supabase for as long as it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from random import Random

import structlog

from driftlock_otlp.config.exporters import RetryConfig
from driftlock_otlp.config.supabase import SupabaseConfig
from driftlock_otlp.errors import RetryableError
from driftlock_otlp.interfaces import Clock, TelemetryLog
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.retry import Backoff
from driftlock_otlp.storage import sync
from driftlock_otlp.supabase.client import Project
from driftlock_otlp.supabase.organizations import Organizations
from driftlock_otlp.supabase.people import People
from driftlock_otlp.supabase.sender import Sender, State

_POLL_S = 0.5
_DAY_S = 86_400.0
_RETRY = RetryConfig(initial_interval=1.0, max_interval=60.0)

_logger = structlog.get_logger(__name__)


class SupabaseSync:
    """Sends what is noted and takes over what people did there; a `Component`. Nothing else waits for it.

    Args:
        config: The project.
        state: The state database.
        log: Where orders to detectors go.
        metrics: Where what was sent is counted.
        clock: The wall clock.
        on_used_up: Called with the tenants whose plan is used up and who chose to be blocked then.
    """

    name = sync.DESTINATION

    def __init__(
        self,
        config: SupabaseConfig,
        state: State,
        log: TelemetryLog,
        metrics: Metrics,
        clock: Clock,
        on_used_up: Callable[[Collection[str]], None] = lambda tenants: None,
    ) -> None:
        self._config = config
        self._state = state
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._on_used_up = on_used_up
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._project: Project | None = None
        self._sender: Sender | None = None
        self.is_failing = False
        self.last_error = ""

    async def start(self) -> None:
        """Begin to send; a project that cannot be reached is no reason not to start."""
        self._project = Project(self._config)
        organizations = Organizations(self._project, self._config.organization)
        self._sender = Sender(self._project, organizations, self._state, self._clock)
        people = People(self._project, organizations, self._state, self._log, self._clock)
        self._task = asyncio.create_task(self._run(self._project, organizations, self._sender, people))

    async def stop(self, grace_s: float) -> None:
        """Tell of the last usage and send what waits within the grace; the rest stays in the outbox."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=0.1 if self.is_failing else grace_s / 2)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._sender is not None and not self.is_failing:
            with contextlib.suppress(TimeoutError, RetryableError):
                async with asyncio.timeout(min(grace_s / 4, 5.0)):
                    await self._sender.note_usage()
                    await self._send_all(self._sender)
        if self._project is not None:
            await self._project.close()

    async def _run(self, project: Project, organizations: Organizations, sender: Sender, people: People) -> None:
        loop = asyncio.get_running_loop()
        # Jitter keeps sidecars that start together from calling together.
        backoff = Backoff(_RETRY, Random())  # noqa: S311 - no secret
        # When each is due.
        due = {"usage": loop.time(), "people": loop.time(), "house": loop.time()}
        while not self._stopping.is_set():
            wait_s = _POLL_S
            try:
                if loop.time() >= due["usage"]:
                    await sender.note_usage()
                    due["usage"] = loop.time() + self._config.usage_interval
                    await self._look_at_plans(project, organizations)
                await self._send_all(sender)
                if loop.time() >= due["people"]:
                    await people.take_over()
                    due["people"] = loop.time() + self._config.status_interval
                if loop.time() >= due["house"]:
                    await project.call("keep_house")
                    due["house"] = loop.time() + _DAY_S
                self.is_failing = False
                backoff.reset()
            except RetryableError as error:
                wait_s = backoff.next_delay_s(error.retry_after_s)
                if str(error) != self.last_error or not self.is_failing:
                    _logger.error("supabase_waiting", error=str(error))
                self.is_failing, self.last_error = True, str(error)
            except Exception:
                self._metrics.errors.labels("supabase").inc()
                _logger.exception("supabase_failed")
                wait_s = backoff.next_delay_s()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s)

    async def _look_at_plans(self, project: Project, organizations: Organizations) -> None:
        blocked = await project.select(
            "usage_this_month", "organization_id", equal={"is_blocked": "true"}, order="organization_id", limit=1_000
        )
        ids = {str(row["organization_id"]) for row in blocked}
        self._on_used_up([tenant for tenant, organization in organizations.known.items() if organization in ids])

    async def _send_all(self, sender: Sender) -> None:
        while True:
            part = await sender.send_some()
            self._metrics.events.labels(self.name, "sent").inc(part.sent)
            self._metrics.events.labels(self.name, "dropped").inc(len(part.refused))
            for key, reason in part.refused.items():
                _logger.error("supabase_refuses", what=key, reason=reason)
            if part.is_empty or self._stopping.is_set():
                return
