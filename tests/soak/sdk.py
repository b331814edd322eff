"""The real Python SDK as a sender, in a process of its own: `python -m tests.soak.sdk --grpc-port … --seconds …`.

Each thread makes a batch, lets the SDK's exporter deliver it, retries and all, and makes the next.
It prints what was exported and what the exporters gave up, as JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

SERVICE = "soak-sdk"
BATCH = 100


def main() -> int:
    """Send until the time is up."""
    parser = argparse.ArgumentParser(description="Send with the exporters of the SDK.")
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--timeout", type=float, default=60.0, help="the exporters' own, retries included")
    options = parser.parse_args()
    logging.disable(logging.ERROR)  # a line for each retry
    until_s = time.monotonic() + options.seconds
    grpc_options = {"endpoint": f"http://127.0.0.1:{options.grpc_port}", "insecure": True, "timeout": options.timeout}
    base = f"http://127.0.0.1:{options.http_port}/v1"
    counts: dict[str, dict[str, int]] = {}
    senders: dict[str, tuple[Any, Callable[[str, int], Any]]] = {
        "logs/grpc": (GrpcLogExporter(**grpc_options), _logs),
        "logs/http": (HttpLogExporter(f"{base}/logs", timeout=options.timeout), _logs),
        "traces/grpc": (GrpcSpanExporter(**grpc_options), _spans),
        "traces/http": (HttpSpanExporter(f"{base}/traces", timeout=options.timeout), _spans),
    }

    def send(name: str, exporter: Any, make: Callable[[str, int], Any]) -> None:
        count = counts[name] = {"exported": 0, "given up": 0}
        batch = 0
        while time.monotonic() < until_s:
            result = exporter.export(make(name, batch))
            count["exported" if result.name == "SUCCESS" else "given up"] += 1
            batch += 1
        exporter.shutdown()

    threads = [threading.Thread(target=send, args=(name, *sender)) for name, sender in senders.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(counts))
    return 0


def _logs(name: str, batch: int) -> Any:
    memory = InMemoryLogRecordExporter()
    provider = LoggerProvider(Resource({"service.name": SERVICE}), shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(memory))
    logger = provider.get_logger("soak")
    for number in range(BATCH):
        logger.emit(body=f"{name} batch {batch} record {number}", severity_text="INFO")
    return memory.get_finished_logs()


def _spans(name: str, batch: int) -> Any:
    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": SERVICE}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("soak")
    for number in range(BATCH):
        tracer.start_span(f"{name} batch {batch}", attributes={"number": number}).end()
    return memory.get_finished_spans()


if __name__ == "__main__":
    sys.exit(main())
