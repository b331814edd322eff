"""Both receivers over real sockets, as the tests of this folder use them."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from driftlock_otlp.config.receivers import AuthConfig, GrpcReceiverConfig, HttpReceiverConfig
from driftlock_otlp.config.values import Endpoint
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.otlp import decode
from driftlock_otlp.receiver.gate import Gate
from driftlock_otlp.receiver.grpc_server import GrpcReceiver
from driftlock_otlp.receiver.http_server import HttpReceiver
from driftlock_otlp.receiver.ingest import Ingest
from driftlock_otlp.receiver.resends import RecentRequests
from tests.doubles.memory_log import MemoryLog

LIMIT = 1 << 20
ANY_PORT = Endpoint(host="127.0.0.1", port=0)
PROTOBUF = "application/x-protobuf"
JSON = "application/json"
JSON_LOG = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityText":"INFO"}]}]}]}'

RESPONSES: dict[Signal, type[Message]] = {
    Signal.LOGS: ExportLogsServiceResponse,
    Signal.METRICS: ExportMetricsServiceResponse,
    Signal.TRACES: ExportTraceServiceResponse,
}
STUBS: dict[Signal, Any] = {
    Signal.LOGS: LogsServiceStub, Signal.METRICS: MetricsServiceStub, Signal.TRACES: TraceServiceStub
}  # fmt: skip

every_signal = pytest.mark.parametrize("signal", list(Signal), ids=lambda signal: signal.plural)


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> Status:
        """The body as google.rpc.Status, decoded as its content type says."""
        if self.headers["Content-Type"] == JSON:
            tree = json.loads(self.body)
            return Status(code=tree.get("code", 0), message=tree["message"])
        assert self.headers["Content-Type"] == PROTOBUF
        return Status.FromString(self.body)


class Receivers:
    """Both receivers, running, with the log behind them.

    Args:
        max_in_flight_bytes: See `receiver.max_in_flight_bytes`.
        grpc: Settings of the gRPC receiver beside its address and limit.
        http: Settings of the HTTP receiver beside its address and limit.
        auth: Keys and limits.
        recent: Recognises requests that are sent again; by default nothing does.
    """

    def __init__(
        self,
        max_in_flight_bytes: int = 64 << 20,
        *,
        grpc: Mapping[str, Any] | None = None,
        http: Mapping[str, Any] | None = None,
        auth: AuthConfig | None = None,
        recent: RecentRequests | None = None,
    ) -> None:
        self.log = MemoryLog()
        self.metrics = Metrics()
        self.gate = Gate(auth or AuthConfig(), max_in_flight_bytes, self.metrics)
        self.is_ready = True
        ingest = Ingest(self.log, self.metrics, lambda: 1, recent=recent)
        grpc_config = GrpcReceiverConfig(**{"endpoint": ANY_PORT, "max_recv_msg_size_mib": 1, **(grpc or {})})
        http_config = HttpReceiverConfig(**{"endpoint": ANY_PORT, "max_request_body_size": LIMIT, **(http or {})})
        self.grpc = GrpcReceiver(grpc_config, ingest, self.gate, self.metrics, lambda: self.is_ready)
        self.http = HttpReceiver(http_config, ingest, self.gate, self.metrics)

    async def start(self) -> None:
        await self.gate.start()
        await self.grpc.start()
        await self.http.start()
        self.session = aiohttp.ClientSession(f"http://127.0.0.1:{self.http.port}")
        self.channel = self.new_channel()

    async def stop(self) -> None:
        await self.channel.close()
        await self.session.close()
        await self.grpc.stop(1.0)
        await self.http.stop(1.0)
        await self.gate.stop(1.0)

    def new_channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc.port}", [("grpc.max_send_message_length", -1)])

    async def post(
        self, path: str = "/v1/logs", body: Any = b"", content_type: str | None = PROTOBUF, method: str = "POST",
        **headers: str,
    ) -> Answer:  # fmt: skip
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        skipped = ["Content-Type"] if content_type is None else []
        if content_type is not None:
            sent["Content-Type"] = content_type
        data = io.BytesIO(body) if isinstance(body, bytes) else body
        async with self.session.request(method, path, data=data, headers=sent, skip_auto_headers=skipped) as response:
            return Answer(response.status, response.headers, await response.read())

    async def call(self, payload: bytes, signal: Signal = Signal.LOGS, **options: Any) -> bytes:
        response: bytes = await self.channel.unary_unary(signal.grpc_method)(payload, timeout=20, **options)
        return response

    async def failing_call(self, payload: bytes, **options: Any) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(payload, **options)
        return caught.value

    async def assert_still_serving(self) -> None:
        before = len(self.log.entries)
        await self.call(request_of(Signal.LOGS))
        assert (await self.post(body=request_of(Signal.LOGS))).status == 200
        assert len(self.log.entries) == before + 2
        assert self.gate.in_flight_bytes == 0

    def requests(self, transport: str, outcome: str) -> float:
        labels = {"signal": "logs", "transport": transport, "outcome": outcome}
        return self.metrics.registry.get_sample_value("driftlock_receiver_requests_total", labels) or 0.0


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Receivers]:
    """Run receivers with settings of their own; see `Receivers`."""
    receivers = Receivers(**settings)
    await receivers.start()
    try:
        yield receivers
    finally:
        await receivers.stop()


def message_of(signal: Signal, n_items: int = 1) -> Message:
    request: Any = decode.request_class(signal)()
    for index in range(n_items):
        if signal is Signal.LOGS:
            request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=index + 1)
        elif signal is Signal.TRACES:
            request.resource_spans.add().scope_spans.add().spans.add(name=str(index))
        else:
            request.resource_metrics.add().scope_metrics.add().metrics.add().sum.data_points.add(as_int=index)
    message: Message = request
    return message


def request_of(signal: Signal, n_items: int = 1) -> bytes:
    return message_of(signal, n_items).SerializeToString()


def log_of_size(n_bytes: int) -> bytes:
    """Return a request of exactly `n_bytes`, filled up by an unknown field."""
    payload = request_of(Signal.LOGS)
    filler = n_bytes - len(payload) - 6  # two bytes of tag, four of length
    length = bytes([filler & 127 | 128, filler >> 7 & 127 | 128, filler >> 14 & 127 | 128, filler >> 21])
    return payload + b"\xca\x3e" + length + bytes(filler)


def details_of(error: grpc.aio.AioRpcError) -> Status | None:
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            return Status.FromString(value)
    return None
