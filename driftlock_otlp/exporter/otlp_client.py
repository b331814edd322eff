"""Builds the OTLP client, or clients, that a configured exporter asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from driftlock_otlp.config.exporters import ExporterConfig, for_signal
from driftlock_otlp.exporter.otlp_grpc_client import OtlpGrpcExporter
from driftlock_otlp.exporter.otlp_http_client import OtlpHttpExporter
from driftlock_otlp.interfaces import Exporter, ExportResult
from driftlock_otlp.model import Signal

_CLIENTS: dict[str, Callable[[str, ExporterConfig], Exporter]] = {
    "otlp_grpc": OtlpGrpcExporter,
    "otlp_http": OtlpHttpExporter,
}


def build_exporter(name: str, config: ExporterConfig) -> Exporter:
    """Return the exporter for one entry of `exporters`; it connects when it first sends.

    Args:
        name: Its key, as `otlp_grpc` or `otlp_http/backup`.
        config: Its settings.

    Raises:
        ConfigError: An endpoint, a header, a proxy or a TLS file cannot be used.
    """
    groups: list[tuple[str, ExporterConfig, list[Signal]]] = []
    for signal in Signal:
        kind, settings = for_signal(name, config, signal.plural)
        same = next((signals for *other, signals in groups if other == [kind, settings]), None)
        if same is None:
            groups.append((kind, settings, [signal]))
        else:
            same.append(signal)
    if len(groups) == 1:
        kind, settings, _ = groups[0]
        return _CLIENTS[kind](name, settings)
    clients: dict[Signal, Exporter] = {}
    for kind, settings, signals in groups:
        place = f".signals.{signals[0].plural}" if signals[0].plural in config.signals else ""
        clients |= dict.fromkeys(signals, _CLIENTS[kind](name + place, settings))
    return _PerSignalExporter(name, clients)


class _PerSignalExporter:
    """One destination whose signals are sent in different ways.

    Args:
        name: Key in the configuration.
        clients: Which client sends a signal; one may send several.
    """

    def __init__(self, name: str, clients: Mapping[Signal, Exporter]) -> None:
        self._name = name
        self._clients = clients

    @property
    def name(self) -> str:
        """The exporter's key in the configuration."""
        return self._name

    async def export(self, signal: Signal, payload: bytes) -> ExportResult:
        """Send one Export request; see `interfaces.Exporter`."""
        return await self._clients[signal].export(signal, payload)

    async def close(self) -> None:
        """Close the connections of all clients."""
        await asyncio.gather(*(client.close() for client in self._clients.values()))
