"""What the client makes of answers: what may be sent again, and when; over real sockets.

The number in a test's name is that of the clause in the project's list of OTLP clauses.
"""

from __future__ import annotations

from email.utils import formatdate
from itertools import pairwise
from time import time

import grpc
import pytest
from structlog.testing import capture_logs

from driftlock_otlp.config.exporters import RetryConfig
from driftlock_otlp.errors import DownstreamRejectedError, DownstreamUnavailableError
from driftlock_otlp.exporter.delivery import Deliverer, Delivery
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from tests.conformance.destinations import HttpDestination, http_answer
from tests.conformance.exporters import (
    LOGS,
    connected,
    each_kind,
    exporter_to,
)
from tests.conformance.receivers import JSON, every_signal, request_of

pytestmark = pytest.mark.timeout(60)


RETRYABLE_GRPC = ("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS")
PERMANENT_GRPC = (
    "UNKNOWN", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "UNAUTHENTICATED",
    "FAILED_PRECONDITION", "UNIMPLEMENTED", "INTERNAL",
)  # fmt: skip
RETRYABLE_HTTP = {429, 502, 503, 504}


@pytest.mark.parametrize("code", RETRYABLE_GRPC)
async def test_61_grpc_codes_of_passing_failures_may_be_retried(code: str) -> None:
    async with connected("otlp_grpc") as (sink, exporter):
        sink.fail_next(grpc_code=grpc.StatusCode[code])
        with pytest.raises(DownstreamUnavailableError):
            await exporter.export(Signal.LOGS, LOGS)


@pytest.mark.parametrize("retry_after_s", [None, 0.0, 2.5])
async def test_62_exhausted_resources_may_be_retried_only_with_retry_info(retry_after_s: float | None) -> None:
    async with connected("otlp_grpc") as (sink, exporter):
        sink.fail_next(grpc_code=grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=retry_after_s)
        with pytest.raises(DownstreamRejectedError if retry_after_s is None else DownstreamUnavailableError) as caught:
            await exporter.export(Signal.LOGS, LOGS)
        if isinstance(caught.value, DownstreamUnavailableError):
            assert caught.value.retry_after_s == retry_after_s


@pytest.mark.parametrize("code", PERMANENT_GRPC)
async def test_63_grpc_codes_of_lasting_failures_are_not_retried(code: str) -> None:
    async with connected("otlp_grpc") as (sink, exporter):
        sink.fail_next(grpc_code=grpc.StatusCode[code], retry_after_s=0.1)
        deliverer = Deliverer(exporter, RetryConfig(), Metrics())
        assert await deliverer.deliver(Signal.LOGS, LOGS, 1) == Delivery({"rejected": 1})
        assert len(sink.attempts) == 1


@pytest.mark.parametrize("status", [*range(300, 309), *range(400, 419), 422, 425, 426, 428, 429, 431, 451,
                                    *range(500, 512), 520, 599])  # fmt: skip
async def test_66_69_only_four_http_statuses_may_be_retried(status: int) -> None:
    async with HttpDestination() as destination, exporter_to(destination.endpoint) as exporter:
        destination.answers.append(http_answer(status, retry_after="7"))
        if status in RETRYABLE_HTTP:
            with pytest.raises(DownstreamUnavailableError):
                await exporter.export(Signal.LOGS, LOGS)
        else:
            with pytest.raises(DownstreamRejectedError):
                await exporter.export(Signal.LOGS, LOGS)
        assert len(destination.received) == 1


@pytest.mark.parametrize("status", sorted(RETRYABLE_HTTP))
async def test_67_retry_after_is_read_in_seconds_and_as_a_date(status: int) -> None:
    async with HttpDestination() as destination, exporter_to(destination.endpoint) as exporter:
        waits = []
        for value in ("7", formatdate(time() + 120, usegmt=True)):
            destination.answers.append(http_answer(status, retry_after=value))
            with pytest.raises(DownstreamUnavailableError) as caught:
                await exporter.export(Signal.LOGS, LOGS)
            assert caught.value.retry_after_s is not None
            waits.append(caught.value.retry_after_s)
        assert waits[0] == 7.0
        assert 60 < waits[1] <= 121


