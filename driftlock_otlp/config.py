"""Every setting, its default, its unit and its cross-checks; nothing is defined anywhere else.

The tree has the OpenTelemetry Collector's shape where the Collector has the thing (`receivers`,
`exporters`), with sections of our own beside them. Settings are immutable. How they are read
from a file and the environment is in `config_file`.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

_DURATION_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_BYTES_UNITS = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_BYTES = re.compile(r"(\d+)\s*(|kib|mib|gib|tib)", re.IGNORECASE)
_USER = re.compile(r"//[^/@]*@")

_LAST_PORT = 65535


DEFAULT_REQUEST_LIMIT_BYTES = 64 << 20
"""OTLP specification 1.11.0: a receiver should take requests of 64 MiB."""

EXPORTER_TYPES = {"otlp_grpc": "otlp_grpc", "otlp": "otlp_grpc", "otlp_http": "otlp_http", "otlphttp": "otlp_http"}
"""Exporter types by every spelling the Collector has had for them."""


def parse_duration_s(value: object) -> float:
    """Return seconds from a Go-style duration such as `1m30s` or `200ms`.

    >>> parse_duration_s("1m30s")
    90.0
    """
    if isinstance(value, bool):
        raise ValueError("expected a duration such as 10s, 200ms or 1m30s")
    if value in (0, "0"):
        return 0.0
    if isinstance(value, (int, float)):
        raise ValueError(f"a duration needs a unit: write {value}s for {value} seconds")
    if not isinstance(value, str):
        raise ValueError("expected a duration such as 10s, 200ms or 1m30s")
    text = value.strip()
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{value!r} is not a duration; write for example 10s, 200ms or 1m30s")
    return sum(float(number) * _DURATION_UNITS_S[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """Return the shortest Go-style duration for `seconds`.

    >>> format_duration(90.0), format_duration(0.2)
    ('90s', '200ms')
    """
    number, unit = (seconds, "s") if seconds >= 1 or seconds == 0 else (seconds * 1000, "ms")
    return f"{number:.6f}".rstrip("0").rstrip(".") + unit


def parse_bytes(value: object) -> int:
    """Return bytes from an integer or a size such as `64MiB`.

    >>> parse_bytes("64MiB")
    67108864
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _BYTES.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a size; write bytes, or for example 64MiB or 4GiB")
    return int(match[1]) * _BYTES_UNITS[match[2].lower()]


def _duration(value: object, info: ValidationInfo) -> float:
    """In code a duration is a float in seconds; in a file it must name its unit."""
    return value if isinstance(value, float) and not info.context else parse_duration_s(value)


Duration = Annotated[float, BeforeValidator(_duration), PlainSerializer(format_duration), Field(ge=0)]
PositiveDuration = Annotated[float, BeforeValidator(_duration), PlainSerializer(format_duration), Field(gt=0)]
Size = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
Secret = Annotated[
    str,
    BeforeValidator(lambda value: "" if value is None else value),
    PlainSerializer(lambda value: "***" if value else value),
]


def _mask_user(url: str) -> str:
    """Hide the user and password of a URL."""
    return _USER.sub("//***@", url)


Url = Annotated[str, PlainSerializer(_mask_user)]


class Endpoint(BaseModel):
    """A host and port to listen on."""

    model_config = ConfigDict(frozen=True)
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _parse_endpoint(value: object) -> object:
    if isinstance(value, Endpoint):
        return value
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not host or not port.isdecimal() or int(port) > _LAST_PORT:
        raise ValueError(f"{value!r} is not an address to listen on; write host:port, for example 127.0.0.1:4317")
    return {"host": host.strip("[]"), "port": int(port)}


ListenEndpoint = Annotated[Endpoint, BeforeValidator(_parse_endpoint), PlainSerializer(str)]


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys refused, a key without a value has its default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _no_value_means_default(cls, value: object) -> object:
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if item is not None or key not in cls.model_fields}
        return value


class GrpcReceiverConfig(Section):
    """`receivers.otlp.protocols.grpc`: OTLP/gRPC."""

    endpoint: ListenEndpoint = Field(default=Endpoint(host="127.0.0.1", port=4317), description="Address to listen on.")
    max_recv_msg_size_mib: int = Field(
        default=64, gt=0, le=2047, description="Largest request in MiB, before and after decompression."
    )
    max_concurrent_streams: int | None = Field(
        default=None, gt=0, description="Calls in flight on one connection; empty: no limit."
    )


class HttpReceiverConfig(Section):
    """`receivers.otlp.protocols.http`: OTLP/HTTP, protobuf and JSON."""

    endpoint: ListenEndpoint = Field(default=Endpoint(host="127.0.0.1", port=4318), description="Address to listen on.")
    max_request_body_size: Size = Field(
        default=DEFAULT_REQUEST_LIMIT_BYTES,
        description="Largest body in bytes (or as 64MiB), before and after decompression.",
    )


class OtlpProtocols(Section):
    """`receivers.otlp.protocols`: as in the Collector, a protocol that is not listed is off."""

    grpc: GrpcReceiverConfig | None = Field(default=None, description="OTLP/gRPC.")
    http: HttpReceiverConfig | None = Field(default=None, description="OTLP/HTTP.")

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


