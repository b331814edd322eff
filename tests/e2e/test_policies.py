"""A fault in the logs, from the first odd record to the last: what becomes of records, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from driftlock_otlp.model import Signal
from driftlock_otlp.storage import quarantine
from tests.doubles.otlp_sink import OtlpSink
from tests.doubles.webhook_receiver import WebhookReceiver
from tests.e2e.conftest import NewSidecar
from tests.e2e.sidecar import Sidecar, exporter, small_windows
from tests.e2e.traffic import START_UNIX_NANO, STEP_NANO, Traffic

WINDOW = 50
CALM, FAULTY, AFTER = 70, 8, 20
"""Windows before the fault, of it, and after it."""
TOTAL = (CALM + FAULTY + AFTER) * WINDOW


@dataclass(frozen=True)
class Scene:
    """A sidecar that has seen the fault, and its destinations."""

    sidecar: Sidecar
    sink: OtlpSink
    events: OtlpSink

    def event(self) -> LogRecord:
        """Return the event of the anomaly's beginning; that of its end is of the same anomaly."""
        begun, *_ = records = self.events.records()
        states = [attributes(record)["driftlock.anomaly.state"] for record in records]
        assert states == ["open", "resolved"][: len(states)]
        assert len({attributes(record)["driftlock.anomaly.id"] for record in records}) == 1
        assert len({attributes(record)["log.record.uid"] for record in records}) == len(records)
        return begun

    def anomalous_window(self) -> int:
        """Return the number of the window that raised the alarm."""
        start: int = attributes(self.event())["driftlock.anomaly.window.start_time_unix_nano"]
        assert (start - START_UNIX_NANO) % (STEP_NANO * WINDOW) == STEP_NANO
        return (start - START_UNIX_NANO) // (STEP_NANO * WINDOW)


def attributes(record: LogRecord) -> dict[str, Any]:
    """Return a record's scalar attributes."""
    return {
        item.key: getattr(item.value, item.value.WhichOneof("value") or "string_value") for item in record.attributes
    }


