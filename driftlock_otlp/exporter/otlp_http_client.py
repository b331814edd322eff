"""The OTLP/HTTP client: one request to one destination, once, as protobuf.

Retrying, counting and the order of requests are the caller's. Which answer may be retried is
decided here (OTLP specification, "OTLP/HTTP Response").
"""

from __future__ import annotations

import asyncio
import io
import re
import ssl
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp
from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import DecodeError as ProtobufDecodeError
from google.rpc.status_pb2 import Status
from isal import igzip
from multidict import CIMultiDict
from yarl import URL

from driftlock_otlp.config.exporters import ExporterConfig
from driftlock_otlp.errors import (
    ConfigError,
    DownstreamRejectedError,
    DownstreamTooLargeError,
    DownstreamUnavailableError,
)
from driftlock_otlp.exporter.otlp_exchange import (
    HEADER_VALUE,
    check_client_certificate,
    check_size,
    closed_error,
    host_and_port,
    quote,
    read_result,
    user_agent,
)
from driftlock_otlp.interfaces import Clock, ExportResult
from driftlock_otlp.model import Signal
from driftlock_otlp.retry import parse_retry_after_s

_PROTOBUF = "application/x-protobuf"
_RETRYABLE = frozenset({429, 502, 503, 504})
_TOO_LARGE = 413
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_GZIP_LEVEL = 2  # Of isal's 0 to 3: 410 MB/s, against 45 MB/s of zlib at its default.
_INLINE_BYTES = 256 << 10
"""Up to this a body is compressed and written at once: handing it over would take longer."""


