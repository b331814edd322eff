from __future__ import annotations

import math

import numpy as np
import pytest

from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.detection.lines import ALARM_BITS, LineNovelty
from driftlock_otlp.worker.checkpoint import decode_state, encode_state
from tests.unit.detection.examples import category


def window(templates: list[str], severities: list[str] | None = None) -> Columns:
    severities = severities or ["INFO"] * len(templates)
    columns = {"template": category(templates), "severity": category(severities)}
    return Columns(len(templates), np.zeros(len(templates), np.int64), columns)


def learn(novelty: LineNovelty, *windows: Columns) -> None:
    for columns in windows:
        novelty.learn_one(columns, novelty.score_one(columns))


def trained(lines: int = 20_000) -> LineNovelty:
    novelty = LineNovelty()
    learn(novelty, *[window(["started", "served"] * 500)] * (lines // 1000))
    return novelty


def worst(novelty: LineNovelty, columns: Columns) -> float:
    evidence = novelty.score_one(columns)
    return -math.inf if evidence is None else float(evidence.margins.max())


def test_known_templates_are_not_judged() -> None:
    assert trained().score_one(window(["served"] * 50)) is None


def test_three_lines_of_a_new_template_among_21_are_an_alarm_and_fewer_or_thinner_are_not() -> None:
    novelty, usual = trained(), ["served"] * 5
    burst = window([*usual, "failed", *usual, "failed", *usual, "failed"])
    thin = window(["failed", *["served"] * 30, "failed", *["served"] * 30, "failed"])
    assert worst(novelty, burst) > 0
    assert worst(novelty, window([*usual, "failed", *usual, "failed"])) < 0
    assert worst(novelty, thin) < 0
    found = novelty.score_one(burst)
    assert found is not None and np.flatnonzero(found.bits).tolist() == [5, 11, 17]


def test_bits_are_those_of_the_equation() -> None:
    found = trained(22_000).score_one(window(["failed", "failed"]))
    assert found is not None
    n, p = 22_000, 0.5 / 22_001
    kt = math.gamma(2.5) * math.gamma(19.5) / (math.pi * math.gamma(22))
    severity = math.log2((n + 1) / (n + 0.5))
    assert found.bits[1] == pytest.approx(math.log2(kt / (p**2 * (1 - p) ** 19)) + severity, rel=1e-9)


def test_new_template_of_a_severity_never_seen_needs_fewer_lines() -> None:
    novelty = trained()
    assert worst(novelty, window(["failed"], ["FATAL"])) > 0
    assert worst(novelty, window(["failed"], ["INFO"])) < 0


def test_repetition_is_counted_across_the_border_of_two_windows() -> None:
    novelty = trained()
    learn(novelty, window([*["served"] * 10, "failed", "failed"]))
    assert worst(novelty, window(["served", "failed"])) > 0
    learn(novelty, window(["served"] * 40))
    assert novelty.score_one(window(["failed"] * 5)) is None


def test_template_marked_as_good_is_silent_for_good_and_a_bad_one_always_tells() -> None:
    novelty = trained()
    novelty.mark("failed", is_good=True)
    novelty.mark("served", is_good=False)
    restored = LineNovelty()
    restored.restore(decode_state(encode_state(novelty.state())))
    for one in (novelty, restored):
        assert one.score_one(window(["failed"] * 10)) is None
        learn(one, window(["served"] * 10))
        assert worst(one, window(["started", "served"])) > 0
        assert "confirmed as bad" in one.explain(window(["served"]), 0)[1].text
    novelty.mark("served", is_good=True)
    assert novelty.score_one(window(["served"])) is None


def test_stream_in_which_new_templates_come_in_bursts_raises_its_own_bar() -> None:
    novelty = trained()
    for number in range(200):
        learn(novelty, window(["served"] * 20 + [f"new {number}"] * 4))
    assert worst(novelty, window(["served"] * 20 + ["failed"] * 4)) < 0 < ALARM_BITS


def test_explanation_says_how_often_the_new_template_came() -> None:
    column, change = trained().explain(window(["failed", "served", "failed"]), 2)
    assert (column, change.label) == ("template", "failed")
    assert change.text == "new template {label} in 2 of the last 21 lines"


def test_first_window_has_nothing_to_be_new_against() -> None:
    novelty = LineNovelty()
    assert novelty.score_one(window(["started"] * 5)) is None
    assert novelty.score_one(Columns(0, np.zeros(0, np.int64))) is None


def test_scoring_changes_nothing_and_a_restored_novelty_goes_on_alike() -> None:
    novelty, other = trained(), LineNovelty()
    learn(novelty, window(["failed", "served", "failed"]))
    other.restore(decode_state(encode_state(novelty.state())))
    columns = window(["failed", "lost", "lost"])
    assert worst(novelty, columns) == worst(novelty, columns) == worst(other, columns)


def test_template_that_stays_is_new_only_once() -> None:
    novelty = trained()
    learn(novelty, *[window(["served", "joined"] * 5)] * 3)
    assert novelty.score_one(window(["joined"] * 10)) is None


def test_lines_of_a_rare_severity_are_put_into_order_but_do_not_alarm_by_it() -> None:
    novelty = trained()
    found = novelty.score_one(window(["served"] * 3, ["INFO", "ERROR", "INFO"]))
    assert found is not None
    assert found.margins[1] > -ALARM_BITS and found.margins.max() < 0
    assert found.margins[0] == -math.inf and not found.bits.any()
    assert novelty.explain(window(["served"], ["ERROR"]), 0)[0] == "severity"


def test_what_people_say_of_new_templates_is_taken_back_without_a_trace() -> None:
    novelty = trained()
    odd = window(["started"] * 50 + ["broken"] * 3 + ["once"])
    evidence = novelty.score_one(odd)
    novelty.learn_one(odd, evidence)
    # One line of a new template is nothing to have an opinion on.
    assert novelty.odd(odd, evidence) == ["broken"]
    assert novelty.odd(odd, None) == []
    before = encode_state(novelty.state())
    assert novelty.set_aside(odd) is None
    novelty.judge(["broken"], is_good=True)
    aside = novelty.set_aside(odd)
    assert aside is not None
    assert np.flatnonzero(aside).tolist() == [50, 51, 52]
    novelty.judge(["broken"], is_good=False)
    assert novelty.set_aside(odd) is None
    found = novelty.score_one(window(["started", "broken"]))
    assert found is not None
    assert found.margins[1] > 0
    novelty.judge(["broken"], is_good=None)
    assert encode_state(novelty.state()) == before
