"""The policy of the detector: when it speaks, what it learns, and how it goes on after a restart.

The streams are the synthetic ones of `tests/calibration`: faults in them are overwhelming
where a test needs an alarm, so that the tests do not hang on a decimal of a score.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from driftlock_otlp.detection.claims import Change, Claim
from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.detection.detector import StreamDetector
from driftlock_otlp.detection.history import LAG_WINDOWS
from driftlock_otlp.detection.policy import CALM_BITS, IMMEDIATE_BITS, REPEATED_BITS
from driftlock_otlp.detection.records import RecordEvidence
from driftlock_otlp.detection.scores import DetectorSettings, WindowScore, fingerprint, to_score
from driftlock_otlp.evaluation.calibration.watch import Watch
from driftlock_otlp.windowing.streams import new_record_scorers
from driftlock_otlp.worker.checkpoint import decode_state, encode_state
from tests.unit.detection.examples import COMPRESSOR, ZSTD, number, window

LAG = LAG_WINDOWS
ARMED = 130
"""Windows after warm-up: enough history that the usual ones are flagged at 1 %."""
GROSS = {"logs": ("new_template", 0.6), "metrics": ("level", 40.0), "traces": ("new_operation", 0.6)}


@pytest.fixture(scope="session")
def warmed() -> Callable[[str], Watch]:
    """A warm stream of a kind; each call gives a copy of its own."""
    made: dict[str, Watch] = {}

    def branch(kind: str) -> Watch:
        if kind not in made:
            watch = Watch(kind, 1).warm_up(ARMED)
            while watch.detector.has_open_anomaly:
                watch.step()
            made[kind] = watch
        return made[kind].branch()

    return branch


@pytest.fixture
def logs(warmed: Callable[[str], Watch]) -> Watch:
    """A warm stream of logs."""
    return warmed("logs")


def bar(beyond_bits: float) -> float:
    """A bar at the default significance of logs, with the governor at rest."""
    return -math.log2(0.01) + beyond_bits


def state_of(watch: Watch) -> bytes:
    return encode_state(watch.detector.state())


def gross(watch: Watch) -> WindowScore:
    return watch.step(*GROSS[watch.kind])


def make_calm(watch: Watch, windows: int) -> list[WindowScore]:
    return [watch.step() for _ in range(windows)]


def learned_counts(watch: Watch, label: str) -> int:
    """How often the baseline's template column holds a label."""
    held = watch.detector.baseline.state()["windows"]
    return sum(
        int(counts[labels.index(label)])
        for labels, counts, *_ in (item["symbols"]["template"] for item in held)
        if label in labels
    )


# Warm-up


def test_warm_up_is_stated_and_nothing_is_flagged_before() -> None:
    watch = Watch("logs", 3)
    seen = 0
    while not watch.detector.is_warm:
        # Even the grossest fault: nothing is known yet.
        score = watch.step("new_template", 0.5 if seen % 10 == 9 else 0.0)
        seen += 1
        assert not score.is_warm
        assert (score.bits, score.p_value, score.score) == (0.0, 1.0, 0.0)
        assert not (score.is_flagged or score.is_alarm or score.is_anomalous)
    settings = watch.settings
    assert seen == settings.baseline_windows + settings.warm_up_windows == 32
    assert watch.step().is_warm


def test_a_longer_warm_up_is_a_longer_warm_up() -> None:
    watch = Watch(
        "traces", 3, DetectorSettings(warm_up_windows=60, baseline_windows=20, baseline_records=100)
    ).warm_up()
    assert watch.clock_unix_nano == (60 + 20) * 10 * 10**9


def test_a_cold_window_has_no_evaluation_and_records_rank_below_any_bar() -> None:
    watch = Watch("logs", 3)
    score = watch.score()
    assert score.evaluation is None
    assert score.sizes.window_raw == 0
    assert watch.detector.record_bits(score).tolist() == [0.0] * 100
    assert (watch.detector.record_margins(score) == -math.inf).all()
    for _ in range(20):
        watch.step()
    late = watch.score("new_template", 0.2)
    assert late.evaluation is not None
    margins = watch.detector.record_margins(late)
    assert margins.max() <= -1.0
    assert late.columns.categories["template"].codes[np.argmax(margins)] == len(watch.stream.labels) - 2  # type: ignore[union-attr]


