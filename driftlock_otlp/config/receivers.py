"""`receivers`, `receiver` and `auth`: how telemetry comes in, and from whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from driftlock_otlp.config.values import (
    DEFAULT_REQUEST_LIMIT_BYTES,
    Duration,
    Endpoint,
    ListenEndpoint,
    PositiveDuration,
    Section,
    Size,
)

_AUTH = "senders authenticate with the API keys of auth.keys_file, for all receivers alike; remove this key"
_MIDDLEWARES = "there are no extensions to call"
_BUFFERS = "the buffers of this server adapt themselves; remove it"
_PEM = "keys stay out of the configuration: write the PEM to a file and name it with the _file key"

HttpCoding = Literal["", "gzip", "zstd", "zlib", "deflate", "snappy", "x-snappy-framed"]


class ServerTlsConfig(Section):
    """`receivers.otlp.protocols.<protocol>.tls`: TLS towards senders."""

    refused: ClassVar[dict[str, str]] = {
        "ca_file": "a server verifies senders with client_ca_file",
        "max_version": "the newest TLS version is always offered; remove it",
        "cipher_suites": "the suites are those of the TLS library's own secure choice; remove it",
        "curve_preferences": "the curves are those of the TLS library's own secure choice; remove it",
        "client_ca_file_reload": "tls.reload_interval reloads all files",
        "include_insecure_cipher_suites": "no suite that is known to be weak is offered; remove it",
        "include_system_ca_certs_pool": "only the CAs of client_ca_file are trusted to sign senders",
        "insecure": "a receiver without tls is plaintext; remove the whole tls section",
        "tpm": "keys in a TPM are not supported",
        "ca_pem": _PEM,
        "cert_pem": _PEM,
        "key_pem": _PEM,
    }

    cert_file: Path = Field(description="PEM file of the certificate, with the chain.")
    key_file: Path = Field(description="PEM file of its key.")
    client_ca_file: Path | None = Field(
        default=None, description="mTLS: PEM file of the CAs that sign senders' certificates; empty: none is asked for."
    )
    min_version: Literal["1.2", "1.3"] = Field(
        default="1.2", description="Oldest TLS version accepted; gRPC: 1.2 only, its library cannot raise it."
    )
    reload_interval: PositiveDuration = Field(
        default=10.0, description="The files are looked at this often, and used for new connections when they change."
    )


class KeepaliveServerParameters(Section):
    """`receivers.otlp.protocols.grpc.keepalive.server_parameters`."""

    max_connection_idle: Duration = Field(default=0.0, description="Close a connection without calls; 0: never.")
    max_connection_age: Duration = Field(default=0.0, description="Close a connection this old; 0: never.")
    max_connection_age_grace: Duration = Field(default=0.0, description="Time for its calls to finish; 0: unlimited.")
    time: PositiveDuration = Field(default=7200.0, description="Ping a silent client this often.")
    timeout: PositiveDuration = Field(default=20.0, description="Close the connection if the ping is not answered.")


class KeepaliveEnforcementPolicy(Section):
    """`receivers.otlp.protocols.grpc.keepalive.enforcement_policy`."""

    min_time: PositiveDuration = Field(default=300.0, description="Clients that ping more often are disconnected.")
    permit_without_stream: bool = Field(default=False, description="Whether clients may ping while no call is open.")


class ServerKeepaliveConfig(Section):
    """`receivers.otlp.protocols.grpc.keepalive`."""

    server_parameters: KeepaliveServerParameters = Field(
        default=KeepaliveServerParameters(), description="Pings and ages of connections."
    )
    enforcement_policy: KeepaliveEnforcementPolicy = Field(
        default=KeepaliveEnforcementPolicy(), description="What pings of clients are put up with."
    )


class _Listener(Section):
    """What both protocols share: how an address is written."""

    @model_validator(mode="before")
    @classmethod
    def _transport_is_part_of_the_address(cls, value: object) -> object:
        """Take the Collector's `transport: unix` with `endpoint: /path` for `unix:/path`."""
        if not isinstance(value, dict) or "transport" not in value:
            return value
        rest = {key: item for key, item in value.items() if key != "transport"}
        if value["transport"] == "tcp":
            return rest
        if value["transport"] != "unix":
            raise ValueError(f"transport {value['transport']!r} is not supported; use tcp or unix")
        path = str(rest.get("endpoint", ""))
        return {**rest, "endpoint": path if path.startswith("unix:") else f"unix:{path}"}

    @field_validator("include_metadata", check_fields=False)
    @classmethod
    def _metadata_is_not_kept(cls, value: bool) -> bool:
        if value:
            raise ValueError(
                "true is not supported: requests are stored as they are, without the sender's headers;"
                " set exporters.<name>.headers for what the destination needs"
            )
        return value


