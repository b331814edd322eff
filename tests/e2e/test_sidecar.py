"""Telemetry through the whole sidecar: senders, sockets, disk, detection, downstream."""

from __future__ import annotations

import asyncio
import os
import signal as process_signal
import socket
import time
import urllib.error
from collections import Counter
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from driftlock_otlp.model import Signal
from tests.doubles.otlp_sink import OtlpSink
from tests.e2e.conftest import NewSidecar
from tests.e2e.sidecar import Sidecar, delivered, exporter, small_windows
from tests.e2e.traffic import Traffic

RESOURCE = Resource.create({"service.name": "checkout", "service.instance.id": "one"})


def export_with_sdk(sidecar: Sidecar, transport: str) -> None:
    """Send 30 log records, 30 spans and a counter with the real SDK."""
    if transport == "grpc":
        target: dict[str, Any] = {"endpoint": f"127.0.0.1:{sidecar.grpc_port}", "insecure": True}
        logs, spans, metrics = GrpcLogExporter(**target), GrpcSpanExporter(**target), GrpcMetricExporter(**target)
    else:
        base = f"http://127.0.0.1:{sidecar.http_port}"
        logs, spans, metrics = (
            HttpLogExporter(endpoint=base + Signal.LOGS.http_path),
            HttpSpanExporter(endpoint=base + Signal.TRACES.http_path),
            HttpMetricExporter(endpoint=base + Signal.METRICS.http_path),
        )
    logger_provider = LoggerProvider(resource=RESOURCE)
    logger_provider.add_log_record_processor(BatchLogRecordProcessor(logs))
    tracer_provider = TracerProvider(resource=RESOURCE)
    tracer_provider.add_span_processor(BatchSpanProcessor(spans))
    meter_provider = MeterProvider([PeriodicExportingMetricReader(metrics, 3_600_000)], RESOURCE)
    logger, tracer = logger_provider.get_logger("shop"), tracer_provider.get_tracer("shop")
    counter = meter_provider.get_meter("shop").create_counter("orders")
    for number in range(30):
        with tracer.start_as_current_span(f"GET /cart/{number}", attributes={"cart.id": number}):
            logger.emit(body=f"order {number}", attributes={"order.id": number})
        counter.add(1, {"kind": f"k{number % 3}"})
    logger_provider.shutdown()
    tracer_provider.shutdown()
    meter_provider.shutdown()


@pytest.mark.parametrize("transport", ["grpc", "http"])
async def test_what_the_sdk_exports_arrives_downstream_once_and_whole(
    new_sidecar: NewSidecar, sink: OtlpSink, transport: str
) -> None:
    sidecar = new_sidecar(sink)
    await sidecar.start()
    await asyncio.to_thread(export_with_sdk, sidecar, transport)
    await sidecar.wait_until(lambda: sink.item_count(Signal.METRICS) >= 3, "no metrics downstream")
    await sidecar.settle()
    assert sink.bodies() == [f"order {number}" for number in range(30)]
    assert [record.attributes[0].value.int_value for record in sink.records()] == list(range(30))
    assert [span.name for span in sink.spans()] == [f"GET /cart/{number}" for number in range(30)]
    assert [record.trace_id for record in sink.records()] == [span.trace_id for span in sink.spans()]
    assert [record.span_id for record in sink.records()] == [span.span_id for span in sink.spans()]
    assert sorted(point.as_int for point in sink.data_points()) == [10, 10, 10]
    resource = sink.requests(Signal.LOGS)[0].resource_logs[0].resource
    assert {item.key: item.value.string_value for item in resource.attributes}["service.instance.id"] == "one"
    await asyncio.to_thread(sidecar.assert_balanced)
    assert await asyncio.to_thread(sidecar.outcomes, Signal.LOGS) == Counter(accepted=30, forwarded=30)
    assert await asyncio.to_thread(sidecar.outcomes, Signal.TRACES) == Counter(accepted=30, forwarded=30)
    assert await asyncio.to_thread(sidecar.outcomes, Signal.METRICS) == Counter(accepted=3, forwarded=3)


