"""OTLP/HTTP: protobuf and JSON on one port, as a bare ASGI application on uvicorn.

Owns paths, methods and media types; reading bodies is for `http_body`, what a request means
for `ingest`, what an error looks like on the wire for `otlp.responses`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import structlog
import uvicorn
from starlette.types import Receive, Scope, Send

from driftlock_otlp.config.receivers import HttpReceiverConfig
from driftlock_otlp.config.values import Endpoint
from driftlock_otlp.errors import ConfigError, DriftlockError, RetryableError
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.otlp import responses
from driftlock_otlp.otlp.responses import Encoding, HttpResponse
from driftlock_otlp.receiver.admission import Admission
from driftlock_otlp.receiver.http_body import UnknownCodingError, read_body
from driftlock_otlp.receiver.http_protocol import OtlpHttpProtocol
from driftlock_otlp.receiver.ingest import Ingest

_log = structlog.get_logger(__name__)

_TRANSPORT = "http"
_BACKLOG = 2048
_KEEP_ALIVE_S = 60
_SIGNAL_OF_PATH = {signal.http_path: signal for signal in Signal}
_ENCODING_OF_MEDIA_TYPE = {encoding.value: encoding for encoding in Encoding}
_Headers = dict[bytes, str]


class HttpReceiver:
    """The OTLP/HTTP server; a `Component`.

    Args:
        config: Address and limit.
        ingest: What takes the requests.
        admission: The bound on bytes in flight.
        metrics: Where unexpected errors are counted.
    """

    name = "receiver.http"

    def __init__(self, config: HttpReceiverConfig, ingest: Ingest, admission: Admission, metrics: Metrics) -> None:
        self._config = config
        self._max_bytes = config.max_request_body_size
        self._ingest = ingest
        self._admission = admission
        self._metrics = metrics
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
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
        sockets = await _bind(self._config.endpoint)
        self._port = sockets[0].getsockname()[1]
        server = _Server(
            uvicorn.Config(
                self._serve,
                http=OtlpHttpProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_S,
            )
        )
        serving = asyncio.create_task(server.serve(sockets), name=self.name)
        started = asyncio.create_task(server.listening.wait())
        await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if serving.done():
            serving.result()
        self._server, self._serving = server, serving

    async def stop(self, grace_s: float) -> None:
        """Accept no more connections, let requests in flight finish within `grace_s` seconds.

        What is not finished then is told to try again; nothing of it has been acknowledged.
        """
        server, serving = self._server, self._serving
        if server is None or serving is None:
            return
        self._server = self._serving = None
        server.config.timeout_graceful_shutdown = int(grace_s)
        server.should_exit = True
        await serving
        # uvicorn has cancelled what overran the grace, but does not wait for its last words.
        if server.server_state.tasks:
            await asyncio.wait(server.server_state.tasks, timeout=1.0)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application; the border at which every error becomes a response."""
        headers: _Headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        encoding = _encoding_of(headers) or _encoding_for_refusal(headers)
        close = False
        response: HttpResponse | None
        try:
            response = await self._answer(scope, headers, receive)
        except DriftlockError as error:
            response = responses.http_failure(error, encoding)
        except asyncio.CancelledError:
            # Requests are cancelled by the server's own shutdown only: the sender is to try again.
            response = responses.http_failure(RetryableError("shutting down; try again", 1.0), encoding)
            close = True
        except Exception as error:
            self._metrics.errors.labels("receiver").inc()
            _log.exception("request_failed", transport=_TRANSPORT, path=scope["path"])
            response = responses.http_failure(error, encoding)
        if response is None:
            return
        lines = [*response.headers, (b"connection", b"close")] if close else list(response.headers)
        await send({"type": "http.response.start", "status": response.status, "headers": lines})
        await send({"type": "http.response.body", "body": response.body})

    async def _answer(self, scope: Scope, headers: _Headers, receive: Receive) -> HttpResponse | None:
        """Return the response to one request, None if there is nobody left to answer."""
        signal = _SIGNAL_OF_PATH.get(scope["path"])
        encoding = _encoding_of(headers)
        refusal_encoding = encoding or _encoding_for_refusal(headers)
        if signal is None:
            paths = ", ".join(_SIGNAL_OF_PATH)
            return responses.http_refusal(404, f"no such path; OTLP is served at {paths}", refusal_encoding)
        if scope["method"] != "POST":
            allow = ((b"allow", b"POST"),)
            return responses.http_refusal(405, "only POST is served here", refusal_encoding, allow)
        if encoding is None:
            return self._unsupported(
                signal,
                f"Content-Type {headers.get(b'content-type', '')!r} is not supported;"
                f" use {Encoding.PROTOBUF.value} or {Encoding.JSON.value}",
                refusal_encoding,
            )
        with self._admission.admit(0) as room:
            try:
                with self._ingest.counting_failures(signal, _TRANSPORT):
                    declared_bytes = _content_length(headers)
                    if declared_bytes is not None and declared_bytes <= self._max_bytes:
                        self._admission.check(declared_bytes)
                    coding = headers.get(b"content-encoding", "")
                    body = await read_body(receive, coding, declared_bytes, self._max_bytes, room)
            except UnknownCodingError as error:
                return responses.http_refusal(415, str(error), encoding)
            if body is None:
                return None
            if encoding is Encoding.JSON:
                await self._ingest.ingest_json(signal, body, _TRANSPORT)
            else:
                await self._ingest.ingest_protobuf(signal, body, _TRANSPORT)
        return responses.http_success(encoding)

    def _unsupported(self, signal: Signal, message: str, encoding: Encoding) -> HttpResponse:
        self._metrics.receiver_requests.labels(signal.plural, _TRANSPORT, "rejected").inc()
        return responses.http_refusal(415, message, encoding)


class _Server(uvicorn.Server):
    """uvicorn without its hold on signals, which are the service's, and with a way to await readiness."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _bind(endpoint: Endpoint) -> list[socket.socket]:
    """Return listening sockets for every address of the host; port 0 is the same port for all."""
    loop = asyncio.get_running_loop()
    port = endpoint.port
    sockets: list[socket.socket] = []
    try:
        found = await loop.getaddrinfo(endpoint.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((entry[0], entry[4][0]) for entry in found):
            listener = socket.create_server((str(address), port), family=family, backlog=_BACKLOG)
            listener.setblocking(False)
            sockets.append(listener)
            port = listener.getsockname()[1]
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise ConfigError(
            f"receivers.otlp.protocols.http.endpoint: cannot listen on {endpoint} (is the port taken?): {error}"
        ) from None
    return sockets


def _encoding_of(headers: _Headers) -> Encoding | None:
    media_type = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    return _ENCODING_OF_MEDIA_TYPE.get(media_type)


def _encoding_for_refusal(headers: _Headers) -> Encoding:
    """Guess what a client of an unknown media type can read."""
    hints = headers.get(b"content-type", "") + headers.get(b"accept", "")
    return Encoding.JSON if "json" in hints.lower() else Encoding.PROTOBUF


def _content_length(headers: _Headers) -> int | None:
    # The HTTP parser has refused anything but digits.
    text = headers.get(b"content-length")
    return None if text is None else int(text)
