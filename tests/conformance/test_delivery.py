"""OTLP exporter specification: retries, throttling, size limits, concurrency, several destinations.

Routes read a durable log on disk and send through the real clients to destinations on real
sockets. The number in a test's name is that of the conformance checklist.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
import pytest_asyncio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from structlog.testing import capture_logs

from driftlock_otlp.config.exporters import ExporterConfig
from driftlock_otlp.exporter.delivery import Deliverer
from driftlock_otlp.exporter.forward import ForwardRoute, Selection
from driftlock_otlp.exporter.otlp_client import build_exporter
from driftlock_otlp.exporter.sinks import ExporterSink
from driftlock_otlp.model import ItemRange, NewEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import verdicts
from driftlock_otlp.storage.log import SegmentLog
from driftlock_otlp.storage.state import StateDatabase
from tests.doubles.otlp_sink import Answer, OtlpSink, Received
from tests.property.test_rewrite import has_empty_envelope

KINDS = ("otlp_grpc", "otlp_http")
each_kind = pytest.mark.parametrize("kind", KINDS)

DOWN = Answer(grpc_code=grpc.StatusCode.UNAVAILABLE, http_status=503, message="down")
NEVER = Answer(grpc_code=grpc.StatusCode.INVALID_ARGUMENT, http_status=400, message="never")
TOO_LARGE = Answer(grpc_code=grpc.StatusCode.RESOURCE_EXHAUSTED, http_status=413, message="too large")
QUICK = {"initial_interval": "10ms", "max_interval": "20ms"}


class Draws(Random):
    """A source of jitter that is told what to draw, and remembers from what.

    Args:
        shares: Where in the span each draw lies, 0 to 1, over and over.
    """

    def __init__(self, *shares: float) -> None:
        super().__init__(0)
        self._shares = shares
        self.spans: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.spans.append((a, b))
        return a + (b - a) * self._shares[(len(self.spans) - 1) % len(self._shares)]


class Forwarding:
    """A durable log, and routes from it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.metrics = Metrics()
        self.state = StateDatabase(directory / "state.db", durability="os")
        self.log = SegmentLog(
            directory / "log", durability="os", segment_bytes=64 << 20, max_bytes=1 << 30, metrics=self.metrics
        )
        self.routes: list[ForwardRoute] = []

    async def append(self, *requests: bytes) -> list[int]:
        """Append requests of log records and return their positions."""
        return [
            await self.log.append(NewEntry(Signal.LOGS, payload, len(bodies(payload)), time.time_ns()))
            for payload in requests
        ]

    async def forward(
        self, sink: OtlpSink, kind: str, name: str = "", *, selection: Selection = Selection.EVERYTHING,
        random: Random | None = None, consumers: int = 1, **settings: Any,
    ) -> ForwardRoute:  # fmt: skip
        """Start a route to a destination."""
        name = name or kind
        endpoint = sink.grpc_endpoint if kind == "otlp_grpc" else sink.http_endpoint
        tree = {"endpoint": endpoint, "retry_on_failure": QUICK, **settings}
        config = ExporterConfig.model_validate(tree)
        exporter = build_exporter(name, config)
        limits = dict.fromkeys(Signal, config.max_request_size)
        deliverer = Deliverer(exporter, config.retry_on_failure, self.metrics, limits, random)
        route = ForwardRoute(
            selection, ExporterSink(deliverer), self.log, self.state, lambda: self.log.end().position, 30.0,
            self.metrics, time.time_ns, is_metered=False, consumers=consumers,
        )  # fmt: skip
        self.routes.append(route)
        await route.start()
        return route

    async def finish(self) -> None:
        """Return when every route has passed the whole log."""
        await eventually(lambda: all(route.position == self.log.end().position for route in self.routes))

    def outcomes(self) -> Counter[str]:
        """Return how many items ended how, over all destinations."""
        found: Counter[str] = Counter()
        for family in self.metrics.registry.collect():
            for sample in family.samples:
                if sample.name == "driftlock_forward_items_total":
                    found[sample.labels["reason"] or sample.labels["outcome"]] += int(sample.value)
        return found

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest_asyncio.fixture
async def forwarding(tmp_path: Path) -> AsyncIterator[Forwarding]:
    made = Forwarding(tmp_path)
    made.state.open()
    made.log.open()
    yield made
    for route in made.routes:
        await route.stop(0.0)
    made.log.close()
    made.state.close()


