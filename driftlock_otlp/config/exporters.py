"""`exporters`, `forward` and `events`: where telemetry and anomaly events go."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from driftlock_otlp.config.values import (
    DEFAULT_REQUEST_LIMIT_BYTES,
    DEFAULT_RESPONSE_LIMIT_BYTES,
    Duration,
    PositiveDuration,
    Secret,
    Section,
    Size,
    Url,
    did_you_mean,
)

EXPORTER_TYPES = {"otlp_grpc": "otlp_grpc", "otlp": "otlp_grpc", "otlp_http": "otlp_http", "otlphttp": "otlp_http"}
"""Exporter types by every spelling the Collector has had for them."""

SIGNALS = ("logs", "metrics", "traces")
"""The signals, as keys name them."""

Compression = Literal["gzip", "zstd", "zlib", "deflate", "snappy", "x-snappy-framed", "lz4", "none"]

_PEM = "keys stay out of the configuration: write the PEM to a file and name it with the _file key"


class TlsConfig(Section):
    """`exporters.<name>.tls`: TLS towards a destination."""

    refused: ClassVar[dict[str, str]] = {
        "max_version": "the newest TLS version is always offered; remove it",
        "cipher_suites": "the suites are those of the TLS library's own secure choice; remove it",
        "curve_preferences": "the curves are those of the TLS library's own secure choice; remove it",
        "client_ca_file": "it belongs to a receiver",
        "tpm": "keys in a TPM are not supported",
        "ca_pem": _PEM,
        "cert_pem": _PEM,
        "key_pem": _PEM,
    }

    insecure: bool = Field(
        default=False, description="gRPC: plaintext, unless the endpoint has a scheme: http:// and https:// win."
    )
    insecure_skip_verify: bool = Field(default=False, description="HTTP only: do not verify the certificate.")
    ca_file: Path | None = Field(default=None, description="PEM file of the CAs to trust; empty: the system's.")
    include_system_ca_certs_pool: bool = Field(default=False, description="Trust the system's CAs beside ca_file.")
    cert_file: Path | None = Field(default=None, description="PEM file of the client certificate (mTLS).")
    key_file: Path | None = Field(default=None, description="PEM file of the client key (mTLS).")
    server_name_override: str = Field(default="", description="Name expected in the certificate, if not the host's.")
    min_version: Literal["1.2", "1.3"] = Field(
        default="1.2", description="Oldest TLS version used; gRPC: 1.2 only, since its library cannot raise it."
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

    enabled: bool = Field(default=True, description="Only true: the durable log cannot be left out.")
    num_consumers: int = Field(
        default=1, ge=1, le=64, description="Requests sent at once; more than 1 gives up their order."
    )
    sizer: Literal["requests", "items", "bytes"] = Field(default="requests", description="Unit of queue_size.")
    queue_size: Size | None = Field(
        default=None,
        description="forward.exporters only: most that may wait to be sent, what awaits a verdict not counted;"
        " empty: as much as queue.max_bytes allows.",
    )
    block_on_overflow: bool = Field(
        default=False,
        description="When it is full: false: senders are refused and told to try again; true: they wait, up to 10 s.",
    )

    @field_validator("enabled")
    @classmethod
    def _is_always_there(cls, value: bool) -> bool:
        if not value:
            raise ValueError("the durable log is the queue and cannot be left out; remove it")
        return value


class CompressionParams(Section):
    """`exporters.<name>.compression_params`."""

    level: int | None = Field(
        default=None, ge=-1, le=22, description="gzip, zlib and deflate: 1-9; zstd: 1-22; empty, 0 or -1: a fast one."
    )


class ClientKeepaliveConfig(Section):
    """`exporters.<name>.keepalive`: gRPC only."""

    time: PositiveDuration = Field(default=300.0, description="Ping a silent destination this often.")
    timeout: PositiveDuration = Field(default=20.0, description="Reconnect if the ping is not answered.")
    permit_without_stream: bool = Field(default=False, description="Ping also while no call is open.")


class SignalConfig(Section):
    """`exporters.<name>.signals.<signal>`: what is different for logs, metrics or traces; empty: as for the others."""

    protocol: Literal["grpc", "http/protobuf", "http/json"] | None = Field(
        default=None, description="Protocol of this signal, if it is not the exporter's."
    )
    endpoint: Url | None = Field(
        default=None, description="host:port or URL for gRPC; for HTTP the whole URL, used as it is."
    )
    headers: dict[str, Secret] | None = Field(default=None, repr=False, description="Instead of the exporter's.")
    compression: Compression | None = Field(default=None, description="As exporters.<name>.compression.")
    timeout: Duration | None = Field(default=None, description="As exporters.<name>.timeout.")
    tls: TlsConfig | None = Field(
        default=None, description="As exporters.<name>.tls, instead of that section as a whole."
    )
    max_request_size: Size | None = Field(default=None, description="As exporters.<name>.max_request_size.")
    max_response_size: Size | None = Field(default=None, description="As exporters.<name>.max_response_size.")

    @field_validator("headers", mode="before")
    @classmethod
    def _headers_may_be_pairs(cls, value: object) -> object:
        return _mapping_of_headers(value)

    @field_validator("compression", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return "none" if value == "" else value


class ExporterConfig(Section):
    """`exporters.<type>[/<name>]`: one OTLP destination; the type is otlp_grpc or otlp_http."""

    refused: ClassVar[dict[str, str]] = {
        "auth": "there are no authenticator extensions; put the credentials into headers, as"
        " authorization: Bearer ${env:TOKEN}",
        "middlewares": "there are no extensions to call",
        "batcher": "requests are sent on as they came; let the sender batch",
        "wait_for_ready": "calls fail at once and are retried as retry_on_failure says; remove it",
        "read_buffer_size": "the buffers of this client adapt themselves; remove it",
        "write_buffer_size": "the buffers of this client adapt themselves; remove it",
        "max_idle_conns": "connections are pooled by the client; remove it",
        "max_idle_conns_per_host": "connections are pooled by the client; remove it",
        "max_conns_per_host": "set sending_queue.num_consumers",
        "idle_conn_timeout": "connections are pooled by the client; remove it",
        "disable_keep_alives": "connections are always reused; remove it",
        "http2_read_idle_timeout": "OTLP/HTTP is sent over HTTP/1.1; remove it",
        "http2_ping_timeout": "OTLP/HTTP is sent over HTTP/1.1; remove it",
        "force_attempt_http2": "OTLP/HTTP is sent over HTTP/1.1; remove it",
        "cookies": "cookies are never kept; remove it",
        "profiles_endpoint": "the profiles signal is still in development and not sent",
    }

    endpoint: Url = Field(
        default="",
        description="otlp_grpc: host:port, URL or unix:/path; otlp_http: base URL, /v1/<signal> is appended.",
    )
    logs_endpoint: Url = Field(default="", description="otlp_http: whole URL for logs, used as it is.")
    metrics_endpoint: Url = Field(default="", description="otlp_http: whole URL for metrics, used as it is.")
    traces_endpoint: Url = Field(default="", description="otlp_http: whole URL for traces, used as it is.")
    encoding: Literal["proto", "json"] = Field(default="proto", description="otlp_http: encoding of requests.")
    headers: dict[str, Secret] = Field(
        default={}, repr=False, description="Headers (gRPC: metadata) sent with every request."
    )
    compression: Compression = Field(
        default="gzip",
        description="Compression of requests; gRPC: gzip, none, or deflate, which a Collector does not take.",
    )
    compression_params: CompressionParams = Field(default=CompressionParams(), description="Its level.")
    timeout: Duration = Field(default=10.0, description="Longest wait for one answer; 0: no limit.")
    tls: TlsConfig = Field(default=TlsConfig(), description="TLS settings.")
    proxy_url: Url = Field(
        default="", description="otlp_http: proxy to send through; empty: as HTTPS_PROXY, HTTP_PROXY, NO_PROXY say."
    )
    authority: str = Field(default="", description="otlp_grpc: the :authority to send, if not the endpoint's host.")
    balancer_name: Literal["round_robin", "pick_first"] = Field(
        default="round_robin", description="otlp_grpc: which of a name's addresses are used: all in turn, or one."
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
    signals: dict[Literal["logs", "metrics", "traces"], SignalConfig] = Field(
        default={}, description="What is different for one signal."
    )

    @field_validator("headers", mode="before")
    @classmethod
    def _headers_may_be_pairs(cls, value: object) -> object:
        return _mapping_of_headers(value)

    @field_validator("compression", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return "none" if value == "" else value

    @property
    def signal_endpoints(self) -> dict[str, str]:
        """Own endpoints by the signal's plural, where they are set."""
        own = {"logs": self.logs_endpoint, "metrics": self.metrics_endpoint, "traces": self.traces_endpoint}
        return {signal: endpoint for signal, endpoint in own.items() if endpoint}


