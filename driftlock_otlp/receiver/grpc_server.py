"""OTLP/gRPC: the Export methods of the three signals, on raw bytes.

Handlers get and give bytes, so that a request is neither decoded into objects here nor encoded
again; grpcio enforces the size limit on the wire and after decompression (gzip, deflate).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

# Reflection describes what is in protobuf's default pool: these put OTLP there.
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2  # noqa: F401
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2  # noqa: F401
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: F401

from driftlock_otlp.config.receivers import GrpcReceiverConfig, ServerKeepaliveConfig
from driftlock_otlp.errors import ConfigError, DriftlockError, PayloadTooLargeError
from driftlock_otlp.http_listener import remove_stale_socket
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.otlp import responses
from driftlock_otlp.receiver.gate import Gate
from driftlock_otlp.receiver.ingest import Ingest
from driftlock_otlp.tls_files import TlsFiles

_log = structlog.get_logger(__name__)

_KEY = "receivers.otlp.protocols.grpc"
_TRANSPORT = "grpc"
_LOOK_S = 1.0
_LONGEST_MS = (1 << 31) - 1
_Handler = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


class GrpcReceiver:
    """The OTLP/gRPC server, with gRPC's health service and reflection; a `Component`.

    Args:
        config: Address and limits.
        ingest: What takes the requests.
        gate: Who may send, and how much.
        metrics: Where unexpected errors are counted.
        is_ready: What the health service says.

    Raises:
        ConfigError: The TLS files cannot be used.
    """

    name = "receiver.grpc"

    def __init__(
        self,
        config: GrpcReceiverConfig,
        ingest: Ingest,
        gate: Gate,
        metrics: Metrics,
        is_ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self._config = config
        self._max_bytes = config.max_recv_msg_size_mib << 20
        self._ingest = ingest
        self._gate = gate
        self._metrics = metrics
        self._is_ready = is_ready
        self._tls = TlsFiles(f"{_KEY}.tls", config.tls) if config.tls is not None else None
        self._health = health.aio.HealthServicer()
        self._watching: asyncio.Task[None] | None = None
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port in use once started; differs from the configured one only if that is 0."""
        return self._port

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        server = grpc.aio.server(options=self._options())
        server.add_generic_rpc_handlers(tuple(self._service(signal) for signal in Signal))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [signal.grpc_service for signal in Signal]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        endpoint = self._config.endpoint
        try:
            if endpoint.path:
                remove_stale_socket(endpoint.path)
            if self._tls is None:
                port = server.add_insecure_port(str(endpoint))
            else:
                port = server.add_secure_port(str(endpoint), _credentials(self._tls))
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"{_KEY}.endpoint: cannot listen on {endpoint} (is it taken?): {error}") from None
        self._port = 0 if endpoint.path else port
        await self._tell_health()
        await server.start()
        self._server = server
        self._watching = asyncio.create_task(self._watch_health())

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those in flight finish within `grace_s` seconds."""
        if self._server is None:
            return
        server, self._server = self._server, None
        if self._watching is not None:
            self._watching.cancel()
        await self._health.enter_graceful_shutdown()
        await server.stop(grace_s)
        if self._config.endpoint.path:
            with contextlib.suppress(OSError):
                os.unlink(self._config.endpoint.path)

    def _options(self) -> list[tuple[str, Any]]:
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", self._max_bytes),
            # Without this a second process on the same port would silently take half of the calls.
            ("grpc.so_reuseport", 0),
            *_keepalive_options(self._config.keepalive),
        ]
        if self._config.max_concurrent_streams is not None:
            options.append(("grpc.max_concurrent_streams", self._config.max_concurrent_streams))
        return options

    async def _watch_health(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            await self._tell_health()

    async def _tell_health(self) -> None:
        serving = health_pb2.HealthCheckResponse.SERVING
        status = serving if self._is_ready() else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *(signal.grpc_service for signal in Signal)):
            await self._health.set(name, status)

    def _service(self, signal: Signal) -> grpc.GenericRpcHandler:
        # No (de)serializers: the handler works on the bytes of the messages.
        method = grpc.unary_unary_rpc_method_handler(self._handler(signal))
        return grpc.method_handlers_generic_handler(signal.grpc_service, {"Export": method})

    def _handler(self, signal: Signal) -> _Handler:
        async def export(payload: bytes, context: grpc.aio.ServicerContext) -> bytes:
            try:
                result, budget = await self._take(signal, payload, dict(context.invocation_metadata() or ()))
                if budget:
                    context.set_trailing_metadata(budget)
                return responses.grpc_success(signal, result)
            except DriftlockError as error:
                failure = responses.grpc_failure(error)
            except Exception as error:
                self._metrics.errors.labels("receiver").inc()
                _log.exception("request_failed", transport=_TRANSPORT, signal=signal.plural)
                failure = responses.grpc_failure(error)
            await context.abort(failure.code, failure.message, failure.trailing_metadata)
            raise AssertionError("abort always raises")

        return export

    async def _take(
        self, signal: Signal, payload: bytes, metadata: dict[str, Any]
    ) -> tuple[ExportResult, tuple[tuple[str, str], ...]]:
        """Take one request; return what became of it, and what its sender has left of its budget."""
        with self._ingest.counting_failures(signal, _TRANSPORT):
            tenant = self._gate.authenticate(metadata.get("authorization"), metadata.get("x-api-key"))
            if len(payload) > self._max_bytes:
                raise PayloadTooLargeError(
                    f"the request has {len(payload)} bytes and {self._max_bytes} are allowed; send smaller batches"
                )
            room = self._gate.admit(tenant, len(payload))
        with room:
            with self._ingest.counting_failures(signal, _TRANSPORT):
                tenant.spend(len(payload))
            result = await self._ingest.ingest_protobuf(signal, payload, _TRANSPORT, tenant.name)
        return result, tenant.budget()


def _keepalive_options(keepalive: ServerKeepaliveConfig) -> list[tuple[str, int]]:
    """Return gRPC's channel arguments for the Collector's settings; 0 means what it means there: never."""
    server, policy = keepalive.server_parameters, keepalive.enforcement_policy

    def milliseconds(seconds: float) -> int:
        return min(max(int(seconds * 1000), 1), _LONGEST_MS) if seconds else _LONGEST_MS

    return [
        ("grpc.max_connection_idle_ms", milliseconds(server.max_connection_idle)),
        ("grpc.max_connection_age_ms", milliseconds(server.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", milliseconds(server.max_connection_age_grace)),
        ("grpc.keepalive_time_ms", milliseconds(server.time)),
        ("grpc.keepalive_timeout_ms", milliseconds(server.timeout)),
        # What closes a connection whose ping is not answered; keep-alive's own timeout starts later.
        ("grpc.http2.ping_timeout_ms", milliseconds(server.timeout)),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", milliseconds(policy.min_time)),
        ("grpc.keepalive_permit_without_calls", int(policy.permit_without_stream)),
    ]


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that follow the files: gRPC asks for them at every new connection."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        material = tls.material
        return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.client_ca)

    def changed() -> grpc.ServerCertificateConfiguration | None:
        return configuration() if tls.refresh() else None

    return grpc.dynamic_ssl_server_credentials(
        configuration(), changed, require_client_authentication=tls.material.client_ca is not None
    )
