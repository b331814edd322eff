"""The composition root: every component of the sidecar, built and put in order in one place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as signals
import time
from functools import partial

import structlog

from driftlock_otlp import fault_points
from driftlock_otlp.api.access import Access
from driftlock_otlp.api.app import ApiServer, build_app
from driftlock_otlp.api.evidence_process import evidence_pdf_of
from driftlock_otlp.api.feed import Feed
from driftlock_otlp.api.findings import Findings
from driftlock_otlp.api.health_check import HealthCheck
from driftlock_otlp.api.management_grpc import ManagementGrpc
from driftlock_otlp.api.pipeline_view import PipelineView
from driftlock_otlp.api.v1.app import build_v1
from driftlock_otlp.api.v1.backend import Backend
from driftlock_otlp.config.exporters import for_signal
from driftlock_otlp.config.receivers import GrpcReceiverConfig, HttpReceiverConfig
from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.errors import RetryableError, StorageUnavailableError
from driftlock_otlp.exporter.announcements import Announcements
from driftlock_otlp.exporter.anomaly_events import EventSender
from driftlock_otlp.exporter.delivery import Deliverer
from driftlock_otlp.exporter.forward import ForwardRoute, Selection
from driftlock_otlp.exporter.otlp_client import build_exporter
from driftlock_otlp.exporter.quarantine import QuarantineRelease
from driftlock_otlp.exporter.sending_queue import SendingQueue, SendingQueues
from driftlock_otlp.exporter.sinks import DiscardSink, ExporterSink, QuarantineSink, Sink
from driftlock_otlp.exporter.webhook import Webhook
from driftlock_otlp.interfaces import Component
from driftlock_otlp.lifecycle import Lifecycle, Readiness
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.collector_metrics import CollectorMetrics
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.observability.version import version
from driftlock_otlp.otlp import scanning
from driftlock_otlp.receiver.gate import Gate
from driftlock_otlp.receiver.grpc_server import GrpcReceiver
from driftlock_otlp.receiver.http_server import HttpReceiver
from driftlock_otlp.receiver.ingest import Ingest
from driftlock_otlp.receiver.memory import MemoryLimiter
from driftlock_otlp.receiver.quotas import Quotas
from driftlock_otlp.receiver.resends import RecentRequests
from driftlock_otlp.storage import requests, verdicts
from driftlock_otlp.storage.log import RETRY_AFTER_S, SegmentLog
from driftlock_otlp.storage.retention import Retention
from driftlock_otlp.storage.state import STATE_FILE, StateDatabase, reached
from driftlock_otlp.worker.pool import WorkerPool

LOG_DIRECTORY = "log"

_HOUSEKEEPING_S = 1.0
_HASTY_S = 0.1
"""Segments are released so often while the log is more than half full."""
_SAME_REQUEST_S = 0.5
_STATE_PATIENCE_S = 5.0
"""What comes is still taken for so long when the state database cannot be written: the log holds it."""

_logger = structlog.get_logger(__name__)


class Service:
    """The sidecar.

    Args:
        config: All settings.

    Raises:
        ConfigError: A destination is not usable as configured.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.metrics = Metrics()
        self.readiness = Readiness()
        clock = time.time_ns
        queue = config.queue
        new_compressor(config.detection.compressor)  # refuses here rather than in a worker
        self._state = StateDatabase(queue.path / STATE_FILE, durability=queue.durability, metrics=self.metrics)
        self._log = SegmentLog(
            queue.path / LOG_DIRECTORY,
            durability=queue.durability,
            segment_bytes=queue.segment_bytes,
            max_bytes=queue.max_bytes,
            metrics=self.metrics,
        )
        announcements = Announcements(config.event_exporters, config.webhooks, version(), clock)
        self.pool = WorkerPool(
            config, self._log, queue.path / LOG_DIRECTORY, self._state, self.metrics, clock, announcements
        )
        CollectorMetrics(self.metrics, lambda: self.pool.pids).register(self.metrics.registry)
        self._routes = self._build_routes()
        room = SendingQueues([route.queue for route in self._routes if route.queue is not None])
        window_s = config.receiver.dedup_window
        self._recent = RecentRequests(window_s, clock) if window_s else None
        ingest = Ingest(self._log, self.metrics, clock, room, self._recent)
        memory = MemoryLimiter(config.receiver.memory_limit, lambda: self.pool.pids, self.metrics)
        self._quotas = Quotas(lambda: self.gate.limits, self._state, self.metrics, clock)
        self.gate = Gate(
            config.auth,
            config.receiver.max_in_flight_bytes,
            self.metrics,
            lambda: memory.is_short,
            self._state_failure,
            self._quotas.refusal,
        )
        protocols = config.receivers.otlp.protocols
        self.grpc = (
            GrpcReceiver(protocols.grpc, ingest, self.gate, self.metrics, lambda: not self.readiness.missing())
            if protocols.grpc
            else None
        )
        self.http = HttpReceiver(protocols.http, ingest, self.gate, self.metrics) if protocols.http else None
        receivers_of_events = [self._deliverer(name) for name in config.event_exporters]
        receivers_of_events += [
            Deliverer(Webhook(name, webhook), webhook.retry_on_failure, self.metrics)
            for name, webhook in config.webhooks.items()
        ]
        senders = [EventSender(deliverer, self._state, self.metrics) for deliverer in receivers_of_events]
        view = self._build_view(senders)
        access = Access(self.gate.keys, config.api.requests_per_second)
        backend = self._build_backend(ingest)
        v1 = build_v1(backend, access, self.metrics.errors)
        registry = self.metrics.registry
        app = build_app(registry, self.readiness, version(), view.look, v1, access.may_see_all)
        self.api = ApiServer(config.api, app, backend.feed.close)
        grpc_endpoint = config.api.grpc_endpoint
        management = ManagementGrpc(grpc_endpoint, backend, access, self.metrics) if grpc_endpoint is not None else None
        health_check = config.extensions.health_check
        components: list[Component] = [
            # First to start and last to stop: probes are answered, with 503, while the others come up and go down.
            self.api,
            *([management] if management is not None else []),
            *([HealthCheck(health_check, self.readiness)] if health_check is not None else []),
            *senders,
            *self._supabase(),
            QuarantineRelease([self._deliverer(name) for name in config.forward.exporters], self._state, self.metrics),
            *self._routes,
            self.pool,
            memory,
            self._quotas,
            self.gate,
            *(receiver for receiver in (self.grpc, self.http) if receiver is not None),
            room,
        ]
        self._lifecycle = Lifecycle(components)
        self._housekeeping: asyncio.Task[None] | None = None
        self._is_receiving = False
        self.readiness.add("receivers", lambda: self._is_receiving)
        self.readiness.add("storage", lambda: self._log.is_writable and self._state.is_writable)
        self.readiness.add("detection", lambda: self.pool.is_ready)

    async def start(self) -> None:
        """Open storage and start every component, downstream first."""
        self._state.open()
        self._log.open(minimum_end=await self._state.read(reached))
        if self._recent is not None:
            known_before, keys = await self._state.read(requests.load)
            self._recent.load(self._log, self._log.recent_position if known_before is None else known_before, keys)
        fault_points.reach("service.opened")
        await self._lifecycle.start()
        await self._state.write(partial(verdicts.forget_routes, kept=[route.name for route in self._routes]))
        self._is_receiving = True
        self._housekeeping = asyncio.create_task(self._keep_house())
        self._greet()

    async def stop(self, grace_s: float | None = None) -> None:
        """Stop every component in reverse, then close storage. What is not finished stays queued."""
        self._is_receiving = False
        grace_s = self._config.service.shutdown_grace if grace_s is None else grace_s
        await self._lifecycle.stop(grace_s)
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.gather(self._housekeeping, return_exceptions=True)
        fault_points.reach("service.stopping")
        self._log.close()
        self._state.close()

    async def run(self) -> None:
        """Serve until SIGINT or SIGTERM; a second one ends the process at once."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        first_s = 0.0

        def on_signal(number: signals.Signals) -> None:
            nonlocal first_s
            if stopping.is_set():
                # Terminals, make and supervisors may tell the whole process group and us as well.
                if loop.time() - first_s < _SAME_REQUEST_S:
                    return
                _logger.warning("stopped_at_once", signal=number.name)
                # Nothing acknowledged is lost: it is in the durable log.
                signals.signal(number, signals.SIG_DFL)
                signals.raise_signal(number)
                os._exit(128 + number)  # the kernel keeps such a signal from process 1 of a container
            first_s = loop.time()
            _logger.info("stopping", signal=number.name, grace_s=self._config.service.shutdown_grace)
            stopping.set()

        for number in (signals.SIGINT, signals.SIGTERM):
            loop.add_signal_handler(number, on_signal, number)
        try:
            await self.start()
            await stopping.wait()
        finally:
            await self.stop()
        _logger.info("stopped")

    def _supabase(self) -> list[Component]:
        if not self._config.supabase.is_on:
            return []
        # The client takes a while to load, and only who has a project needs it.
        from driftlock_otlp.supabase.component import SupabaseSync  # noqa: PLC0415

        return [
            SupabaseSync(self._config.supabase, self._state, self._log, self.metrics, time.time_ns, self._quotas.block)
        ]

    def _state_failure(self) -> StorageUnavailableError | None:
        """Return why nothing is taken while nothing can be passed on, once that has lasted for a while."""
        failing_s = self._state.failing_s
        if failing_s < _STATE_PATIENCE_S:
            return None
        return StorageUnavailableError(f"the state database cannot be written for {failing_s:.0f} s", RETRY_AFTER_S)

    def _build_routes(self) -> list[ForwardRoute]:
        forward = self._config.forward
        selection = {"divert": Selection.CLEAN, "tag": Selection.TAGGED, "pass": Selection.EVERYTHING}[forward.policy]
        sinks: list[Sink] = [ExporterSink(self._deliverer(name)) for name in forward.exporters] or [DiscardSink()]
        routes = [(selection, sink) for sink in sinks]
        if forward.policy == "divert":
            diverted: list[Sink] = [ExporterSink(self._deliverer(name)) for name in forward.anomalous_exporters]
            routes += [(Selection.ANOMALOUS, sink) for sink in diverted or [QuarantineSink(time.time_ns)]]
        exporters = self._config.exporters
        return [
            ForwardRoute(
                selection,
                sink,
                self._log,
                self._state,
                lambda: self.pool.watermark,
                forward.max_wait,
                self.metrics,
                time.time_ns,
                is_metered=index == 0,
                consumers=exporters[sink.name].sending_queue.num_consumers if sink.name in exporters else 1,
                queue=self._sending_queue(sink.name) if selection is not Selection.ANOMALOUS else None,
            )
            for index, (selection, sink) in enumerate(routes)
        ]

    def _sending_queue(self, name: str) -> SendingQueue | None:
        """Return the count of what waits for a destination; None if only the log bounds it."""
        exporter = self._config.exporters.get(name)
        if exporter is None:
            return None
        if exporter.sending_queue.queue_size is None:
            self.metrics.queue_capacity.labels(f"forward:{name}", "bytes").set(self._config.queue.max_bytes)
            return None
        waits_for_verdicts = self._config.forward.policy != "pass"
        return SendingQueue(
            name,
            exporter.sending_queue,
            (lambda: self.pool.watermark) if waits_for_verdicts else None,
            self._config.forward.max_wait,
            time.time_ns,
            self.metrics,
        )

    def _build_view(self, event_senders: list[EventSender]) -> PipelineView:
        protocols = self._config.receivers.otlp.protocols
        receivers: list[tuple[str, GrpcReceiverConfig | HttpReceiverConfig, GrpcReceiver | HttpReceiver]] = []
        if protocols.grpc is not None and self.grpc is not None:
            receivers.append(("grpc", protocols.grpc, self.grpc))
        if protocols.http is not None and self.http is not None:
            receivers.append(("http", protocols.http, self.http))
        return PipelineView(
            version=version(),
            policy=self._config.forward.policy,
            metrics=self.metrics,
            readiness=self.readiness,
            receivers=receivers,
            log=self._log,
            log_path=str(self._config.queue.path / LOG_DIRECTORY),
            routes=self._routes,
            event_senders=event_senders,
            workers=self.pool,
            state=self._state,
        )

    def _build_backend(self, ingest: Ingest) -> Backend:
        return Backend(
            version=version(),
            state=self._state,
            workers=self.pool,
            clock=time.time_ns,
            findings=Findings(
                self._state, self._log, time.time_ns, lambda kind: self._config.quote_max_bytes(kind) > 0
            ),
            feed=Feed(self._state),
            pdf=evidence_pdf_of,
            significance=self._config.significance,
            gate=self.gate,
            ingest=ingest,
        )

    def _deliverer(self, name: str) -> Deliverer:
        """Return a connection of its own, so that no user of a destination waits for another."""
        config = self._config.exporters[name]
        limits = {signal: for_signal(name, config, signal.plural)[1].max_request_size for signal in Signal}
        return Deliverer(build_exporter(name, config), config.retry_on_failure, self.metrics, limits)

    async def _keep_house(self) -> None:
        """Let go of what every cursor has passed, and of what is beyond its limits."""
        quarantine = self._config.forward.quarantine
        retention = Retention(
            self._state, quarantine.max_bytes, quarantine.max_age, self._config.anomalies, self.metrics, time.time_ns
        )
        while True:
            is_filling = self._log.held_bytes > self._config.queue.max_bytes / 2
            await asyncio.sleep(_HASTY_S if is_filling else _HOUSEKEEPING_S)
            try:
                unneeded = min(self.pool.checkpoint, *(route.position for route in self._routes))
                if self._recent is not None:
                    unneeded = min(unneeded, await self._recent.save(self._state, self._log))
                self._log.release(unneeded)
                await retention.keep(self._log.oldest_position)
            except RetryableError as error:
                _logger.error("housekeeping_waiting", error=str(error))
            except Exception:
                self.metrics.errors.labels("service").inc()
                _logger.exception("housekeeping_failed")

    def _greet(self) -> None:
        forward = self._config.forward
        _logger.info(
            "started",
            version=version(),
            otlp_grpc=f"{self.grpc_host()}:{self.grpc.port}" if self.grpc else "off",
            otlp_http=f"{self.http_host()}:{self.http.port}" if self.http else "off",
            api=f"http://{self._config.api.endpoint.host}:{self.api.port}",
            data=str(self._config.queue.path),
            policy=forward.policy,
            downstream=", ".join(forward.exporters) or "none",
        )
        if self._config.auth.keys_file is not None:
            for name, listener in self._config.receivers.otlp.protocols.listeners().items():
                if listener.tls is None and not listener.endpoint.is_local:
                    _logger.warning(
                        "keys_in_plaintext",
                        endpoint=str(listener.endpoint),
                        effect="whoever sees the traffic sees API keys and telemetry",
                        remedy=f"set receivers.otlp.protocols.{name}.tls, or let a proxy on this machine do TLS",
                    )
        if scanning.scan is None:
            _logger.warning(
                "scanner_not_compiled",
                effect="requests are read by protobuf alone, at about ten times the CPU",
                remedy="install a C compiler, then this package again; or take a wheel for this machine",
            )
        if not forward.exporters:
            _logger.warning(
                "no_downstream",
                effect="telemetry is scored and then dropped, counted; anomalies are kept and logged",
                remedy="set OTEL_EXPORTER_OTLP_ENDPOINT, or forward.exporters in a configuration file",
            )

    def grpc_host(self) -> str:
        """Return the host of the OTLP/gRPC endpoint."""
        grpc = self._config.receivers.otlp.protocols.grpc
        return grpc.endpoint.host if grpc else ""

    def http_host(self) -> str:
        """Return the host of the OTLP/HTTP endpoint."""
        http = self._config.receivers.otlp.protocols.http
        return http.endpoint.host if http else ""


def run(config: Config) -> None:
    """Run the sidecar until it is told to stop."""
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - absent on Windows

        uvloop.install()
    asyncio.run(Service(config).run())
