"""What is released from the quarantine is sent to every downstream, and counted."""

from __future__ import annotations

import asyncio
import time

from driftlock_otlp.errors import DownstreamRejectedError, DownstreamUnavailableError
from driftlock_otlp.exporter.quarantine import QuarantineRelease
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import quarantine
from driftlock_otlp.storage.state import StateDatabase
from tests.unit.exporter.conftest import NOW, FakeExporter, eventually


async def withhold(state: StateDatabase, *payloads: bytes) -> None:
    for position, payload in enumerate(payloads):
        await state.write(
            lambda connection, position=position, payload=payload: quarantine.add(  # type: ignore[misc]
                connection,
                position=position,
                signal=Signal.TRACES,
                anomaly_ids=["ab" * 16],
                stream="traces/shop",
                payload=payload,
                item_count=5,
                now_unix_nano=NOW,
            )
        )


def counted(metrics: Metrics, exporter: str, outcome: str, reason: str = "") -> float | None:
    labels = {"exporter": exporter, "signal": "traces", "outcome": outcome, "reason": reason}
    return metrics.registry.get_sample_value("driftlock_forward_items_total", labels)


async def test_released_rows_reach_every_downstream_in_order_and_leave_the_quarantine(
    state: StateDatabase, metrics: Metrics
) -> None:
    exporters = [FakeExporter("a"), FakeExporter("b")]
    exporters[1].answers.extend([DownstreamUnavailableError("down")] * 3)
    await withhold(state, b"one", b"two", b"three")
    component = QuarantineRelease([exporter.deliverer(metrics) for exporter in exporters], state, metrics)
    await component.start()
    await eventually(lambda: metrics.registry.get_sample_value("driftlock_quarantine_items") == 15)
    assert exporters[0].taken == []
    assert await state.write(lambda connection: quarantine.release(connection, "ab")) == 15
    await eventually(lambda: counted(metrics, "b", "released") == 15)
    for exporter in exporters:
        assert exporter.taken == [(Signal.TRACES, payload) for payload in (b"one", b"two", b"three")]
    await eventually(lambda: metrics.registry.get_sample_value("driftlock_quarantine_items") == 0)
    deadline_s = time.monotonic() + 10.0
    while await state.read(lambda connection: quarantine.released(connection, 10)):
        assert time.monotonic() < deadline_s, "what was sent stays in the quarantine"
        await asyncio.sleep(0.01)
    await component.stop(5.0)
    assert all(exporter.is_closed for exporter in exporters)


async def test_what_the_downstream_does_not_take_is_counted_as_dropped(state: StateDatabase, metrics: Metrics) -> None:
    exporter = FakeExporter("a")
    exporter.answers.extend([DownstreamRejectedError("never"), ExportResult(2)])
    await withhold(state, b"one", b"two")
    await state.write(lambda connection: quarantine.release(connection, None))
    component = QuarantineRelease([exporter.deliverer(metrics)], state, metrics)
    await component.start()
    await eventually(lambda: counted(metrics, "a", "released") == 3)
    await component.stop(5.0)
    assert counted(metrics, "a", "dropped", "rejected") == 5
    assert counted(metrics, "a", "dropped", "partial_success") == 2


async def test_without_a_downstream_released_rows_stay(state: StateDatabase, metrics: Metrics) -> None:
    await withhold(state, b"one")
    await state.write(lambda connection: quarantine.release(connection, None))
    component = QuarantineRelease([], state, metrics)
    await component.start()
    await eventually(lambda: metrics.registry.get_sample_value("driftlock_quarantine_items") == 0)
    await component.stop(5.0)
    assert len(await state.read(lambda connection: quarantine.released(connection, 10))) == 1


async def test_stopping_while_the_downstream_is_down_keeps_the_row(state: StateDatabase, metrics: Metrics) -> None:
    exporter = FakeExporter("a")
    exporter.answers.append(DownstreamUnavailableError("down", retry_after_s=3600.0))
    await withhold(state, b"one")
    await state.write(lambda connection: quarantine.release(connection, None))
    component = QuarantineRelease([exporter.deliverer(metrics)], state, metrics)
    await component.start()
    await eventually(lambda: len(exporter.attempts) == 1)
    await component.stop(5.0)
    assert len(await state.read(lambda connection: quarantine.released(connection, 10))) == 1
