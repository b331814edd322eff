"""The Collector's names beside ours."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from driftlock_otlp.observability.collector_metrics import FAMILIES, MIRRORS, CollectorMetrics
from driftlock_otlp.observability.metrics import Metrics


def served(metrics: Metrics) -> dict[str, float]:
    """Return what a scrape would find under the Collector's names, as `name{labels}`."""
    registry = metrics.registry
    if "otelcol_process_uptime_seconds" not in {family.name for family in registry.collect()}:
        CollectorMetrics(metrics).register(registry)
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            if sample.name.startswith("otelcol_"):
                found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_what_is_received_is_served_by_signal_and_transport() -> None:
    metrics = Metrics()
    metrics.receiver_items.labels("logs", "grpc", "accepted").inc(7)
    metrics.receiver_items.labels("metrics", "http", "accepted").inc(5)
    metrics.receiver_items.labels("traces", "http", "refused").inc(3)
    for outcome, count in (("accepted", 3), ("duplicate", 1), ("refused", 2), ("rejected", 1)):
        metrics.receiver_requests.labels("logs", "grpc", outcome).inc(count)
        metrics.receiver_requests.labels("traces", "grpc", outcome).inc(count)
    found = served(metrics)
    assert found["otelcol_receiver_accepted_log_records_total{receiver=otlp,transport=grpc}"] == 7
    assert found["otelcol_receiver_accepted_metric_points_total{receiver=otlp,transport=http}"] == 5
    assert found["otelcol_receiver_refused_spans_total{receiver=otlp,transport=http}"] == 3
    assert found["otelcol_receiver_requests_total{outcome=success,receiver=otlp,transport=grpc}"] == 8
    assert found["otelcol_receiver_requests_total{outcome=refused,receiver=otlp,transport=grpc}"] == 4
    assert found["otelcol_receiver_requests_total{outcome=failure,receiver=otlp,transport=grpc}"] == 2
    assert found["otelcol_processor_incoming_items_total{otel_signal=logs,processor=driftlock}"] == 7


def test_what_goes_to_two_destinations_left_detection_once() -> None:
    metrics = Metrics()
    for exporter, forwarded, dropped in (("otlp_grpc", 90, 0), ("otlp_http/b", 60, 20)):
        metrics.forward_items.labels(exporter, "logs", "forwarded", "").inc(forwarded)
        metrics.forward_items.labels(exporter, "logs", "dropped", "rejected").inc(dropped)
    metrics.forward_items.labels("otlp_grpc/odd", "logs", "diverted", "").inc(4)
    metrics.forward_items.labels("quarantine", "logs", "diverted", "").inc(10)
    metrics.forward_items.labels("otlp_grpc", "logs", "dropped", "undecodable").inc(1)
    metrics.forward_items.labels("otlp_grpc", "unknown", "dropped", "damaged").inc(1)
    found = served(metrics)
    assert found["otelcol_processor_outgoing_items_total{otel_signal=logs,processor=driftlock}"] == 94
    assert found["otelcol_exporter_sent_log_records_total{exporter=otlp_grpc}"] == 90
    assert found["otelcol_exporter_sent_log_records_total{exporter=otlp_http/b}"] == 60
    assert found["otelcol_exporter_sent_log_records_total{exporter=otlp_grpc/odd}"] == 4
    assert found["otelcol_exporter_send_failed_log_records_total{exporter=otlp_http/b}"] == 20
    assert not any("quarantine" in name for name in found)
    assert found.get("otelcol_exporter_send_failed_log_records_total{exporter=otlp_grpc}", 0) == 0


def test_events_are_log_records_too() -> None:
    metrics = Metrics()
    metrics.forward_items.labels("otlp_grpc", "logs", "forwarded", "").inc(90)
    metrics.events.labels("otlp_grpc", "sent").inc(2)
    metrics.events.labels("otlp_grpc", "dropped").inc(1)
    found = served(metrics)
    assert found["otelcol_exporter_sent_log_records_total{exporter=otlp_grpc}"] == 92
    assert found["otelcol_exporter_send_failed_log_records_total{exporter=otlp_grpc}"] == 1