async def test_clean_requests_are_forwarded_as_the_very_bytes_that_came(
    new_sidecar: NewSidecar, sink: OtlpSink
) -> None:
    sidecar = new_sidecar(sink, small_windows())
    await sidecar.start()
    traffic = Traffic()
    sent: dict[Signal, list[bytes]] = {signal: [] for signal in Signal}
    for turn in range(30):
        for signal in Signal:
            # A field from a later version of OTLP must survive, too.
            payload = traffic.request(signal, 20) + b"\xfa\x3e\x03abc"
            sent[signal].append(payload)
            await sidecar.send(signal, payload, "grpc" if turn % 2 else "http")
    for signal in Signal:
        await sink.wait_for_items(signal, 600)
        assert sink.payloads(signal) == sent[signal]
    await sidecar.settle()
    await asyncio.to_thread(sidecar.assert_balanced)
    await sidecar.wait_until(lambda: sidecar.total("driftlock_detection_windows_total") > 0, "no window is scored")
    assert await asyncio.to_thread(sidecar.total, "driftlock_forward_unscored_items_total") == 0


async def test_compressed_json_arrives_as_protobuf(new_sidecar: NewSidecar, sink: OtlpSink) -> None:
    sidecar = new_sidecar(sink)
    await sidecar.start()
    message = ExportLogsServiceRequest.FromString(Traffic().logs(50))
    body = json_format.MessageToJson(message, use_integers_for_enums=True).encode()
    answer = await asyncio.to_thread(sidecar.post, "/v1/logs", body, "application/json", is_compressed=True)
    assert answer == b"{}"
    await sink.wait_for_items(Signal.LOGS, 50)
    assert sink.requests(Signal.LOGS) == [message]


async def test_a_downstream_that_is_down_at_first_gets_everything_later(new_sidecar: NewSidecar) -> None:
    async with OtlpSink() as absent:
        pass
    sidecar = new_sidecar(absent)
    await sidecar.start()
    traffic = Traffic()
    sent = [traffic.logs(10) for _ in range(40)]
    for payload in sent:
        await sidecar.send(Signal.LOGS, payload)
    await sidecar.wait_until(
        lambda: sidecar.total("driftlock_exporter_retries_total", exporter="otlp_grpc") > 0, "nothing is retried"
    )
    await sidecar.wait_until(
        lambda: sidecar.total("driftlock_queue_items", cursor="forward:otlp_grpc") == 400, "the queue is not counted"
    )
    async with OtlpSink(absent.grpc_port) as sink:
        await sink.wait_for_items(Signal.LOGS, 400)
        assert sink.payloads(Signal.LOGS) == sent
        await sidecar.settle()
        await asyncio.to_thread(sidecar.assert_balanced)


async def test_what_the_downstream_refuses_for_good_is_counted_and_the_rest_goes_on(
    new_sidecar: NewSidecar, sink: OtlpSink
) -> None:
    sidecar = new_sidecar(sink, {"forward": {"policy": "pass"}})
    await sidecar.start()
    traffic = Traffic()
    sink.fail_next(grpc_code=grpc.StatusCode.INVALID_ARGUMENT, message="never")
    sink.reject_items_next(3)
    sink.fail_next(times=2, grpc_code=grpc.StatusCode.UNAVAILABLE)
    for _ in range(5):
        await sidecar.send(Signal.TRACES, traffic.traces(10))
    await sidecar.settle()
    assert sink.item_count(Signal.TRACES) == 40
    assert await asyncio.to_thread(sidecar.outcomes, Signal.TRACES) == Counter(accepted=50, forwarded=37, dropped=13)
    dropped = "driftlock_forward_items_total"
    assert await asyncio.to_thread(sidecar.total, dropped, outcome="dropped", reason="rejected") == 10
    assert await asyncio.to_thread(sidecar.total, dropped, outcome="dropped", reason="partial_success") == 3
    assert await asyncio.to_thread(sidecar.total, "driftlock_exporter_rejected_items_total") == 3


