"""The OTLP/HTTP client: one request to one destination, once.

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
from multidict import CIMultiDict
from yarl import URL

from driftlock_otlp.config.exporters import ExporterConfig
from driftlock_otlp.config.values import mask_user
from driftlock_otlp.errors import (
    ConfigError,
    DownstreamRejectedError,
    DownstreamTooLargeError,
    DownstreamUnavailableError,
    DriftlockError,
)
from driftlock_otlp.exporter.client_tls import ClientTlsFiles
from driftlock_otlp.exporter.otlp_exchange import (
    HEADER_VALUE,
    check_size,
    closed_error,
    host_and_port,
    quote,
    read_result,
    user_agent,
)
from driftlock_otlp.exporter.proxy import proxy_for
from driftlock_otlp.exporter.request_body import as_json, compressor
from driftlock_otlp.interfaces import Clock, ExportResult
from driftlock_otlp.model import Signal
from driftlock_otlp.retry import parse_retry_after_s

_PROTOBUF = "application/x-protobuf"
_JSON = "application/json"
_RETRYABLE = frozenset({429, 502, 503, 504})
_TOO_LARGE = 413
_TOO_LARGE_IN_GO = "request body too large"
"""What a Collector says of it, with 400, since Go's own server does."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_INLINE_BYTES = 256 << 10
"""Up to this a body is compressed and written at once: handing it over would take longer."""

_INLINE_JSON_BYTES = 8 << 10  # As JSON it takes a hundred times as long.


