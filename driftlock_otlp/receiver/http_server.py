"""OTLP/HTTP: protobuf and JSON on one port, as a bare ASGI application on uvicorn.

Owns paths, methods and media types; reading bodies is for `http_body`, what a request means
for `ingest`, what an error looks like on the wire for `otlp.responses`.
"""

from __future__ import annotations

import asyncio
import re

import structlog
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from driftlock_otlp import fault_points
from driftlock_otlp.config.receivers import CorsConfig, HttpReceiverConfig
from driftlock_otlp.errors import DriftlockError, RetryableError
from driftlock_otlp.http_listener import HttpListener
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.otlp import responses
from driftlock_otlp.otlp.responses import Encoding, HttpResponse
from driftlock_otlp.receiver.gate import Gate, Tenant
from driftlock_otlp.receiver.http_body import UnknownCodingError, read_body
from driftlock_otlp.receiver.http_protocol import OtlpHttpProtocol
from driftlock_otlp.receiver.ingest import Ingest
from driftlock_otlp.tls_files import TlsFiles

_log = structlog.get_logger(__name__)

_KEY = "receivers.otlp.protocols.http"
_TRANSPORT = "http"
_ENCODING_OF_MEDIA_TYPE = {encoding.value: encoding for encoding in Encoding}
_CORS_HEADERS = ("Content-Type", "Content-Encoding", "Authorization", "X-Api-Key")
_Headers = dict[bytes, str]
_HeaderLines = tuple[tuple[bytes, bytes], ...]


class HttpReceiver:
    """The OTLP/HTTP server; a `Component`.

    Args:
        config: Address and limits.
        ingest: What takes the requests.
        gate: Who may send, and how much.
        metrics: Where unexpected errors are counted.

    Raises:
        ConfigError: The TLS files cannot be used.
    """

    name = "receiver.http"

    def __init__(self, config: HttpReceiverConfig, ingest: Ingest, gate: Gate, metrics: Metrics) -> None:
        self._config = config
        self._max_bytes = config.max_request_body_size
        self._ingest = ingest
        self._gate = gate
        self._metrics = metrics
        paths = {signal: getattr(config, f"{signal.plural}_url_path") for signal in Signal}
        self._signal_of_path = {path: signal for signal, path in paths.items()}
        self._added: _HeaderLines = tuple(
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in config.response_headers.items()
        )
        if not config.keep_alives_enabled:
            self._added += ((b"connection", b"close"),)
        self._listener = HttpListener(
            self.name,
            f"{_KEY}.endpoint",
            config.endpoint,
            _with_cors(self._serve, config.cors),
            protocol=type("Protocol", (OtlpHttpProtocol,), {"head_timeout_s": config.read_header_timeout}),
            idle_timeout_s=config.idle_timeout,
            tls=TlsFiles(f"{_KEY}.tls", config.tls) if config.tls is not None else None,
        )

    @property
    def port(self) -> int:
        """The port in use once started; differs from the configured one only if that is 0."""
        return self._listener.port

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        await self._listener.start()

    async def stop(self, grace_s: float) -> None:
        """Accept no more connections, let requests in flight finish within `grace_s` seconds.

        What is not finished then is told to try again; nothing of it has been acknowledged.
        """
        await self._listener.stop(grace_s)

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
        lines = [*response.headers, *self._added]
        if close:
            lines.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": response.status, "headers": lines})
        await send({"type": "http.response.body", "body": response.body})
        fault_points.reach("receive.answered")

    async def _answer(self, scope: Scope, headers: _Headers, receive: Receive) -> HttpResponse | None:
        """Return the response to one request, None if there is nobody left to answer."""
        signal = self._signal_of_path.get(scope["path"])
        encoding = _encoding_of(headers)
        refusal_encoding = encoding or _encoding_for_refusal(headers)
        if signal is None:
            paths = ", ".join(self._signal_of_path)
            return responses.http_refusal(404, f"no such path; OTLP is served at {paths}", refusal_encoding)
        if scope["method"] != "POST":
            allow = ((b"allow", b"POST"),)
            return responses.http_refusal(405, "only POST is served here", refusal_encoding, allow)
        with self._ingest.counting_failures(signal, _TRANSPORT):
            tenant = self._gate.authenticate(headers.get(b"authorization"), headers.get(b"x-api-key"))
        if encoding is None:
            return self._unsupported(
                signal,
                f"Content-Type {headers.get(b'content-type', '')!r} is not supported;"
                f" use {Encoding.PROTOBUF.value} or {Encoding.JSON.value}",
                refusal_encoding,
            )
        with self._gate.admit(tenant, 0) as room:
            try:
                with self._ingest.counting_failures(signal, _TRANSPORT):
                    declared_bytes = _content_length(headers)
                    if declared_bytes is not None and declared_bytes <= self._max_bytes:
                        self._gate.check(tenant, declared_bytes)
                    # What is refused for its size is not told to come back.
                    tenant.require(min(declared_bytes or 0, self._max_bytes))
                    async with asyncio.timeout(self._config.read_timeout or None):
                        body = await read_body(
                            receive,
                            headers.get(b"content-encoding", ""),
                            self._config.compression_algorithms,
                            declared_bytes,
                            self._max_bytes,
                            room,
                        )
                    if body is None:
                        return None
                    tenant.spend(len(body))
            except UnknownCodingError as error:
                return responses.http_refusal(415, str(error), encoding)
            except TimeoutError:
                limit_s = self._config.read_timeout
                raise RetryableError(f"the body did not arrive within {limit_s:g} s; send it again") from None
            if encoding is Encoding.JSON:
                result = await self._ingest.ingest_json(signal, body, _TRANSPORT, tenant.name)
            else:
                result = await self._ingest.ingest_protobuf(signal, body, _TRANSPORT, tenant.name)
        return responses.http_success(signal, result, encoding, _budget(tenant))

    def _unsupported(self, signal: Signal, message: str, encoding: Encoding) -> HttpResponse:
        self._metrics.receiver_requests.labels(signal.plural, _TRANSPORT, "rejected").inc()
        return responses.http_refusal(415, message, encoding)


def _budget(tenant: Tenant) -> _HeaderLines:
    return tuple((name.encode(), value.encode()) for name, value in tenant.budget())


def _with_cors(app: ASGIApp, cors: CorsConfig) -> ASGIApp:
    """Let pages of the allowed origins send; without any, browsers keep them from it."""
    if not cors.allowed_origins:
        return app
    patterns = [re.escape(origin).replace(r"\*", "[^/]*") for origin in cors.allowed_origins if origin != "*"]
    return CORSMiddleware(
        app,
        allow_origins=["*"] if "*" in cors.allowed_origins else [],
        allow_origin_regex="|".join(patterns) or None,
        allow_methods=["POST"],
        allow_headers=["*"] if "*" in cors.allowed_headers else [*_CORS_HEADERS, *cors.allowed_headers],
        expose_headers=list(cors.exposed_headers),
        max_age=cors.max_age,
    )


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
