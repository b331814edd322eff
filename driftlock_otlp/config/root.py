"""The whole configuration and its cross-checks.

The tree has the OpenTelemetry Collector's shape where the Collector has the thing (`receivers`,
`exporters`, `extensions`), with sections of our own beside them. Settings are immutable.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from driftlock_otlp.config.detection import DetectionConfig, WindowConfig, WindowsConfig
from driftlock_otlp.config.exporter_checks import check_exporter
from driftlock_otlp.config.exporters import EventsConfig, ExporterConfig, ForwardConfig, exporter_type
from driftlock_otlp.config.operation import AnomaliesConfig, ApiConfig, ExtensionsConfig, QueueConfig, ServiceConfig
from driftlock_otlp.config.receivers import AuthConfig, ReceiverConfig, ReceiversConfig, is_open
from driftlock_otlp.config.supabase import SupabaseConfig
from driftlock_otlp.config.values import Section, did_you_mean
from driftlock_otlp.config.webhooks import WebhookConfig

_QUOTE_MAX_BYTES = {"gen_ai": 0}
"""By kind of stream, where nothing is set: what people and models write is not to be passed on."""
_QUOTE_MAX_BYTES_ELSE = 160


class Config(Section):
    """The whole configuration."""

    refused: ClassVar[dict[str, str]] = {
        "processors": "records are scored and passed on as they are; let a Collector before or after process them",
        "connectors": "there is one pipeline, from receivers.otlp to forward.exporters",
    }

    receivers: ReceiversConfig = Field(default=ReceiversConfig(), description="How telemetry comes in.")
    receiver: ReceiverConfig = Field(default=ReceiverConfig(), description="What all protocols share.")
    auth: AuthConfig = Field(default=AuthConfig(), description="Who may send.")
    exporters: dict[str, ExporterConfig] = Field(default={}, description="Destinations, by type and name.")
    forward: ForwardConfig = Field(default=ForwardConfig(), description="Where records go.")
    events: EventsConfig = Field(default=EventsConfig(), description="Where anomaly events go.")
    webhooks: dict[str, WebhookConfig] = Field(default={}, description="Who is called for incidents, by name.")
    windows: WindowsConfig = Field(default=WindowsConfig(), description="Windows per kind of stream.")
    detection: DetectionConfig = Field(default=DetectionConfig(), description="When a window is odd.")
    anomalies: AnomaliesConfig = Field(default=AnomaliesConfig(), description="How long what was found is kept.")
    supabase: SupabaseConfig = Field(
        default=SupabaseConfig(), description="A Supabase project that also keeps anomalies and usage."
    )
    queue: QueueConfig = Field(default=QueueConfig(), description="The durable log and state.")
    api: ApiConfig = Field(default=ApiConfig(), description="Metrics, health and management.")
    extensions: ExtensionsConfig = Field(default=ExtensionsConfig(), description="Of the Collector's extensions.")
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
        named: dict[str, Any] = {
            "receivers.otlp.protocols.grpc": protocols.grpc,
            "receivers.otlp.protocols.http": protocols.http,
            "api": self.api,
            "extensions.health_check": self.extensions.health_check,
        }
        listeners = {key: listener for key, listener in named.items() if listener is not None}
        listening = [listener.endpoint for listener in listeners.values()]
        if self.api.grpc_endpoint is not None:
            listening.append(self.api.grpc_endpoint)
        taken = [str(endpoint) for endpoint in listening if endpoint.port or endpoint.path]
        if len(set(taken)) != len(taken):
            raise ValueError("receivers and api.endpoint must listen on different addresses: " + ", ".join(taken))
        for name, exporter in self.exporters.items():
            check_exporter(name, exporter, listening)
        if protocols.grpc and protocols.grpc.tls and protocols.grpc.tls.min_version != "1.2":
            raise ValueError(
                "receivers.otlp.protocols.grpc.tls.min_version: gRPC's library accepts TLS 1.2 and 1.3 and cannot be"
                " told to refuse 1.2; remove it, or serve http only"
            )
        self._require_authentication(listeners)
        if self.detection.warm_up_windows > self.detection.calibration_windows:
            raise ValueError("detection.warm_up_windows exceeds detection.calibration_windows: no stream would warm up")
        return self

    def _require_authentication(self, listeners: dict[str, Any]) -> None:
        if self.auth.keys_file is not None or self.auth.allow_unauthenticated:
            return
        open_endpoints = {
            f"{key}.endpoint": listener.endpoint for key, listener in listeners.items() if is_open(listener)
        }
        if self.api.grpc_endpoint is not None and not self.api.grpc_endpoint.is_local:
            open_endpoints["api.grpc_endpoint"] = self.api.grpc_endpoint
        for key, endpoint in open_endpoints.items():
            raise ValueError(
                f"{key}: {endpoint} is open to the network and nobody has to authenticate;"
                " make keys with `driftlock-otlp keys create` and name their file in auth.keys_file, listen on"
                " 127.0.0.1, or set auth.allow_unauthenticated: true"
            )

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

    def quote_max_bytes(self, kind: str) -> int:
        """Return how much of a payload's text an explanation of a stream kind may quote, in bytes."""
        own = self.detection.quote_max_bytes
        return _QUOTE_MAX_BYTES.get(kind, _QUOTE_MAX_BYTES_ELSE) if own is None else own
