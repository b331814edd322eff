"""The OTLP/gRPC client: one request to one destination, once.

Retrying, counting and the order of requests are the caller's. Which answer may be retried is
decided here (OTLP specification, "OTLP/gRPC Response").
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError as ProtobufDecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from driftlock_otlp.config.exporters import ExporterConfig
from driftlock_otlp.config.values import is_loopback
from driftlock_otlp.errors import (
    ConfigError,
    DownstreamRejectedError,
    DownstreamTooLargeError,
    DownstreamUnavailableError,
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
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import Signal
from driftlock_otlp.retry import bounded_retry_after_s

_RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_COMPRESSION = {
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
    "none": grpc.Compression.NoCompression,
}
_SCHEMES = frozenset({"http", "https"})
_ANSWER_TOO_LARGE = "CLIENT: Received message larger than max"
_LONGEST_CALL_S = 3600.0  # Without a timeout.
_HEADER_NAME = re.compile(r"[a-z0-9_.-]+")


class OtlpGrpcExporter:
    """Sends OTLP over gRPC.

    Args:
        name: Key in the configuration.
        config: Settings.

    Raises:
        ConfigError: The endpoint, a header or a TLS file cannot be used.
    """

    def __init__(self, name: str, config: ExporterConfig) -> None:
        self._name = name
        self._target, is_secure = _target(name, config)
        self._tls = ClientTlsFiles(f"exporters.{name}.tls", config.tls) if is_secure else None
        self._options = _options(config, self._target)
        self._metadata = _metadata(name, config.headers)
        self._timeout_s = config.timeout or None
        self._compression = _COMPRESSION[config.compression]
        self._max_request_bytes = config.max_request_size
        self._channel: Any = None
        self._calls: dict[Signal, Any] = {}
        self._retired: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()

    @property
    def name(self) -> str:
        """The exporter's key in the configuration."""
        return self._name

    async def export(self, signal: Signal, payload: bytes) -> ExportResult:
        """Send one Export request; see `interfaces.Exporter`."""
        check_size(self._name, len(payload), self._max_request_bytes)
        if self._closed.is_set():
            raise closed_error(self._name)
        if self._tls is not None and self._tls.refresh():
            self._retire_channel()
        if self._channel is None:
            self._connect()
        try:
            answer: bytes = await self._calls[signal](
                payload, timeout=self._timeout_s, metadata=self._metadata, compression=self._compression
            )
        except grpc.aio.AioRpcError as error:
            code = error.code()
            retry_after_s = _retry_after_s(error)
            message = f"{self._name}: {self._target} answered {code.name}: {quote(error.details() or '')}"
            is_throttled = code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after_s is not None
            if is_throttled or code in _RETRYABLE:
                raise DownstreamUnavailableError(message, retry_after_s) from None
            if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not _is_answer_too_large(error):
                raise DownstreamTooLargeError(message) from None
            raise DownstreamRejectedError(message) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Closing a channel cancels its calls, which is not the same as cancelling who waits.
            raise closed_error(self._name) from None
        return read_result(signal, answer)

    async def close(self) -> None:
        """Close the connection; later exports fail as retryable."""
        self._closed.set()
        if self._channel is not None:
            await self._channel.close()
        await asyncio.gather(*self._retired)

    def _retire_channel(self) -> None:
        """Begin no more calls on the present channel, whose certificates are old."""
        if self._channel is not None:
            task = asyncio.create_task(self._close_later(self._channel))
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)
            self._channel = None

    async def _close_later(self, channel: Any) -> None:
        """Close a channel once its calls have ended, or with the exporter."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), self._timeout_s or _LONGEST_CALL_S)
        await channel.close()

    def _connect(self) -> None:
        """Create the channel in the running loop, to which gRPC binds it."""
        if self._tls is None:
            self._channel = grpc.aio.insecure_channel(self._target, options=self._options)
        else:
            material = self._tls.material
            credentials = grpc.ssl_channel_credentials(material.authorities, material.key, material.certificate)
            self._channel = grpc.aio.secure_channel(self._target, credentials, options=self._options)
        # Without serializers the calls take and return bytes.
        self._calls = {signal: self._channel.unary_unary(signal.grpc_method) for signal in Signal}


def _is_answer_too_large(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the client's own limit ended the call, which the destination may have taken."""
    return _ANSWER_TOO_LARGE in (error.details() or "")


def _retry_after_s(error: grpc.aio.AioRpcError) -> float | None:
    """Return the delay of the `google.rpc.RetryInfo` in a failure; None if it has none."""
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        try:
            for detail in Status.FromString(value).details:
                info = RetryInfo()
                if detail.Unpack(info):
                    return bounded_retry_after_s(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
        except ProtobufDecodeError:
            return None
    return None


def _target(name: str, config: ExporterConfig) -> tuple[str, bool]:
    """Return the channel's target, and whether it speaks TLS."""
    endpoint = config.endpoint.strip()
    scheme, separator, _ = endpoint.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _SCHEMES:
        # `host:port`, or a gRPC name as `dns:///host:port` or `unix:///path`.
        if not endpoint or any(character.isspace() for character in endpoint):
            raise ConfigError(f"exporters.{name}.endpoint: {config.endpoint!r} is not host:port or a URL")
        return endpoint, not config.tls.insecure
    host, port = host_and_port(name, endpoint)
    default_port = 443 if scheme == "https" else 80
    return f"{host}:{default_port if port is None else port}", scheme == "https"


def _options(config: ExporterConfig, target: str) -> tuple[tuple[str, str | int], ...]:
    keepalive, name = config.keepalive, config.tls.server_name_override
    options: list[tuple[str, str | int]] = [
        ("grpc.primary_user_agent", user_agent()),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", config.max_response_size),
        # The caller retries, and the caller alone.
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.lb_policy_name", config.balancer_name),
        # gRPC would wait up to two minutes before it tries a lost destination again.
        ("grpc.initial_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.use_local_subchannel_pool", 1),
        # Without keep-alive a peer that vanished is noticed after the kernel's quarter of an
        # hour. Servers take one ping in five minutes for good manners.
        ("grpc.keepalive_time_ms", _milliseconds(keepalive.time)),
        ("grpc.keepalive_timeout_ms", _milliseconds(keepalive.timeout)),
        # The library waits for the answer to a ping as this says, which is a minute unless it is set.
        ("grpc.http2.ping_timeout_ms", _milliseconds(keepalive.timeout)),
        ("grpc.keepalive_permit_without_calls", int(keepalive.permit_without_stream)),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    if is_loopback(target.rpartition(":")[0].strip("[]")):
        # As OTLP/HTTP: the environment's proxy is for other machines.
        options.append(("grpc.enable_http_proxy", 0))
    if name:
        options.append(("grpc.ssl_target_name_override", name))
    if config.authority:
        options.append(("grpc.default_authority", config.authority))
    return tuple(options)


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 1)


def _metadata(name: str, headers: Mapping[str, str]) -> tuple[tuple[str, str | bytes], ...]:
    entries: list[tuple[str, str | bytes]] = []
    for key, value in headers.items():
        lower = key.lower()
        if not _HEADER_NAME.fullmatch(lower) or lower.startswith("grpc-") or not HEADER_VALUE.fullmatch(value):
            raise ConfigError(f"exporters.{name}.headers.{key}: gRPC does not allow this name, or its characters")
        entries.append((lower, value.encode() if lower.endswith("-bin") else value))
    return tuple(entries)