async def test_every_downstream_gets_everything_at_its_own_pace(new_sidecar: NewSidecar, sink: OtlpSink) -> None:
    async with OtlpSink() as second:
        second.fail_next(times=20)
        settings = {
            "exporters": {"otlp_grpc/second": exporter(second)},
            "forward": {"exporters": ["otlp_grpc", "otlp_grpc/second"]},
            **small_windows(),
        }
        sidecar = new_sidecar(sink, settings)
        await sidecar.start()
        traffic = Traffic()
        sent = [traffic.logs(50) for _ in range(10)]
        for payload in sent:
            await sidecar.send(Signal.LOGS, payload)
        await sink.wait_for_items(Signal.LOGS, 500)
        assert len(second.payloads(Signal.LOGS)) < 10
        await second.wait_for_items(Signal.LOGS, 500)
        assert sink.payloads(Signal.LOGS) == second.payloads(Signal.LOGS) == sent


async def test_a_worker_that_hangs_does_not_hold_data_longer_than_allowed(
    new_sidecar: NewSidecar, sink: OtlpSink
) -> None:
    sidecar = new_sidecar(sink, {"forward": {"max_wait": "1s"}, **small_windows()})
    await sidecar.start()
    (worker,) = sidecar.worker_pids()
    traffic = Traffic()
    await sidecar.send(Signal.LOGS, traffic.logs(120))
    await sidecar.settle()
    os.kill(worker, process_signal.SIGSTOP)
    try:
        started_s = time.monotonic()
        for _ in range(3):
            await sidecar.send(Signal.LOGS, traffic.logs(40))
        await sink.wait_for_items(Signal.LOGS, 240)
        assert time.monotonic() - started_s >= 0.9
        await sidecar.settle()
        unscored = await asyncio.to_thread(sidecar.total, "driftlock_forward_unscored_items_total", signal="logs")
        assert unscored == 120
        assert sidecar.logged("forwarding_unscored")
    finally:
        os.kill(worker, process_signal.SIGCONT)
    await sidecar.send(Signal.LOGS, traffic.logs(40))
    await sidecar.settle()
    assert await asyncio.to_thread(sidecar.total, "driftlock_forward_unscored_items_total", signal="logs") == 120
    assert sorted(delivered(sink, Signal.LOGS)) == sorted(set(delivered(sink, Signal.LOGS)))
    await asyncio.to_thread(sidecar.assert_balanced)


async def test_stopping_under_load_is_quick_and_loses_nothing(new_sidecar: NewSidecar, sink: OtlpSink) -> None:
    sidecar = new_sidecar(sink, {"service": {"shutdown_grace": "10s"}, **small_windows()})
    await sidecar.start()
    acknowledged: list[bytes] = []

    async def send(seed: int) -> None:
        traffic = Traffic(seed, first_item=seed * 1_000_000)
        while True:
            payload = traffic.logs(20)
            try:
                await sidecar.send(Signal.LOGS, payload)
            except (grpc.RpcError, asyncio.CancelledError, grpc.aio.UsageError):
                return
            acknowledged.append(payload)

    senders = [asyncio.create_task(send(seed)) for seed in range(1, 4)]
    await asyncio.sleep(1.5)
    started_s = time.monotonic()
    workers = sidecar.worker_pids()
    assert await sidecar.stop() == 0
    assert time.monotonic() - started_s < 11
    await asyncio.gather(*senders)
    assert not [worker for worker in workers if worker in sidecar.worker_pids()]
    assert len(acknowledged) > 20
    await sidecar.start()
    await sidecar.settle()
    # Nothing had failed, so not even repeats.
    assert Counter(sink.payloads(Signal.LOGS)) >= Counter(acknowledged)
    assert not sidecar.logged("worker_killed")
    assert not sidecar.logged("stop_failed")


