"""Calls a webhook: one signed request, once. Retrying and the order of calls are the caller's.

A call is signed over its time and its body, with a secret that both sides know. Each attempt has a
time of its own, so that a call that waited is not taken for one that is replayed.

References:
    RFC 2104, "HMAC: Keyed-Hashing for Message Authentication".
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
import time

import aiohttp
import msgspec
from yarl import URL

from driftlock_otlp.config.exporters import ExporterConfig
from driftlock_otlp.config.webhooks import WebhookConfig
from driftlock_otlp.errors import DownstreamRejectedError, DownstreamUnavailableError
from driftlock_otlp.exporter.client_tls import ClientTlsFiles
from driftlock_otlp.exporter.otlp_exchange import closed_error, quote, user_agent
from driftlock_otlp.exporter.proxy import proxy_for
from driftlock_otlp.interfaces import Clock, ExportResult
from driftlock_otlp.model import Signal
from driftlock_otlp.retry import parse_retry_after_s

SIGNATURE_HEADER = "Driftlock-Signature"
_RETRYABLE = frozenset({408, 425, 429})
_SERVER_ERROR = 500
_ANSWER_BYTES = 2048


def destination(name: str) -> str:
    """Return what the outbox and the metrics call the webhook of this name."""
    return f"webhook:{name}"


def signature(secret: str, unix_s: int, body: bytes) -> str:
    """Return the value of the header that proves who sent a body, and when.

    >>> signature("whsec", 1700000000, b"{}")[:20]
    't=1700000000,v1=7d44'
    """
    digest = hmac.new(secret.encode(), b"%d." % unix_s + body, hashlib.sha256).hexdigest()
    return f"t={unix_s},v1={digest}"


class Webhook:
    """One webhook; an `Exporter` whose payloads are bodies of calls.

    Args:
        name: Its name in the configuration.
        config: Its settings.
        clock: Wall clock.

    Raises:
        ConfigError: The proxy or a TLS file cannot be used.
    """

    def __init__(self, name: str, config: WebhookConfig, clock: Clock = time.time_ns) -> None:
        self._name = destination(name)
        self._config = config
        self._url = URL(config.target)
        self._proxy = proxy_for(self._name, ExporterConfig(proxy_url=config.proxy_url), self._url)
        self._tls = ClientTlsFiles(f"webhooks.{name}.tls", config.tls) if self._url.scheme == "https" else None
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    @property
    def name(self) -> str:
        """What the outbox calls it."""
        return self._name

    async def export(self, signal: Signal, payload: bytes) -> ExportResult:
        """Call it once; see `interfaces.Exporter`."""
        if self._is_closed:
            raise closed_error(self._name)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._config.timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        body = payload
        if self._config.routing_key:
            # Added here, so that it stands in no database.
            body = msgspec.json.encode({"routing_key": self._config.routing_key, **msgspec.json.decode(payload)})
        headers = {"Content-Type": "application/json", "User-Agent": user_agent()}
        if self._config.secret:
            headers[SIGNATURE_HEADER] = signature(self._config.secret, self._clock() // 10**9, body)
        try:
            async with self._session.post(
                self._url,
                data=body,
                headers=headers,
                allow_redirects=False,
                proxy=self._proxy,
                ssl=self._tls_context(),
                server_hostname=self._config.tls.server_name_override or None,
            ) as response:
                await self._check(response)
        except TimeoutError:
            raise DownstreamUnavailableError(
                f"{self._name}: {self._url.host} did not answer within {self._config.timeout:g} s"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            # Only its kind: words of the library may hold the URL, which may be secret.
            raise DownstreamUnavailableError(f"{self._name}: {self._url.host}: {type(error).__name__}") from None
        return ExportResult()

    async def close(self) -> None:
        """Close the connections; later calls fail as retryable."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    def _tls_context(self) -> ssl.SSLContext | bool:
        if self._tls is None:
            return True
        self._tls.refresh()
        return self._tls.context

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        """Return if the call was taken.

        Raises:
            DownstreamUnavailableError: It may be taken later.
            DownstreamRejectedError: It never will.
        """
        status = response.status
        if 200 <= status < 300:
            return
        try:
            said = (await response.content.read(_ANSWER_BYTES)).decode("utf-8", "replace")
        except (aiohttp.ClientError, TimeoutError, OSError):
            said = ""
        message = f"{self._name}: {self._url.host} answered HTTP {status}: {quote(said)}"
        if status in _RETRYABLE or status >= _SERVER_ERROR:
            wait_s = parse_retry_after_s(response.headers.get("Retry-After"), self._clock() / 1e9)
            raise DownstreamUnavailableError(message, wait_s)
        raise DownstreamRejectedError(message)