def test_without_a_downstream_nothing_is_sent_and_nothing_fails() -> None:
    metrics = Metrics()
    metrics.receiver_items.labels("logs", "grpc", "accepted").inc(7)
    metrics.forward_items.labels("none", "logs", "dropped", "no_exporter").inc(7)
    metrics.queue_bytes.labels("forward:none").set(100)
    assert not any(name.startswith(("otelcol_exporter", "otelcol_processor_outgoing")) for name in served(metrics))


def test_size_and_capacity_of_a_queue_have_the_same_unit() -> None:
    metrics = Metrics()
    metrics.queue_bytes.labels("forward:otlp_grpc").set(1000)
    metrics.queue_bytes.labels("divert:otlp_grpc").set(4000)
    metrics.queue_capacity.labels("forward:otlp_grpc", "bytes").set(1 << 20)
    metrics.queue_bytes.labels("forward:otlp_http").set(5000)
    metrics.queue_size.labels("forward:otlp_http", "requests").set(3)
    metrics.queue_capacity.labels("forward:otlp_http", "requests").set(10)
    metrics.queue_overflow_items.labels("otlp_http", "traces").inc(6)
    metrics.exporter_in_flight_requests.labels("otlp_http").set(2)
    found = served(metrics)
    assert found["otelcol_exporter_queue_size{exporter=otlp_grpc}"] == 4000
    assert found["otelcol_exporter_queue_capacity{exporter=otlp_grpc}"] == 1 << 20
    assert found["otelcol_exporter_queue_size{exporter=otlp_http}"] == 3
    assert found["otelcol_exporter_queue_capacity{exporter=otlp_http}"] == 10
    assert found["otelcol_exporter_enqueue_failed_spans_total{exporter=otlp_http}"] == 6
    assert found["otelcol_exporter_in_flight_requests{exporter=otlp_http}"] == 2


def test_a_scrape_changes_nothing() -> None:
    metrics = Metrics()
    metrics.receiver_items.labels("logs", "grpc", "accepted").inc(7)
    metrics.events.labels("otlp_grpc", "sent").inc(2)
    first = served(metrics)
    second = served(metrics)
    process = [name for name in first if name.startswith("otelcol_process_")]
    assert {name: first[name] for name in first if name not in process} == {
        name: second[name] for name in second if name not in process
    }


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="only Linux tells it this way")
def test_the_process_metrics_cover_the_workers() -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", "x = bytearray(64 << 20)\nprint(len(x), flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert worker.stdout is not None
        worker.stdout.readline()
        alone, both = Metrics(), Metrics()
        CollectorMetrics(alone).register(alone.registry)
        CollectorMetrics(both, lambda: [worker.pid]).register(both.registry)
        name = "otelcol_process_memory_rss_bytes{}"
        assert served(both)[name] - served(alone)[name] > 60 << 20
        cpu_s = served(both)["otelcol_process_cpu_seconds_total{}"]
        assert cpu_s > 0
    finally:
        worker.communicate(b"\n")
    # Its time is its parent's now, and it is gone: neither is an error, and the counter does not fall.
    assert served(both)["otelcol_process_cpu_seconds_total{}"] >= cpu_s
    assert served(both)["otelcol_process_uptime_seconds_total{}"] > 0


def test_it_can_be_read_as_openmetrics_too() -> None:
    metrics = Metrics()
    metrics.receiver_items.labels("logs", "grpc", "accepted").inc(7)
    CollectorMetrics(metrics).register(metrics.registry)
    assert b'otelcol_receiver_accepted_log_records_total{receiver="otlp",transport="grpc"} 7.0' in generate_openmetrics(
        metrics.registry
    )


def test_every_family_has_a_source_and_every_source_a_family() -> None:
    names = {family.name for family in FAMILIES if not family.name.startswith("otelcol_process_")} | {
        "otelcol_exporter_sent_log_records",
        "otelcol_exporter_send_failed_log_records",
        "otelcol_processor_incoming_items",
        "otelcol_processor_outgoing_items",
    }
    assert {mirror.family for mirror in MIRRORS} == names
    metrics = Metrics()
    assert all(hasattr(metrics, mirror.source) for mirror in MIRRORS)
