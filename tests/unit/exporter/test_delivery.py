"""One request, one destination, as long as it takes."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from structlog.testing import capture_logs

from driftlock_otlp.config.exporters import RetryConfig
from driftlock_otlp.errors import DownstreamRejectedError, DownstreamUnavailableError
from driftlock_otlp.exporter.delivery import Deliverer, Delivery
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from tests.unit.exporter.conftest import FakeExporter, eventually

DOWN = DownstreamUnavailableError("down")


def request(*sizes: int) -> bytes:
    """Return a request of log records whose bodies have these sizes; each begins with its number."""
    message = ExportLogsServiceRequest()
    records = message.resource_logs.add().scope_logs.add().log_records
    for number, size in enumerate(sizes):
        records.add().body.string_value = f"{number} ".ljust(size, ".")
    return message.SerializeToString()


def numbers(payload: bytes) -> list[int]:
    (resource,) = ExportLogsServiceRequest.FromString(payload).resource_logs
    (scope,) = resource.scope_logs
    return [int(record.body.string_value.split()[0]) for record in scope.log_records]


def taken(exporter: FakeExporter) -> list[int]:
    return [number for _, payload in exporter.taken for number in numbers(payload)]


def retries(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("driftlock_exporter_retries_total", {"exporter": "otlp_grpc"})


async def test_a_failing_destination_is_tried_until_it_takes_the_request(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.extend([DOWN] * 3)
    deliverer = exporter.deliverer(metrics)
    assert await deliverer.deliver(Signal.LOGS, b"a", 1) == Delivery()
    assert exporter.attempts == [(Signal.LOGS, b"a")] * 4
    assert retries(metrics) == 3
    assert not deliverer.is_failing


async def test_a_request_is_in_flight_until_it_is_taken_also_between_attempts(metrics: Metrics) -> None:
    def in_flight() -> float | None:
        return metrics.registry.get_sample_value("driftlock_exporter_in_flight_requests", {"exporter": "otlp_grpc"})

    exporter = FakeExporter()
    exporter.answers.append(DownstreamUnavailableError("down", retry_after_s=3600.0))
    deliverer = exporter.deliverer(metrics)
    task = asyncio.create_task(deliverer.deliver(Signal.LOGS, b"a", 1))
    await eventually(lambda: deliverer.is_failing)
    assert in_flight() == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert in_flight() == 0


async def test_what_is_refused_for_good_is_dropped_at_once(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.extend([DOWN, DownstreamRejectedError("never")])
    deliverer = exporter.deliverer(metrics)
    assert await deliverer.deliver(Signal.LOGS, b"a", 7) == Delivery({"rejected": 7})
    assert len(exporter.attempts) == 2
    assert not deliverer.is_failing
    assert await deliverer.deliver(Signal.LOGS, b"b", 1) == Delivery()


async def test_partial_success_is_counted_and_not_repeated(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.append(ExportResult(3, "three too old"))
    assert await exporter.deliverer(metrics).deliver(Signal.TRACES, b"a", 5) == Delivery({"partial_success": 3})
    labels = {"exporter": "otlp_grpc", "signal": "traces"}
    assert metrics.registry.get_sample_value("driftlock_exporter_rejected_items_total", labels) == 3
    assert len(exporter.attempts) == 1


@pytest.mark.parametrize("retry", [{"enabled": False}, {"max_elapsed_time": 0.02}])
async def test_it_gives_up_only_when_told_to(metrics: Metrics, retry: dict[str, float | bool]) -> None:
    exporter = FakeExporter()
    exporter.answers.extend([DOWN] * 1000)
    assert await exporter.deliverer(metrics, **retry).deliver(Signal.LOGS, b"a", 1) == Delivery(
        {"retries_exhausted": 1}
    )
    assert len(exporter.attempts) < 1000


async def test_a_wish_to_wait_is_respected(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.append(DownstreamUnavailableError("later", retry_after_s=0.2))
    started_s = asyncio.get_running_loop().time()
    await exporter.deliverer(metrics).deliver(Signal.LOGS, b"a", 1)
    assert asyncio.get_running_loop().time() - started_s >= 0.19


async def test_it_says_that_it_is_failing_while_it_waits(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.append(DownstreamUnavailableError("later", retry_after_s=3600.0))
    deliverer = exporter.deliverer(metrics)
    task = asyncio.create_task(deliverer.deliver(Signal.LOGS, b"a", 1))
    await eventually(lambda: deliverer.is_failing)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_what_is_too_large_arrives_in_parts_in_order(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.max_bytes = 500
    payload = request(*[100] * 13)
    assert await exporter.deliverer(metrics).deliver(Signal.LOGS, payload, 13) == Delivery()
    assert taken(exporter) == list(range(13))
    assert all(len(part) <= 500 for _, part in exporter.taken)


async def test_an_item_that_is_too_large_is_dropped_alone_and_said_once(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.max_bytes = 500
    payload = request(100, 900, 100, 100, 900, 100)
    with capture_logs() as lines:
        delivery = await exporter.deliverer(metrics).deliver(Signal.LOGS, payload, 6)
    assert delivery == Delivery({"too_large": 2})
    assert taken(exporter) == [0, 2, 3, 5]
    assert [line["event"] for line in lines].count("item_too_large") == 1


async def test_parts_that_were_taken_are_not_sent_again_when_a_later_one_has_to_wait(metrics: Metrics) -> None:
    exporter = FakeExporter()
    deliverer = exporter.deliverer(metrics, max_request_bytes=250)
    # The request goes out in five parts: the third fails twice, the fourth is refused, the fifth is partly taken.
    exporter.answers.extend(
        [ExportResult(), ExportResult(), DOWN, DOWN, ExportResult(), DownstreamRejectedError("never"), ExportResult(1)]
    )
    assert await deliverer.deliver(Signal.LOGS, request(*[100] * 10), 10) == Delivery(
        {"rejected": 2, "partial_success": 1}
    )
    attempts = [numbers(payload) for _, payload in exporter.attempts]
    assert attempts == [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5], [6, 7], [8, 9]]


async def test_a_part_that_is_given_up_does_not_take_the_others_with_it(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.extend([ExportResult(), DOWN])
    deliverer = exporter.deliverer(metrics, max_request_bytes=250, enabled=False)
    assert await deliverer.deliver(Signal.LOGS, request(*[100] * 6), 6) == Delivery({"retries_exhausted": 2})
    assert taken(exporter) == [0, 1, 4, 5]


async def test_the_size_limit_of_a_destination_is_learned_once(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.max_bytes = 150_000
    deliverer = exporter.deliverer(metrics)
    payload = request(*[10_000] * 100)
    for turn in range(5):
        before = len(exporter.attempts) - len(exporter.taken)
        await deliverer.deliver(Signal.LOGS, payload, 100)
        refused = len(exporter.attempts) - len(exporter.taken) - before
        assert refused == (3 if turn == 0 else 0)
    assert taken(exporter) == list(range(100)) * 5
    assert min(len(part) for _, part in exporter.taken) > 50_000


async def test_refusals_for_size_that_do_not_depend_on_it_teach_nothing(metrics: Metrics) -> None:
    """A quota that is used up is told in the same words as a request that is too large."""
    exporter = FakeExporter()
    exporter.max_bytes = 0
    deliverer = exporter.deliverer(metrics)
    payload = request(*[100_000] * 4)
    assert await deliverer.deliver(Signal.LOGS, payload, 4) == Delivery({"too_large": 4})
    exporter.max_bytes = 1 << 30
    assert await deliverer.deliver(Signal.LOGS, payload, 4) == Delivery()
    assert [part for _, part in exporter.taken] == [payload]


async def test_a_quota_that_is_told_as_a_size_limit_costs_few_calls_and_small_items_before_a_taken_one_none(
    metrics: Metrics,
) -> None:
    exporter = FakeExporter()
    exporter.max_bytes = 0
    deliverer = exporter.deliverer(metrics)
    assert await deliverer.deliver(Signal.LOGS, request(*[100] * 1000), 1000) == Delivery(
        {"too_large": 8, "rejected": 992}
    )
    assert len(exporter.attempts) < 40
    exporter.max_bytes = 500
    payload = request(*[900] * 7, *[100] * 20, *[900] * 9)
    assert await deliverer.deliver(Signal.LOGS, payload, 36) == Delivery({"too_large": 16})
    assert taken(exporter) == list(range(7, 27))


async def test_a_request_of_many_tiny_parts_is_divided_all_the_same(metrics: Metrics) -> None:
    exporter = FakeExporter()
    deliverer = exporter.deliverer(metrics, max_request_bytes=20)
    assert await deliverer.deliver(Signal.LOGS, request(*[10] * 300), 300) == Delivery()
    assert [numbers(payload) for _, payload in exporter.taken] == [[number] for number in range(300)]


async def test_damage_that_shows_when_dividing_is_dropped_with_its_reason(metrics: Metrics) -> None:
    deliverer = FakeExporter().deliverer(metrics, max_request_bytes=10)
    assert await deliverer.deliver(Signal.LOGS, b"\xff" * 20, 3) == Delivery({"undecodable": 3})
    exporter = FakeExporter()
    exporter.max_bytes = 10
    assert await exporter.deliverer(metrics).deliver(Signal.LOGS, b"\xff" * 20, 3) == Delivery({"undecodable": 3})


async def test_a_wish_to_wait_holds_for_all_deliveries(metrics: Metrics) -> None:
    exporter = FakeExporter()
    deliverer = exporter.deliverer(metrics)
    exporter.answers.append(DownstreamUnavailableError("later", retry_after_s=0.3))
    first = asyncio.create_task(deliverer.deliver(Signal.LOGS, b"a", 1))
    await eventually(lambda: deliverer.is_failing)
    started_s = asyncio.get_running_loop().time()
    await deliverer.deliver(Signal.LOGS, b"b", 1)
    assert asyncio.get_running_loop().time() - started_s >= 0.25
    await first
    assert not deliverer.is_failing


async def test_one_delivery_that_fails_does_not_stop_another(metrics: Metrics) -> None:
    exporter = FakeExporter()
    deliverer = exporter.deliverer(metrics, initial_interval=60.0, max_interval=60.0)
    exporter.answers.append(DOWN)
    first = asyncio.create_task(deliverer.deliver(Signal.LOGS, b"a", 1))
    await eventually(lambda: deliverer.is_failing)
    assert await deliverer.deliver(Signal.LOGS, b"b", 1) == Delivery()
    assert deliverer.is_failing
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert not deliverer.is_failing


async def test_data_is_given_up_rather_than_kept_longer_than_it_may_be(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.append(DownstreamUnavailableError("later", retry_after_s=3600.0))
    deliverer = exporter.deliverer(metrics, max_elapsed_time=60.0)
    assert await deliverer.deliver(Signal.LOGS, b"a", 1) == Delivery({"retries_exhausted": 1})


async def test_words_beside_a_full_success_are_said_once(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.extend([ExportResult(0, "field x is deprecated")] * 3)
    deliverer = exporter.deliverer(metrics)
    with capture_logs() as lines:
        for _ in range(3):
            assert await deliverer.deliver(Signal.LOGS, b"a", 1) == Delivery()
    assert [(line["event"], line["message"]) for line in lines] == [("export_warned", "field x is deprecated")]
    assert len(exporter.attempts) == 3


async def test_delays_come_from_the_given_source_of_chance(metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.append(DOWN)
    retry = RetryConfig(initial_interval=60.0, max_interval=600.0, randomization_factor=0.5)
    deliverer = Deliverer(exporter, retry, metrics, random=Random(3))
    with capture_logs() as lines:
        task = asyncio.create_task(deliverer.deliver(Signal.LOGS, b"a", 1))
        await eventually(lambda: bool(lines))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert lines[0]["next_attempt_in_s"] == round(60.0 * Random(3).uniform(0.5, 1.5), 1)