# Scoring


@pytest.mark.parametrize("kind", ["logs", "metrics", "traces"])
def test_scoring_changes_nothing(kind: str, warmed: Callable[[str], Watch]) -> None:
    watch = warmed(kind)
    before = state_of(watch)
    columns, duration_s = watch.stream.window(*GROSS[kind])
    for _ in range(2):
        score = watch.detector.score_one(columns, watch.clock_unix_nano + 10**10, duration_s)
        watch.detector.record_margins(score)
        assert score.is_alarm
    assert state_of(watch) == before


def test_the_score_rises_with_the_margin_between_zero_and_one() -> None:
    margins = [-math.inf, -1e6, -11.0, -1.0, 0.0, 1.0, 11.0, 1e6]
    scores = [to_score(margin) for margin in margins]
    assert scores == sorted(scores)
    assert (scores[0], scores[4], scores[-1]) == (0.0, 0.5, 1.0)
    assert len(set(scores[2:7])) == 5


def test_the_records_that_carry_the_fault_rank_first(logs: Watch) -> None:
    score = logs.score("new_template", 0.3)
    touched = score.columns.categories["template"].codes == len(logs.stream.labels) - 2  # type: ignore[union-attr]
    margins = logs.detector.record_margins(score)
    assert margins.max() == pytest.approx(score.margin_bits)
    assert margins[touched].min() > margins[~touched].max()


def test_a_column_that_comes_up_late_raises_no_alarm(logs: Watch) -> None:
    random = np.random.default_rng(5)
    alarms = 0
    for _ in range(120):
        columns, duration_s = logs.stream.window()
        logs.clock_unix_nano += 10**10
        columns.numbers["attributes.size"] = number(random.standard_normal(columns.record_count) + 30)
        score = logs.detector.score_one(columns, logs.clock_unix_nano, duration_s)
        alarms += score.is_alarm
        logs.detector.learn_one(score)
    assert alarms == 0
    # By now it is calibrated and heard.
    columns, duration_s = logs.stream.window()
    columns.numbers["attributes.size"] = number(random.standard_normal(columns.record_count) + 90)
    score = logs.detector.score_one(columns, logs.clock_unix_nano + 10**10, duration_s)
    assert score.is_alarm
    assert score.claims[int(score.column_bits.argmax())].column == "attributes.size"


# Learning


def test_a_flagged_window_is_never_learned(logs: Watch) -> None:
    label = "payment gateway timeout after <*> ms"
    score = gross(logs)
    assert score.is_flagged
    make_calm(logs, 3 * LAG)
    assert not logs.detector.has_open_anomaly
    assert learned_counts(logs, label) == 0


def test_a_flag_without_an_alarm_is_not_learned_either(logs: Watch) -> None:
    before = logs.detector.baseline.state()["windows"]
    newest = [item["log2_rate"] for item in before]
    for _ in range(400):
        score = logs.step()
        if score.is_flagged and not score.is_anomalous:
            break
    else:
        pytest.fail("no window of 400 was flagged at 1 %")
    rate = score.prepared.log2_rate
    assert rate not in newest
    for _ in range(2 * LAG):
        logs.step()
        assert rate not in [item["log2_rate"] for item in logs.detector.baseline.state()["windows"]]


def test_a_window_is_learned_six_windows_later(logs: Watch) -> None:
    score = logs.step()
    assert not score.is_flagged
    rate = score.prepared.log2_rate
    found = []
    for _ in range(LAG):
        found.append(rate in [item["log2_rate"] for item in logs.detector.baseline.state()["windows"]])
        logs.step()
    assert found == [False] * LAG
    assert rate in [item["log2_rate"] for item in logs.detector.baseline.state()["windows"]]


