"""Routes: what passes, when, in which order, and that nothing is lost or passed twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from structlog.testing import capture_logs

from driftlock_otlp.config.exporters import RetryConfig, SendingQueueConfig
from driftlock_otlp.errors import DownstreamRejectedError, DownstreamUnavailableError, OverloadedError
from driftlock_otlp.exporter.delivery import Deliverer
from driftlock_otlp.exporter.forward import ForwardRoute, Selection
from driftlock_otlp.exporter.sending_queue import SendingQueue
from driftlock_otlp.exporter.sinks import DiscardSink, ExporterSink, Outcome, QuarantineSink, Sink
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import ItemRange, LogEntry, NewEntry, Signal, StreamKey
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.orders import Sensitivity, encode
from driftlock_otlp.storage import quarantine, usage, verdicts
from driftlock_otlp.storage.state import StateDatabase, cursors
from tests.doubles.memory_log import MemoryLog
from tests.unit.exporter.conftest import NOW, FakeExporter, HeldClock, eventually

ANOMALY = "ab" * 16
MAX_WAIT_S = 30.0


class Scene:
    """A log, verdicts that reach as far as told, and routes."""

    def __init__(self, state: StateDatabase, metrics: Metrics, clock: HeldClock) -> None:
        self.state, self.metrics, self.clock = state, metrics, clock
        self.log = MemoryLog()
        self.watermark = 0
        self.positions: list[int] = []
        self.routes: list[ForwardRoute] = []

    async def append(self, *bodies: str, signal: Signal | None = Signal.LOGS) -> bytes:
        """Append one request of log records and return it."""
        payload = request(*bodies) if signal else b""
        self.positions.append(await self.log.append(NewEntry(signal, payload, len(bodies), self.clock.now)))
        return payload

    async def judge(self, index: int, *ranges: tuple[int, int]) -> None:
        """Record anomalous (first, count) of a request, and let verdicts reach to its end."""
        items = [ItemRange(first, count, ANOMALY) for first, count in ranges]
        await self.state.write(lambda connection: verdicts.add(connection, self.positions[index], items))
        after = [*self.positions, self.log.end().position]
        self.watermark = max(self.watermark, after[index + 1])

    def route(self, selection: Selection, sink: Sink, *, is_metered: bool = False, **settings: Any) -> ForwardRoute:
        """Return a route that has not started."""
        route = ForwardRoute(
            selection,
            sink,
            self.log,
            self.state,
            lambda: self.watermark,
            MAX_WAIT_S,
            self.metrics,
            self.clock,
            is_metered=is_metered,
            **settings,
        )
        self.routes.append(route)
        return route

    async def start(self, selection: Selection, sink: Sink, **settings: Any) -> ForwardRoute:
        route = self.route(selection, sink, **settings)
        await route.start()
        return route

    async def finish(self) -> None:
        """Return when every route has passed the whole log."""
        await eventually(lambda: all(route.position == self.log.end().position for route in self.routes))
        # The cursor counts first, then the metrics.
        await asyncio.sleep(0.01)

    def outcomes(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for family in self.metrics.registry.collect():
            for sample in family.samples:
                if sample.name == "driftlock_forward_items_total":
                    labels = (sample.labels[name] for name in ("exporter", "outcome", "reason"))
                    found[":".join(filter(None, labels))] += int(sample.value)
        return found

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
async def scene(state: StateDatabase, metrics: Metrics, clock: HeldClock):  # type: ignore[no-untyped-def]
    made = Scene(state, metrics, clock)
    yield made
    for route in made.routes:
        await route.stop(0.0)


def request(*bodies: str) -> bytes:
    message = ExportLogsServiceRequest()
    records = message.resource_logs.add().scope_logs.add().log_records
    for body in bodies:
        records.add().body.string_value = body
    return message.SerializeToString()


def bodies(exporter: FakeExporter) -> list[str]:
    found = []
    for _, payload in exporter.taken:
        for resource in ExportLogsServiceRequest.FromString(payload).resource_logs:
            found += [record.body.string_value for scope in resource.scope_logs for record in scope.log_records]
    return found


def sink_of(exporter: FakeExporter, metrics: Metrics) -> ExporterSink:
    return ExporterSink(exporter.deliverer(metrics))


async def test_everything_goes_on_at_once_as_it_came_whatever_the_verdicts(scene: Scene, metrics: Metrics) -> None:
    exporter = FakeExporter()
    sent = [await scene.append("a", "b"), await scene.append("c")]
    await scene.start(Selection.EVERYTHING, sink_of(exporter, metrics))
    sent.append(await scene.append("d"))
    await scene.finish()
    assert [payload for _, payload in exporter.taken] == sent
    assert scene.outcomes() == {"otlp_grpc:forwarded": 4}


async def test_a_request_waits_for_its_verdict_and_no_longer(scene: Scene, metrics: Metrics) -> None:
    exporter = FakeExporter()
    first, second = await scene.append("a"), await scene.append("b")
    await scene.start(Selection.CLEAN, sink_of(exporter, metrics))
    await asyncio.sleep(0.1)
    assert exporter.taken == []
    await scene.judge(0)
    await eventually(lambda: len(exporter.taken) == 1)
    await asyncio.sleep(0.1)
    assert exporter.taken == [(Signal.LOGS, first)]
    await scene.judge(1)
    await scene.finish()
    assert exporter.taken == [(Signal.LOGS, first), (Signal.LOGS, second)]
    assert scene.value("driftlock_forward_unscored_items_total", signal="logs") is None


async def test_clean_and_anomalous_routes_divide_every_request_between_them(scene: Scene, metrics: Metrics) -> None:
    clean, suspects = FakeExporter("otlp_grpc"), FakeExporter("otlp_grpc/suspects")
    whole = await scene.append("a", "b")
    await scene.append("c", "d", "e")
    await scene.append("f", "g")
    await scene.judge(1, (1, 1))
    await scene.judge(2, (0, 1), (1, 1))
    await scene.start(Selection.CLEAN, sink_of(clean, metrics))
    await scene.start(Selection.ANOMALOUS, sink_of(suspects, metrics))
    await scene.finish()
    assert clean.taken[0] == (Signal.LOGS, whole)
    assert bodies(clean) == ["a", "b", "c", "e"]
    assert bodies(suspects) == ["d", "f", "g"]
    assert scene.outcomes() == {"otlp_grpc:forwarded": 4, "otlp_grpc/suspects:diverted": 3}


async def test_a_damaged_request_is_dropped_once_and_the_routes_go_on(scene: Scene, metrics: Metrics) -> None:
    clean, suspects = FakeExporter("otlp_grpc"), FakeExporter("otlp_grpc/suspects")
    scene.positions.append(await scene.log.append(NewEntry(Signal.LOGS, b"\xff\xff damaged", 3, scene.clock.now)))
    await scene.append("a", "b")
    await scene.judge(0, (0, 1))
    await scene.judge(1, (1, 1))
    await scene.start(Selection.CLEAN, sink_of(clean, metrics))
    await scene.start(Selection.ANOMALOUS, sink_of(suspects, metrics))
    await scene.finish()
    assert bodies(clean) == ["a"]
    assert bodies(suspects) == ["b"]
    assert scene.outcomes() == {
        "otlp_grpc:dropped:undecodable": 3,
        "otlp_grpc:forwarded": 1,
        "otlp_grpc/suspects:diverted": 1,
    }


@pytest.mark.parametrize(("signal", "noun"), [(Signal.LOGS, "logs"), (None, "unknown")])
async def test_each_route_counts_its_own_part_of_what_the_disk_has_damaged(
    scene: Scene, metrics: Metrics, signal: Signal | None, noun: str
) -> None:
    clean, suspects = FakeExporter("otlp_grpc"), FakeExporter("otlp_grpc/suspects")
    await scene.append("a", "b", "c")
    await scene.append("d")
    await scene.judge(0, (0, 1))
    await scene.judge(1)
    scene.log.damage(scene.positions[0], signal)
    await scene.start(Selection.CLEAN, sink_of(clean, metrics), is_metered=True)
    await scene.start(Selection.ANOMALOUS, sink_of(suspects, metrics))
    await scene.finish()
    assert (bodies(clean), bodies(suspects)) == (["d"], [])
    assert scene.outcomes() == {
        "otlp_grpc:dropped:damaged": 2,
        "otlp_grpc/suspects:dropped:damaged": 1,
        "otlp_grpc:forwarded": 1,
    }
    labels = {"exporter": "otlp_grpc", "outcome": "dropped", "reason": "damaged"}
    assert scene.value("driftlock_forward_items_total", signal=noun, **labels) == 2
    (total,) = await scene.state.read(usage.totals)
    assert (total.item_count, total.request_count) == (1, 1)  # What was lost is not billed.


async def test_clock_that_was_set_back_keeps_nothing_waiting_for_its_verdict(
    scene: Scene, metrics: Metrics, clock: HeldClock
) -> None:
    exporter = FakeExporter()
    clock.now += 3600 * 1_000_000_000
    await scene.append("from the future")
    route = await scene.start(Selection.CLEAN, sink_of(exporter, metrics))
    await asyncio.sleep(0.05)
    assert route.position == 0
    clock.now -= 3600 * 1_000_000_000
    await scene.append("now")
    scene.watermark = 1  # Something has happened, so that the route looks.
    await eventually(lambda: bodies(exporter) == ["from the future"])
    await asyncio.sleep(0.05)
    assert bodies(exporter) == ["from the future"]
    clock.now += int(MAX_WAIT_S * 1e9)
    await scene.finish()
    assert bodies(exporter) == ["from the future", "now"]


async def test_overlapping_ranges_count_each_item_once(scene: Scene, metrics: Metrics) -> None:
    clean, suspects = FakeExporter("otlp_grpc"), FakeExporter("otlp_grpc/suspects")
    await scene.append("a", "b", "c", "d")
    await scene.judge(0, (0, 2), (1, 2), (1, 1), (3, 9))
    await scene.start(Selection.CLEAN, sink_of(clean, metrics))
    await scene.start(Selection.ANOMALOUS, sink_of(suspects, metrics))
    await scene.finish()
    assert (bodies(clean), bodies(suspects)) == ([], ["a", "b", "c", "d"])
    assert scene.outcomes() == {"otlp_grpc/suspects:diverted": 4}


async def test_tagged_records_carry_the_anomaly(scene: Scene, metrics: Metrics) -> None:
    exporter = FakeExporter()
    plain = await scene.append("a")
    await scene.append("b", "c")
    await scene.judge(1, (1, 1))
    await scene.start(Selection.TAGGED, sink_of(exporter, metrics))
    await scene.finish()
    assert exporter.taken[0][1] == plain
    records = ExportLogsServiceRequest.FromString(exporter.taken[1][1]).resource_logs[0].scope_logs[0].log_records
    assert [[(a.key, a.value.string_value) for a in record.attributes] for record in records] == [
        [],
        [("driftlock.anomaly.id", ANOMALY)],
    ]
    assert scene.outcomes() == {"otlp_grpc:forwarded": 3}


async def test_withheld_records_and_the_cursor_are_one_transaction(
    scene: Scene, state: StateDatabase, clock: HeldClock
) -> None:
    await scene.append("a", "b")
    await scene.judge(0, (1, 1))
    await scene.start(Selection.ANOMALOUS, QuarantineSink(clock))
    await scene.finish()
    (group,) = await state.read(quarantine.list_groups)
    assert (group.anomaly_id, group.item_count) == (ANOMALY, 1)
    assert (await state.read(cursors))["divert:quarantine"] == scene.log.end().position
    assert scene.outcomes() == {"quarantine:diverted": 1}
    # As after a crash before the cursor moved: withheld again, but once.
    await state.write(lambda c: c.execute("UPDATE cursors SET position = 0 WHERE name LIKE 'divert:%'"))
    await scene.routes[0].stop(1.0)
    await scene.start(Selection.ANOMALOUS, QuarantineSink(clock))
    await eventually(lambda: scene.routes[1].position == scene.log.end().position)
    assert await state.read(quarantine.withheld_items) == 1


async def test_when_the_verdict_takes_too_long_the_request_goes_on_unscored(
    scene: Scene, metrics: Metrics, clock: HeldClock
) -> None:
    exporter = FakeExporter()
    await scene.append("a", "b")
    clock.now += 1_000_000_000
    await scene.append("c")
    await scene.start(Selection.CLEAN, sink_of(exporter, metrics))
    # The wait counts from the start at the earliest: after a restart detection needs a moment.
    clock.now += int(MAX_WAIT_S * 1e9) - 1
    await asyncio.sleep(0.1)
    assert exporter.taken == []
    clock.now += 1
    await scene.finish()
    assert bodies(exporter) == ["a", "b", "c"]
    assert scene.value("driftlock_forward_unscored_items_total", signal="logs") == 3


async def test_a_verdict_that_comes_too_late_changes_nothing_for_any_route(
    scene: Scene, metrics: Metrics, clock: HeldClock
) -> None:
    quick, slow, suspects = FakeExporter("quick"), FakeExporter("slow"), FakeExporter("suspects")
    slow.gate.clear()
    await scene.append("blocks the slow one")
    await scene.judge(0)
    await scene.append("a", "b")
    await scene.start(Selection.CLEAN, sink_of(slow, metrics))
    await scene.start(Selection.CLEAN, sink_of(quick, metrics))
    clock.now += int(MAX_WAIT_S * 1e9)
    await eventually(lambda: len(bodies(quick)) == 3)
    await scene.judge(1, (1, 1))
    await scene.start(Selection.ANOMALOUS, sink_of(suspects, metrics))
    slow.gate.set()
    await scene.finish()
    # Were it only known to some, the record would be passed on twice, or by nobody.
    assert bodies(quick) == bodies(slow) == ["blocks the slow one", "a", "b"]
    assert suspects.taken == []
    assert scene.value("driftlock_forward_unscored_items_total", signal="logs") == 2


async def test_the_quarantine_never_gives_up_waiting_before_the_downstream_does(
    scene: Scene, metrics: Metrics, clock: HeldClock
) -> None:
    clean, suspects = FakeExporter("clean"), FakeExporter("suspects")
    clean.gate.clear()
    await scene.append("first")
    await scene.judge(0)
    await scene.append("odd")
    await scene.start(Selection.CLEAN, sink_of(clean, metrics))
    await scene.start(Selection.ANOMALOUS, sink_of(suspects, metrics))
    # The downstream hangs for an hour, and so does detection.
    clock.now += 3600 * 10**9
    await asyncio.sleep(0.3)
    await scene.judge(1, (0, 1))
    clean.gate.set()
    await scene.finish()
    assert bodies(clean) == ["first"]
    assert bodies(suspects) == ["odd"]
    assert scene.outcomes() == {"clean:forwarded": 1, "suspects:diverted": 1}


async def test_what_a_route_has_passed_is_not_judged_again_after_a_restart(scene: Scene, metrics: Metrics) -> None:
    clean, suspects = FakeExporter("clean"), FakeExporter("suspects")
    clean.answers.extend([DownstreamUnavailableError("down", retry_after_s=3600.0)])
    await scene.append("a")
    await scene.judge(0)
    await scene.start(Selection.CLEAN, sink_of(clean, metrics))
    await scene.start(Selection.ANOMALOUS, sink_of(suspects, metrics))
    await eventually(lambda: scene.routes[1].position == scene.log.end().position)
    # Another detector, as after changed settings, thinks otherwise: too late.
    await scene.judge(0, (0, 1))
    await scene.routes[0].stop(0.0)
    restarted = FakeExporter("clean")
    await scene.start(Selection.CLEAN, sink_of(restarted, metrics))
    await eventually(lambda: bodies(restarted) == ["a"])


async def test_a_request_that_waits_is_not_read_again_and_again(scene: Scene, metrics: Metrics) -> None:
    reads = 0
    read = scene.log.read

    def counting(position: int, max_bytes: int) -> Sequence[LogEntry]:
        nonlocal reads
        reads += 1
        return read(position, max_bytes)

    scene.log.read = counting  # type: ignore[method-assign]
    await scene.append("a")
    await scene.start(Selection.CLEAN, sink_of(FakeExporter(), metrics))
    await asyncio.sleep(0.3)
    assert reads == 1
    await scene.append("b")
    await eventually(lambda: scene.value("driftlock_queue_items", cursor="forward:otlp_grpc") == 2)
    assert reads == 1


async def test_what_waits_is_counted_also_while_a_delivery_hangs(scene: Scene, metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.append(DownstreamUnavailableError("down", retry_after_s=3600.0))
    await scene.append("a")
    route = await scene.start(Selection.EVERYTHING, sink_of(exporter, metrics))
    await eventually(lambda: route.is_failing)
    await scene.append("b", "c")
    assert scene.value("driftlock_queue_items", cursor="forward:otlp_grpc") == 3
    assert scene.value("driftlock_queue_bytes", cursor="forward:otlp_grpc") == scene.log.end().position
    assert route.waiting == (3, scene.log.end().position)
    assert route.last_error == "down"


@pytest.mark.parametrize("selection", [Selection.EVERYTHING, Selection.CLEAN, Selection.TAGGED])
async def test_clock_ticks_and_orders_move_the_cursor_and_nothing_else(
    scene: Scene, metrics: Metrics, selection: Selection
) -> None:
    exporter = FakeExporter()
    await scene.append(signal=None)
    await scene.append("a")
    order = encode(Sensitivity(StreamKey("logs", "checkout"), 0.001))
    await scene.log.append(NewEntry(None, order, 0, scene.clock.now))
    scene.watermark = scene.log.end().position
    await scene.start(selection, sink_of(exporter, metrics))
    await scene.finish()
    assert bodies(exporter) == ["a"]
    assert scene.outcomes() == {"otlp_grpc:forwarded": 1}


async def test_what_is_refused_is_dropped_with_its_reason_and_the_route_goes_on(scene: Scene, metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.answers.extend([DownstreamRejectedError("never"), ExportResult(1), DownstreamUnavailableError("down")])
    for body in "abc":
        await scene.append(body, body)
    await scene.start(Selection.EVERYTHING, sink_of(exporter, metrics))
    await scene.finish()
    assert scene.outcomes() == {
        "otlp_grpc:dropped:rejected": 2,
        "otlp_grpc:dropped:partial_success": 1,
        "otlp_grpc:forwarded": 3,
    }


async def test_without_a_destination_records_are_dropped_with_their_reason(scene: Scene) -> None:
    await scene.append("a", "b")
    await scene.start(Selection.EVERYTHING, DiscardSink())
    await scene.finish()
    assert scene.outcomes() == {"none:dropped:no_exporter": 2}


async def test_a_stopped_route_continues_where_it_was(scene: Scene, metrics: Metrics) -> None:
    exporter = FakeExporter()
    await scene.append("a")
    route = await scene.start(Selection.EVERYTHING, sink_of(exporter, metrics))
    await scene.finish()
    await route.stop(5.0)
    assert exporter.is_closed
    await scene.append("b")
    await scene.start(Selection.EVERYTHING, sink_of(exporter, metrics))
    await eventually(lambda: bodies(exporter) == ["a", "b"])


async def test_stopping_keeps_what_came_before_the_request_that_hangs(
    scene: Scene, state: StateDatabase, metrics: Metrics
) -> None:
    exporter = FakeExporter()
    exporter.answers.extend([ExportResult(), DownstreamUnavailableError("down", retry_after_s=3600.0)])
    await scene.append("a")
    await scene.append("b")
    route = await scene.start(Selection.EVERYTHING, sink_of(exporter, metrics))
    await eventually(lambda: len(exporter.attempts) == 2)
    await asyncio.sleep(0.02)
    started_s = time.monotonic()
    await route.stop(30.0)
    assert time.monotonic() - started_s < 10.0
    assert (await state.read(cursors))["forward:otlp_grpc"] == scene.positions[1]
    assert scene.outcomes() == {"otlp_grpc:forwarded": 1}


async def test_stopping_lets_the_request_in_hand_finish(scene: Scene, state: StateDatabase, metrics: Metrics) -> None:
    exporter = FakeExporter()
    exporter.gate.clear()
    await scene.append("a")
    await scene.append("b")
    route = await scene.start(Selection.EVERYTHING, sink_of(exporter, metrics))
    await eventually(lambda: len(exporter.attempts) == 1)
    stopping = asyncio.create_task(route.stop(30.0))
    await asyncio.sleep(0.05)
    exporter.gate.set()
    await stopping
    assert bodies(exporter) == ["a"]
    assert (await state.read(cursors))["forward:otlp_grpc"] == scene.positions[1]


async def test_a_new_route_begins_with_what_its_siblings_have_yet_to_pass(
    scene: Scene, state: StateDatabase, metrics: Metrics
) -> None:
    await scene.append("old")
    await scene.start(Selection.EVERYTHING, sink_of(FakeExporter("old"), metrics))
    await scene.finish()
    await scene.append("new")
    renamed = FakeExporter("renamed")
    await scene.start(Selection.EVERYTHING, sink_of(renamed, metrics))
    await scene.finish()
    assert bodies(renamed) == ["new"]
    await state.write(lambda connection: verdicts.forget_routes(connection, ["forward:renamed"]))
    assert list(await state.read(cursors)) == ["forward:renamed"]


async def test_a_state_database_that_fails_for_a_moment_does_not_end_the_route(scene: Scene, metrics: Metrics) -> None:
    class Failing(DiscardSink):
        failures = 1

        async def take(
            self, entry: LogEntry, signal: Signal, payload: bytes, item_count: int, ranges: Sequence[ItemRange]
        ) -> Outcome:
            if self.failures:
                self.failures -= 1
                raise OverloadedError("full")
            return await super().take(entry, signal, payload, item_count, ranges)

    await scene.append("a")
    await scene.start(Selection.EVERYTHING, Failing())
    await scene.finish()
    assert scene.outcomes() == {"none:dropped:no_exporter": 1}


async def test_the_first_route_meters_what_it_passes_by_the_hour(
    scene: Scene, state: StateDatabase, metrics: Metrics, clock: HeldClock
) -> None:
    first = await scene.append("a", "b")
    clock.now += 3600 * 10**9
    second = await scene.append("c")
    await scene.start(Selection.EVERYTHING, sink_of(FakeExporter(), metrics), is_metered=True)
    await scene.start(Selection.EVERYTHING, sink_of(FakeExporter("two"), metrics))
    await scene.finish()
    rows = await state.read(
        lambda c: c.execute(
            "SELECT hour_unix_s, tenant, signal, items, bytes, requests, counted_before FROM usage ORDER BY hour_unix_s"
        ).fetchall()
    )
    hour = NOW // 10**9 // 3600 * 3600
    first_end, end = scene.positions[1], scene.log.end().position
    assert rows == [
        (hour, "", "logs", 2, len(first), 1, first_end),
        (hour + 3600, "", "logs", 1, len(second), 1, end),
    ]


class Gates:
    """A destination that takes each request when told to, whatever the order."""

    name = "otlp_grpc"

    def __init__(self) -> None:
        self.attempts: list[str] = []
        self.taken: list[str] = []
        self.opened: set[str] = set()

    async def export(self, signal: Signal, payload: bytes) -> ExportResult:
        (record,) = ExportLogsServiceRequest.FromString(payload).resource_logs[0].scope_logs[0].log_records
        body = record.body.string_value
        self.attempts.append(body)
        while body not in self.opened:
            await asyncio.sleep(0.002)
        self.taken.append(body)
        return ExportResult()

    async def close(self) -> None:
        pass

    def sink(self, metrics: Metrics) -> ExporterSink:
        return ExporterSink(Deliverer(self, RetryConfig(), metrics))


async def test_several_requests_are_under_way_and_the_cursor_moves_over_the_finished_beginning(
    scene: Scene, state: StateDatabase, metrics: Metrics
) -> None:
    exporter = Gates()
    for body in "abcdef":
        await scene.append(body)
    route = await scene.start(Selection.EVERYTHING, exporter.sink(metrics), consumers=3)
    await eventually(lambda: exporter.attempts == ["a", "b", "c"])
    exporter.opened |= {"a", "c"}
    # Two are done, so two more are under way; the second holds the cursor.
    await eventually(lambda: exporter.attempts == ["a", "b", "c", "d", "e"])
    await asyncio.sleep(0.02)
    assert len(exporter.attempts) == 5
    await route.stop(0.0)
    assert (await state.read(cursors))["forward:otlp_grpc"] == scene.positions[1]
    assert scene.outcomes() == {"otlp_grpc:forwarded": 1}
    scene.routes.clear()
    restarted = FakeExporter()
    await scene.start(Selection.EVERYTHING, sink_of(restarted, metrics), consumers=3)
    await scene.finish()
    assert sorted(bodies(restarted)) == ["b", "c", "d", "e", "f"]
    assert scene.outcomes() == {"otlp_grpc:forwarded": 6}


async def test_stopping_waits_for_all_that_is_under_way(scene: Scene, state: StateDatabase, metrics: Metrics) -> None:
    """Conformance 83."""
    exporter = Gates()
    for body in "abcd":
        await scene.append(body)
    route = await scene.start(Selection.EVERYTHING, exporter.sink(metrics), consumers=3)
    await eventually(lambda: len(exporter.attempts) == 3)
    stopping = asyncio.create_task(route.stop(30.0))
    await asyncio.sleep(0.05)
    exporter.opened |= set("abcd")
    await stopping
    assert exporter.taken == ["a", "b", "c"]
    assert (await state.read(cursors))["forward:otlp_grpc"] == scene.positions[3]


async def test_consumers_find_enough_to_do_among_large_requests(scene: Scene, metrics: Metrics) -> None:
    read = scene.log.read
    scene.log.read = lambda position, max_bytes: read(position, 1)  # type: ignore[method-assign]
    exporter = Gates()
    for body in "abcd":
        await scene.append(body)
    await scene.start(Selection.EVERYTHING, exporter.sink(metrics), consumers=3)
    await eventually(lambda: exporter.attempts == ["a", "b", "c"])


async def test_what_was_delivered_is_not_sent_again_when_the_cursor_cannot_move(
    scene: Scene, state: StateDatabase, metrics: Metrics
) -> None:
    exporter, failures = FakeExporter(), 2

    class Failing:
        read = staticmethod(state.read)

        async def write(self, work: Callable[[Any], Any]) -> Any:
            nonlocal failures
            if exporter.taken and failures:
                failures -= 1
                raise OverloadedError("the disk is full")
            return await state.write(work)

    scene.state = Failing()
    for body in "ab":
        await scene.append(body)
    await scene.start(Selection.EVERYTHING, sink_of(exporter, metrics))
    await scene.finish()
    assert failures == 0
    assert bodies(exporter) == ["a", "b"]
    assert scene.outcomes() == {"otlp_grpc:forwarded": 2}


async def test_what_the_cursor_passes_leaves_the_sending_queue(
    scene: Scene, metrics: Metrics, clock: HeldClock
) -> None:
    exporter = FakeExporter()
    exporter.gate.clear()
    await scene.append("before")
    config = SendingQueueConfig(sizer="items", queue_size=100)
    queue = SendingQueue("otlp_grpc", config, None, MAX_WAIT_S, clock, metrics)
    await scene.start(Selection.EVERYTHING, sink_of(exporter, metrics), queue=queue)
    assert queue.waiting == 1
    entry = NewEntry(Signal.LOGS, b"", 2, clock.now)
    queue.reserve(entry)
    await scene.append("a", "b")
    queue.appended(entry, scene.positions[-1])
    await scene.append(signal=None)
    assert queue.waiting == 3
    exporter.gate.set()
    await scene.finish()
    assert queue.waiting == 0


async def test_what_is_not_delivered_when_it_stops_is_recorded(scene: Scene, metrics: Metrics) -> None:
    """Conformance 77."""
    exporter = FakeExporter()
    exporter.answers.extend([ExportResult(), DownstreamUnavailableError("down", retry_after_s=3600.0)])
    for count in (1, 2, 3):
        await scene.append(*"x" * count)
    route = await scene.start(Selection.EVERYTHING, sink_of(exporter, metrics))
    await eventually(lambda: len(exporter.attempts) == 2)
    with capture_logs() as lines:
        await route.stop(5.0)
    (line,) = [line for line in lines if line["event"] == "undelivered_kept"]
    assert (line["route"], line["items"]) == ("forward:otlp_grpc", 5)
    assert scene.value("driftlock_queue_items", cursor="forward:otlp_grpc") == 5


async def test_a_cursor_that_was_lost_sends_again_and_bills_once(
    scene: Scene, state: StateDatabase, metrics: Metrics
) -> None:
    exporter = FakeExporter()
    await scene.append("a", "b")
    await scene.append("c")
    route = await scene.start(Selection.EVERYTHING, sink_of(exporter, metrics), is_metered=True)
    await scene.finish()
    await route.stop(1.0)
    (before,) = await state.read(usage.totals)
    await state.write(lambda connection: connection.execute("DELETE FROM cursors"))
    await scene.append("d")
    await scene.start(Selection.EVERYTHING, sink_of(exporter, metrics), is_metered=True)
    await eventually(lambda: scene.routes[1].position == scene.log.end().position)
    assert bodies(exporter) == ["a", "b", "c", "a", "b", "c", "d"]
    (after,) = await state.read(usage.totals)
    assert (before.item_count, before.request_count) == (3, 2)
    assert (after.item_count, after.request_count) == (4, 3)


async def test_what_the_disk_has_damaged_is_taken_off_the_sending_queue_as_it_was_counted(
    scene: Scene, metrics: Metrics, clock: HeldClock
) -> None:
    queue = SendingQueue(
        "otlp_grpc", SendingQueueConfig(sizer="bytes", queue_size=1 << 20), lambda: scene.watermark, MAX_WAIT_S, clock,
        metrics,
    )  # fmt: skip
    for name in ("header", "body", "sound", "waits for its verdict"):
        payload = await scene.append(name)
        entry = NewEntry(Signal.LOGS, payload, 1, clock.now)
        queue.reserve(entry)
        queue.appended(entry, scene.positions[-1])
    for index in range(3):
        await scene.judge(index)
    assert queue.has_room(entry)
    assert queue.waiting > 0
    scene.log.damage(scene.positions[0], None)
    scene.log.damage(scene.positions[1], Signal.LOGS)
    route = await scene.start(Selection.CLEAN, sink_of(FakeExporter(), metrics), queue=None)
    route.queue = queue  # What it loads at a start knows of no damage that comes later.
    await eventually(lambda: route.position == scene.positions[3])
    assert queue.waiting == 0
