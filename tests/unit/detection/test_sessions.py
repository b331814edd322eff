from __future__ import annotations

import numpy as np

from driftlock_otlp.detection.columns import Category, Columns
from driftlock_otlp.detection.sessions import SessionNovelty
from driftlock_otlp.worker.checkpoint import decode_state, encode_state
from tests.unit.detection.examples import category

USUAL = ["receive", "receive", "allocate", "store", "close"]
OTHER = ["receive", "receive", "allocate", "store", "serve", "close"]
BROKEN = ["receive", "abort"]


def window(sessions: list[list[str]], at_s: float = 0.0) -> Columns:
    symbols = category([symbol for session in sessions for symbol in session])
    owners = np.repeat(np.arange(len(sessions), dtype=np.int32), [len(session) for session in sessions])
    times = np.full(len(owners), int(at_s * 1e9), np.int64)
    return Columns(len(owners), times, {"template": symbols}, sessions=owners)


def trained(seed: int = 1, windows: int = 60) -> SessionNovelty:
    """Return a novelty that has seen 600 sessions, of which a third serve, in varying numbers."""
    random = np.random.default_rng(seed)
    novelty = SessionNovelty("template")
    for number in range(windows):
        sessions = [[*OTHER, *["serve"] * random.integers(0, 3)] if random.random() < 0.3 else USUAL for _ in range(10)]
        columns = window(sessions, at_s=number * 10.0)
        novelty.learn_one(columns, novelty.score_one(columns))
    return novelty


def top(novelty: SessionNovelty, *sessions: list[str]) -> tuple[list[float], list[float]]:
    """Return the most bits and the margin of each session."""
    columns = window(list(sessions), at_s=601.0)
    evidence = novelty.score_one(columns)
    assert evidence is not None and columns.sessions is not None
    of = [columns.sessions == place for place in range(len(sessions))]
    return [float(evidence.bits[rows].max()) for rows in of], [float(evidence.margins[rows].max()) for rows in of]


def test_usual_session_costs_next_to_nothing_and_one_unlike_any_raises_an_alarm() -> None:
    (usual, other, broken), margins = top(trained(), USUAL, OTHER, BROKEN)
    assert usual < 3.0 < other < 10.0 < broken
    assert margins[0] < 0 and margins[1] < 0 < margins[2]


def test_missing_symbol_and_count_never_seen_are_odd_too() -> None:
    (usual, missing, many), _ = top(trained(), USUAL, USUAL[:3] + USUAL[4:], ["receive"] * 40 + USUAL[2:])
    assert missing > usual + 10.0
    assert many > usual + 5.0


def test_order_never_seen_is_odd_where_order_is_kept() -> None:
    (usual, reversed_), _ = top(trained(), USUAL, USUAL[::-1])
    assert reversed_ > usual + 5.0


def test_anomaly_that_keeps_coming_back_becomes_cheaper_but_not_free() -> None:
    novelty = trained()
    (first,), _ = top(novelty, BROKEN)
    for number in range(30):
        columns = window([BROKEN, *[USUAL] * 19], at_s=700.0 + number)
        novelty.learn_one(columns, novelty.score_one(columns))
    (later,), (margin,) = top(novelty, BROKEN)
    assert later < first / 2
    assert margin > 0  # one in forty sessions, while the bulk is one kind


def test_nothing_alarms_before_enough_sessions_were_seen() -> None:
    novelty = trained(windows=10)
    _, margins = top(novelty, BROKEN, ["never", "seen", "before"])
    assert max(margins) < 0


def test_window_without_sessions_is_not_judged() -> None:
    novelty = trained()
    columns = window([USUAL])
    columns.sessions = None
    assert novelty.score_one(columns) is None
    columns.sessions = np.full(columns.record_count, -1, np.int32)
    assert novelty.score_one(columns) is None
    novelty.learn_one(columns, None)


def test_records_outside_sessions_and_without_symbol_get_no_bits() -> None:
    columns = window([BROKEN, USUAL], at_s=601.0)
    assert columns.sessions is not None
    columns.sessions[0] = -1
    codes = columns.categories["template"].codes
    codes[1] = -1
    evidence = trained().score_one(columns)
    assert evidence is not None
    assert evidence.bits[:2].tolist() == [0.0, 0.0]
    assert evidence.margins[:2].tolist() == [-np.inf, -np.inf]
    assert np.isfinite(evidence.margins[2:]).all()


