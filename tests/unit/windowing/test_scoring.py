"""From requests to verdicts; the same input gives the same output, also across a restart."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from driftlock_otlp.config.file import load
from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.errors import CompressorError, DecodeError
from driftlock_otlp.model import Signal, StreamKey
from driftlock_otlp.orders import Feedback, FeedbackVerdict, Sensitivity
from driftlock_otlp.otlp.decode import decode
from driftlock_otlp.windowing.scoring import StreamScoring
from driftlock_otlp.windowing.verdicts import Verdicts
from driftlock_otlp.worker.checkpoint import decode_state, encode_state
from tests.e2e.traffic import Traffic

SECOND = 1_000_000_000
CLOCK = 1_800_000_000 * SECOND
SHOP = StreamKey("logs", "shop")
WINDOW = 40
FAULT = range(64, 70)
"""Requests, each of one window, that are odd."""
FAULTS: dict[Signal, dict[str, float]] = {
    Signal.LOGS: {"fault_share": 1.0},
    Signal.TRACES: {"slow_factor": 500.0},
    Signal.METRICS: {"level": 900.0},
}


def config(*overrides: str) -> Config:
    sizes = [f"windows.{kind}.size={WINDOW}" for kind in ("logs", "traces", "gen_ai")]
    # A metrics request has two streams.
    sizes += [f"windows.metrics.size={WINDOW // 2}"]
    records = [f"windows.{kind}.baseline_records=160" for kind in ("logs", "traces", "metrics")]
    return load(None, [*sizes, *records, "detection.warm_up_windows=20", *overrides], environ={})


def scoring(*overrides: str, partition: tuple[int, int] = (0, 1)) -> StreamScoring:
    return StreamScoring(config(*overrides), new_compressor("auto"), partition, with_records=True)


@functools.cache
def requests(signal: Signal, seed: int = 5) -> tuple[bytes, ...]:
    traffic = Traffic(seed)
    make = getattr(traffic, signal.plural)
    return tuple(make(WINDOW, **(FAULTS[signal] if turn in FAULT else {})) for turn in range(80))


def feed(target: StreamScoring, signal: Signal, turns: range) -> list[Verdicts]:
    payloads = requests(signal)
    return [target.feed(signal, payloads[turn], 1000 * turn, CLOCK + turn * 10 * SECOND) for turn in turns]


@functools.cache
def undisturbed(signal: Signal) -> list[Verdicts]:
    return feed(scoring(), signal, range(80))


@pytest.mark.parametrize("signal", list(Signal))
def test_a_fault_becomes_one_anomaly_whose_items_are_diverted(signal: Signal) -> None:
    verdicts = undisturbed(signal)
    (anomaly,) = [anomaly for turn in FAULT for anomaly in verdicts[turn].opened]
    diverted = {
        position: ranges for verdict in verdicts[FAULT.start :] for position, ranges in verdict.diverted.items()
    }
    assert min(diverted) in (1000 * FAULT.start, 1000 * (FAULT.start + 1))
    assert set(diverted) >= {1000 * turn for turn in FAULT[1:]}
    assert {item.anomaly_id for ranges in diverted.values() for item in ranges} == {anomaly.id}
    if signal is Signal.METRICS:
        # Of two metrics one is odd: its points stand first in the request.
        assert anomaly.stream.name == "queue.depth"
    count = WINDOW // 2 if signal is Signal.METRICS else WINDOW
    assert all([(item.first, item.count) for item in ranges] == [(0, count)] for ranges in diverted.values())
    assert 0.5 <= anomaly.score <= 1
    assert anomaly.explanation
    assert anomaly.evidence
    ends = [how for verdict in verdicts for anomaly_id, _, how in verdict.resolved if anomaly_id == anomaly.id]
    assert ends == ["recovered"]


def test_every_record_is_in_exactly_one_window_and_every_window_has_its_facts() -> None:
    verdicts = undisturbed(Signal.LOGS)
    seen = Counter(
        (position, item)
        for verdict in verdicts
        for record in verdict.records
        for position, item in zip(record.positions, record.items, strict=True)
    )
    assert seen == Counter((1000 * turn, item) for turn in range(80) for item in range(WINDOW))
    facts = [fact for verdict in verdicts for fact in verdict.facts]
    counted = Counter[tuple[str, str]]()
    for verdict in verdicts:
        counted.update(verdict.windows)
    assert Counter((fact.stream.kind, fact.outcome) for fact in facts) == counted
    assert all(0 <= fact.score <= 1 and 0 < fact.p_value <= 1 for fact in facts)


@pytest.mark.parametrize("turn", [13, 41, 66])
@pytest.mark.parametrize("signal", list(Signal))
def test_a_restored_scoring_goes_on_bit_for_bit(signal: Signal, turn: int) -> None:
    first = scoring()
    feed(first, signal, range(turn))
    # An open window, too, must be taken over.
    half = Traffic(99).request(signal, WINDOW // 4)
    first.feed(signal, half, 1000 * turn - 500, CLOCK + (turn * 10 - 5) * SECOND)
    saved = [(change.used, encode_state(change.state)) for change in first.take_changes()]
    second = scoring()
    assert second.restore(first.clock_unix_nano, ((used, decode_state(data)) for used, data in saved)) == []
    assert second.oldest_position() == first.oldest_position() is not None
    assert second.stream_counts() == first.stream_counts()
    assert second.warming_up_count() == first.warming_up_count()
    rest = range(turn, 80)
    assert feed(second, signal, rest) == feed(first, signal, rest)
    assert [change[2:] for change in second.take_changes()] == [change[2:] for change in first.take_changes()]


def test_the_same_input_gives_the_same_verdicts() -> None:
    assert feed(scoring(), Signal.LOGS, range(80)) == undisturbed(Signal.LOGS)


def test_a_checkpoint_holds_only_the_streams_that_changed() -> None:
    target = scoring()
    for service in ("a", "b"):
        target.feed(Signal.LOGS, Traffic(service=service).logs(3), 0, CLOCK)
    assert [change.key.service for change in target.take_changes()] == ["a", "b"]
    assert list(target.take_changes()) == []
    target.feed(Signal.LOGS, Traffic(service="b").logs(3), 1, CLOCK)
    assert [change.key.service for change in target.take_changes()] == ["b"]
    # A window that closes by age changes its stream.
    target.advance(CLOCK + 60 * SECOND)
    assert [change.key.service for change in target.take_changes()] == ["a", "b"]


def test_other_settings_learn_anew_but_keep_the_open_windows() -> None:
    first = scoring()
    feed(first, Signal.LOGS, range(50))
    first.feed(Signal.LOGS, Traffic(99).logs(5), 50_000, CLOCK + 500 * SECOND)
    saved = [(change.used, change.state) for change in first.take_changes()]
    second = scoring("detection.significance=0.02")
    assert second.restore(first.clock_unix_nano, saved) == ["logs/shop"]
    assert second.warming_up_count() == 1
    assert second.oldest_position() == 50_000
    (fact,) = second.flush().facts
    assert (fact.record_count, fact.outcome) == (5, "warming_up")


def test_states_of_another_detector_are_passed_over_whatever_their_shape_and_sensitivity_stays() -> None:
    first = scoring()
    feed(first, Signal.LOGS, range(50))
    first.obey(Sensitivity(SHOP, 0.001), CLOCK)
    (change,) = first.take_changes()
    old = change.state | {"fingerprint": "0" * 16}
    for detector, significance in (({}, None), ({"significance": 0.001, "history": "of another shape"}, 0.001)):
        second = scoring()
        assert second.restore(first.clock_unix_nano, [(1, old | {"detector": detector})]) == ["logs/shop"]
        second.feed(Signal.LOGS, requests(Signal.LOGS)[0], 1, CLOCK)
        (learning,) = second.take_changes()
        assert learning.state["detector"]["significance"] == significance


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_order_is_obeyed_by_the_partition_that_has_the_stream_and_by_no_other(count: int) -> None:
    parts = [scoring(partition=(index, count)) for index in range(count)]
    for part in parts:
        feed(part, Signal.LOGS, range(5))
    for order, outcome in (
        (Sensitivity(SHOP, 0.001), "obeyed"),
        (Feedback(SHOP, "ab", "confirmed"), "unknown"),
        (Sensitivity(StreamKey("logs", "nobody"), 0.001), "unknown"),
        (Sensitivity(StreamKey("no kind", "shop"), 0.001), "unknown"),
    ):
        assert sum((part.obey(order, CLOCK).orders for part in parts), Counter()) == {outcome: 1}
    assert sum((part.stream_counts() for part in parts), Counter()) == {"logs": 1}


def test_an_order_to_a_stream_that_made_room_is_obeyed() -> None:
    kept = Kept()
    target = StreamScoring(config("detection.max_streams=1"), new_compressor("auto"), load=kept.load)
    for name in ("shop", "other"):
        target.feed(Signal.LOGS, Traffic(service=name).logs(WINDOW), 0, CLOCK)
        kept.take(target)
    assert not kept.streams[SHOP][2]
    verdicts = target.obey(Sensitivity(SHOP, 0.001), CLOCK)
    assert (verdicts.orders, verdicts.evicted_streams) == ({"obeyed": 1}, 1)
    kept.take(target)
    assert decode_state(kept.streams[SHOP][1])["detector"]["significance"] == 0.001


def test_time_passes_with_an_order() -> None:
    target = scoring()
    target.feed(Signal.LOGS, Traffic(service="shop").logs(3), 0, CLOCK)
    assert len(target.obey(Sensitivity(SHOP, 0.001), CLOCK + 60 * SECOND).facts) == 1


@pytest.mark.parametrize("verdict", ["false_alarm", "confirmed", "withdrawn"])
def test_feedback_ends_an_anomaly_only_where_it_was_none(verdict: FeedbackVerdict) -> None:
    target = scoring()
    opened = [anomaly for verdicts in feed(target, Signal.LOGS, range(67)) for anomaly in verdicts.opened]
    verdicts = target.obey(Feedback(SHOP, opened[0].id, verdict), CLOCK)
    assert verdicts.orders == {"obeyed": 1}
    ended = [(anomaly_id, how) for anomaly_id, _, how in verdicts.resolved]
    assert ended == ([(opened[0].id, "dismissed")] if verdict == "false_alarm" else [])
    further = feed(target, Signal.LOGS, range(67, 70))
    assert any(verdicts.diverted for verdicts in further) is (verdict != "false_alarm")


def test_a_regime_that_lasts_is_adopted_and_the_anomaly_says_so() -> None:
    target = scoring("detection.adopt_after_windows=4")
    verdicts = feed(target, Signal.LOGS, range(70))
    assert [how for verdict in verdicts for _, _, how in verdict.resolved] == ["adopted"]
    # What was the fault is what is usual now.
    assert not verdicts[-1].diverted


def drifting(*overrides: str) -> StreamScoring:
    """Return streams of which one is found to drift with its next window: its anchor's day is over."""
    first = scoring(*overrides)
    feed(first, Signal.LOGS, range(50))
    (change,) = first.take_changes()
    drift = change.state["detector"]["drift"]
    assert drift["anchored_unix_nano"]
    drift |= {"check_count": 30, "windows_since": 59, "beyond": [["severity", "shift", 2]]}
    drift |= {"largest": [["severity", "shift", -1_000.0, 24]], "anchored_unix_nano": CLOCK - 2 * 86_400 * SECOND}
    drift |= {"checked_unix_nano": CLOCK - 3_600 * SECOND}
    target = scoring(*overrides)
    target.restore(first.clock_unix_nano, [(change.used, change.state)])
    return target