class GrpcReceiverConfig(_Listener):
    """`receivers.otlp.protocols.grpc`: OTLP/gRPC."""

    refused: ClassVar[dict[str, str]] = {
        "auth": _AUTH,
        "middlewares": _MIDDLEWARES,
        "dialer": "it belongs to a client",
        "read_buffer_size": _BUFFERS,
        "write_buffer_size": _BUFFERS,
    }

    endpoint: ListenEndpoint = Field(
        default=Endpoint(host="127.0.0.1", port=4317), description="Address to listen on, or unix:/path."
    )
    tls: ServerTlsConfig | None = Field(default=None, description="TLS; empty: plaintext.")
    max_recv_msg_size_mib: int = Field(
        default=64, gt=0, le=2047, description="Largest request in MiB, before and after decompression."
    )
    max_concurrent_streams: int | None = Field(
        default=None, gt=0, description="Calls in flight on one connection; empty: no limit."
    )
    keepalive: ServerKeepaliveConfig = Field(
        default=ServerKeepaliveConfig(), description="Pings and ages of connections."
    )
    include_metadata: bool = Field(default=False, description="Only false: headers of senders are not kept.")


class CorsConfig(Section):
    """`receivers.otlp.protocols.http.cors`: which web pages may send."""

    allowed_origins: tuple[str, ...] = Field(
        default=(), description="Origins, as https://app.example.com or https://*.example.com; * is any. Empty: none."
    )
    allowed_headers: tuple[str, ...] = Field(
        default=(), description="Request headers allowed beside the usual ones; * is any."
    )
    exposed_headers: tuple[str, ...] = Field(default=(), description="Response headers that a page may read.")
    max_age: int = Field(default=7200, ge=0, description="Seconds that a browser remembers the answer.")


class HttpReceiverConfig(_Listener):
    """`receivers.otlp.protocols.http`: OTLP/HTTP, protobuf and JSON."""

    refused: ClassVar[dict[str, str]] = {
        "auth": _AUTH,
        "middlewares": _MIDDLEWARES,
        "dialer": "it belongs to a client",
        "write_timeout": "answers are a few bytes; idle_timeout closes a connection that does not read them",
        "profiles_url_path": "the profiles signal is still in development and not served",
    }

    endpoint: ListenEndpoint = Field(
        default=Endpoint(host="127.0.0.1", port=4318), description="Address to listen on, or unix:/path."
    )
    tls: ServerTlsConfig | None = Field(default=None, description="TLS; empty: plaintext.")
    logs_url_path: str = Field(default="/v1/logs", pattern="^/", description="Path of log requests.")
    metrics_url_path: str = Field(default="/v1/metrics", pattern="^/", description="Path of metric requests.")
    traces_url_path: str = Field(default="/v1/traces", pattern="^/", description="Path of trace requests.")
    max_request_body_size: Size = Field(
        default=DEFAULT_REQUEST_LIMIT_BYTES,
        description="Largest body in bytes (or as 64MiB), before and after decompression.",
    )
    compression_algorithms: tuple[HttpCoding, ...] = Field(
        default=("", "gzip", "zstd", "zlib", "deflate", "snappy", "x-snappy-framed"),
        description="Content codings of requests that are accepted; '' is none.",
    )
    cors: CorsConfig = Field(default=CorsConfig(), description="Which web pages may send.")
    response_headers: dict[str, str] = Field(default={}, description="Headers added to every response.")
    read_header_timeout: PositiveDuration = Field(
        default=60.0, description="Close a connection whose request head does not arrive within this."
    )
    read_timeout: Duration = Field(default=0.0, description="Longest wait for a whole request; 0: no limit.")
    idle_timeout: PositiveDuration = Field(default=60.0, description="Close a kept-alive connection without requests.")
    keep_alives_enabled: bool = Field(default=True, description="Whether connections serve more than one request.")
    include_metadata: bool = Field(default=False, description="Only false: headers of senders are not kept.")

    @model_validator(mode="before")
    @classmethod
    def _keepalive_is_two_settings(cls, value: object) -> object:
        """Take the newer spelling of the Collector's, `keepalive: {enabled, idle_timeout}`."""
        if not isinstance(value, dict) or "keepalive" not in value:
            return value
        rest = {key: item for key, item in value.items() if key != "keepalive"}
        keepalive = value["keepalive"] or {}
        names = {"enabled": "keep_alives_enabled", "idle_timeout": "idle_timeout"}
        if not isinstance(keepalive, dict) or not keepalive.keys() <= names.keys():
            raise ValueError("keepalive has two settings here, enabled and idle_timeout")
        twice = [name for name in names.values() if name in rest]
        if twice:
            raise ValueError(f"{', '.join(twice)}: set it in keepalive or beside it, not in both places")
        return {**rest, **{names[key]: item for key, item in keepalive.items()}}

    @model_validator(mode="after")
    def _paths_differ(self) -> HttpReceiverConfig:
        if len({self.logs_url_path, self.metrics_url_path, self.traces_url_path}) != 3:
            raise ValueError("logs_url_path, metrics_url_path and traces_url_path must differ")
        return self


