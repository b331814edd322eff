"""A real Prometheus scrapes a running sidecar, and its linter has nothing to say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from driftlock_otlp.model import Signal
from tests.doubles.otlp_sink import OtlpSink
from tests.e2e import prometheus
from tests.e2e.conftest import NewSidecar
from tests.e2e.sidecar import Sidecar, exporter, small_windows
from tests.e2e.traffic import Traffic


@pytest.fixture(autouse=True)
def programs() -> None:
    try:
        prometheus.program("prometheus")
        prometheus.program("promtool")
    except prometheus.UnavailableError as error:
        pytest.skip(str(error))


async def send_everything(sidecar: Sidecar) -> None:
    """Send something of every signal over every transport, what is refused included, until an anomaly is found."""
    traffic = Traffic()
    for turn in range(70):
        await sidecar.send(Signal.LOGS, traffic.logs(50, 1.0 if turn >= 62 else 0.0), "grpc")
    for signal in Signal:
        for transport in ("grpc", "http"):
            await sidecar.send(signal, traffic.request(signal, 40), transport)
    with pytest.raises(OSError):
        sidecar.post("/v1/logs", b"\xff", "application/x-protobuf")
    await sidecar.settle()


async def test_prometheus_scrapes_our_names_and_the_collectors(
    new_sidecar: NewSidecar, sink: OtlpSink, tmp_path: Path
) -> None:
    sidecar = new_sidecar(sink)
    await sidecar.start()
    traffic = Traffic()
    await sidecar.send(Signal.LOGS, traffic.logs(30), "grpc")
    await sidecar.send(Signal.LOGS, traffic.logs(12), "http")
    await sidecar.send(Signal.TRACES, traffic.traces(7), "grpc")
    await sidecar.settle()
    with prometheus.scraping(sidecar.api_port, tmp_path) as server:
        await sidecar.wait_until(server.is_ready, "Prometheus is not ready")
        await sidecar.wait_until(lambda: server.total("up") == 1, "Prometheus does not scrape")
        for expression, value in (
            ('driftlock_receiver_items_total{signal="logs",outcome="accepted"}', 42),
            ('driftlock_forward_items_total{exporter="otlp_grpc",outcome="forwarded"}', 49),
            ("otelcol_receiver_accepted_log_records_total", 42),
            ('otelcol_receiver_accepted_log_records_total{receiver="otlp",transport="http"}', 12),
            ("otelcol_receiver_accepted_spans_total", 7),
            ('otelcol_processor_incoming_items_total{processor="driftlock",otel_signal="logs"}', 42),
            ('otelcol_exporter_sent_log_records_total{exporter="otlp_grpc"}', 42),
            ('otelcol_exporter_queue_size{exporter="otlp_grpc"}', 0),
            ('otelcol_exporter_queue_capacity{exporter="otlp_grpc"}', 4 << 30),
        ):
            assert await asyncio.to_thread(server.query, expression), expression
            assert await asyncio.to_thread(server.total, expression) == value, expression
        (target,) = await asyncio.to_thread(server.targets)
        assert (target["health"], target["lastError"]) == ("up", "")
        # What it adds up over time follows what is sent.
        await sidecar.send(Signal.LOGS, traffic.logs(58), "grpc")
        await sidecar.wait_until(
            lambda: server.total("otelcol_receiver_accepted_log_records_total") == 100, "Prometheus does not follow"
        )
        assert await asyncio.to_thread(server.total, "otelcol_process_uptime_seconds_total") > 0
        assert await asyncio.to_thread(server.total, "otelcol_process_memory_rss_bytes") > 50 << 20


async def test_promtool_finds_nothing_to_complain_about(new_sidecar: NewSidecar, sink: OtlpSink) -> None:
    settings = small_windows()
    settings["exporters"] = {
        "otlp_grpc": exporter(sink, sending_queue={"queue_size": 1000}),
        "otlp_http/down": {"endpoint": "http://127.0.0.1:9", "retry_on_failure": {"enabled": False}},
    }
    settings["forward"] = {"exporters": ["otlp_grpc", "otlp_http/down"]}
    sidecar = new_sidecar(sink, settings)
    await sidecar.start()
    await send_everything(sidecar)
    page = await asyncio.to_thread(sidecar.get, "/metrics")
    for name in (
        b"driftlock_anomalies_total{",
        b"driftlock_quarantine_items",
        b"otelcol_exporter_send_failed_spans_total{",
    ):
        assert name in page
    assert await asyncio.to_thread(prometheus.lint, page) == ""


def test_promtool_would_complain() -> None:
    assert "no help text" in prometheus.lint(b"# TYPE things_total counter\nthings_total 1\n")
