"""`exporters`, `forward` and `events`: where telemetry and anomaly events go."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from driftlock_otlp.config.values import (
    DEFAULT_REQUEST_LIMIT_BYTES,
    DEFAULT_RESPONSE_LIMIT_BYTES,
    Duration,
    Endpoint,
    PositiveDuration,
    Secret,
    Section,
    Size,
    Url,
    did_you_mean,
    is_loopback,
    mask_user,
)

EXPORTER_TYPES = {"otlp_grpc": "otlp_grpc", "otlp": "otlp_grpc", "otlp_http": "otlp_http", "otlphttp": "otlp_http"}
"""Exporter types by every spelling the Collector has had for them."""

_PEM = "keys stay out of the configuration: write the PEM to a file and name it with the _file key"


class TlsConfig(Section):
    """`exporters.<name>.tls`: TLS towards a destination."""

    refused: ClassVar[dict[str, str]] = {
        "max_version": "the newest TLS version is always offered; remove it",
        "cipher_suites": "the suites are those of the TLS library's own secure choice; remove it",
        "curve_preferences": "the curves are those of the TLS library's own secure choice; remove it",
        "include_system_ca_certs_pool": "ca_file replaces the system's CAs; put both into one file",
        "client_ca_file": "it belongs to a receiver",
        "tpm": "keys in a TPM are not supported",
        "ca_pem": _PEM,
        "cert_pem": _PEM,
        "key_pem": _PEM,
    }

    insecure: bool = Field(default=False, description="gRPC only: plaintext. An http:// or https:// scheme wins.")
    insecure_skip_verify: bool = Field(default=False, description="HTTP only: do not verify the certificate.")
    ca_file: Path | None = Field(default=None, description="PEM file of the CAs to trust; empty: the system's.")
    cert_file: Path | None = Field(default=None, description="PEM file of the client certificate (mTLS).")
    key_file: Path | None = Field(default=None, description="PEM file of the client key (mTLS).")
    server_name_override: str = Field(default="", description="Name expected in the certificate, if not the host's.")
    min_version: Literal["1.2", "1.3"] = Field(
        default="1.2", description="Oldest TLS version used; gRPC: 1.2 only, its library cannot raise it."
    )
    reload_interval: PositiveDuration = Field(
        default=10.0, description="The files are looked at this often, and used for new connections when they change."
    )


class RetryConfig(Section):
    """`exporters.<name>.retry_on_failure`: exponential back-off with jitter."""

    enabled: bool = Field(default=True, description="Retry what may be retried; off: drop it, counted.")
    initial_interval: PositiveDuration = Field(default=1.0, description="First delay.")
    max_interval: PositiveDuration = Field(default=30.0, description="Longest delay; a longer Retry-After wins.")
    multiplier: float = Field(default=1.5, ge=1, description="Each delay is this times the one before.")
    randomization_factor: float = Field(
        default=0.5, ge=0, lt=1, description="Each delay is drawn from delay × (1 ± this)."
    )
    max_elapsed_time: Duration = Field(
        default=0.0, description="Give up, drop and count after this long; 0: never, the durable log keeps the data."
    )


class SendingQueueConfig(Section):
    """`exporters.<name>.sending_queue`: how far a destination may fall behind; the durable log is the queue."""

    refused: ClassVar[dict[str, str]] = {
        "storage": "the queue is always on disk: queue.path says where; remove it",
        "batch": "requests are sent on as they came; let the sender batch",
        "wait_for_result": "a request is acknowledged once it is durable, before it is sent on; remove it",
    }

    enabled: Literal[True] = Field(default=True, description="Only true: the durable log cannot be left out.")
    num_consumers: int = Field(
        default=1, ge=1, le=64, description="Requests sent at once; more than 1 gives up their order."
    )
    sizer: Literal["requests", "items", "bytes"] = Field(default="requests", description="Unit of queue_size.")
    queue_size: Size | None = Field(
        default=None, description="Most that may wait for this destination; empty: as much as queue.max_bytes allows."
    )
    block_on_overflow: bool = Field(
        default=False,
        description="When the queue is full: false: senders are refused and told to try again; true: they wait.",
    )


class CompressionParams(Section):
    """`exporters.<name>.compression_params`."""

    level: int | None = Field(
        default=None, ge=-1, le=22, description="HTTP: gzip and deflate 0-9, zstd 1-22; empty: fast."
    )


class ClientKeepaliveConfig(Section):
    """`exporters.<name>.keepalive`: gRPC only."""

    time: PositiveDuration = Field(default=300.0, description="Ping a silent destination this often.")
    timeout: PositiveDuration = Field(default=20.0, description="Reconnect if the ping is not answered.")
    permit_without_stream: bool = Field(default=False, description="Ping also while no call is open.")


class ExporterConfig(Section):
    """`exporters.<type>[/<name>]`: one OTLP destination; the type is otlp_grpc or otlp_http."""

    refused: ClassVar[dict[str, str]] = {
        "auth": "there are no authenticator extensions; put the credentials into headers, as"
        " authorization: Bearer ${env:TOKEN}",
        "middlewares": "there are no extensions to call",
        "batcher": "requests are sent on as they came; let the sender batch",
        "balancer_name": "one destination is one connection; put a load balancer in front",
        "authority": "set tls.server_name_override",
        "wait_for_ready": "calls fail at once and are retried as retry_on_failure says",
        "read_buffer_size": "the buffers of this client adapt themselves; remove it",
        "write_buffer_size": "the buffers of this client adapt themselves; remove it",
        "max_idle_conns": "connections are pooled by the client; remove it",
        "max_idle_conns_per_host": "connections are pooled by the client; remove it",
        "max_conns_per_host": "set sending_queue.num_consumers",
        "idle_conn_timeout": "connections are pooled by the client; remove it",
        "disable_keep_alives": "connections are always reused",
        "http2_read_idle_timeout": "OTLP/HTTP is sent over HTTP/1.1",
        "http2_ping_timeout": "OTLP/HTTP is sent over HTTP/1.1",
        "force_attempt_http2": "OTLP/HTTP is sent over HTTP/1.1",
        "cookies": "cookies are never kept",
        "profiles_endpoint": "the profiles signal is still in development and not sent",
    }

    endpoint: Url = Field(
        default="",
        description="otlp_grpc: host:port or URL; otlp_http: base URL, /v1/<signal> is appended.",
    )
    logs_endpoint: Url = Field(default="", description="otlp_http: whole URL for logs, used as it is.")
    metrics_endpoint: Url = Field(default="", description="otlp_http: whole URL for metrics, used as it is.")
    traces_endpoint: Url = Field(default="", description="otlp_http: whole URL for traces, used as it is.")
    encoding: Literal["proto", "json"] = Field(default="proto", description="otlp_http: encoding of requests.")
    headers: dict[str, Secret] = Field(
        default={}, repr=False, description="Headers (gRPC: metadata) sent with every request."
    )
    compression: Literal["gzip", "zstd", "zlib", "deflate", "snappy", "x-snappy-framed", "none"] = Field(
        default="gzip", description="Compression of requests; gRPC: gzip, deflate or none."
    )
    compression_params: CompressionParams = Field(default=CompressionParams(), description="Its level.")
    timeout: PositiveDuration = Field(default=10.0, description="Longest wait for one answer.")
    tls: TlsConfig = Field(default=TlsConfig(), description="TLS settings.")
    proxy_url: Url = Field(
        default="", description="otlp_http: proxy to send through; empty: as HTTPS_PROXY, HTTP_PROXY, NO_PROXY say."
    )
    keepalive: ClientKeepaliveConfig = Field(default=ClientKeepaliveConfig(), description="gRPC pings.")
    retry_on_failure: RetryConfig = Field(default=RetryConfig(), description="What to do when sending fails.")
    sending_queue: SendingQueueConfig = Field(
        default=SendingQueueConfig(), description="How far this destination may fall behind."
    )
    max_request_size: Size = Field(
        default=DEFAULT_REQUEST_LIMIT_BYTES,
        description="Largest request sent, before compression; a larger one is sent in parts.",
    )
    max_response_size: Size = Field(default=DEFAULT_RESPONSE_LIMIT_BYTES, description="Largest response read.")

    @field_validator("compression", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return "none" if value == "" else value

    @property
    def signal_endpoints(self) -> dict[str, str]:
        """Own endpoints by the signal's plural, where they are set."""
        own = {"logs": self.logs_endpoint, "metrics": self.metrics_endpoint, "traces": self.traces_endpoint}
        return {signal: endpoint for signal, endpoint in own.items() if endpoint}