def test_odd_windows_just_before_an_alarm_are_not_learned(logs: Watch) -> None:
    odd = None
    for _ in range(600):
        score = logs.step()
        if score.bits >= bar(CALM_BITS) and not score.is_flagged and not score.is_anomalous:
            odd = score
            break
    assert odd is not None, "no window of 600 reached the calm bar unflagged"
    alarm = gross(logs)
    assert alarm.is_alarm
    make_calm(logs, 2 * LAG)
    rates = [item["log2_rate"] for item in logs.detector.baseline.state()["windows"]]
    assert odd.prepared.log2_rate not in rates


def test_of_an_anomaly_only_its_first_window_is_remembered_in_the_calibration(logs: Watch) -> None:
    def total() -> int:
        return int(logs.detector.state()["history_total"])

    before = total()
    for _ in range(5):
        gross(logs)
    assert total() == before + 1


# Alarms


@pytest.mark.parametrize("kind", ["logs", "metrics", "traces"])
def test_an_overwhelming_fault_alarms_in_its_first_window(kind: str, warmed: Callable[[str], Watch]) -> None:
    score = gross(warmed(kind))
    assert score.is_alarm
    assert score.is_anomalous
    assert score.margin_bits > 0
    assert score.score > 0.5


def test_an_episode_has_one_alarm(logs: Watch) -> None:
    scores = [gross(logs) for _ in range(10)]
    assert [score.is_alarm for score in scores] == [True] + [False] * 9
    assert all(score.is_anomalous for score in scores)


def test_a_window_below_the_bar_alarms_if_one_of_the_three_before_was_as_odd(logs: Watch) -> None:
    detector = logs.detector
    size, score = 0.02, logs.score()
    repeated, immediate = bar(REPEATED_BITS), bar(IMMEDIATE_BITS)
    while not repeated + 0.3 <= score.bits <= immediate - 0.3:
        score = logs.score("latency", 1.0 + 10.0 * size)
        size = size * 1.05 if size < 0.3 else 0.02
    assert not score.is_fired
    for silent, fires in ((0, True), (1, True), (2, True), (3, False)):
        state = detector.state()
        state["recent_bits"] = ([score.bits] + [0.0] * silent)[-3:]
        again = logs.new_detector()
        again.restore(decode_state(encode_state(state)))
        fired = again.score_one(score.columns, score.closed_unix_nano, 10.0).is_fired
        assert fired == fires


def test_an_anomaly_is_over_after_its_calm_windows(logs: Watch) -> None:
    gross(logs)
    scores = []
    while logs.detector.has_open_anomaly:
        scores.append(logs.step())
    last = scores[-1]
    assert last.is_resolved
    assert not last.is_adopted
    assert not last.is_anomalous
    assert len(scores) >= logs.settings.recovery_windows
    assert all(score.is_anomalous and not score.is_resolved for score in scores[:-1])
    assert all(score.bits < bar(CALM_BITS) for score in scores[-logs.settings.recovery_windows :])
    assert gross(logs).is_alarm


def test_an_odd_window_starts_the_calm_anew(logs: Watch) -> None:
    gross(logs)
    logs.step()
    logs.step()
    assert gross(logs).is_anomalous
    assert logs.detector.has_open_anomaly
    assert logs.step().is_anomalous


def test_a_regime_that_lasts_becomes_the_baseline() -> None:
    watch = Watch("logs", 1, DetectorSettings(adopt_after_windows=20)).warm_up(60)
    scores = [gross(watch) for _ in range(20)]
    assert [score.is_adopted for score in scores] == [False] * 19 + [True]
    assert scores[-1].is_resolved
    assert not scores[-1].is_anomalous
    assert not watch.detector.has_open_anomaly
    assert watch.detector.baseline.window_count == watch.settings.baseline_windows
    assert learned_counts(watch, "payment gateway timeout after <*> ms") > 500
    after = [gross(watch) for _ in range(60)]
    assert not any(score.is_alarm for score in after)


# Bars


