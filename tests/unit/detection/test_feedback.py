"""What people say of an anomaly: in force from the next window on, and taken back without a trace."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from driftlock_otlp.detection.cases import Cases
from driftlock_otlp.detection.scores import DetectorSettings, WindowScore
from driftlock_otlp.evaluation.calibration.watch import Watch
from driftlock_otlp.worker.checkpoint import decode_state, encode_state

FAULTS = {"logs": ("new_template", 0.4), "metrics": ("level", 25.0), "traces": ("new_operation", 0.4)}
OTHERS = {"logs": ("error_burst", 0.5), "metrics": ("level", -40.0), "traces": ("errors", 0.5)}
KINDS = [*FAULTS]
ID = "the first"


@pytest.fixture(scope="module")
def alarmed() -> Callable[[str], Watch]:
    """A stream of a kind whose fault has been alarmed, for three windows, and is over; a copy each."""
    made: dict[str, Watch] = {}

    def branch(kind: str) -> Watch:
        if kind not in made:
            watch = Watch(kind, 1, DetectorSettings(adopt_after_windows=12)).warm_up(90)
            calm_down(watch)
            assert fault(watch, ID).is_alarm
            fault(watch)
            fault(watch)
            calm_down(watch)
            made[kind] = watch
        return made[kind].branch()

    return branch


def fault(watch: Watch, anomaly_id: str = "", kind: tuple[str, float] | None = None) -> WindowScore:
    score = watch.score(*(kind or FAULTS[watch.kind]))
    watch.detector.learn_one(score, anomaly_id)
    return score


def calm_down(watch: Watch) -> None:
    watch.step()
    while watch.detector.has_open_anomaly:
        watch.step()


def is_found(watch: Watch, kind: tuple[str, float] | None = None, windows: int = 3) -> bool:
    """Whether one of the next windows of a fault is an alarm, or belongs to one."""
    return any(fault(watch, kind=kind).is_anomalous for _ in range(windows))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_that_is_a_false_alarm_does_not_alarm_again_and_another_one_does(
    kind: str, alarmed: Callable[[str], Watch]
) -> None:
    watch = alarmed(kind)
    assert is_found(watch.branch())
    assert watch.detector.judge(ID, is_good=True) is False
    assert not is_found(watch.branch(), windows=20)
    assert is_found(watch, OTHERS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_an_anomaly_that_goes_on_ends_with_the_verdict_that_it_is_none(
    kind: str, alarmed: Callable[[str], Watch]
) -> None:
    watch = alarmed(kind)
    while not fault(watch, "the second").is_alarm:
        pass
    fault(watch)
    fault(watch)
    assert watch.detector.has_open_anomaly
    assert watch.detector.judge("the second", is_good=True) is True
    assert not watch.detector.has_open_anomaly
    assert not is_found(watch, windows=10)


def test_one_verdict_silences_a_template_for_good_whatever_its_share(alarmed: Callable[[str], Watch]) -> None:
    watch = alarmed("logs")
    watch.detector.judge(ID, is_good=True)
    for share in (0.02, 0.1, 0.3, 0.6):
        assert not is_found(watch.branch(), ("new_template", share), windows=5)


def test_what_is_odd_beside_a_silenced_template_is_still_found_and_its_records_are_named(
    alarmed: Callable[[str], Watch],
) -> None:
    watch = alarmed("logs")
    watch.detector.judge(ID, is_good=True)
    columns, duration_s = watch.stream.window("new_template", 0.3)
    severity = columns.categories["severity"]
    silenced = columns.categories["template"].codes == columns.categories["template"].labels.index(
        "payment gateway timeout after <*> ms"
    )
    bad = np.flatnonzero(~silenced)[::2]
    severity.codes[bad] = severity.labels.index("ERROR")
    score = watch.detector.score_one(columns, watch.clock_unix_nano + 10**10, duration_s)
    assert score.is_alarm
    margins = watch.detector.record_margins(score)
    assert margins.shape == (columns.record_count,)
    assert set(np.argsort(-margins)[: len(bad)].tolist()) == set(bad.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_fault_is_adopted_and_one_that_was_confirmed_is_not(kind: str, alarmed: Callable[[str], Watch]) -> None:
    for is_good, adopted in ((None, True), (False, False)):
        watch = alarmed(kind)
        watch.detector.judge(ID, is_good=is_good)
        scores = [fault(watch) for _ in range(30)]
        assert any(score.is_adopted for score in scores) is adopted
        assert scores[-1].is_anomalous is not adopted


@pytest.mark.parametrize("kind", KINDS)
def test_a_confirmed_fault_alarms_each_time_it_comes(kind: str, alarmed: Callable[[str], Watch]) -> None:
    watch = alarmed(kind)
    watch.detector.judge(ID, is_good=False)
    for _ in range(6):
        assert fault(watch).is_alarm
        for _ in range(15):
            fault(watch)
        calm_down(watch)


def test_after_a_confirmed_fault_the_calibration_goes_on(alarmed: Callable[[str], Watch]) -> None:
    watch = alarmed("logs")
    watch.detector.judge(ID, is_good=False)
    before = watch.detector.state()["history_total"]
    for _ in range(5):
        assert fault(watch).is_protected
    assert watch.detector.state()["history_total"] == before
    calm_down(watch)
    for _ in range(10):
        watch.step()
    assert watch.detector.state()["history_total"] >= before + 10


def test_a_regime_that_was_adopted_before_it_was_confirmed_is_not_the_baseline_any_more() -> None:
    watch = Watch("logs", 1, DetectorSettings(adopt_after_windows=12)).warm_up(60)
    fault(watch, ID)
    while not fault(watch).is_adopted:
        pass
    for _ in range(3):
        assert not fault(watch).is_anomalous
    before = state_of(watch)
    watch.detector.judge(ID, is_good=False)
    assert fault(watch.branch()).is_alarm
    watch.detector.judge(ID, is_good=None)
    assert state_of(watch) == before
    assert not fault(watch).is_anomalous


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_good", [True, False])
def test_a_verdict_that_is_withdrawn_leaves_no_trace(kind: str, is_good: bool, alarmed: Callable[[str], Watch]) -> None:
    watch = alarmed(kind)
    before = state_of(watch)
    watch.detector.judge(ID, is_good=is_good)
    assert state_of(watch) != before
    watch.detector.judge(ID, is_good=None)
    assert state_of(watch) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_good", [True, False])
def test_a_restored_detector_knows_what_was_said_bit_for_bit(
    kind: str, is_good: bool, alarmed: Callable[[str], Watch]
) -> None:
    watch = alarmed(kind)
    watch.detector.judge(ID, is_good=is_good)
    watch.detector.set_significance(0.002)
    again = watch.new_detector()
    again.restore(decode_state(encode_state(watch.detector.state())))
    assert again.significance == 0.002
    for turn in range(20):
        columns, duration_s = watch.stream.window(*(FAULTS[kind] if turn % 8 < 3 else ("", 0.0)))
        watch.clock_unix_nano += 10**10
        one = watch.detector.score_one(columns, watch.clock_unix_nano, duration_s)
        other = again.score_one(columns, watch.clock_unix_nano, duration_s)
        assert (one.bits, one.p_value, one.margin_bits) == (other.bits, other.p_value, other.margin_bits)
        assert (one.is_anomalous, one.is_protected) == (other.is_anomalous, other.is_protected)
        watch.detector.learn_one(one)
        again.learn_one(other)
    assert encode_state(again.state()) == state_of(watch)


def test_an_anomaly_that_is_not_remembered_cannot_be_judged(alarmed: Callable[[str], Watch]) -> None:
    watch = alarmed("logs")
    before = state_of(watch)
    assert watch.detector.judge("another", is_good=True) is None
    assert state_of(watch) == before


def test_only_the_latest_anomalies_are_remembered_and_those_that_people_spoke_of() -> None:
    cases = Cases()
    for number in range(40):
        cases.open(str(number), 1)
        case = cases.get(str(number))
        assert case is not None
        case.is_good = True if number < 30 else None
    known = [number for number in range(40) if cases.get(str(number)) is not None]
    assert known == [*range(6, 30), *range(34, 40)]


def test_sensitivity_of_its_own_moves_the_bars_of_windows_and_records_until_it_is_removed(
    alarmed: Callable[[str], Watch],
) -> None:
    watch = alarmed("logs")
    usual = watch.score("latency", 3.0)
    before = state_of(watch)
    margins = {}
    for significance in (0.0001, 0.1):
        watch.detector.set_significance(significance)
        score = watch.detector.score_one(usual.columns, usual.closed_unix_nano, 10.0)
        margins[significance] = score.margin_bits
    assert margins[0.1] - margins[0.0001] == pytest.approx(np.log2(1000))
    watch.detector.set_significance(None)
    assert state_of(watch) == before


def state_of(watch: Watch) -> bytes:
    return encode_state(watch.detector.state())