def test_a_drift_is_told_as_an_anomaly_to_which_no_record_belongs_and_ends_by_feedback() -> None:
    target = drifting()
    verdicts = feed(target, Signal.LOGS, range(50, 51))[0]
    (anomaly,) = verdicts.opened
    (evidence,) = anomaly.evidence
    assert (evidence.column, evidence.kind) == ("severity", "drift")
    assert "shop: since 2027-01-13 08:00 UTC severity of “" in anomaly.explanation
    assert "has drifted" in anomaly.explanation
    assert anomaly.window_start_unix_nano == CLOCK - 2 * 86_400 * SECOND
    assert (anomaly.p_value, anomaly.score > 0.5) == (1 / 32, True)
    assert not verdicts.diverted
    assert [fact.outcome for fact in verdicts.facts] == ["clean"]
    (change,) = target.take_changes()
    again = scoring()
    again.restore(target.clock_unix_nano, [(change.used, decode_state(encode_state(change.state)))])
    ended = again.obey(Feedback(SHOP, anomaly.id, "false_alarm"), CLOCK)
    assert [(anomaly_id, how) for anomaly_id, _, how in ended.resolved] == [(anomaly.id, "dismissed")]
    assert ended.orders == {"obeyed": 1}


def test_a_drift_ends_with_the_regime_that_drifted() -> None:
    target = drifting("detection.adopt_after_windows=5")
    (anomaly,) = feed(target, Signal.LOGS, range(50, 51))[0].opened
    for turn in range(51, 140):
        payload = Traffic(turn).logs(WINDOW, 1.0)
        resolved = target.feed(Signal.LOGS, payload, 1000 * turn, CLOCK + turn * 10 * SECOND).resolved
        if resolved:
            break
    assert {how for _, _, how in resolved} == {"adopted"}
    assert anomaly.id in {anomaly_id for anomaly_id, _, _ in resolved}