class QuarantineConfig(Section):
    """`forward.quarantine`: how much is withheld, and for how long; then the oldest goes for good, counted."""

    max_bytes: Size = Field(default=1 << 30, description="Most payload that is withheld; then the oldest is dropped.")
    max_age: PositiveDuration = Field(
        default=7 * 86_400.0, description="Longest that records are withheld; then they are dropped."
    )


class ForwardConfig(Section):
    """`forward`: where records go, and what becomes of those of an anomalous window."""

    exporters: tuple[str, ...] = Field(
        default=(), description="Exporters that receive the clean data; empty: OTEL_EXPORTER_OTLP_ENDPOINT, if set."
    )
    policy: Literal["divert", "tag", "pass"] = Field(
        default="divert",
        description="divert: withhold anomalous records; tag: mark them; pass: forward everything at once.",
    )
    divert_from: Literal["notice", "page", "fleet"] = Field(
        default="notice",
        description="divert and tag: least level of an anomaly at which its records are withheld or marked; those of a"
        " lower level go on as clean, counted, and the anomaly is told of all the same. notice: every alarm of a"
        " stream; page: two bits rarer, or said again; fleet: several related streams, or lasting.",
    )
    anomalous_exporters: tuple[str, ...] = Field(
        default=(), description="divert: exporters that receive anomalous records; empty: the durable quarantine."
    )
    max_wait: PositiveDuration = Field(
        default=30.0, description="divert and tag: forward unscored, and say so, when a verdict takes longer than this."
    )
    quarantine: QuarantineConfig = Field(
        default=QuarantineConfig(), description="How much is withheld, and for how long."
    )