class OtlpProtocols(Section):
    """`receivers.otlp.protocols`: as in the Collector, a protocol that is not listed is off."""

    refused: ClassVar[dict[str, str]] = {
        "arrow": "OTel Arrow is not served; senders fall back to plain OTLP with arrow.disabled: true",
    }

    grpc: GrpcReceiverConfig | None = Field(default=None, description="OTLP/gRPC.")
    http: HttpReceiverConfig | None = Field(default=None, description="OTLP/HTTP.")

    def listeners(self) -> dict[str, GrpcReceiverConfig | HttpReceiverConfig]:
        """Return the protocols that are served, by name."""
        listed = {"grpc": self.grpc, "http": self.http}
        return {name: listener for name, listener in listed.items() if listener is not None}

    @model_validator(mode="before")
    @classmethod
    def _null_means_defaults(cls, value: object, info: ValidationInfo) -> object:
        # In a file `grpc:` turns it on; in code, and in settings sent to a worker, None is off.
        if isinstance(value, dict) and info.context:
            return {key: {} if item is None and key in {"grpc", "http"} else item for key, item in value.items()}
        return value


class OtlpReceiverConfig(Section):
    """`receivers.otlp`."""

    protocols: OtlpProtocols = Field(
        default=OtlpProtocols(grpc=GrpcReceiverConfig(), http=HttpReceiverConfig()),
        description="The protocols to serve.",
    )


class ReceiversConfig(Section):
    """`receivers`: how telemetry comes in."""

    otlp: OtlpReceiverConfig = Field(default=OtlpReceiverConfig(), description="The OTLP receiver.")

    @model_validator(mode="before")
    @classmethod
    def _only_otlp(cls, value: object) -> object:
        if isinstance(value, dict):
            others = [str(key) for key in value if key != "otlp"]
            if others:
                raise ValueError(
                    f"{', '.join(others)}: only one receiver exists here, otlp;"
                    " let a Collector take other formats and send them on as OTLP"
                )
        return value


class ReceiverConfig(Section):
    """`receiver`: what all protocols share."""

    max_in_flight_bytes: Size = Field(
        default=256 << 20,
        description="Bytes of requests being worked on at once; beyond that senders are told to wait.",
    )
    memory_limit: Size | None = Field(
        default=None,
        description="Most memory of all processes together; from 80 % of it on, senders are told to wait. Empty: 80 %"
        " of the container's limit, if it has one.",
    )
    dedup_window: Duration = Field(
        default=300.0,
        description="The very same request is acknowledged and not taken again within this: senders repeat a request"
        " whose answer was lost; 0: it is taken again.",
    )


class LimitsConfig(Section):
    """`auth.limits`: what each organisation may send, unless the key file says otherwise for one."""

    requests_per_second: float | None = Field(default=None, gt=0, description="Requests; empty: no limit.")
    bytes_per_second: Size | None = Field(
        default=None, description="Bytes of requests, uncompressed (or as 10MiB); empty: no limit."
    )
    burst: PositiveDuration = Field(
        default=10.0, description="An organisation that was silent may send what this much time allows at once."
    )
    in_flight_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Part of receiver.max_in_flight_bytes that one organisation may take, so that others find room.",
    )
    items_per_month: int | None = Field(
        default=None, ge=1, description="Log records, data points and spans in a calendar month, UTC; empty: no quota."
    )
    over_quota: Literal["continue", "block"] = Field(
        default="continue",
        description="Beyond the quota: continue, and say so in the history, or block: answer 429 until the month ends.",
    )


class AuthConfig(Section):
    """`auth`: who may send. Without keys the sidecar listens on loopback and unix sockets only."""

    keys_file: Path | None = Field(
        default=None,
        description="YAML file of organisations and their hashed API keys, kept with `driftlock-otlp keys`;"
        " looked at every second. Empty: anyone who reaches the sidecar may send.",
    )
    limits: LimitsConfig = Field(default=LimitsConfig(), description="What each organisation may send.")
    allow_unauthenticated: bool = Field(
        default=False, description="Listen on other than loopback addresses although nobody has to authenticate."
    )


def is_open(listener: Any) -> bool:
    """Return whether anyone on the network may use a listener: it is not local and asks for no certificate."""
    tls: ServerTlsConfig | None = getattr(listener, "tls", None)
    return not listener.endpoint.is_local and (tls is None or tls.client_ca_file is None)
