"""The Python SDK's OTLP exporters: one program that sends the same to several places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

from driftlock_otlp.model import Signal

RESOURCE = Resource.create({"service.name": "python-shop", "host.cpus": 2, "zones": ["a", "b"]})


def export(transport: str, compression: str, ports: Sequence[tuple[int, int]], count: int) -> None:
    """Make log records, spans and metrics, and export all of them to each of several receivers.

    Args:
        transport: `grpc` or `http`.
        compression: `none`, `gzip` or, over HTTP, `deflate`.
        ports: Of the receivers, gRPC and HTTP.
        count: Log records, spans, and data points of a counter.
    """
    all_exporters = [_exporters(transport, compression, *pair) for pair in ports]
    loggers, tracers = LoggerProvider(resource=RESOURCE), TracerProvider(resource=RESOURCE)
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], RESOURCE)
    for exporters in all_exporters:
        loggers.add_log_record_processor(BatchLogRecordProcessor(exporters[Signal.LOGS]))
        tracers.add_span_processor(BatchSpanProcessor(exporters[Signal.TRACES]))
    logger, tracer = loggers.get_logger("shop.log", "1.2"), tracers.get_tracer("shop.http", "1.2")
    meter = meters.get_meter("shop.meter", "1.2")
    orders, depth = meter.create_counter("orders", "{order}"), meter.create_up_down_counter("queue.depth")
    latency, temperature = meter.create_histogram("latency", "s"), meter.create_gauge("temperature", "Cel")
    for number in range(count):
        with tracer.start_as_current_span(
            f"GET /cart/{number % 7}", kind=SpanKind.SERVER, attributes={"cart.id": number, "tags": ["x", "y"]}
        ) as span:
            span.add_event("retry", {"attempt": number, "why": "größe ✓"})
            span.set_status(Status(StatusCode.ERROR, "gone"))
            body: Any = f"order {number}" if number % 2 else {"order": number, "items": ["a", {"b": 2.5}]}
            logger.emit(body=body, severity_text="INFO", attributes={"order.id": number, "ratio": number / 3})
        shard = {"shard": number}
        orders.add(1, shard)
        depth.add(-number, shard)
        latency.record(number / 1000, shard)
        temperature.set(number / 7, shard)
    loggers.shutdown()
    tracers.shutdown()
    # Two readers would read at two times; so one reads, for all exporters.
    metrics = reader.get_metrics_data()
    assert metrics is not None
    for exporters in all_exporters:
        exporters[Signal.METRICS].export(metrics)
        exporters[Signal.METRICS].shutdown()
    meters.shutdown()


def _exporters(transport: str, compression: str, grpc_port: int, http_port: int) -> dict[Signal, Any]:
    if transport == "grpc":
        target: dict[str, Any] = {
            "endpoint": f"127.0.0.1:{grpc_port}",
            "insecure": True,
            "compression": grpc.Compression.Gzip if compression == "gzip" else grpc.Compression.NoCompression,
        }
        return {
            Signal.LOGS: GrpcLogExporter(**target),
            Signal.METRICS: GrpcMetricExporter(**target),
            Signal.TRACES: GrpcSpanExporter(**target),
        }
    kinds = {Signal.LOGS: HttpLogExporter, Signal.METRICS: HttpMetricExporter, Signal.TRACES: HttpSpanExporter}
    return {
        signal: kind(endpoint=f"http://127.0.0.1:{http_port}{signal.http_path}", compression=Compression(compression))
        for signal, kind in kinds.items()
    }
