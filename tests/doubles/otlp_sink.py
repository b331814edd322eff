"""A small OTLP destination on real sockets: keeps what it gets, answers as it is told.

In a test:

    async with OtlpSink() as sink:
        sink.fail_next(2, retry_after_s=0.1)
        ...  # export to sink.grpc_endpoint or sink.http_endpoint
        assert sink.bodies() == ["paid"]

As a process, for tests that kill their peer, and for demonstrations:

    python -m tests.doubles.otlp_sink --grpc-port 0 --http-port 0 --output received.jsonl

It then prints one JSON line with its ports, and writes one JSON line per accepted request.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import signal as process_signal
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from aiohttp import web
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from driftlock_otlp.errors import DecodeError
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import count_items, decode

_HOST = "127.0.0.1"
_PROTOBUF = "application/x-protobuf"
_RESPONSES: dict[Signal, Any] = {
    Signal.LOGS: ExportLogsServiceResponse,
    Signal.METRICS: ExportMetricsServiceResponse,
    Signal.TRACES: ExportTraceServiceResponse,
}


@dataclass(frozen=True, slots=True)
class Received:
    """One request.

    Attributes:
        signal: Its signal.
        transport: `grpc` or `http`.
        payload: The request as protobuf, uncompressed.
        message: The same, decoded.
        headers: HTTP headers or gRPC metadata, names in lower case.
        path: HTTP path, or gRPC method.
    """

    signal: Signal
    transport: str
    payload: bytes
    message: Any
    headers: dict[str, str]
    path: str


@dataclass(frozen=True, slots=True)
class Answer:
    """How to answer one request.

    Attributes:
        grpc_code: Status over gRPC; None for success.
        http_status: Status over HTTP.
        message: Words: of the failure, or of a partial success.
        retry_after_s: RetryInfo over gRPC, Retry-After over HTTP; there it may be a date.
        rejected_item_count: Partial success.
        delay_s: Seconds to wait before the answer.
        http_body: Body over HTTP, instead of the right one.
        http_headers: More headers over HTTP.
        grpc_body: Response over gRPC, instead of the right one.
    """

    grpc_code: grpc.StatusCode | None = None
    http_status: int = 200
    message: str = ""
    retry_after_s: float | str | None = None
    rejected_item_count: int = 0
    delay_s: float = 0.0
    http_body: bytes | None = None
    http_headers: dict[str, str] = field(default_factory=dict)
    grpc_body: bytes | None = None

    @property
    def is_success(self) -> bool:
        """Return True when the request counts as taken."""
        return self.grpc_code is None and 200 <= self.http_status < 300


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Certificate, key, and the CA of the clients' certificates, as PEM files."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


class OtlpSink:
    """An OTLP/gRPC and an OTLP/HTTP server on 127.0.0.1.

    Args:
        grpc_port: Port, 0 for any.
        http_port: Port, 0 for any.
        tls: Serve both over TLS.
        on_accepted: Called with each accepted request before it is acknowledged.

    Attributes:
        attempts: Every request that came, in order.
        received: Those that were accepted.
        judge: Says how to answer a request when `answer_next` has not.
        gate: While not set, no request is answered.
    """

    def __init__(
        self,
        grpc_port: int = 0,
        http_port: int = 0,
        tls: ServerTls | None = None,
        on_accepted: Callable[[Received], None] | None = None,
    ) -> None:
        self.grpc_port = grpc_port
        self.http_port = http_port
        self.attempts: list[Received] = []
        self.received: list[Received] = []
        self.judge: Callable[[Received], Answer] = lambda request: Answer()
        self.gate = asyncio.Event()
        self.gate.set()
        self._tls = tls
        self._on_accepted = on_accepted
        self._answers: deque[Answer] = deque()
        self._news = asyncio.Condition()
        self._grpc_server: Any = None
        self._http_runner: web.AppRunner | None = None

    @property
    def grpc_endpoint(self) -> str:
        """URL for an `otlp_grpc` exporter."""
        return f"{'https' if self._tls else 'http'}://localhost:{self.grpc_port}"

    @property
    def http_endpoint(self) -> str:
        """Base URL for an `otlp_http` exporter."""
        return f"{'https' if self._tls else 'http'}://localhost:{self.http_port}"

    async def __aenter__(self) -> OtlpSink:
        await self._start_grpc()
        await self._start_http()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._http_runner is not None:
            await self._http_runner.cleanup()
        if self._grpc_server is not None:
            await self._grpc_server.stop(0)

    def answer_next(self, answer: Answer, times: int = 1) -> None:
        """Answer the next requests so; they queue behind what was said before."""
        self._answers.extend([answer] * times)

    def fail_next(
        self,
        times: int = 1,
        grpc_code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
        http_status: int = 503,
        retry_after_s: float | str | None = None,
        message: str = "told to fail",
    ) -> None:
        """Refuse the next requests."""
        answer = Answer(grpc_code=grpc_code, http_status=http_status, retry_after_s=retry_after_s, message=message)
        self.answer_next(answer, times)

    def reject_items_next(self, rejected_item_count: int, message: str = "told to reject", times: int = 1) -> None:
        """Take the next requests with a partial success."""
        self.answer_next(Answer(rejected_item_count=rejected_item_count, message=message), times)

    def heal(self) -> None:
        """Forget the answers that are still to be given."""
        self._answers.clear()

    def requests(self, signal: Signal) -> list[Any]:
        """Return the accepted requests of a signal, decoded, in order."""
        return [request.message for request in self.received if request.signal is signal]

    def payloads(self, signal: Signal) -> list[bytes]:
        """Return the accepted requests of a signal as they came."""
        return [request.payload for request in self.received if request.signal is signal]

    def item_count(self, signal: Signal) -> int:
        """Return the number of accepted log records, data points or spans."""
        return sum(count_items(signal, message) for message in self.requests(signal))

    def records(self) -> list[LogRecord]:
        """Return all accepted log records, in order."""
        return [
            record
            for request in self.requests(Signal.LOGS)
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def bodies(self) -> list[str]:
        """Return the string bodies of all accepted log records, in order."""
        return [record.body.string_value for record in self.records()]

    def spans(self) -> list[Span]:
        """Return all accepted spans, in order."""
        return [
            span
            for request in self.requests(Signal.TRACES)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def data_points(self) -> list[Any]:
        """Return all accepted data points, of whatever kind, in order."""
        return [
            point
            for request in self.requests(Signal.METRICS)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.WhichOneof("data") is not None
            for point in getattr(metric, metric.WhichOneof("data")).data_points
        ]

    async def wait_for_items(self, signal: Signal, count: int, timeout_s: float = 30.0) -> None:
        """Return once so many items have been accepted.

        Raises:
            AssertionError: They have not within `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: self.item_count(signal) >= count)
        except TimeoutError:
            have = self.item_count(signal)
            raise AssertionError(f"sink has {have} of {count} {signal.item_noun} after {timeout_s:g} s") from None

    async def _start_grpc(self) -> None:
        options = (("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0))
        server = grpc.aio.server(options=options)
        for signal in Signal:
            handler = grpc.unary_unary_rpc_method_handler(self._grpc_handler(signal))
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(signal.grpc_service, {"Export": handler}),)
            )
        address = f"{_HOST}:{self.grpc_port}"
        if self._tls is None:
            self.grpc_port = server.add_insecure_port(address)
        else:
            client_ca = self._tls.client_ca_file
            credentials = grpc.ssl_server_credentials(
                [(self._tls.key_file.read_bytes(), self._tls.cert_file.read_bytes())],
                root_certificates=client_ca.read_bytes() if client_ca else None,
                require_client_auth=client_ca is not None,
            )
            self.grpc_port = server.add_secure_port(address, credentials)
        await server.start()
        self._grpc_server = server

    async def _start_http(self) -> None:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_post("/{path:.*}", self._handle_http)
        runner = web.AppRunner(application, shutdown_timeout=0.5, access_log=None)
        await runner.setup()
        context = None
        if self._tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(self._tls.cert_file, self._tls.key_file)
            if self._tls.client_ca_file is not None:
                context.load_verify_locations(self._tls.client_ca_file)
                context.verify_mode = ssl.CERT_REQUIRED
        site = web.TCPSite(runner, _HOST, self.http_port, ssl_context=context)
        await site.start()
        self.http_port = runner.addresses[0][1]
        self._http_runner = runner

    def _grpc_handler(self, signal: Signal) -> Callable[[bytes, Any], Any]:
        async def export(payload: bytes, context: Any) -> bytes:
            headers = {key: str(value) for key, value in context.invocation_metadata()}
            try:
                answer = await self._take(signal, "grpc", payload, headers, signal.grpc_method)
            except DecodeError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            if answer.grpc_code is not None:
                await context.abort(answer.grpc_code, answer.message, _retry_info(answer))
            return _response(signal, answer) if answer.grpc_body is None else answer.grpc_body

        return export

    async def _handle_http(self, request: web.Request) -> web.Response:
        signal = next((signal for signal in Signal if request.path.endswith(signal.http_path)), None)
        if signal is None:
            return _failure(404, f"no such path: {request.path}")
        if request.content_type != _PROTOBUF:
            return _failure(415, f"only {_PROTOBUF} is served")
        headers = {key.lower(): value for key, value in request.headers.items()}
        try:
            answer = await self._take(signal, "http", await request.read(), headers, request.path)
        except DecodeError as error:
            return _failure(400, str(error))
        if 200 <= answer.http_status < 300:
            response = web.Response(body=_response(signal, answer), status=answer.http_status, content_type=_PROTOBUF)
        else:
            response = _failure(answer.http_status, answer.message)
        if answer.retry_after_s is not None:
            response.headers["Retry-After"] = str(answer.retry_after_s)
        response.headers.update(answer.http_headers)
        if answer.http_body is not None:
            response.body = answer.http_body
        return response

    async def _take(self, signal: Signal, transport: str, payload: bytes, headers: dict[str, str], path: str) -> Answer:
        request = Received(signal, transport, payload, decode(signal, payload), headers, path)
        self.attempts.append(request)
        answer = self._answers.popleft() if self._answers else self.judge(request)
        await self.gate.wait()
        if answer.delay_s:
            await asyncio.sleep(answer.delay_s)
        if answer.is_success:
            if self._on_accepted is not None:
                self._on_accepted(request)
            async with self._news:
                self.received.append(request)
                self._news.notify_all()
        return answer


def _response(signal: Signal, answer: Answer) -> bytes:
    response = _RESPONSES[signal]()
    if answer.rejected_item_count or answer.message:
        setattr(response.partial_success, f"rejected_{signal.item_noun}", answer.rejected_item_count)
        response.partial_success.error_message = answer.message
    serialized: bytes = response.SerializeToString()
    return serialized


def _failure(http_status: int, message: str) -> web.Response:
    return web.Response(body=Status(message=message).SerializeToString(), status=http_status, content_type=_PROTOBUF)


def _retry_info(answer: Answer) -> tuple[tuple[str, bytes], ...]:
    """Return the trailing metadata that says when to come back."""
    if not isinstance(answer.retry_after_s, float | int) or answer.grpc_code is None:
        return ()
    info = RetryInfo()
    info.retry_delay.FromNanoseconds(round(answer.retry_after_s * 1e9))
    detail = AnyMessage()
    detail.Pack(info)
    status = Status(code=answer.grpc_code.value[0], message=answer.message, details=[detail])
    return (("grpc-status-details-bin", status.SerializeToString()),)


async def _serve(grpc_port: int, http_port: int, output: Path) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (process_signal.SIGINT, process_signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    with output.open("a", encoding="utf-8") as lines:

        def write(request: Received) -> None:
            payload = base64.b64encode(request.payload).decode()
            line = {"signal": request.signal.plural, "transport": request.transport, "payload": payload}
            # Flushed before the acknowledgement: what a sender believes delivered is in the file.
            lines.write(json.dumps(line) + "\n")
            lines.flush()

        async with OtlpSink(grpc_port, http_port, on_accepted=write) as sink:
            print(json.dumps({"grpc_port": sink.grpc_port, "http_port": sink.http_port}), flush=True)
            await stopped.wait()


def read_output(path: Path) -> list[Received]:
    """Return the requests in an output file of the process; a line cut short is ignored."""
    requests = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        entry = json.loads(line)
        signal = next(signal for signal in Signal if signal.plural == entry["signal"])
        payload = base64.b64decode(entry["payload"])
        requests.append(Received(signal, entry["transport"], payload, decode(signal, payload), {}, ""))
    return requests


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="Receive OTLP and write it to a file.")
    parser.add_argument("--grpc-port", type=int, default=4317, help="0 for any")
    parser.add_argument("--http-port", type=int, default=4318, help="0 for any")
    parser.add_argument("--output", type=Path, required=True, help="file of JSON lines to append to")
    options = parser.parse_args()
    asyncio.run(_serve(options.grpc_port, options.http_port, options.output))


if __name__ == "__main__":
    main()