def test_partitions_score_every_stream_exactly_once() -> None:
    whole, parts = scoring(), [scoring(partition=(index, 2)) for index in range(2)]
    seen: list[Counter[Any]] = []
    for group in ([whole], parts):
        found: Counter[Any] = Counter()
        for target in group:
            for place in range(20):
                for signal in Signal:
                    payload = Traffic(place, service=f"service-{place}").request(signal, 10)
                    target.feed(signal, payload, place, CLOCK)
            found.update((fact.stream, fact.record_count) for fact in target.flush().facts)
        seen.append(found)
    assert seen[0] == seen[1]
    assert set(seen[0].values()) == {1}
    assert all(sum(part.stream_counts().values()) > 10 for part in parts)


def test_a_partition_takes_over_only_its_own_streams() -> None:
    whole = scoring()
    for place in range(10):
        whole.feed(Signal.LOGS, Traffic(service=f"service-{place}").logs(3), place, CLOCK)
    saved = [(change.used, change.state) for change in whole.take_changes()]
    parts = [scoring(partition=(index, 2)) for index in range(2)]
    for part in parts:
        part.restore(whole.clock_unix_nano, saved)
    assert sum((part.stream_counts() for part in parts), Counter()) == whole.stream_counts()


@pytest.mark.parametrize("time_unix_nano", [0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("signal", list(Signal))
def test_senseless_event_times_do_not_break_windows(signal: Signal, time_unix_nano: int) -> None:
    message = _with_times(signal, requests(signal)[0], time_unix_nano)
    target = scoring()
    feed(target, signal, range(30))
    odd = target.feed(signal, message, 30_000, CLOCK + 300 * SECOND)
    after = feed(target, signal, range(31, 60))
    assert sum(odd.windows.values()) == sum(after[0].windows.values()) >= 1
    assert all(fact.end_unix_nano < 1 << 63 for verdict in (odd, *after) for fact in verdict.facts)
    # And what is kept of it can be written down.
    for change in target.take_changes():
        decode_state(encode_state(change.state))


def test_a_sender_whose_clock_is_ahead_does_not_stop_the_rate_of_the_stream() -> None:
    plain, disturbed = scoring(), scoring()
    for target in (plain, disturbed):
        feed(target, Signal.LOGS, range(5))
    disturbed.feed(Signal.LOGS, _with_times(Signal.LOGS, requests(Signal.LOGS)[5], 1 << 62), 5000, CLOCK + 50 * SECOND)
    (change,) = disturbed.take_changes()
    assert change.state["last_event"] < CLOCK + 3600 * SECOND


def test_a_clock_that_runs_backwards_changes_nothing() -> None:
    target = scoring()
    for turn in range(10):
        verdicts = target.feed(Signal.LOGS, requests(Signal.LOGS)[turn], turn, CLOCK - turn * 1000 * SECOND)
        assert verdicts.windows == {("logs", "warming_up"): 1}
    assert target.clock_unix_nano == CLOCK


def test_idle_sessions_are_scored_as_windows_of_their_own() -> None:
    target = scoring("windows.logs.session_key=session.id", "windows.logs.max_age=10s")
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for number in range(12):
        record = records.add(time_unix_nano=CLOCK + number)
        record.body.string_value = f"step {number}"
        record.attributes.add(key="session.id").value.string_value = f"session-{number % 3}"
    assert not target.feed(Signal.LOGS, request.SerializeToString(), 0, CLOCK).facts
    verdicts = target.advance(CLOCK + 10 * SECOND)
    assert [fact.record_count for fact in verdicts.facts] == [4, 4, 4]
    assert target.oldest_position() is None


def test_streams_beyond_the_limit_pass_unscored_and_are_counted() -> None:
    target = scoring("detection.max_streams=2")
    verdicts = [target.feed(Signal.LOGS, Traffic(service=name).logs(7), 0, CLOCK) for name in "abcb"]
    assert [verdict.unscored_items for verdict in verdicts] == [{}, {}, {"max_streams": 7}, {}]
    assert sum(fact.record_count for fact in target.flush().facts) == 21


def test_streams_whose_scores_do_not_vary_are_counted() -> None:
    target = scoring()
    feed(target, Signal.LOGS, range(50))
    payload = Traffic(1, service="parrot").logs(WINDOW)
    for turn in range(50):
        target.feed(Signal.LOGS, payload, turn, CLOCK + turn * SECOND)
    assert target.stream_counts() == {"logs": 2}
    assert target.constant_count() == 1


class Kept:
    """States of streams as a checkpoint keeps them."""

    def __init__(self) -> None:
        self.streams: dict[StreamKey, tuple[int, bytes, bool]] = {}

    def take(self, target: StreamScoring) -> None:
        for change in target.take_changes():
            self.streams[change.key] = change.used, encode_state(change.state), change.is_resident

    def load(self, key: StreamKey) -> Any:
        return decode_state(self.streams[key][1]) if key in self.streams else None

    def resident(self) -> list[tuple[int, Any]]:
        residents = [(used, data) for used, data, is_resident in self.streams.values() if is_resident]
        return [(used, decode_state(data)) for used, data in sorted(residents)]


def test_streams_that_made_room_go_on_where_they_were_also_across_a_restart() -> None:
    traffic = {name: Traffic(7, service=name) for name in "abcd"}
    # "a" comes back sooner than the others.
    order = [name for turn in range(45) for name in ("a", "bcd"[turn % 3])]
    payloads = [traffic[name].logs(WINDOW, fault_share=1.0 if turn == 80 else 0.0) for turn, name in enumerate(order)]

    def go_on(target: StreamScoring, turns: range) -> list[tuple[Any, ...]]:
        verdicts = [target.feed(Signal.LOGS, payloads[turn], turn, CLOCK + turn * SECOND) for turn in turns]
        return [(found.facts, found.opened, found.diverted, found.unscored_items) for found in verdicts]

    expected = go_on(scoring(), range(90))
    assert [bool(opened) for _, opened, *_ in expected].index(True) == 80
    kept = Kept()
    small = StreamScoring(config("detection.max_streams=2"), new_compressor("auto"), with_records=True, load=kept.load)
    found = go_on(small, range(30))
    kept.take(small)
    found += go_on(small, range(30, 37))
    assert small.evicted_count > 0
    kept.take(small)
    assert small.evicted_count == 0
    assert sum(small.stream_counts().values()) == 2
    again = StreamScoring(config("detection.max_streams=2"), new_compressor("auto"), with_records=True, load=kept.load)
    again.restore(small.clock_unix_nano, kept.resident())
    rest = go_on(small, range(37, 90))
    assert found + rest == expected
    assert go_on(again, range(37, 90)) == rest


def test_what_is_not_otlp_is_refused_and_nothing_is_taken() -> None:
    target = scoring()
    with pytest.raises(DecodeError):
        target.feed(Signal.LOGS, b"\xff\xff", 0, CLOCK)
    assert target.oldest_position() is None
    assert list(target.take_changes()) == []


class _BrokenCompressor:
    """Fails when it is told to."""

    def __init__(self) -> None:
        self.is_broken = False
        self._sound = new_compressor("auto")
        self.fingerprint = self._sound.fingerprint

    def __getattr__(self, name: str) -> Any:
        if self.is_broken and name.endswith("size"):
            raise CompressorError("told to fail")
        return getattr(self._sound, name)


def test_a_compressor_that_fails_leaves_the_window_unscored_and_counted() -> None:
    compressor = _BrokenCompressor()
    target = StreamScoring(config(), compressor)
    feed(target, Signal.LOGS, range(30))
    compressor.is_broken = True
    (verdicts,) = feed(target, Signal.LOGS, range(30, 31))
    assert verdicts.windows == {("logs", "unscored"): 1}
    assert verdicts.unscored_items == {"compressor": WINDOW}
    assert not verdicts.diverted
    compressor.is_broken = False
    (verdicts,) = feed(target, Signal.LOGS, range(31, 32))
    assert not verdicts.unscored_items


_ENVELOPES = {
    Signal.LOGS: ("resource_logs", "scope_logs"),
    Signal.METRICS: ("resource_metrics", "scope_metrics"),
    Signal.TRACES: ("resource_spans", "scope_spans"),
}


def _with_times(signal: Signal, payload: bytes, time_unix_nano: int) -> bytes:
    """Return the request with this time on every item."""
    message = decode(signal, payload)
    resources, scopes = _ENVELOPES[signal]
    for scope in (scope for resource in getattr(message, resources) for scope in getattr(resource, scopes)):
        if signal is Signal.LOGS:
            for record in scope.log_records:
                record.time_unix_nano = time_unix_nano
        elif signal is Signal.TRACES:
            for span in scope.spans:
                span.end_time_unix_nano = time_unix_nano
        else:
            for metric in scope.metrics:
                for point in (*metric.gauge.data_points, *metric.sum.data_points):
                    point.time_unix_nano = time_unix_nano
    encoded: bytes = message.SerializeToString()
    return encoded


def test_a_stream_says_when_it_may_alarm_and_which_anomaly_goes_on() -> None:
    target = scoring()
    left, anomalies = [], []
    for turn in range(70):
        (verdict,) = feed(target, Signal.LOGS, range(turn, turn + 1))
        (stream,) = target.live_streams(10)
        left.append(stream.windows_to_warm)
        anomalies.append(stream.anomaly_id)
        assert stream.window_count == turn + 1
    assert left[: 12 + 20] == list(range(12 + 20 - 1, -1, -1))
    assert set(left[12 + 20 :]) == {0}
    assert set(anomalies[: FAULT.start]) == {""}
    (opened,) = [anomaly.id for verdict in undisturbed(Signal.LOGS)[: FAULT.stop] for anomaly in verdict.opened]
    assert anomalies[-1] == opened
    assert stream.last_outcome == "anomalous"
    assert stream.last_score == verdict.facts[-1].score > 0.0


def test_of_many_streams_those_with_anomalies_are_shown_first_then_the_latest() -> None:
    target = scoring()
    feed(target, Signal.LOGS, range(70))
    for number in range(30):
        payload = Traffic(number, service=f"service-{number}-{'x' * 500}").logs(WINDOW + 1)
        target.feed(Signal.LOGS, payload, 100_000 + number, CLOCK + 1000 * SECOND)
    shown = target.live_streams(5)
    assert len(shown) == 5
    assert [bool(stream.anomaly_id) for stream in shown] == [True, False, False, False, False]
    assert all(len(stream.key.service) <= 200 for stream in shown)
    assert [stream.open_record_count for stream in shown[1:]] == [1] * 4