class ReceiverConfig(Section):
    """`receiver`: what all protocols share."""

    max_in_flight_bytes: Size = Field(
        default=256 << 20,
        description="Bytes of requests being worked on at once; beyond that senders are told to wait.",
    )


class TlsConfig(Section):
    """`exporters.<name>.tls`: TLS towards a destination."""

    insecure: bool = Field(default=False, description="gRPC only: plaintext. An http:// or https:// scheme wins.")
    insecure_skip_verify: bool = Field(default=False, description="HTTP only: do not verify the certificate.")
    ca_file: Path | None = Field(default=None, description="PEM file of the CAs to trust; empty: the system's.")
    cert_file: Path | None = Field(default=None, description="PEM file of the client certificate (mTLS).")
    key_file: Path | None = Field(default=None, description="PEM file of the client key (mTLS).")


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


class ExporterConfig(Section):
    """`exporters.<type>[/<name>]`: one OTLP destination; the type is otlp_grpc or otlp_http."""

    endpoint: Url = Field(description="otlp_grpc: host:port or URL; otlp_http: base URL, /v1/<signal> is appended.")
    headers: dict[str, Secret] = Field(
        default={}, repr=False, description="Headers (gRPC: metadata) sent with every request."
    )
    compression: Literal["gzip", "none"] = Field(default="gzip", description="Compression of requests.")
    timeout: PositiveDuration = Field(default=10.0, description="Longest wait for one answer.")
    tls: TlsConfig = Field(default=TlsConfig(), description="TLS settings.")
    retry_on_failure: RetryConfig = Field(default=RetryConfig(), description="What to do when sending fails.")


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


class WindowConfig(Section):
    """`windows.<kind>`: the windows, baseline and significance of one kind of stream."""

    size: int = Field(gt=0, le=100_000, description="A window closes at this many records,")
    max_age: PositiveDuration = Field(description="or at this age, whichever comes first.")
    session_key: str | None = Field(
        default=None,
        description="Session windows: one window per value of this attribute, closed when it is idle for max_age.",
    )
    baseline_windows: int = Field(
        default=12, ge=2, le=1000, description="Unflagged windows that a new window is compared with, at least;"
    )
    baseline_records: int = Field(
        default=600, ge=1, le=1_000_000, description="and at least this many records, so that small windows add up."
    )
    significance: float | None = Field(
        default=None, gt=0, lt=0.5, description="Own value of detection.significance for this kind."
    )