def test_odd_records_of_a_session_come_before_those_that_only_share_it() -> None:
    columns = window([[*USUAL, "abort"]], at_s=601.0)
    evidence = trained().score_one(columns)
    assert evidence is not None
    assert evidence.strongest == 0 and int(evidence.bits.argmax()) == 5
    assert evidence.bits[0] > 0


def test_difference_to_the_nearest_known_session_is_told() -> None:
    novelty = trained()
    assert novelty.explain(window([BROKEN]), 1)[1].label == "abort"
    column, change = novelty.explain(window([USUAL[:3] + USUAL[4:]]), 0)
    assert column == "template"
    assert change.label == "store" and change.text.startswith("a session of 4 records lacks {label}")
    _, change = novelty.explain(window([["receive"] * 40 + USUAL[2:]]), 0)
    assert (change.label, change.observed, change.expected) == ("receive", "40", "2")
    _, change = novelty.explain(window([USUAL[::-1]]), 0)
    assert "transitions never seen" in change.text


def test_restored_novelty_goes_on_as_the_one_it_was_saved_from() -> None:
    novelty, other = trained(), SessionNovelty("template")
    other.restore(decode_state(encode_state(novelty.state())))
    columns = window([USUAL, BROKEN, OTHER, ["never", "seen"]], at_s=602.0)
    for one in (novelty, other):
        one.learn_one(columns, one.score_one(columns))
    assert top(novelty, USUAL, BROKEN, OTHER[::-1]) == top(other, USUAL, BROKEN, OTHER[::-1])


def test_scoring_changes_nothing_and_codes_of_a_window_do_not_matter() -> None:
    novelty = trained()
    first = top(novelty, USUAL, BROKEN)
    columns = window([USUAL, BROKEN], at_s=601.0)
    shown = columns.categories["template"]
    labels = [*reversed(shown.labels), "unused"]
    columns.categories["template"] = Category(
        np.array([labels.index(shown.labels[code]) for code in shown.codes], np.int32), labels
    )
    evidence = novelty.score_one(columns)
    assert evidence is not None
    assert [evidence.bits[0], evidence.bits[5:].max()] == first[0]
    assert top(novelty, USUAL, BROKEN) == first


def test_a_kind_of_session_that_people_called_good_is_never_odd_and_one_called_bad_is_never_learned() -> None:
    novelty = trained()
    columns = window([USUAL, BROKEN], at_s=601.0)
    evidence = novelty.score_one(columns)
    novelty.learn_one(columns, evidence)
    odd = novelty.odd(columns, evidence)
    assert odd == [[["abort", "receive"], []]]
    before = encode_state(novelty.state())
    novelty.judge(odd, is_good=True)
    (_, of_good), (_, margin) = top(novelty, USUAL, [*BROKEN, "abort"])
    assert (of_good, margin) == (0.0, -np.inf)
    novelty.judge(odd, is_good=False)
    again = SessionNovelty("template")
    again.restore(decode_state(encode_state(novelty.state())))
    for _ in range(200):
        columns = window([USUAL, BROKEN], at_s=602.0)
        for one in (novelty, again):
            one.learn_one(columns, one.score_one(columns))
    for one in (novelty, again):
        (usual, bad), (margin_usual, margin) = top(one, USUAL, BROKEN)
        assert usual < 3.0 and margin_usual < 0
        assert bad >= 40.0 and margin > 0
    fresh = SessionNovelty("template")
    fresh.restore(decode_state(before))
    fresh.judge(odd, is_good=False)
    fresh.judge(odd, is_good=None)
    assert encode_state(fresh.state()) == before


def test_of_a_usual_kind_only_its_odd_counts_get_a_verdict() -> None:
    novelty = trained()
    loop = ["receive"] * 4_000 + USUAL[2:]
    columns = window([USUAL, loop], at_s=601.0)
    evidence = novelty.score_one(columns)
    assert evidence is not None
    evidence.margins[len(USUAL) :] = 1.0
    novelty.learn_one(columns, evidence)
    odd = novelty.odd(columns, evidence)
    assert odd == [[["allocate", "close", "receive", "store"], [1, 1, 4_000, 1]]]
    novelty.judge(odd, is_good=False)
    _, (usual, looping) = top(novelty, USUAL, loop)
    assert usual < 0 < looping
