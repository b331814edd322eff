"""OTLP/gRPC: the Export methods of the three signals, on raw bytes.

Handlers get and give bytes, so that a request is neither decoded into objects here nor encoded
again; grpcio enforces the size limit on the wire and after decompression (gzip, deflate).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
import structlog

from driftlock_otlp.config.receivers import GrpcReceiverConfig
from driftlock_otlp.errors import ConfigError, DriftlockError, PayloadTooLargeError
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.otlp import responses
from driftlock_otlp.receiver.admission import Admission
from driftlock_otlp.receiver.ingest import Ingest

_log = structlog.get_logger(__name__)

_TRANSPORT = "grpc"
_Handler = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


class GrpcReceiver:
    """The OTLP/gRPC server; a `Component`.

    Args:
        config: Address and limits.
        ingest: What takes the requests.
        admission: The bound on bytes in flight.
        metrics: Where unexpected errors are counted.
    """

    name = "receiver.grpc"

    def __init__(self, config: GrpcReceiverConfig, ingest: Ingest, admission: Admission, metrics: Metrics) -> None:
        self._config = config
        self._max_bytes = config.max_recv_msg_size_mib << 20
        self._ingest = ingest
        self._admission = admission
        self._metrics = metrics
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
        options = [
            ("grpc.max_receive_message_length", self._max_bytes),
            # Without this a second process on the same port would silently take half of the calls.
            ("grpc.so_reuseport", 0),
        ]
        if self._config.max_concurrent_streams is not None:
            options.append(("grpc.max_concurrent_streams", self._config.max_concurrent_streams))
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers(tuple(self._service(signal) for signal in Signal))
        try:
            self._port = server.add_insecure_port(str(self._config.endpoint))
        except RuntimeError as error:
            raise ConfigError(
                f"receivers.otlp.protocols.grpc.endpoint: cannot listen on {self._config.endpoint}"
                f" (is the port taken?): {error}"
            ) from None
        await server.start()
        self._server = server

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those in flight finish within `grace_s` seconds."""
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None

    def _service(self, signal: Signal) -> grpc.GenericRpcHandler:
        # No (de)serializers: the handler works on the bytes of the messages.
        method = grpc.unary_unary_rpc_method_handler(self._handler(signal))
        return grpc.method_handlers_generic_handler(signal.grpc_service, {"Export": method})

    def _handler(self, signal: Signal) -> _Handler:
        async def export(payload: bytes, context: grpc.aio.ServicerContext) -> bytes:
            try:
                await self._take(signal, payload)
                return responses.grpc_success()
            except DriftlockError as error:
                failure = responses.grpc_failure(error)
            except Exception as error:
                self._metrics.errors.labels("receiver").inc()
                _log.exception("request_failed", transport=_TRANSPORT, signal=signal.plural)
                failure = responses.grpc_failure(error)
            await context.abort(failure.code, failure.message, failure.trailing_metadata)
            raise AssertionError("abort always raises")

        return export

    async def _take(self, signal: Signal, payload: bytes) -> None:
        with self._ingest.counting_failures(signal, _TRANSPORT):
            if len(payload) > self._max_bytes:
                raise PayloadTooLargeError(
                    f"the request has {len(payload)} bytes and {self._max_bytes} are allowed; send smaller batches"
                )
            room = self._admission.admit(len(payload))
        with room:
            await self._ingest.ingest_protobuf(signal, payload, _TRANSPORT)