class WindowsConfig(Section):
    """`windows`: each kind of stream has windows of its own."""

    logs: WindowConfig = Field(default=WindowConfig(size=1000, max_age=10.0), description="Log records, per service.")
    metrics: WindowConfig = Field(
        default=WindowConfig(size=60, max_age=30.0, significance=0.005),
        description="Data points, per service and metric. Their noise has heavier tails, so they start stricter.",
    )
    traces: WindowConfig = Field(default=WindowConfig(size=1000, max_age=10.0), description="Spans, per service.")
    gen_ai: WindowConfig = Field(
        default=WindowConfig(size=50, max_age=30.0),
        description="Spans and log records with gen_ai.* attributes, per service and model.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_the_kind(cls, value: object) -> object:
        """Let `windows.logs: {size: 100}` keep the other defaults of its kind."""
        if not isinstance(value, dict):
            return value
        filled = dict(value)
        for name, field in cls.model_fields.items():
            given = filled.get(name)
            if isinstance(given, dict):
                filled[name] = {**field.default.model_dump(), **given}
        return filled


class DetectionConfig(Section):
    """`detection`: when a window is odd, and when that is an alarm."""

    significance: float = Field(
        default=0.01,
        gt=0,
        lt=0.5,
        description="A window is flagged when its conformal p-value is at most this. Alarms need more: see docs.",
    )
    warm_up_windows: int = Field(
        default=40, ge=20, le=10_000, description="Scored windows to calibrate on before a stream may alarm."
    )
    calibration_windows: int = Field(
        default=2000, ge=60, le=100_000, description="Scored windows that the calibration remembers."
    )
    recovery_windows: int = Field(
        default=3, ge=1, le=1000, description="Calm windows in a row after which an anomaly is over."
    )
    adopt_after_windows: int = Field(
        default=60,
        ge=4,
        le=100_000,
        description="Windows of one anomaly after which the new regime becomes the baseline.",
    )
    workers: int = Field(default=1, ge=1, le=64, description="Detection processes; streams are split between them.")
    max_streams: int = Field(
        default=10_000,
        ge=1,
        description="Streams that one worker follows; records of further ones pass unscored, counted.",
    )
    quote_max_bytes: int = Field(
        default=160, ge=0, description="Longest quotation of payload text in an explanation; 0: quote nothing."
    )
    compressor: Literal["auto", "openzl", "zstd"] = Field(
        default="auto", description="auto: OpenZL where its wheel exists, else zstd. Baselines of the two never mix."
    )


class QueueConfig(Section):
    """`queue`: the durable log and the state beside it."""

    path: Path = Field(default=Path("driftlock-data"), description="Directory of everything that survives a restart.")
    durability: Literal["fsync", "os", "memory"] = Field(
        default="fsync",
        description="When a request is acknowledged: fsync: on disk; os: handed to the kernel; memory: kept in RAM.",
    )
    segment_bytes: Size = Field(default=64 << 20, description="A log segment file is closed at this size.")
    max_bytes: Size = Field(default=4 << 30, description="Most the log may hold; then senders are told to wait.")


class ApiConfig(Section):
    """`api`: metrics, health and management."""

    endpoint: ListenEndpoint = Field(default=Endpoint(host="127.0.0.1", port=8080), description="Address to listen on.")


class ServiceConfig(Section):
    """`service`: the process itself."""

    shutdown_grace: PositiveDuration = Field(default=30.0, description="Time to stop in; then the process just ends.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console on a terminal, JSON lines otherwise."
    )


class Config(Section):
    """The whole configuration."""

    receivers: ReceiversConfig = Field(default=ReceiversConfig(), description="How telemetry comes in.")
    receiver: ReceiverConfig = Field(default=ReceiverConfig(), description="What all protocols share.")
    exporters: dict[str, ExporterConfig] = Field(default={}, description="Destinations, by type and name.")
    forward: ForwardConfig = Field(default=ForwardConfig(), description="Where records go.")
    events: EventsConfig = Field(default=EventsConfig(), description="Where anomaly events go.")
    windows: WindowsConfig = Field(default=WindowsConfig(), description="Windows per kind of stream.")
    detection: DetectionConfig = Field(default=DetectionConfig(), description="When a window is odd.")
    queue: QueueConfig = Field(default=QueueConfig(), description="The durable log and state.")
    api: ApiConfig = Field(default=ApiConfig(), description="Metrics, health and management.")
    service: ServiceConfig = Field(default=ServiceConfig(), description="The process itself.")

    @field_validator("exporters")
    @classmethod
    def _known_exporter_types(cls, value: dict[str, ExporterConfig]) -> dict[str, ExporterConfig]:
        for name in value:
            exporter_type(name)
        return value

    @model_validator(mode="after")
    def _cross_check(self) -> Config:
        for key, names in (
            ("forward.exporters", self.forward.exporters),
            ("forward.anomalous_exporters", self.forward.anomalous_exporters),
            ("events.exporters", self.events.exporters or ()),
        ):
            for name in names:
                if name not in self.exporters:
                    raise ValueError(
                        f"{key} names {name!r}, which exporters does not define{did_you_mean(name, self.exporters)}"
                    )
            if len(set(names)) != len(names):
                raise ValueError(f"{key} names an exporter twice")
        if self.forward.anomalous_exporters and self.forward.policy != "divert":
            raise ValueError("forward.anomalous_exporters needs forward.policy: divert")
        protocols = self.receivers.otlp.protocols
        if protocols.grpc is None and protocols.http is None:
            raise ValueError("receivers.otlp.protocols lists no protocol: add grpc: or http:")
        listening = [server.endpoint for server in (protocols.grpc, protocols.http, self.api) if server is not None]
        taken = [str(endpoint) for endpoint in listening if endpoint.port]
        if len(set(taken)) != len(taken):
            raise ValueError("receivers and api.endpoint must listen on different addresses: " + ", ".join(taken))
        for name, exporter in self.exporters.items():
            _check_destination(name, exporter.endpoint, listening)
        if self.detection.warm_up_windows > self.detection.calibration_windows:
            raise ValueError("detection.warm_up_windows exceeds detection.calibration_windows: no stream would warm up")
        return self

    @property
    def event_exporters(self) -> tuple[str, ...]:
        """Names of the exporters that receive anomaly events."""
        return self.forward.exporters if self.events.exporters is None else self.events.exporters

    def window(self, kind: str) -> WindowConfig:
        """Return the window settings of a stream kind."""
        window: WindowConfig = getattr(self.windows, kind)
        return window

    def significance(self, kind: str) -> float:
        """Return the significance level in force for a stream kind."""
        own = self.window(kind).significance
        return self.detection.significance if own is None else own


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


def did_you_mean(word: str, known: Any) -> str:
    """Return `; did you mean …?` with the nearest known word, empty if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f"; did you mean {near[0]!r}?" if near else ""


def _check_destination(name: str, endpoint: str, listening: list[Endpoint]) -> None:
    """Refuse a destination that has no form of an address, or that is ours.

    Raises:
        ValueError: It is one of these.
    """
    key, shown = f"exporters.{name}.endpoint", _mask_user(endpoint)
    is_http = exporter_type(name) == "otlp_http"
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
    return host == own or (_is_loopback(host) and _is_loopback(own))


def _is_loopback(host: str) -> bool:
    if host in {"localhost", "0.0.0.0", "::"}:  # noqa: S104 - compared with, not bound to
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def section_in(annotation: Any) -> type[Section] | None:
    """Return the section that an annotation such as `Section | None` or `dict[str, Section]` names."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in get_args(annotation):
        found = section_in(argument)
        if found is not None:
            return found
    return None