def test_every_alarm_raises_the_bar_by_a_bit_that_wears_off(logs: Watch) -> None:
    def governor() -> float:
        return float(logs.detector.state()["governor_bits"])

    start = governor()
    gross(logs)
    assert governor() == pytest.approx(start + 1.0, abs=0.01)
    raised = governor()
    logs.clock_unix_nano += 86_400 * 10**9
    logs.step()
    assert governor() == pytest.approx(raised / math.e, rel=0.05)


def test_what_keeps_coming_back_becomes_usual_and_another_fault_does_not(logs: Watch) -> None:
    bits = []
    for _ in range(4):
        bits.append(gross(logs).bits)
        make_calm(logs, 20)
    assert bits[0] > bits[1] > bits[-1]
    assert not logs.detector.has_open_anomaly
    assert logs.step("error_burst", 0.5).is_alarm


def test_the_governor_holds_back_an_alarm_just_above_the_bar(logs: Watch) -> None:
    size, score = 0.02, logs.score()
    while not bar(IMMEDIATE_BITS) + 0.1 <= score.bits <= bar(IMMEDIATE_BITS) + 0.9:
        score = logs.score("latency", 1.0 + 10.0 * size)
        size = size * 1.05 if size < 0.3 else 0.02
    state = logs.detector.state()
    for governor, fires in ((0.0, True), (1.0, False)):
        state["governor_bits"], state["recent_bits"] = governor, [0.0] * 3
        again = logs.new_detector()
        again.restore(decode_state(encode_state(state)))
        assert again.score_one(score.columns, score.closed_unix_nano, 10.0).is_alarm == fires


def test_significance_moves_flags_and_bars_together(logs: Watch) -> None:
    score = logs.score("latency", 6.0)
    margins = {}
    for significance in (0.001, 0.01, 0.1, 0.4):
        other = StreamDetector(
            DetectorSettings(significance=significance), logs.compressor, new_record_scorers(logs.kind)
        )
        other.restore(decode_state(encode_state(logs.detector.state())))
        again = other.score_one(score.columns, score.closed_unix_nano, 10.0)
        assert again.bits == pytest.approx(score.bits, abs=3.0)
        assert again.is_flagged == (again.p_value <= significance or again.bits >= -math.log2(significance))
        margins[significance] = again.margin_bits - again.bits
    assert margins[0.001] - margins[0.01] == pytest.approx(-math.log2(10))
    assert margins[0.01] - margins[0.1] == pytest.approx(-math.log2(10))


def test_an_anomaly_can_end_at_the_coarsest_significance() -> None:
    watch = Watch("logs", 1, DetectorSettings(significance=0.49)).warm_up(20)
    gross(watch)
    assert watch.detector.has_open_anomaly
    for _ in range(59):
        if watch.step().is_resolved:
            return
    pytest.fail("no calm in 59 windows")


def test_a_stream_of_fast_windows_has_higher_bars(logs: Watch) -> None:
    score = logs.score()
    state = logs.detector.state()
    bars = []
    for interval_s in (60.0, 10.0, 2.5):
        state["interval_s"] = interval_s
        again = logs.new_detector()
        again.restore(decode_state(encode_state(state)))
        found = again.score_one(score.columns, score.closed_unix_nano, 10.0)
        bars.append(found.bits - found.margin_bits)
    assert bars[0] == pytest.approx(bars[1])
    assert bars[2] - bars[1] == pytest.approx(1.0)


# State


@pytest.mark.parametrize("kind", ["logs", "metrics", "traces"])
@pytest.mark.parametrize("windows", [5, 75])
def test_a_restored_detector_goes_on_bit_for_bit(kind: str, windows: int) -> None:
    watch = Watch(kind, 2)
    for i in range(windows):
        watch.step(*(GROSS[kind] if i == 70 else ("", 0.0)))
    again = watch.new_detector()
    again.restore(decode_state(encode_state(watch.detector.state())))
    for i in range(36):
        watch.clock_unix_nano += 10**10
        columns, duration_s = watch.stream.window(*(GROSS[kind] if 12 <= i < 16 else ("", 0.0)))
        one = watch.detector.score_one(columns, watch.clock_unix_nano, duration_s)
        other = again.score_one(columns, watch.clock_unix_nano, duration_s)
        assert (one.bits, one.p_value, one.margin_bits) == (other.bits, other.p_value, other.margin_bits)
        assert (one.is_alarm, one.is_anomalous, one.is_resolved) == (
            other.is_alarm,
            other.is_anomalous,
            other.is_resolved,
        )
        np.testing.assert_array_equal(one.vector, other.vector)
        np.testing.assert_array_equal(one.column_bits, other.column_bits)
        watch.detector.learn_one(one)
        again.learn_one(other)