class OtlpHttpExporter:
    """Sends OTLP over HTTP, as protobuf or JSON.

    Args:
        name: Key in the configuration.
        config: Settings; `signals` is not looked at.
        clock: Wall clock, to read a `Retry-After` date.

    Raises:
        ConfigError: The endpoint, a header, the proxy or a TLS file cannot be used.
    """

    def __init__(self, name: str, config: ExporterConfig, clock: Clock = time.time_ns) -> None:
        self._name = name
        self._urls = _urls(name, config)
        is_secure = any(url.scheme == "https" for url in self._urls.values())
        self._tls = ClientTlsFiles(f"exporters.{name}.tls", config.tls) if is_secure else None
        self._server_name = config.tls.server_name_override or None
        self._proxies = {signal: proxy_for(name, config, url) for signal, url in self._urls.items()}
        self._is_json = config.encoding == "json"
        self._headers = _headers(name, config.headers, _JSON if self._is_json else _PROTOBUF)
        if "Authorization" in self._headers and any(url.raw_user is not None for url in self._urls.values()):
            raise ConfigError(f"exporters.{name}: credentials stand both in headers and in endpoint; keep one of them")
        self._compress = compressor(config.compression, config.compression_params.level)
        if self._compress is not None:
            self._headers["Content-Encoding"] = config.compression
        self._max_request_bytes = config.max_request_size
        self._max_response_bytes = config.max_response_size
        self._timeout_s = config.timeout
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    @property
    def name(self) -> str:
        """The exporter's key in the configuration."""
        return self._name

    async def export(self, signal: Signal, payload: bytes) -> ExportResult:
        """Send one Export request; see `interfaces.Exporter`."""
        url = self._urls[signal]
        if len(payload) <= (_INLINE_JSON_BYTES if self._is_json else _INLINE_BYTES):
            body = self._body(signal, payload)
        else:
            body = await asyncio.to_thread(self._body, signal, payload)
        data = body if len(body) <= _INLINE_BYTES else io.BytesIO(body)
        if self._is_closed:
            raise closed_error(self._name)
        if self._session is None:
            self._session = self._connect()
        try:
            async with self._session.post(
                url,
                data=data,
                # Not the session's: from there aiohttp would also take them, secrets and all, for the proxy.
                headers=self._headers,
                # A redirect is not followed: it may lead the data, and the secrets in the headers, anywhere.
                allow_redirects=False,
                proxy=self._proxies[signal],
                ssl=self._tls_context(),
                server_hostname=self._server_name,
            ) as response:
                return await self._result(signal, response)
        except TimeoutError:
            message = f"{self._name}: {_place(url)} did not answer within {self._timeout_s:g} s"
            raise DownstreamUnavailableError(message) from None
        except aiohttp.ClientHttpProxyError as error:
            # Its own words would hold the whole URL.
            message = f"{self._name}: {_place(url)}: the proxy answered HTTP {error.status}: {quote(error.message)}"
            raise DownstreamUnavailableError(message) from None
        except (aiohttp.ClientError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise DownstreamUnavailableError(f"{self._name}: {_place(url)}: {quote(reason)}") from None

    async def close(self) -> None:
        """Close the connections; later exports fail as retryable."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    def _body(self, signal: Signal, payload: bytes) -> bytes:
        """Return the request as it is sent; it takes its time when the payload is large."""
        body = as_json(self._name, signal, payload) if self._is_json else payload
        check_size(self._name, len(body), self._max_request_bytes)
        return body if self._compress is None else self._compress(body)

    def _tls_context(self) -> ssl.SSLContext | bool:
        """Return what a new connection uses; those of another context are not used again."""
        if self._tls is None:
            return True
        self._tls.refresh()
        return self._tls.context

    def _connect(self) -> aiohttp.ClientSession:
        """Create the session in the running loop, to which aiohttp binds it."""
        return aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout_s or None),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def _result(self, signal: Signal, response: aiohttp.ClientResponse) -> ExportResult:
        status = response.status
        if not 200 <= status < 300:
            raise await self._failure(response)
        answer = await _read_at_most(response, self._max_response_bytes)
        if answer is None:
            place = _place(response.url)
            raise DownstreamRejectedError(
                f"{self._name}: the answer of {place} exceeds {self._max_response_bytes} bytes"
            )
        # Some destinations answer with words of their own; the data was taken all the same.
        if response.content_type not in {_PROTOBUF, _JSON} or not answer:
            return ExportResult()
        return read_result(signal, answer, is_json=response.content_type == _JSON)

    async def _failure(self, response: aiohttp.ClientResponse) -> DriftlockError:
        """Return the error that an answer other than success is."""
        message = await self._describe(response)
        if response.status in _RETRYABLE:
            return DownstreamUnavailableError(
                message, parse_retry_after_s(response.headers.get("Retry-After"), self._clock() / 1e9)
            )
        if response.status == _TOO_LARGE or (response.status == 400 and _TOO_LARGE_IN_GO in message):
            return DownstreamTooLargeError(message)
        return DownstreamRejectedError(message)

    async def _describe(self, response: aiohttp.ClientResponse) -> str:
        """Return what a destination says of a failure."""
        reason = await _failure_text(response, self._max_response_bytes) or response.reason or ""
        if 300 <= response.status < 400:
            reason = f"redirects to {response.headers.get('Location', 'nowhere')}, which is not followed"
        return f"{self._name}: {_place(response.url)} answered HTTP {response.status}: {quote(reason)}"


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
        if response.content_type == _JSON:
            return str(Parse(body, Status(), ignore_unknown_fields=True).message)
    except (ProtobufDecodeError, ParseError, UnicodeDecodeError):
        return ""
    return body.decode("utf-8", "replace")


def _place(url: URL) -> str:
    """Return a URL for people, without what may be secret in it."""
    return str(url.with_user(None).with_query(None))


def _urls(name: str, config: ExporterConfig) -> dict[Signal, URL]:
    """Return where each signal goes, written as it was set but for what is added."""
    urls = {}
    for signal in Signal:
        own = config.signal_endpoints.get(signal.plural)
        endpoint = (own or config.endpoint).strip()
        if endpoint.partition("://")[0].lower() not in {"http", "https"}:
            raise ConfigError(
                f"exporters.{name}.endpoint: {mask_user(endpoint)!r} needs a scheme; write for example http://host:4318"
            )
        host_and_port(name, endpoint)
        parts = urlsplit(endpoint)
        path = parts.path or "/" if own else parts.path.removesuffix("/") + signal.http_path
        urls[signal] = URL(parts._replace(path=path, fragment="").geturl(), encoded=True)
    return urls


def _headers(name: str, headers: Mapping[str, str], content_type: str) -> CIMultiDict[str]:
    """Return the headers of every request; what describes the body is ours, the rest may be set."""
    for key, value in headers.items():
        if not _HEADER_NAME.fullmatch(key) or not HEADER_VALUE.fullmatch(value):
            raise ConfigError(f"exporters.{name}.headers.{key}: only visible ASCII characters may be sent")
    sent = CIMultiDict({"User-Agent": user_agent()})
    for key, value in headers.items():
        sent[key] = value
    sent["Content-Type"] = content_type
    sent.popall("Content-Encoding", None)
    return sent
