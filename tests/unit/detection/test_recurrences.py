"""Jobs at a steady period stop being alarms; what is not theirs does not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.explain import explain
from driftlock_otlp.detection.recurrences import Recurrence, Recurrences
from driftlock_otlp.detection.scores import WindowScore
from driftlock_otlp.evaluation.calibration.watch import Watch
from driftlock_otlp.windowing.scoring import detector_settings
from driftlock_otlp.worker.checkpoint import decode_state, encode_state

BACKUP = ("template", "backup started", 0)
LOAD = ("value", "cpu", 1)
HOUR, DAY, WEEK = 3_600.0, 86_400.0, 7 * 86_400.0
START = 1_800_000_000.0


def seen(*times: float, subject: tuple[str, str, int] = BACKUP, lasts_s: float = 40.0) -> Recurrences:
    made = Recurrences()
    for time in times:
        made.begin([subject], START + time, is_expected=False)
        made.end(START + time + lasts_s)
    return made


def count(made: Recurrences, at: float, subject: tuple[str, str, int] = BACKUP) -> int:
    found = made.find([subject], START + at, 10.0)
    return 0 if found is None else found.count


@pytest.mark.parametrize("period", [0.5 * HOUR, HOUR, DAY, WEEK])
def test_the_fourth_run_at_a_steady_period_has_three_before_it(period: float) -> None:
    jitter = (0.0, 0.004, -0.005, 0.006)
    made = seen(*((run + jitter[run]) * period for run in range(3)))
    assert count(made, (3 + jitter[3]) * period) == 3
    assert count(made, 3.1 * period) < 3
    assert count(made, 2.9 * period) < 3
    assert count(made, (3 + jitter[3]) * period, LOAD) == 0
    assert count(made, (3 + jitter[3]) * period, ("template", "another", 0)) == 0
    assert count(made, (3 + jitter[3]) * period, ("template", "backup started", 1)) == 0


def test_the_third_run_has_two_before_it_and_the_second_tells_no_period() -> None:
    assert count(seen(0.0, DAY), 2 * DAY) == 2
    assert count(seen(0.0), DAY) == 0


def test_a_run_may_be_left_out_once() -> None:
    made = seen(0.0, DAY, 2 * DAY, 3 * DAY)
    assert count(made, 5 * DAY) == 3
    assert count(made, 6 * DAY) < 3


def test_a_job_at_two_times_of_the_day_is_a_daily_one() -> None:
    # And again and again for a while at the second.
    times = (2 * HOUR, 3 * HOUR, 3 * HOUR + 600, 3 * HOUR + 1_000)
    made = seen(*(day * DAY + at for day in range(3) for at in times))
    assert count(made, 3 * DAY + 2 * HOUR) == 3
    assert count(made, 3 * DAY + 3 * HOUR) == 3
    assert count(made, 3 * DAY + 9 * HOUR) < 3


@pytest.mark.parametrize("every_s", [60.0, 300.0, 600.0, 1_200.0])
def test_what_flaps_is_no_job(every_s: float) -> None:
    made = seen(*(turn * every_s for turn in range(30)))
    assert count(made, 30 * every_s) < 3


def test_a_run_that_takes_half_as_long_again_or_becomes_another_is_overdue() -> None:
    made = seen(0.0, HOUR, 2 * HOUR, lasts_s=100.0)
    now = START + 3 * HOUR
    made.begin([BACKUP], now, is_expected=True)
    assert made.is_running
    assert not made.is_overdue([BACKUP], now + 160.0, 10.0)
    assert made.is_overdue([BACKUP], now + 180.0, 10.0)
    assert made.is_overdue([LOAD], now + 10.0, 10.0)
    made.end(now + 100.0)
    assert not made.is_running


def test_what_else_a_job_showed_later_in_its_runs_belongs_to_it() -> None:
    made = Recurrences()
    for run in range(3):
        made.begin([BACKUP], START + run * HOUR, is_expected=False)
        made.go_on([LOAD])
        made.end(START + run * HOUR + 60.0)
    now = START + 3 * HOUR
    made.begin([BACKUP], now, is_expected=True)
    assert not made.is_overdue([LOAD], now + 20.0, 10.0)


def test_subjects_and_times_are_bounded_and_survive_a_restart() -> None:
    made = Recurrences()
    for turn in range(1_000):
        made.begin([("template", f"label {turn}", 0), LOAD], START + turn * HOUR, is_expected=turn == 999)
        made.end(START + turn * HOUR + 5.0) if turn < 999 else None
    state = decode_state(encode_state(made.state()))
    assert len(state["times"]) == 256
    assert max(len(times) for *_, times, _ in state["times"]) == 32
    again = Recurrences()
    again.restore(state)
    assert again.state() == made.state()
    assert again.is_running
    assert again.find([LOAD], START + 1_000 * HOUR, math.nan) == Recurrence(HOUR, 4)


@pytest.mark.parametrize(
    ("recurrence", "words"),
    [
        (Recurrence(DAY + 300, 3), "seen at about 08:05 UTC on the last 3 days"),
        (Recurrence(HOUR - 20, 4), "seen at about minute 05 of the last 4 hours"),
        (Recurrence(WEEK, 3), "seen 3 times at a distance of about 168 hours"),
    ],
)
def test_it_is_told_when_it_was_seen(recurrence: Recurrence, words: str) -> None:
    assert recurrence.told(START + 300.0) == words


WINDOWS = 28
"""Of a minute each: one period."""


def step(watch: Watch, fault: tuple[str, float] = ("", 0.0)) -> tuple[WindowScore, str]:
    watch.clock_unix_nano += 50 * 10**9  # with the ten seconds of a window of its own
    score = watch.score(*fault)
    told = explain(watch.detector, score, watch.kind, "it", 80).sentence if score.is_fired else ""
    watch.detector.learn_one(score)
    return score, told


def test_a_steady_job_alarms_three_times_and_then_only_at_another_time() -> None:
    watch = Watch("metrics", 1, replace(detector_settings(Config(), "metrics"), significance=0.03)).warm_up(40)
    # Larger from run to run: else what keeps coming back would soon be usual by itself.
    jobs, other = [("level", 25.0 * 10.0**run) for run in range(4)], ("level", -25_000.0)
    sentences = []
    for run in range(3):
        found = [step(watch, jobs[run] if 18 <= turn < 22 else ("", 0.0)) for turn in range(WINDOWS)]
        sentences += [told for score, told in found if score.is_alarm]
    assert len(sentences) == 3
    assert "seen 2 times at a distance of about 0.467 hours" in sentences[2]
    assert not any("seen" in sentence for sentence in sentences[:2])
    for begins, fault, is_expected in ((18, jobs[3], True), (8, jobs[3], False), (18, other, False)):
        again = watch.branch()
        found = [step(again, fault if begins <= turn < begins + 4 else ("", 0.0)) for turn in range(begins + 8)]
        of_fault = [score for score, _ in found[begins - 1 :]]
        assert any(score.is_expected for score in of_fault) is is_expected
        assert any(score.is_alarm or score.is_anomalous for score in of_fault) is not is_expected
