"""Puts together what `/debug/pipelinez` shows: what every part says of itself, and what was counted."""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

from prometheus_client.registry import Collector

from driftlock_otlp.config.receivers import GrpcReceiverConfig, HttpReceiverConfig
from driftlock_otlp.errors import RetryableError
from driftlock_otlp.lifecycle import Readiness
from driftlock_otlp.model import LogEnd
from driftlock_otlp.observability.live import (
    LiveLog,
    LivePipeline,
    LiveQueue,
    LiveReceiver,
    LiveStream,
    LiveWorker,
)
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import anomalies, outbox, quarantine
from driftlock_otlp.storage.state import StateDatabase


class Listening(Protocol):
    """A receiver."""

    @property
    def port(self) -> int:
        """The port in use; 0 for a unix socket."""
        ...


class Log(Protocol):
    """The durable log."""

    @property
    def held_bytes(self) -> int:
        """Bytes that somebody still needs."""
        ...

    @property
    def is_writable(self) -> bool:
        """Whether the disk takes data."""
        ...

    def end(self) -> LogEnd:
        """Return where the next entry will go."""
        ...


class Sending(Protocol):
    """A route or a sender of events."""

    @property
    def name(self) -> str:
        """Of the cursor, as `forward:otlp_grpc`."""
        ...

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt failed and will be repeated."""
        ...

    @property
    def last_error(self) -> str:
        """What the destination last failed with."""
        ...


class Route(Sending, Protocol):
    """A route, which follows the log."""

    @property
    def position(self) -> int:
        """Where its cursor stands."""
        ...

    @property
    def waiting(self) -> tuple[int, int]:
        """Items, and bytes, in the log that the cursor has yet to pass."""
        ...


class Workers(Protocol):
    """The detection processes."""

    async def look(self) -> tuple[list[LiveWorker], list[LiveStream]]:
        """Return how they and their streams are."""
        ...


class PipelineView:
    """Looks at the whole sidecar when somebody asks.

    Args:
        version: Of the sidecar.
        policy: `forward.policy`.
        metrics: What was counted.
        readiness: Whether it takes data.
        receivers: Transport, settings and server of each protocol.
        log: The durable log.
        log_path: Its directory.
        routes: Who follows it.
        event_senders: Who sends anomaly events.
        workers: Who scores.
        state: Anomalies, quarantine and outbox.
    """

    def __init__(
        self,
        *,
        version: str,
        policy: str,
        metrics: Metrics,
        readiness: Readiness,
        receivers: Sequence[tuple[str, GrpcReceiverConfig | HttpReceiverConfig, Listening]],
        log: Log,
        log_path: str,
        routes: Sequence[Route],
        event_senders: Sequence[Sending],
        workers: Workers,
        state: StateDatabase,
    ) -> None:
        self._version = version
        self._policy = policy
        self._metrics = metrics
        self._readiness = readiness
        self._receivers = receivers
        self._log = log
        self._log_path = log_path
        self._routes = routes
        self._event_senders = event_senders
        self._workers = workers
        self._state = state
        self._started_unix_nano = time.time_ns()

    async def look(self) -> LivePipeline:
        """Return how everything is now; what cannot be said now is None."""
        workers, streams = await self._workers.look()
        open_anomalies, withheld_items, pending = await self._stored()
        streams.sort(key=lambda stream: (not stream.anomaly_id, -stream.last_end_unix_nano, stream.key))
        return LivePipeline(
            version=self._version,
            started_unix_nano=self._started_unix_nano,
            now_unix_nano=time.time_ns(),
            waiting_for=self._readiness.missing(),
            policy=self._policy,
            receivers=self._live_receivers(),
            log=self._live_log(),
            queues=[*self._route_queues(), *self._event_queues(pending)],
            quarantine_items=withheld_items,
            open_anomaly_count=open_anomalies,
            workers=workers,
            stream_count=max(sum(worker.stream_count for worker in workers), len(streams)),
            streams=streams,
        )

    async def _stored(self) -> tuple[int | None, int | None, dict[str, int | None]]:
        """Return open anomalies, withheld items, and events that wait by the name of their exporter."""
        destinations = [_destination(sender.name) for sender in self._event_senders]

        def read(connection: sqlite3.Connection) -> tuple[int, int, dict[str, int | None]]:
            pending: dict[str, int | None] = {name: outbox.depth(connection, name) for name in destinations}
            return anomalies.open_count(connection), quarantine.withheld_items(connection), pending

        try:
            return await self._state.read(read)
        except RetryableError:
            return None, None, dict.fromkeys(destinations)

    def _live_receivers(self) -> list[LiveReceiver]:
        found = []
        for transport, settings, server in self._receivers:
            endpoint = settings.endpoint
            shown = endpoint if endpoint.path else endpoint.model_copy(update={"port": server.port or endpoint.port})
            counts = [
                _outcomes(metric, "signal", transport=transport)
                for metric in (self._metrics.receiver_requests, self._metrics.receiver_items)
            ]
            found.append(LiveReceiver(transport, str(shown), settings.tls is not None, *counts))
        return found

    def _live_log(self) -> LiveLog:
        end = self._log.end()
        return LiveLog(
            path=self._log_path,
            held_bytes=self._log.held_bytes,
            max_bytes=_value(self._metrics.log_max_bytes),
            end=end.position,
            item_count=end.item_count,
            is_writable=self._log.is_writable,
        )

    def _route_queues(self) -> list[LiveQueue]:
        outcomes = _outcomes(self._metrics.forward_items, "exporter")
        retries = _by(self._metrics.exporter_retries, "exporter")
        queues = []
        for route in self._routes:
            name, destination = route.name, _destination(route.name)
            is_divert = name.startswith("divert:")
            mine = {
                outcome: count
                for outcome, count in outcomes.get(destination, {}).items()
                if (outcome == "diverted") == is_divert or outcome == "dropped"
            }
            queues.append(
                LiveQueue(
                    name=name,
                    destination=destination,
                    position=route.position,
                    waiting_items=route.waiting[0],
                    waiting_bytes=route.waiting[1],
                    outcomes=mine,
                    retry_count=retries.get(destination, 0),
                    is_failing=route.is_failing,
                    last_error=route.last_error,
                )
            )
        return queues

    def _event_queues(self, pending: Mapping[str, int | None]) -> list[LiveQueue]:
        outcomes = _outcomes(self._metrics.events, "exporter")
        retries = _by(self._metrics.exporter_retries, "exporter")
        return [
            LiveQueue(
                name=sender.name,
                destination=destination,
                position=None,
                waiting_items=pending.get(destination),
                waiting_bytes=None,
                outcomes=outcomes.get(destination, {}),
                retry_count=retries.get(destination, 0),
                is_failing=sender.is_failing,
                last_error=sender.last_error,
            )
            for sender in self._event_senders
            for destination in (_destination(sender.name),)
        ]


def _destination(name: str) -> str:
    """Return the exporter in the name of a cursor or sender."""
    return name.partition(":")[2]


def _samples(metric: Collector) -> list[tuple[dict[str, str], int]]:
    return [
        (sample.labels, int(sample.value))
        for family in metric.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]


def _value(metric: Collector) -> int:
    return sum(value for _, value in _samples(metric))


def _by(metric: Collector, label: str) -> dict[str, int]:
    """Return the values of a metric by one label."""
    found: dict[str, int] = defaultdict(int)
    for labels, value in _samples(metric):
        found[labels[label]] += value
    return dict(found)


def _outcomes(metric: Collector, label: str, **where: str) -> dict[str, dict[str, int]]:
    """Return the values of a metric by one label and by its outcome, of those that have other labels as given."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for labels, value in _samples(metric):
        if where.items() <= labels.items():
            found[labels[label]][labels["outcome"]] += value
    return {name: dict(outcomes) for name, outcomes in found.items()}