class ForwardConfig(Section):
    """`forward`: where records go, and what becomes of those of an anomalous window."""

    exporters: tuple[str, ...] = Field(
        default=(), description="Exporters that receive the clean data; empty: OTEL_EXPORTER_OTLP_ENDPOINT, if set."
    )
    policy: Literal["divert", "tag", "pass"] = Field(
        default="divert",
        description="divert: withhold anomalous records; tag: mark them; pass: forward everything at once.",
    )
    anomalous_exporters: tuple[str, ...] = Field(
        default=(), description="divert: exporters that receive anomalous records; empty: the durable quarantine."
    )
    max_wait: PositiveDuration = Field(
        default=30.0, description="divert and tag: forward unscored, and say so, when a verdict takes longer than this."
    )


class EventsConfig(Section):
    """`events`: where anomaly events go."""

    exporters: tuple[str, ...] | None = Field(
        default=None, description="Exporters that receive anomaly events; unset: those of forward.exporters; []: none."
    )


def exporter_type(name: str) -> str:
    """Return `otlp_grpc` or `otlp_http` for an exporter's key, in any spelling of the Collector's.

    Raises:
        ValueError: The type is unknown.
    """
    kind = name.split("/", 1)[0]
    if kind not in EXPORTER_TYPES:
        raise ValueError(
            f"exporters.{name}: unknown exporter type {kind!r}{did_you_mean(kind, EXPORTER_TYPES)};"
            " known are otlp_grpc and otlp_http, as otlp_http/backup for a second one"
        )
    return EXPORTER_TYPES[kind]


