"""`queue`, `api`, `extensions` and `service`: the process and what it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, model_validator

from driftlock_otlp.config.values import Endpoint, ListenEndpoint, PositiveDuration, Section, Size, SizeOrNone


class QueueConfig(Section):
    """`queue`: the durable log and the state beside it."""

    path: Path = Field(default=Path("driftlock-data"), description="Directory of everything that survives a restart.")
    durability: Literal["fsync", "os", "memory"] = Field(
        default="fsync",
        description="When a request is acknowledged: fsync: on disk; os: handed to the kernel; memory: kept in RAM.",
    )
    segment_bytes: Size = Field(default=64 << 20, description="A log segment file is closed at this size.")
    max_bytes: Size = Field(default=4 << 30, description="Most the log may hold; then senders are told to wait.")


class AnomaliesConfig(Section):
    """`anomalies`: how long what was found is kept."""

    max_age: PositiveDuration = Field(
        default=90 * 86_400.0,
        description="Anomalies are kept this long after they were found, unless something of them is withheld.",
    )
    max_count: int = Field(
        default=1_000_000, ge=1, description="Anomalies kept; beyond it the oldest that have ended go first."
    )
    history_max_age: PositiveDuration = Field(
        default=3 * 365 * 86_400.0,
        description="The record of who did what is kept this long, also about anomalies that are gone.",
    )
    evidence_max_bytes: SizeOrNone = Field(
        default=1 << 30,
        description="Most that the evidence bundles of anomalies may take; the oldest go first. 0: none are made.",
    )


class ApiConfig(Section):
    """`api`: metrics, health and management."""

    endpoint: ListenEndpoint = Field(default=Endpoint(host="127.0.0.1", port=8080), description="Address to listen on.")
    grpc_endpoint: ListenEndpoint | None = Field(
        default=None,
        description="Address of the management API over gRPC (proto/driftlock/management); off unless set.",
    )
    requests_per_second: float = Field(
        default=50.0,
        gt=0,
        description="Management requests (/v1) of each organisation, and ten times as many at once after a pause;"
        " beyond that 429. Without API keys there is no limit, and this machine alone is answered.",
    )


class HealthCheckConfig(Section):
    """`extensions.health_check`: the Collector's health check, for probes that expect it."""

    refused: ClassVar[dict[str, str]] = {
        "check_collector_pipeline": "readiness looks at storage, detection and receivers by itself; remove it",
        "response_body": "the answer is that of the Collector; remove it",
        "tls": "it says healthy or not, nothing more; keep it on a local address",
    }

    endpoint: ListenEndpoint = Field(
        default=Endpoint(host="127.0.0.1", port=13133), description="Address to listen on."
    )
    path: str = Field(default="/", pattern="^/", description="Path of the check: 200 when ready, else 503.")


class ExtensionsConfig(Section):
    """`extensions`: of the Collector's, the one that a sidecar needs."""

    refused: ClassVar[dict[str, str]] = {
        "zpages": "live pages are served at api.endpoint: /debug/pipelinez",
        "pprof": "there is no Go runtime to profile",
        "file_storage": "queue.path is the storage of everything",
        "bearertokenauth": "senders authenticate with the API keys of auth.keys_file",
        "basicauth": "senders authenticate with the API keys of auth.keys_file",
        "oidc": "senders authenticate with the API keys of auth.keys_file",
    }

    health_check: HealthCheckConfig | None = Field(
        default=None, description="A health check beside /healthz and /readyz; off unless listed."
    )

    @model_validator(mode="before")
    @classmethod
    def _null_means_defaults(cls, value: object, info: ValidationInfo) -> object:
        # In a file `health_check:` turns it on; in code None is off.
        if isinstance(value, dict) and info.context and "health_check" in value:
            return {**value, "health_check": value["health_check"] or {}}
        return value


class ServiceConfig(Section):
    """`service`: the process itself."""

    refused: ClassVar[dict[str, str]] = {
        "pipelines": "there is one pipeline: receivers.otlp, detection, forward.exporters; name the exporters there",
        "extensions": "an extension that is listed under extensions is on; remove it",
        "telemetry": "own metrics are served at api.endpoint, logs follow service.log_level; remove it",
    }

    shutdown_grace: PositiveDuration = Field(default=30.0, description="Time to stop in; then the process just ends.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console on a terminal, JSON lines otherwise."
    )