async def test_stopping_does_not_wait_for_a_downstream_that_is_down(new_sidecar: NewSidecar) -> None:
    async with OtlpSink() as absent:
        pass
    sidecar = new_sidecar(absent, {"forward": {"policy": "pass"}, "service": {"shutdown_grace": "25s"}})
    await sidecar.start()
    await sidecar.send(Signal.LOGS, Traffic().logs(10))
    await sidecar.wait_until(
        lambda: sidecar.total("driftlock_exporter_retries_total", exporter="otlp_grpc") > 0, "nothing is retried"
    )
    started_s = time.monotonic()
    assert await sidecar.stop() == 0
    assert time.monotonic() - started_s < 10


async def test_a_second_sidecar_on_the_same_data_is_refused(new_sidecar: NewSidecar) -> None:
    first = new_sidecar(None)
    await first.start()
    second = new_sidecar(None, {"queue": {"path": str(first.data)}})
    assert await asyncio.to_thread(second.spawn().wait, 30.0) == 2
    assert "is in use by another running sidecar" in second.output
    assert "Traceback" not in second.output
    await first.send(Signal.LOGS, Traffic().logs(1))


@pytest.mark.parametrize("protocol", ["grpc", "http", "api"])
async def test_a_port_that_is_taken_is_named_at_start(new_sidecar: NewSidecar, protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        endpoint = {"endpoint": f"127.0.0.1:{port}"}
        receivers = {"receivers": {"otlp": {"protocols": {protocol: endpoint}}}}
        sidecar = new_sidecar(None, {"api": endpoint} if protocol == "api" else receivers)
        assert await asyncio.to_thread(sidecar.spawn().wait, 30.0) == 2
    assert f"endpoint: cannot listen on 127.0.0.1:{port}" in sidecar.output
    assert "Traceback" not in sidecar.output


async def test_malformed_requests_leave_it_alive(new_sidecar: NewSidecar, sink: OtlpSink) -> None:
    sidecar = new_sidecar(sink)
    await sidecar.start()
    with pytest.raises(grpc.RpcError) as failure:
        await sidecar.send(Signal.LOGS, b"\xff\xff nonsense")
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for content_type in ("application/x-protobuf", "application/json"):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            await asyncio.to_thread(sidecar.post, "/v1/traces", b"\xff{nonsense", content_type)
        with refusal.value as error:
            assert error.code == 400
    await sidecar.send(Signal.LOGS, Traffic().logs(5))
    await sink.wait_for_items(Signal.LOGS, 5)
    assert await asyncio.to_thread(sidecar.total, "driftlock_receiver_requests_total", outcome="rejected") == 3
    assert await asyncio.to_thread(sidecar.status, "/readyz") == 200
    await asyncio.to_thread(sidecar.assert_balanced)


async def test_senseless_times_neither_stop_detection_nor_the_data(new_sidecar: NewSidecar, sink: OtlpSink) -> None:
    sidecar = new_sidecar(sink, small_windows(size=10))
    await sidecar.start()
    (worker,) = sidecar.worker_pids()
    for time_unix_nano in (0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        request = ExportLogsServiceRequest()
        records = request.resource_logs.add().scope_logs.add().log_records
        for number in range(10):
            records.add(time_unix_nano=time_unix_nano).body.string_value = f"line {number}"
        await sidecar.send(Signal.LOGS, request.SerializeToString())
    await sidecar.settle()
    assert sink.item_count(Signal.LOGS) == 50
    assert sidecar.worker_pids() == [worker]
    await sidecar.wait_until(
        lambda: sidecar.total("driftlock_detection_windows_total", kind="logs") == 5, "not every window is scored"
    )
    assert await asyncio.to_thread(sidecar.total, "driftlock_errors_total") == 0
