"""Exporters as a configuration or the environment makes them, for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from driftlock_otlp.config.exporters import ExporterConfig
from driftlock_otlp.config.file import load
from driftlock_otlp.config.root import Config
from driftlock_otlp.exporter.otlp_client import build_exporter
from driftlock_otlp.interfaces import Exporter
from driftlock_otlp.model import Signal
from tests.conformance.receivers import request_of
from tests.doubles.otlp_sink import OtlpSink

PAYLOADS = {signal: request_of(signal) for signal in Signal}
LOGS = PAYLOADS[Signal.LOGS]

each_kind = pytest.mark.parametrize("kind", ["otlp_grpc", "otlp_http"])


def endpoint_of(sink: OtlpSink, kind: str) -> str:
    return sink.grpc_endpoint if kind == "otlp_grpc" else sink.http_endpoint


@asynccontextmanager
async def exporter_to(endpoint: str, kind: str = "otlp_http", **settings: Any) -> AsyncIterator[Exporter]:
    exporter = build_exporter(kind, ExporterConfig(endpoint=endpoint, **settings))
    try:
        yield exporter
    finally:
        await exporter.close()


@asynccontextmanager
async def connected(kind: str, **settings: Any) -> AsyncIterator[tuple[OtlpSink, Exporter]]:
    async with OtlpSink() as sink, exporter_to(endpoint_of(sink, kind), kind, **settings) as exporter:
        yield sink, exporter


def loaded(overrides: list[str] | None = None, **variables: str) -> Config:
    """Return what `OTEL_EXPORTER_OTLP_*` variables configure."""
    return load(None, overrides, {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()})


@asynccontextmanager
async def exporter_of(**variables: str) -> AsyncIterator[Exporter]:
    """Run the exporter that `OTEL_EXPORTER_OTLP_*` variables ask for."""
    config = loaded(**variables)
    (name,) = config.forward.exporters
    exporter = build_exporter(name, config.exporters[name])
    try:
        yield exporter
    finally:
        await exporter.close()