@pytest_asyncio.fixture
async def sink() -> AsyncIterator[OtlpSink]:
    async with OtlpSink() as downstream:
        yield downstream


@asynccontextmanager
async def restarted(sink: OtlpSink) -> AsyncIterator[OtlpSink]:
    """A destination that comes up where another one was."""
    async with OtlpSink(sink.grpc_port, sink.http_port) as another:
        yield another


async def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def logs(*bodies_: str) -> bytes:
    message = ExportLogsServiceRequest()
    records = message.resource_logs.add().scope_logs.add().log_records
    for body in bodies_:
        records.add().body.string_value = body
    return message.SerializeToString()


def bodies(payload: bytes) -> list[str]:
    return [
        record.body.string_value
        for resource in ExportLogsServiceRequest.FromString(payload).resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def noting_times(answers: list[Answer]) -> tuple[Callable[[Received], Answer], list[float]]:
    """Return a judge that gives these answers and then success, and the list of when it was asked."""
    times: list[float] = []

    def judge(request: Received) -> Answer:
        times.append(time.monotonic())
        return answers[len(times) - 1] if len(times) <= len(answers) else Answer()

    return judge, times


def limited_to(max_bytes: int) -> Callable[[Received], Answer]:
    return lambda request: TOO_LARGE if len(request.payload) > max_bytes else Answer()


def gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


@each_kind
async def test_59_68_delays_grow_and_are_drawn_at_random(forwarding: Forwarding, sink: OtlpSink, kind: str) -> None:
    sink.judge, times = noting_times([DOWN] * 4)
    draws = Draws(0.0, 1.0, 0.5, 0.0)
    await forwarding.append(logs("a"))
    retry = {"initial_interval": "40ms", "multiplier": 2.0, "max_interval": "10s", "randomization_factor": 0.5}
    await forwarding.forward(sink, kind, random=draws, retry_on_failure=retry)
    await forwarding.finish()
    assert sink.bodies() == ["a"]
    assert draws.spans == [(0.5, 1.5)] * 4
    for gap, expected in zip(gaps(times), [0.04 * 0.5, 0.08 * 1.5, 0.16 * 1.0, 0.32 * 0.5], strict=True):
        assert gap >= expected


@each_kind
async def test_59_75_76_retries_can_be_turned_off_and_can_end(
    forwarding: Forwarding, sink: OtlpSink, kind: str
) -> None:
    sink.judge, times = noting_times([DOWN])
    await forwarding.append(logs("a", "b"), logs("c"))
    await forwarding.forward(sink, kind, retry_on_failure={"enabled": False})
    await forwarding.finish()
    assert len(times) == 2
    assert sink.bodies() == ["c"]
    sink.judge = lambda request: DOWN
    await forwarding.append(logs("d"))
    await forwarding.forward(sink, kind, f"{kind}/mortal", retry_on_failure={**QUICK, "max_elapsed_time": "100ms"})
    await forwarding.finish()
    assert forwarding.outcomes()["retries_exhausted"] == 2 + 1 + 1


@each_kind
async def test_64_65_a_destination_that_throttles_is_left_alone_for_as_long_as_it_says(
    forwarding: Forwarding, sink: OtlpSink, kind: str
) -> None:
    wait_s = 0.6
    throttled = Answer(
        grpc_code=grpc.StatusCode.RESOURCE_EXHAUSTED, http_status=429, message="slow down", retry_after_s=wait_s
    )
    sink.judge, times = noting_times([throttled])
    await forwarding.append(*(logs(body) for body in "abcdef"))
    # One after the other, and the one behind it must not slip by.
    await forwarding.forward(sink, kind, consumers=1)
    await forwarding.finish()
    assert sink.bodies() == list("abcdef")
    assert times[1] - times[0] >= wait_s


@each_kind
async def test_64_all_requests_under_way_heed_what_one_is_told(
    forwarding: Forwarding, sink: OtlpSink, kind: str
) -> None:
    wait_s = 0.6
    unavailable = Answer(grpc_code=grpc.StatusCode.UNAVAILABLE, http_status=503, retry_after_s=wait_s)
    sink.judge, times = noting_times([unavailable] * 3)
    sink.gate.clear()
    await forwarding.append(*(logs(body) for body in "abcdefghij"))
    await forwarding.forward(sink, kind, consumers=3)
    await eventually(lambda: len(times) == 3)
    told_s = time.monotonic()
    sink.gate.set()
    await forwarding.finish()
    assert sorted(sink.bodies()) == list("abcdefghij")
    assert times[3] - told_s >= wait_s


@each_kind
async def test_70_a_connection_lost_before_the_response_sends_the_request_again(
    forwarding: Forwarding, kind: str
) -> None:
    await forwarding.append(logs("a"))
    async with OtlpSink() as sink:
        sink.gate.clear()
        await forwarding.forward(sink, kind)
        await eventually(lambda: len(sink.attempts) == 1)
    async with restarted(sink) as again:
        await forwarding.finish()
        assert again.bodies() == ["a"]


@each_kind
async def test_71_connecting_is_tried_again_with_growing_random_delays(forwarding: Forwarding, kind: str) -> None:
    async with OtlpSink() as absent:
        pass
    draws = Draws(0.3, 0.7)
    await forwarding.append(logs("a"))
    await forwarding.forward(absent, kind, random=draws)
    await eventually(lambda: len(draws.spans) >= 4)
    assert set(draws.spans) == {(0.5, 1.5)}
    assert (forwarding.value("driftlock_exporter_retries_total", exporter=kind) or 0) >= 4
    async with restarted(absent) as present:
        await forwarding.finish()
        assert present.bodies() == ["a"]


@each_kind
async def test_73_74_partial_success_is_not_repeated_but_counted_and_said(
    forwarding: Forwarding, sink: OtlpSink, kind: str
) -> None:
    sink.reject_items_next(2, "two are too old")
    await forwarding.append(logs("a", "b", "c"), logs("d"))
    with capture_logs() as lines:
        await forwarding.forward(sink, kind)
        await forwarding.finish()
    assert len(sink.attempts) == 2
    assert forwarding.outcomes() == {"partial_success": 2, "forwarded": 2}
    assert forwarding.value("driftlock_exporter_rejected_items_total", exporter=kind, signal="logs") == 2
    (line,) = [line for line in lines if line["event"] == "items_rejected"]
    assert (line["count"], line["message"]) == (2, "two are too old")


@each_kind
async def test_74_a_warning_without_rejected_items_is_said_once(
    forwarding: Forwarding, sink: OtlpSink, kind: str
) -> None:
    sink.reject_items_next(0, "field x is deprecated", times=3)
    await forwarding.append(logs("a"), logs("b"), logs("c"))
    with capture_logs() as lines:
        await forwarding.forward(sink, kind)
        await forwarding.finish()
    assert sink.bodies() == ["a", "b", "c"]
    assert forwarding.outcomes() == {"forwarded": 3}
    assert [line["message"] for line in lines if line["event"] == "export_warned"] == ["field x is deprecated"]


@each_kind
async def test_75_76_what_is_refused_for_good_is_dropped_and_counted(
    forwarding: Forwarding, sink: OtlpSink, kind: str
) -> None:
    sink.answer_next(NEVER)
    await forwarding.append(logs("a", "b"), logs("c"))
    await forwarding.forward(sink, kind)
    await forwarding.finish()
    assert len(sink.attempts) == 2
    assert sink.bodies() == ["c"]
    assert forwarding.outcomes() == {"rejected": 2, "forwarded": 1}


@each_kind
async def test_77_what_is_not_delivered_at_shutdown_is_recorded_and_kept(forwarding: Forwarding, kind: str) -> None:
    async with OtlpSink() as absent:
        pass
    await forwarding.append(logs("a", "b"), logs("c"))
    route = await forwarding.forward(absent, kind, retry_on_failure={"initial_interval": "60s", "max_interval": "60s"})
    await eventually(lambda: bool(forwarding.value("driftlock_exporter_retries_total", exporter=kind)))
    with capture_logs() as lines:
        await route.stop(5.0)
    (line,) = [line for line in lines if line["event"] == "undelivered_kept"]
    assert (line["route"], line["items"]) == (f"forward:{kind}", 3)
    forwarding.routes.clear()
    async with restarted(absent) as present:
        await forwarding.forward(present, kind)
        await forwarding.finish()
        assert present.bodies() == ["a", "b", "c"]


@each_kind
async def test_78_79_a_request_over_our_limit_is_sent_in_parts_and_never_as_it_is(
    forwarding: Forwarding, sink: OtlpSink, kind: str
) -> None:
    texts = [f"{number:03} ".ljust(100, ".") for number in range(50)]
    texts[20] = "an item of its own that is over the limit".ljust(2000, ".")
    await forwarding.append(logs(*texts), logs("small"))
    with capture_logs() as lines:
        await forwarding.forward(sink, kind, max_request_size=1000)
        await forwarding.finish()
    assert max(len(request.payload) for request in sink.attempts) <= 1000
    assert sink.bodies() == [*texts[:20], *texts[21:], "small"]
    assert forwarding.outcomes() == {"too_large": 1, "forwarded": 50}
    assert [line["event"] for line in lines].count("item_too_large") == 1


@each_kind
async def test_79_a_request_that_the_destination_finds_too_large_is_sent_in_parts(
    forwarding: Forwarding, sink: OtlpSink, kind: str
) -> None:
    sink.judge = limited_to(150_000)
    texts = [f"{number:03} ".ljust(10_000, ".") for number in range(100)]
    # The first goes out whole and is refused; the second has learned from it.
    await forwarding.append(logs(*texts), logs(*texts))
    await forwarding.forward(sink, kind)
    await forwarding.finish()
    assert sink.bodies() == texts * 2
    assert forwarding.outcomes() == {"forwarded": 200}
    refused = [request for request in sink.attempts if len(request.payload) > 150_000]
    assert 1 <= len(refused) <= 4
    assert sink.attempts.index(refused[-1]) < 10


@each_kind
async def test_79_a_part_that_has_to_wait_does_not_repeat_those_before_it(
    forwarding: Forwarding, sink: OtlpSink, kind: str
) -> None:
    sink.judge, _ = noting_times([TOO_LARGE, Answer(), DOWN, DOWN])
    await forwarding.append(logs(*"abcdefgh"))
    await forwarding.forward(sink, kind)
    await forwarding.finish()
    assert [bodies(request.payload) for request in sink.attempts] == [
        list("abcdefgh"), list("abcd"), list("efgh"), list("efgh"), list("efgh"),
    ]  # fmt: skip
    assert sink.bodies() == list("abcdefgh")


@each_kind
@pytest.mark.parametrize("consumers", [1, 4])
async def test_81_82_as_many_requests_are_under_way_as_configured(
    forwarding: Forwarding, sink: OtlpSink, kind: str, consumers: int
) -> None:
    sink.gate.clear()
    await forwarding.append(*(logs(str(number)) for number in range(12)))
    await forwarding.forward(sink, kind, consumers=consumers)
    await eventually(lambda: len(sink.attempts) == consumers)
    await asyncio.sleep(0.1)
    assert len(sink.attempts) == consumers
    sink.gate.set()
    await forwarding.finish()
    assert sorted(sink.bodies(), key=int) == [str(number) for number in range(12)]
    assert forwarding.outcomes() == {"forwarded": 12}


@each_kind
async def test_83_stopping_waits_for_the_responses_that_are_due(
    forwarding: Forwarding, sink: OtlpSink, kind: str
) -> None:
    sink.gate.clear()
    positions = await forwarding.append(logs("a"), logs("b"), logs("c"))
    route = await forwarding.forward(sink, kind, consumers=2)
    await eventually(lambda: len(sink.attempts) == 2)
    stopping = asyncio.create_task(route.stop(30.0))
    await asyncio.wait([stopping], timeout=0.1)
    assert not stopping.done()
    sink.gate.set()
    await stopping
    assert sorted(sink.bodies()) == ["a", "b"]
    assert route.position == positions[2]
    assert forwarding.outcomes() == {"forwarded": 2}


@each_kind
async def test_88_a_destination_that_is_down_does_not_hold_up_another(
    forwarding: Forwarding, sink: OtlpSink, kind: str
) -> None:
    async with OtlpSink() as absent:
        pass
    sent = [logs(str(number)) for number in range(200)]
    await forwarding.forward(absent, kind, f"{kind}/absent")
    present = await forwarding.forward(sink, kind, f"{kind}/present")
    await forwarding.append(*sent)
    await sink.wait_for_items(Signal.LOGS, 200)
    await eventually(lambda: present.position == forwarding.log.end().position)
    assert sink.payloads(Signal.LOGS) == sent
    assert forwarding.value("driftlock_queue_items", cursor=f"forward:{kind}/absent") == 200
    async with restarted(absent) as late:
        await forwarding.finish()
        assert late.payloads(Signal.LOGS) == sent


async def test_89_what_waits_for_several_destinations_is_kept_once(forwarding: Forwarding, sink: OtlpSink) -> None:
    sink.gate.clear()
    names = [f"otlp_http/{number}" for number in range(5)]
    for name in names:
        await forwarding.forward(sink, "otlp_http", name)
    sent = logs(*("x" * 1000 for _ in range(100)))
    await forwarding.append(*[sent] * 10)
    await eventually(lambda: len(sink.attempts) == len(names))
    on_disk = sum(path.stat().st_size for path in (forwarding.directory / "log").iterdir())
    assert on_disk < 1.1 * 10 * len(sent)
    sink.gate.set()
    await forwarding.finish()
    assert sink.payloads(Signal.LOGS) == [sent] * 10 * len(names)


@each_kind
async def test_90_no_request_that_we_rewrite_has_empty_envelopes(
    forwarding: Forwarding, sink: OtlpSink, kind: str
) -> None:
    message = ExportLogsServiceRequest()
    for resource_number in range(4):
        resource = message.resource_logs.add(schema_url=f"https://schemas.example/{resource_number}")
        for scope_number in range(3):
            scope = resource.scope_logs.add()
            scope.scope.name = f"scope {scope_number}"
            for record_number in range(scope_number):  # the first scope of each resource is empty
                scope.log_records.add().body.string_value = f"{resource_number}.{scope_number}.{record_number}"
    payload = message.SerializeToString()
    (position,) = await forwarding.append(payload)
    # All of the first resource, and some of the others.
    ranges = [ItemRange(0, 3, "ab" * 16), ItemRange(4, 1, "ab" * 16), ItemRange(10, 1, "ab" * 16)]
    await forwarding.state.write(lambda connection: verdicts.add(connection, position, ranges))
    async with OtlpSink() as suspects:
        await forwarding.forward(sink, kind, selection=Selection.CLEAN, max_request_size=100)
        await forwarding.forward(suspects, kind, f"{kind}/suspects", selection=Selection.ANOMALOUS, max_request_size=60)
        await forwarding.finish()
        assert sorted(sink.bodies() + suspects.bodies()) == sorted(bodies(payload))
        assert len(suspects.bodies()) == 5
        requests = [*sink.received, *suspects.received]
        assert len(requests) > 4
        assert not any(has_empty_envelope(Signal.LOGS, request.payload) for request in requests)