def windows_of(records: list[LogRecord]) -> list[int]:
    """Return the numbers of the windows that the records fill, each once per record."""
    return [(record.time_unix_nano - START_UNIX_NANO - STEP_NANO) // (STEP_NANO * WINDOW) for record in records]


@asynccontextmanager
async def fault(new_sidecar: NewSidecar, settings: dict[str, Any]) -> AsyncIterator[Scene]:
    """Send calm traffic, a fault and calm traffic again; requests do not end where windows do."""
    async with OtlpSink() as sink, OtlpSink() as events:
        base = {
            "exporters": {
                "otlp_http/events": {"endpoint": events.http_endpoint},
                **settings.pop("exporters", {}),
            },
            "events": {"exporters": ["otlp_http/events"]},
            # Windows here close by count; only the tail may close by age.
            **small_windows(WINDOW, max_age="5s"),
        }
        sidecar = new_sidecar(sink, {**base, **settings})
        await sidecar.start()
        traffic = Traffic(seed=7)
        for windows, share in ((CALM, 0.0), (FAULTY, 1.0), (AFTER, 0.0)):
            for _ in range(windows * WINDOW // 25):
                await sidecar.send(Signal.LOGS, traffic.logs(25, share))
        await sidecar.settle()
        await sidecar.wait_until(lambda: len(events.records()) >= 2, "no event of the beginning, or none of the end")
        yield Scene(sidecar, sink, events)
        assert len(events.records()) == 2
        await asyncio.to_thread(sidecar.assert_balanced)


async def test_divert_withholds_the_anomalous_windows_until_they_are_released(new_sidecar: NewSidecar) -> None:
    async with fault(new_sidecar, {}) as scene:
        first = scene.anomalous_window()
        assert CALM <= first <= CALM + 1
        clean = windows_of(scene.sink.records())
        diverted = sorted(set(range(CALM + FAULTY + AFTER)) - set(clean))
        # From the window that alarmed until the stream has recovered, whole windows only.
        assert diverted == list(range(first, diverted[-1] + 1))
        assert CALM + FAULTY - 1 <= diverted[-1] < CALM + FAULTY + AFTER - 5
        withheld = len(diverted) * WINDOW
        assert len(clean) == TOTAL - withheld
        assert sorted(clean) == clean
        counted = await asyncio.to_thread(scene.sidecar.outcomes, Signal.LOGS)
        assert counted == {"accepted": TOTAL, "forwarded": TOTAL - withheld, "diverted": withheld}
        with scene.sidecar.state() as connection:
            assert quarantine.withheld_items(connection) == withheld
            (group,) = quarantine.list_groups(connection)
            assert group.anomaly_id == attributes(scene.event())["driftlock.anomaly.id"]
            assert quarantine.release(connection, group.anomaly_id[:6]) == withheld
        await scene.sink.wait_for_items(Signal.LOGS, TOTAL)
        assert sorted(set(windows_of(scene.sink.records()))) == list(range(CALM + FAULTY + AFTER))
        await scene.sidecar.wait_until(
            lambda: scene.sidecar.total("driftlock_forward_items_total", outcome="released") == withheld, "not counted"
        )
        with scene.sidecar.state() as connection:
            # What has been sent is counted first, and let go of in the batch of writes that follows.
            await scene.sidecar.wait_until(lambda: not quarantine.list_groups(connection), "not let go of")
        assert len(scene.sink.records()) == TOTAL


async def test_the_event_says_what_where_and_why_exactly_once(new_sidecar: NewSidecar) -> None:
    async with fault(new_sidecar, {"forward": {"exporters": ["otlp_grpc"], "policy": "pass"}}) as scene:
        # All goes on as it came, and at once.
        assert windows_of(scene.sink.records()) == sorted(list(range(CALM + FAULTY + AFTER)) * WINDOW)
        counted = await asyncio.to_thread(scene.sidecar.outcomes, Signal.LOGS)
        assert counted == {"accepted": TOTAL, "forwarded": TOTAL}
        event, facts = scene.event(), attributes(scene.event())
        assert event.event_name == "driftlock.anomaly.detected"
        assert "payment gateway timeout after <*> ms" in event.body.string_value
        assert event.severity_number in {9, 13, 17, 21}
        assert event.severity_text in {"INFO", "WARN", "ERROR", "FATAL"}
        assert facts["driftlock.anomaly.signal"] == "logs"
        assert facts["driftlock.stream"] == "logs/shop"
        assert facts["driftlock.anomaly.state"] == "open"
        assert facts["driftlock.anomaly.score"] >= 0.5
        assert 0 < facts["driftlock.anomaly.p_value"] <= 0.05
        assert facts["driftlock.anomaly.window.size"] == WINDOW
        assert len(facts["driftlock.anomaly.id"]) == 32
        (resource_logs,) = scene.events.requests(Signal.LOGS)[0].resource_logs
        assert [(item.key, item.value.string_value) for item in resource_logs.resource.attributes] == [
            ("service.name", "shop")
        ]
        assert resource_logs.schema_url == "https://opentelemetry.io/schemas/1.30.0"
        await scene.sidecar.wait_until(
            lambda: scene.sidecar.total("driftlock_events_total", outcome="sent") == 2, "events are not counted"
        )
        assert await asyncio.to_thread(scene.sidecar.total, "driftlock_anomalies_total", kind="logs") == 1
        # The stream has recovered.
        assert await asyncio.to_thread(scene.sidecar.total, "driftlock_open_anomalies") == 0


async def test_tag_forwards_everything_and_marks_the_anomalous_windows(new_sidecar: NewSidecar) -> None:
    async with fault(new_sidecar, {"forward": {"exporters": ["otlp_grpc"], "policy": "tag"}}) as scene:
        first, anomaly_id = scene.anomalous_window(), attributes(scene.event())["driftlock.anomaly.id"]
        assert windows_of(scene.sink.records()) == sorted(list(range(CALM + FAULTY + AFTER)) * WINDOW)
        marked = [record for record in scene.sink.records() if "driftlock.anomaly.id" in attributes(record)]
        assert {attributes(record)["driftlock.anomaly.id"] for record in marked} == {anomaly_id}
        last = windows_of(marked)[-1]
        assert windows_of(marked) == sorted(list(range(first, last + 1)) * WINDOW)
        assert CALM + FAULTY - 1 <= last < CALM + FAULTY + AFTER - 5


async def test_anomalous_records_go_to_a_destination_of_their_own(new_sidecar: NewSidecar) -> None:
    async with OtlpSink() as suspects:
        settings = {
            "exporters": {"otlp_grpc/suspects": exporter(suspects)},
            "forward": {"exporters": ["otlp_grpc"], "anomalous_exporters": ["otlp_grpc/suspects"]},
        }
        async with fault(new_sidecar, settings) as scene:
            clean, diverted = windows_of(scene.sink.records()), windows_of(suspects.records())
            assert not set(clean) & set(diverted)
            assert sorted(clean + diverted) == sorted(list(range(CALM + FAULTY + AFTER)) * WINDOW)
            assert diverted[0] == scene.anomalous_window()
            counted = await asyncio.to_thread(scene.sidecar.outcomes, Signal.LOGS)
            assert counted["diverted"] == len(diverted)
            with scene.sidecar.state() as connection:
                assert quarantine.withheld_items(connection) == 0


async def test_incident_calls_a_webhook_and_data_are_withheld_from_the_level_that_is_set(
    new_sidecar: NewSidecar,
) -> None:
    async with WebhookReceiver("whsec") as receiver:
        receiver.answer_next(503, 503)
        settings = {
            "forward": {"exporters": ["otlp_grpc"], "divert_from": "fleet"},
            "webhooks": {"ops": {"url": receiver.url, "secret": "whsec", "level": "notice"}},
        }
        async with fault(new_sidecar, settings) as scene:
            diverted = sorted(set(range(CALM + FAULTY + AFTER)) - set(windows_of(scene.sink.records())))
            # It is lasting with its fourth window; the first ones have gone on as clean.
            first = scene.anomalous_window()
            assert first < diverted[0] <= first + 3
            value = await asyncio.to_thread(scene.sidecar.total, "driftlock_spared_items_total", reason="level")
            assert value == (diverted[0] - first) * WINDOW
            calls = await receiver.wait_for(1)
            while calls[-1]["type"] != "incident.resolved":
                calls = await receiver.wait_for(len(calls) + 1)
            assert [call["type"] for call in calls] == [
                "incident.opened",
                *["incident.raised"] * (len(calls) - 2),
                "incident.resolved",
            ]
            assert calls[-1]["incident"]["level"] == "fleet"
            assert len({call["incident"]["id"] for call in calls}) == 1
            assert receiver.refused == 0


async def test_own_events_that_come_back_are_forwarded_but_not_scored(new_sidecar: NewSidecar) -> None:
    settings = {
        "forward": {"exporters": ["otlp_grpc"], "policy": "tag"},
        "receiver": {"dedup_window": "0s"},  # The same event again and again is meant.
    }
    async with fault(new_sidecar, settings) as scene:
        sidecar = scene.sidecar

        async def scored_records() -> int:
            await asyncio.sleep(1.5)  # facts of windows are written once a second
            with sidecar.state() as connection:
                return int(connection.execute("SELECT sum(record_count) FROM windows").fetchone()[0])

        before = await scored_records()
        payload, _ = scene.events.payloads(Signal.LOGS)
        for _ in range(3 * WINDOW):
            await sidecar.send(Signal.LOGS, payload)
        await scene.sink.wait_for_items(Signal.LOGS, TOTAL + 3 * WINDOW)
        assert scene.sink.payloads(Signal.LOGS)[-3 * WINDOW :] == [payload] * (3 * WINDOW)
        assert await scored_records() == before == TOTAL
        assert await asyncio.to_thread(sidecar.total, "driftlock_detection_streams", kind="logs") == 1


async def test_an_anomaly_in_spans_withholds_them(new_sidecar: NewSidecar, sink: OtlpSink) -> None:
    settings = small_windows(WINDOW, max_age="5s")
    settings["detection"]["significance"] = 0.1
    sidecar = new_sidecar(sink, settings)
    await sidecar.start()
    traffic = Traffic(seed=3)
    for window in range(90):
        await asyncio.sleep(0.03)
        await sidecar.send(Signal.TRACES, traffic.traces(WINDOW, slow_factor=1000.0 if window >= 75 else 1.0))
    await sidecar.settle()
    found = await asyncio.to_thread(sidecar.outcomes, Signal.TRACES)
    assert found["diverted"] >= 10 * WINDOW
    assert found["diverted"] % WINDOW == 0
    assert sink.item_count(Signal.TRACES) == found["forwarded"] == 90 * WINDOW - found["diverted"]
    await asyncio.to_thread(sidecar.assert_balanced)


@pytest.mark.parametrize("policy", ["divert", "tag"])
async def test_without_a_downstream_telemetry_is_scored_and_dropped_with_its_reason(
    new_sidecar: NewSidecar, policy: str
) -> None:
    sidecar = new_sidecar(None, {"forward": {"policy": policy}})
    await sidecar.start()
    await sidecar.send(Signal.LOGS, Traffic().logs(30))
    await sidecar.settle()
    dropped = await asyncio.to_thread(
        sidecar.total, "driftlock_forward_items_total", outcome="dropped", reason="no_exporter", exporter="none"
    )
    assert dropped == 30
    assert sidecar.logged("no_downstream")