_HTTP_ONLY = ("encoding", "proxy_url", "logs_endpoint", "metrics_endpoint", "traces_endpoint", "compression_params")
_GRPC_ONLY = ("keepalive",)
_GRPC_COMPRESSION = ("gzip", "deflate", "none")


def check_exporter(name: str, exporter: ExporterConfig, listening: list[Endpoint]) -> None:
    """Refuse an exporter whose settings do not go together, or that leads back to this sidecar.

    Args:
        name: Its key.
        exporter: Its settings.
        listening: Where this sidecar listens.

    Raises:
        ValueError: It is one of these; the message names the key.
    """
    is_http = exporter_type(name) == "otlp_http"
    foreign = _GRPC_ONLY if is_http else _HTTP_ONLY
    for key in foreign:
        # What is set to its default does no harm: `print-config` writes every key.
        if getattr(exporter, key) == type(exporter).model_fields[key].default:
            continue
        raise ValueError(f"exporters.{name}.{key}: only {'otlp_grpc' if is_http else 'otlp_http'} has this setting")
    if not is_http and exporter.compression not in _GRPC_COMPRESSION:
        raise ValueError(
            f"exporters.{name}.compression: gRPC knows {', '.join(_GRPC_COMPRESSION)}, not {exporter.compression!r};"
            " otlp_http can send it"
        )
    if not exporter.endpoint and len(exporter.signal_endpoints) < 3:
        raise ValueError(f"exporters.{name}.endpoint: is required")
    for key, endpoint in [("endpoint", exporter.endpoint), *_named(exporter)]:
        if endpoint:
            _check_destination(f"exporters.{name}.{key}", endpoint, listening, is_http=is_http)


def _named(exporter: ExporterConfig) -> list[tuple[str, str]]:
    return [(f"{signal}_endpoint", endpoint) for signal, endpoint in exporter.signal_endpoints.items()]


def _check_destination(key: str, endpoint: str, listening: list[Endpoint], *, is_http: bool) -> None:
    """Refuse a destination that has no form of an address, or that is ours.

    Raises:
        ValueError: It is one of these.
    """
    shown = mask_user(endpoint)
    scheme, separator, _ = endpoint.partition("://")
    if is_http and scheme not in {"http", "https"}:
        raise ValueError(f"{key}: {shown!r} is not a URL; write for example http://collector:4318")
    if endpoint.startswith(("unix:", "dns:")):
        return
    try:
        parts = urlsplit(endpoint if separator else f"//{endpoint}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or (port is None and not separator):
        example = "http://collector:4318" if is_http else "collector:4317"
        raise ValueError(f"{key}: {shown!r} is not an address; write for example {example}")
    if any(port == own.port and port != 0 and _is_same_host(host, own.host) for own in listening):
        raise ValueError(f"{key}: {shown} is this sidecar itself, data would circle; name the next hop instead")


def _is_same_host(host: str, own: str) -> bool:
    return host == own or (is_loopback(host) and is_loopback(own))