class OtlpHttpExporter:
    """Sends OTLP over HTTP, as protobuf.

    Args:
        name: Key in the configuration.
        config: Settings.
        clock: Wall clock, to read a `Retry-After` date.

    Raises:
        ConfigError: The endpoint, a header or a TLS file cannot be used.
    """

    def __init__(self, name: str, config: ExporterConfig, clock: Clock = time.time_ns) -> None:
        self._name = name
        self._urls = _urls(name, config.endpoint)
        is_secure = self._urls[Signal.LOGS].scheme == "https"
        self._tls = _tls_context(name, config) if is_secure else None
        self._headers = _headers(name, config.headers)
        if "Authorization" in self._headers and self._urls[Signal.LOGS].raw_user is not None:
            raise ConfigError(f"exporters.{name}: credentials stand both in headers and in endpoint; keep one of them")
        self._is_gzip = config.compression == "gzip"
        if self._is_gzip:
            self._headers["Content-Encoding"] = "gzip"
        self._max_request_bytes = config.max_request_size
        self._max_response_bytes = config.max_response_size
        self._timeout = aiohttp.ClientTimeout(total=config.timeout)
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    @property
    def name(self) -> str:
        """The exporter's key in the configuration."""
        return self._name

    async def export(self, signal: Signal, payload: bytes) -> ExportResult:
        """Send one Export request; see `interfaces.Exporter`."""
        check_size(self._name, len(payload), self._max_request_bytes)
        url = self._urls[signal]
        body = await _gzip(payload) if self._is_gzip else payload
        data = body if len(body) <= _INLINE_BYTES else io.BytesIO(body)
        if self._is_closed:
            raise closed_error(self._name)
        if self._session is None:
            self._session = self._connect()
        try:
            # A redirect is not followed: it may lead the data, and the secrets in the headers, anywhere.
            async with self._session.post(url, data=data, allow_redirects=False) as response:
                return await self._result(signal, response)
        except TimeoutError:
            message = f"{self._name}: {_place(url)} did not answer within {self._timeout.total:g} s"
            raise DownstreamUnavailableError(message) from None
        except (aiohttp.ClientError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise DownstreamUnavailableError(f"{self._name}: {_place(url)}: {quote(reason)}") from None

    async def close(self) -> None:
        """Close the connections; later exports fail as retryable."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    def _connect(self) -> aiohttp.ClientSession:
        """Create the session in the running loop, to which aiohttp binds it."""
        connector = aiohttp.TCPConnector(ssl=self._tls if self._tls is not None else True)
        return aiohttp.ClientSession(
            connector=connector, timeout=self._timeout, headers=self._headers, cookie_jar=aiohttp.DummyCookieJar()
        )

    async def _result(self, signal: Signal, response: aiohttp.ClientResponse) -> ExportResult:
        status = response.status
        if status in _RETRYABLE:
            message = await self._describe(response)
            retry_after_s = parse_retry_after_s(response.headers.get("Retry-After"), self._clock() / 1e9)
            raise DownstreamUnavailableError(message, retry_after_s)
        if status == _TOO_LARGE:
            raise DownstreamTooLargeError(await self._describe(response))
        if not 200 <= status < 300:
            raise DownstreamRejectedError(await self._describe(response))
        answer = await _read_at_most(response, self._max_response_bytes)
        if answer is None:
            place = _place(response.url)
            raise DownstreamRejectedError(
                f"{self._name}: the answer of {place} exceeds {self._max_response_bytes} bytes"
            )
        # Some destinations answer with words of their own; the data was taken all the same.
        return read_result(signal, answer) if response.content_type == _PROTOBUF else ExportResult()

    async def _describe(self, response: aiohttp.ClientResponse) -> str:
        """Return what a destination says of a failure."""
        reason = await _failure_text(response, self._max_response_bytes) or response.reason or ""
        if 300 <= response.status < 400:
            reason = f"redirects to {response.headers.get('Location', 'nowhere')}, which is not followed"
        return f"{self._name}: {_place(response.url)} answered HTTP {response.status}: {quote(reason)}"


async def _gzip(payload: bytes) -> bytes:
    if len(payload) <= _INLINE_BYTES:
        return igzip.compress(payload, _GZIP_LEVEL, mtime=0)
    return await asyncio.to_thread(igzip.compress, payload, _GZIP_LEVEL, mtime=0)


async def _read_at_most(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes | None:
    """Return the body; None if it has more than `limit_bytes`, of which no more is read."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit_bytes:
            response.close()
            return None
    return bytes(body)


async def _failure_text(response: aiohttp.ClientResponse, max_bytes: int) -> str:
    """Return the message of the `google.rpc.Status` in a failure, or else its text.

    The status line has been read and decides; a body that breaks off changes nothing in it.
    """
    try:
        body = await _read_at_most(response, max_bytes)
    except (aiohttp.ClientError, TimeoutError, OSError):
        return ""
    if not body:
        return ""
    try:
        if response.content_type == _PROTOBUF:
            return str(Status.FromString(body).message)
        if response.content_type == "application/json":
            return str(Parse(body, Status(), ignore_unknown_fields=True).message)
    except (ProtobufDecodeError, ParseError, UnicodeDecodeError):
        return ""
    return body.decode("utf-8", "replace")


def _place(url: URL) -> str:
    """Return a URL for people, without what may be secret in it."""
    return str(url.with_user(None).with_query(None))


def _urls(name: str, endpoint: str) -> dict[Signal, URL]:
    base = endpoint.strip()
    if base.partition("://")[0].lower() not in {"http", "https"}:
        raise ConfigError(f"exporters.{name}.endpoint: {endpoint!r} needs a scheme; write for example http://host:4318")
    host_and_port(name, base)
    parts = urlsplit(base)
    prefix = parts.path.rstrip("/")
    # `encoded`: but for the signal's path, the URL is used as it was written.
    return {
        signal: URL(parts._replace(path=prefix + signal.http_path, fragment="").geturl(), encoded=True)
        for signal in Signal
    }


def _headers(name: str, headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Return the headers of every request; what describes the body is ours, the rest may be set."""
    for key, value in headers.items():
        if not _HEADER_NAME.fullmatch(key) or not HEADER_VALUE.fullmatch(value):
            raise ConfigError(f"exporters.{name}.headers.{key}: only visible ASCII characters may be sent")
    sent = CIMultiDict({"User-Agent": user_agent()})
    for key, value in headers.items():
        sent[key] = value
    sent["Content-Type"] = _PROTOBUF
    sent.popall("Content-Encoding", None)
    return sent


def _tls_context(name: str, config: ExporterConfig) -> ssl.SSLContext:
    check_client_certificate(name, config)
    tls = config.tls
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"exporters.{name}.tls: cannot use its files: {error}") from None
    if tls.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