class EventsConfig(Section):
    """`events`: where anomaly events go."""

    exporters: tuple[str, ...] | None = Field(
        default=None, description="Exporters that receive anomaly events; unset: those of forward.exporters; []: none."
    )
    update_interval: PositiveDuration = Field(
        default=300.0,
        description="While an anomaly goes on, one event at most in so long says so, with how long and how severe it"
        " is by then; in the time of the data. Another event told of its beginning, and one tells of its end.",
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


_ENCODINGS = {"http/protobuf": "proto", "http/json": "json"}


def for_signal(name: str, exporter: ExporterConfig, signal: str) -> tuple[str, ExporterConfig]:
    """Return the exporter type and the settings in force for one signal.

    Args:
        name: The exporter's key.
        exporter: Its settings.
        signal: One of `SIGNALS`.

    Returns:
        `otlp_grpc` or `otlp_http`, and settings without `signals`; they equal those of another
        signal if there is no difference.
    """
    kind = exporter_type(name)
    own = exporter.signals.get(signal)  # type: ignore[call-overload]  # plain text is compared as it is
    changed: dict[str, Any] = {"signals": {}}
    if own is not None:
        changed |= {key: value for key in type(own).model_fields if (value := getattr(own, key)) is not None}
        protocol, endpoint = changed.pop("protocol", None), changed.pop("endpoint", None)
        if protocol is not None:
            kind = "otlp_grpc" if protocol == "grpc" else "otlp_http"
            changed["encoding"] = _ENCODINGS.get(protocol, "proto")
        if endpoint is not None:
            changed["endpoint" if kind == "otlp_grpc" else f"{signal}_endpoint"] = endpoint
    return kind, exporter.model_copy(update=changed)


def _mapping_of_headers(value: object) -> object:
    """Return headers as a mapping, also from the Collector's other form: a list of names and values."""
    if not isinstance(value, list):
        return value
    pairs: dict[str, Any] = {}
    for pair in value:
        if not isinstance(pair, dict) or set(pair) != {"name", "value"} or not isinstance(pair["name"], str):
            raise ValueError("a list of headers has entries of a name and a value, as {name: x-tenant, value: acme}")
        if pair["name"] in pairs:
            raise ValueError(f"{pair['name']} is there twice")
        pairs[pair["name"]] = pair["value"]
    return pairs
