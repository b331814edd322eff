"""One request, one destination, as long as it takes."""

from __future__ import annotations

import asyncio

import pytest

from driftlock_otlp.errors import DownstreamRejectedError, DownstreamUnavailableError
from driftlock_otlp.exporter.delivery import Delivery
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from tests.unit.exporter.conftest import FakeExporter, eventually

DOWN = DownstreamUnavailableError("down")


def retries(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("driftlock_exporter_retries_total", {"exporter": "otlp_grpc"})


async def test_a_failing_destination_is_tried_until_it_takes_the_request(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.extend([DOWN] * 3)
    deliverer = exporter.deliverer(metrics)
    assert await deliverer.deliver(Signal.LOGS, b"a") == Delivery()
    assert exporter.attempts == [(Signal.LOGS, b"a")] * 4
    assert retries(metrics) == 3
    assert not deliverer.is_failing


async def test_what_is_refused_for_good_is_dropped_at_once(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.extend([DOWN, DownstreamRejectedError("never")])
    deliverer = exporter.deliverer(metrics)
    assert await deliverer.deliver(Signal.LOGS, b"a") == Delivery("rejected")
    assert len(exporter.attempts) == 2
    assert not deliverer.is_failing
    assert await deliverer.deliver(Signal.LOGS, b"b") == Delivery()


async def test_partial_success_is_counted_and_not_repeated(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.append(ExportResult(3, "three too old"))
    assert await exporter.deliverer(metrics).deliver(Signal.TRACES, b"a") == Delivery(rejected_item_count=3)
    labels = {"exporter": "otlp_grpc", "signal": "traces"}
    assert metrics.registry.get_sample_value("driftlock_exporter_rejected_items_total", labels) == 3
    assert len(exporter.attempts) == 1


@pytest.mark.parametrize("retry", [{"enabled": False}, {"max_elapsed_time": 0.02}])
async def test_it_gives_up_only_when_told_to(metrics: Metrics, retry: dict[str, float | bool]) -> None:
    exporter = FakeExporter()
    exporter.answers.extend([DOWN] * 1000)
    assert await exporter.deliverer(metrics, **retry).deliver(Signal.LOGS, b"a") == Delivery("retries_exhausted")
    assert len(exporter.attempts) < 1000


async def test_a_wish_to_wait_is_respected(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.append(DownstreamUnavailableError("later", retry_after_s=0.2))
    started_s = asyncio.get_running_loop().time()
    await exporter.deliverer(metrics).deliver(Signal.LOGS, b"a")
    assert asyncio.get_running_loop().time() - started_s >= 0.19


async def test_it_says_that_it_is_failing_while_it_waits(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.append(DownstreamUnavailableError("later", retry_after_s=3600.0))
    deliverer = exporter.deliverer(metrics)
    task = asyncio.create_task(deliverer.deliver(Signal.LOGS, b"a"))
    await eventually(lambda: deliverer.is_failing)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
