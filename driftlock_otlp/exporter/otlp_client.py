"""Builds the OTLP client that a configured exporter asks for."""

from __future__ import annotations

from driftlock_otlp.config.exporters import ExporterConfig, exporter_type
from driftlock_otlp.exporter.otlp_grpc_client import OtlpGrpcExporter
from driftlock_otlp.exporter.otlp_http_client import OtlpHttpExporter
from driftlock_otlp.interfaces import Exporter


def build_exporter(name: str, config: ExporterConfig) -> Exporter:
    """Return the exporter for one entry of `exporters`; it connects when it first sends.

    Args:
        name: Its key, as `otlp_grpc` or `otlp_http/backup`.
        config: Its settings.

    Raises:
        ConfigError: The endpoint, a header or a TLS file cannot be used.
    """
    if exporter_type(name) == "otlp_grpc":
        return OtlpGrpcExporter(name, config)
    return OtlpHttpExporter(name, config)