def test_a_detector_restored_within_an_anomaly_adopts_alike() -> None:
    watch = Watch("traces", 2, DetectorSettings(adopt_after_windows=15)).warm_up(30)
    for _ in range(6):
        gross(watch)
    again = watch.branch()
    for _ in range(30):
        one, other = gross(watch), gross(again)
        assert (one.bits, one.is_adopted, one.is_alarm) == (other.bits, other.is_adopted, other.is_alarm)


def test_the_fingerprint_tells_settings_and_compressors_apart() -> None:
    usual = DetectorSettings()
    prints = {
        fingerprint(usual, COMPRESSOR),
        fingerprint(usual, ZSTD),
        fingerprint(DetectorSettings(significance=0.02), COMPRESSOR),
        fingerprint(DetectorSettings(baseline_windows=13), COMPRESSOR),
    }
    assert len(prints) == 4
    assert fingerprint(DetectorSettings(), COMPRESSOR) in prints


# Unpleasant windows


def test_empty_windows_and_windows_without_columns_are_taken() -> None:
    detector = StreamDetector(DetectorSettings(), COMPRESSOR)
    clock = 0
    for i in range(100):
        clock += 10**10
        columns = window({"template": "abab" * 5}, {"size": number(range(20))})
        if i % 3 == 1:
            columns = Columns(0, np.zeros(0, dtype=np.int64))
        elif i % 3 == 2:
            columns = window({"template": [None] * 20}, {"size": number([math.nan] * 20)})
        score = detector.score_one(columns, clock, 10.0)
        assert not score.is_alarm
        assert detector.record_margins(score).shape == (columns.record_count,)
        detector.learn_one(score)
    assert detector.is_warm


def test_a_clock_that_stands_still_or_steps_back_does_no_harm() -> None:
    detector = StreamDetector(DetectorSettings(), COMPRESSOR)
    for i in range(90):
        columns = window({"template": "abab" * 5})
        score = detector.score_one(columns, 10**18 - (i % 2) * 10**9, 0.0)
        assert math.isfinite(score.bits)
        detector.learn_one(score)
    assert detector.is_warm


class _Crier:
    """A record scorer that finds the first record of every window so many bits beyond its budget."""

    claim = Claim("", "cry", "value")

    def __init__(self, margin: float) -> None:
        self.margin = margin

    def score_one(self, columns: Columns) -> RecordEvidence:
        margins = np.full(columns.record_count, -math.inf)
        margins[0] = self.margin
        return RecordEvidence(np.zeros(columns.record_count), margins)

    def learn_one(self, columns: Columns, evidence: RecordEvidence | None) -> None:
        """Remember nothing."""

    def explain(self, columns: Columns, row: int) -> tuple[str, Change]:
        return "cry", Change("", "", "", "")

    def state(self) -> None:
        return None

    def restore(self, state: object) -> None:
        """Nothing to restore."""


def test_records_that_cry_raise_their_own_bar_and_leave_that_of_windows() -> None:
    watch = Watch("logs", 3)
    crier = _Crier(-1.0)
    watch.detector = StreamDetector(watch.settings, watch.compressor, [crier])
    watch.warm_up(20)
    crier.margin = 4.0
    assert watch.step().is_of_records
    crier.margin = -1.0
    while watch.detector.has_open_anomaly:
        watch.step()
    crier.margin = 2.5  # enough for a scorer that never cried, and less than it owes now
    assert not watch.step().is_fired
    assert watch.detector.state()["governor_bits"] == 0.0
    crier.margin = -1.0
    assert gross(watch).is_alarm
