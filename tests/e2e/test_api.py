"""The management port: health, readiness and metrics of a running sidecar."""

from __future__ import annotations

import asyncio
import json
import os
import signal as process_signal
import urllib.error
import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from driftlock_otlp.model import Signal
from tests.doubles.otlp_sink import OtlpSink
from tests.e2e.conftest import NewSidecar
from tests.e2e.sidecar import Sidecar, free_ports, small_windows
from tests.e2e.traffic import Traffic


def waiting_for(sidecar: Sidecar) -> list[str]:
    """Return what the sidecar says it is not ready for."""
    try:
        answer = json.loads(sidecar.get("/readyz"))
        assert answer == {"ready": True, "waiting_for": []}
    except urllib.error.HTTPError as error:
        with error:
            answer = json.loads(error.read())
        assert error.code == 503
        assert not answer["ready"]
    waiting: list[str] = answer["waiting_for"]
    return waiting


async def test_it_is_healthy_before_it_is_ready_and_says_what_it_waits_for(new_sidecar: NewSidecar) -> None:
    sidecar = new_sidecar(None)
    await sidecar.start(is_ready=False)
    await sidecar.wait_until(lambda: sidecar.status("/healthz") == 200, "is not healthy")
    # The worker needs longer than the port.
    assert "detection" in await asyncio.to_thread(waiting_for, sidecar)
    await sidecar.wait_ready()
    assert await asyncio.to_thread(waiting_for, sidecar) == []
    (worker,) = sidecar.worker_pids()
    os.kill(worker, process_signal.SIGKILL)
    await sidecar.wait_until(lambda: sidecar.status("/readyz") == 503, "still counts as ready")
    assert await asyncio.to_thread(waiting_for, sidecar) == ["detection"]
    assert await asyncio.to_thread(sidecar.status, "/healthz") == 200
    await sidecar.wait_ready()
    assert len(sidecar.logged("worker_ended")) == 1


async def test_a_probe_made_for_a_collector_sees_it_come_up_and_go_down(new_sidecar: NewSidecar) -> None:
    (port,) = free_ports(1)
    sidecar = new_sidecar(None, {"extensions": {"health_check": {"endpoint": f"127.0.0.1:{port}"}}})

    def probe() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10.0) as response:
                return response.status, json.loads(response.read())["status"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())["status"]
        except OSError:
            return 0, ""

    await sidecar.start(is_ready=False)
    seen: set[tuple[int, str]] = set()

    def is_available() -> bool:
        seen.add(probe())
        return (200, "Server available") in seen

    await sidecar.wait_until(is_available, "is not available")
    assert (503, "Server not available") in seen
    # A worker that hangs makes the end last long enough to be looked at.
    (worker,) = sidecar.worker_pids()
    os.kill(worker, process_signal.SIGSTOP)
    stopping = asyncio.create_task(sidecar.stop())
    try:
        await sidecar.wait_until(lambda: probe() == (503, "Server not available"), "is still available")
        assert await asyncio.to_thread(waiting_for, sidecar) == ["receivers"]
        assert await asyncio.to_thread(sidecar.status, "/healthz") == 200
    finally:
        os.kill(worker, process_signal.SIGCONT)
        assert await stopping == 0


async def test_the_live_page_shows_what_goes_on_whatever_senders_call_themselves(
    new_sidecar: NewSidecar, sink: OtlpSink
) -> None:
    hostile = "<script>alert(1)</script>\"'&\u202e"
    settings = small_windows(size=50, max_age="1h")
    settings["exporters"] = {"otlp_http/down": {"endpoint": f"http://127.0.0.1:{free_ports(1)[0]}"}}
    settings["forward"] = {"policy": "pass", "exporters": ["otlp_grpc", "otlp_http/down"]}
    settings["events"] = {"exporters": ["otlp_grpc"]}
    sidecar = new_sidecar(sink, settings)
    await sidecar.start()
    await sidecar.send(Signal.LOGS, Traffic(service=hostile).logs(120))
    await sidecar.send(Signal.TRACES, Traffic(service="shop").traces(30), "http")

    def live() -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(sidecar.get("/debug/pipelinez?format=json"))
        return shown

    def is_settled() -> bool:
        shown = live()
        failing = {queue["name"]: queue["is_failing"] for queue in shown["queues"]}
        return (
            len(shown["streams"]) == 2
            and [worker["read_position"] for worker in shown["workers"]] == [shown["log"]["end"]]
            and failing == {"forward:otlp_grpc": False, "forward:otlp_http/down": True, "events:otlp_grpc": False}
            and shown["queues"][0]["waiting_items"] == 0
        )

    await sidecar.wait_until(is_settled, "the page does not show what goes on")
    shown = await asyncio.to_thread(live)
    assert shown["waiting_for"] == []
    assert {receiver["transport"]: receiver["items"] for receiver in shown["receivers"]} == {
        "grpc": {"logs": {"accepted": 120}},
        "http": {"traces": {"accepted": 30}},
    }
    arrived, waits, _ = shown["queues"]
    assert (arrived["outcomes"], arrived["position"], arrived["last_error"]) == (
        {"forwarded": 150},
        shown["log"]["end"],
        "",
    )
    assert (waits["waiting_items"], waits["position"]) == (150, 0)
    assert "otlp_http/down" in waits["last_error"]
    (worker,) = shown["workers"]
    assert (worker["pid"], worker["stream_count"], worker["warming_up_count"]) == (sidecar.worker_pids()[0], 2, 2)
    streams = {stream["key"]["service"]: stream for stream in shown["streams"]}
    logs, spans = streams[hostile], streams["shop"]
    assert (logs["window_count"], logs["open_record_count"], logs["baseline_window_count"]) == (2, 20, 2)
    assert (logs["last_outcome"], logs["windows_to_warm"] > 0) == ("warming_up", True)
    assert (spans["window_count"], spans["open_window_count"], spans["open_record_count"]) == (0, 1, 30)
    page = (await asyncio.to_thread(sidecar.get, "/debug/pipelinez")).decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "\u202e" not in page


async def test_metrics_can_be_parsed_and_count_what_was_sent(new_sidecar: NewSidecar, sink: OtlpSink) -> None:
    sidecar = new_sidecar(sink)
    await sidecar.start()
    payload = Traffic().logs(30)
    await sidecar.send(Signal.LOGS, payload, "http")
    await sidecar.settle()
    text = (await asyncio.to_thread(sidecar.get, "/metrics")).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert all(name.startswith(("driftlock_", "otelcol_")) for name in families)
    assert all(family.documentation for family in families.values())

    def value(family: str, sample: str, **labels: str) -> float:
        (found,) = [s.value for s in families[family].samples if s.name == sample and s.labels == labels]
        return found

    labels = {"signal": "logs", "transport": "http"}
    assert value("driftlock_receiver_items", "driftlock_receiver_items_total", **labels, outcome="accepted") == 30
    assert value("driftlock_receiver_bytes", "driftlock_receiver_bytes_total", **labels) == len(payload)
    assert value("driftlock_receiver_ack_seconds", "driftlock_receiver_ack_seconds_count", **labels) == 1
    assert value("driftlock_log_append_seconds", "driftlock_log_append_seconds_count") >= 1
    assert value("driftlock_queue_items", "driftlock_queue_items", cursor="forward:otlp_grpc") == 0
    assert value("driftlock_quarantine_items", "driftlock_quarantine_items") == 0