async def test_67_retry_after_is_waited_for() -> None:
    async with HttpDestination() as destination, exporter_to(destination.endpoint) as exporter:
        destination.answers.append(http_answer(503, retry_after="1"))
        deliverer = Deliverer(exporter, RetryConfig(initial_interval=0.01), Metrics())
        assert await deliverer.deliver(Signal.LOGS, LOGS, 1) == Delivery()
        first, second = destination.received
        assert second.arrived_s - first.arrived_s >= 1.0


async def test_68_without_retry_after_delays_grow_exponentially() -> None:
    async with HttpDestination() as destination, exporter_to(destination.endpoint) as exporter:
        destination.answers.extend([http_answer(503)] * 4)
        retry = RetryConfig(initial_interval=0.05, multiplier=2.0, randomization_factor=0.0)
        assert await Deliverer(exporter, retry, Metrics()).deliver(Signal.LOGS, LOGS, 1) == Delivery()
        gaps = [after.arrived_s - before.arrived_s for before, after in pairwise(destination.received)]
        # A busy machine makes a delay longer, nothing makes it shorter.
        assert all(gap >= least for gap, least in zip(gaps, (0.05, 0.1, 0.2, 0.4), strict=True))


async def test_72_connection_is_kept_alive() -> None:
    async with HttpDestination() as destination, exporter_to(destination.endpoint) as exporter:
        destination.answers.extend([http_answer(503), http_answer(400), http_answer(200, b"{}", content_type=JSON)])
        for _ in range(5):
            try:
                await exporter.export(Signal.LOGS, LOGS)
            except (DownstreamUnavailableError, DownstreamRejectedError):
                continue
        assert [request.connection for request in destination.received] == [1] * 5


@each_kind
@every_signal
async def test_73_74_partial_success_is_not_retried_and_its_rejects_are_counted(kind: str, signal: Signal) -> None:
    async with connected(kind) as (sink, exporter):
        metrics = Metrics()
        deliverer = Deliverer(exporter, RetryConfig(), metrics)
        sink.reject_items_next(2, "too old")
        with capture_logs() as lines:
            delivery = await deliverer.deliver(signal, request_of(signal, 3), 3)
        assert delivery == Delivery({"partial_success": 2})
        assert len(sink.attempts) == 1
        labels = {"exporter": kind, "signal": signal.plural}
        assert metrics.registry.get_sample_value("driftlock_exporter_rejected_items_total", labels) == 2
        assert [(line["log_level"], line["message"]) for line in lines] == [("warning", "too old")]


@each_kind
async def test_74_message_without_rejects_is_a_warning_and_nothing_more(kind: str) -> None:
    async with connected(kind) as (sink, exporter):
        metrics = Metrics()
        deliverer = Deliverer(exporter, RetryConfig(), metrics)
        sink.reject_items_next(0, "please upgrade", times=3)
        with capture_logs() as lines:
            for _ in range(3):
                assert await deliverer.deliver(Signal.LOGS, LOGS, 1) == Delivery()
        # Destinations repeat such words with every answer: once is enough.
        assert [(line["log_level"], line["message"]) for line in lines] == [("warning", "please upgrade")]
        labels = {"exporter": kind, "signal": "logs"}
        assert not metrics.registry.get_sample_value("driftlock_exporter_rejected_items_total", labels)


async def test_73_partial_success_is_read_from_json_answers() -> None:
    body = b'{"partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "too old", "newer": [1]}}'
    async with HttpDestination() as destination:
        for encoding in ("json", "proto"):
            async with exporter_to(destination.endpoint, encoding=encoding) as exporter:
                destination.answers.append(http_answer(body=body, content_type="application/json; charset=utf-8"))
                assert await exporter.export(Signal.LOGS, LOGS) == ExportResult(2, "too old")
                destination.answers.append(http_answer(body=b"[", content_type=JSON))
                result = await exporter.export(Signal.LOGS, LOGS)
                assert result == ExportResult(0, "the answer is not an OTLP response")
