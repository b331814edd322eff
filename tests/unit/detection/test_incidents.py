"""Incidents: what counts, what is joined, and where it came from."""

from __future__ import annotations

import numpy as np

from driftlock_otlp.detection.incidents import Finding, IncidentJoiner, discoveries, rank_origins
from driftlock_otlp.worker.checkpoint import decode_state, encode_state

SECOND = 10**9
CALLS = {"shop": ["cart"], "cart": ["stock"]}


def calm(count: int, at_s: int) -> list[Finding]:
    return [Finding(f"calm {i}", f"calm {i}", at_s * SECOND, 0.5) for i in range(count)]


def alarm(service: str, at_s: int, kind: str = "logs", **more: object) -> Finding:
    return Finding(f"{kind} {service}", service, at_s * SECOND, 12.0, is_alarm=True, **more)  # type: ignore[arg-type]


def test_among_many_calm_streams_hardly_anything_is_discovered() -> None:
    random = np.random.default_rng(1)
    ticks = 300
    found = sum(discoveries((-np.log2(random.random(1_000))).tolist(), 0.1).any() for _ in range(ticks))
    assert found / ticks < 0.15
    odd = np.concatenate((-np.log2(random.random(990)), np.full(10, 14.0)))
    told = discoveries(odd.tolist(), 0.1)
    assert told[990:].all()
    assert told[:990].sum() <= 3


def test_bits_that_alarm_in_no_stream_alone_count_when_many_streams_have_them_or_one_keeps_them() -> None:
    joiner = IncidentJoiner()
    weak = [Finding(f"logs {i}", "shop", 0, 8.0) for i in range(20)]
    assert not joiner.take([weak[0], *calm(99, 0)], 0)
    assert len(joiner.take([*weak, *calm(80, 0)], 0)) == 1
    lasting = IncidentJoiner()
    ticks = [
        lasting.take([Finding("logs shop", "shop", t * SECOND, 12.0), *calm(2_000, t)], t * SECOND) for t in range(4)
    ]
    assert [len(found) for found in ticks] == [0, 0, 0, 1]


def test_alarms_are_one_incident_when_they_share_a_service_a_trace_a_template_or_a_call() -> None:
    first = alarm("cart", 0, trace_ids=frozenset({"t1"}), template="timeout of <*>")
    for second in (
        alarm("cart", 60, "metrics"),
        alarm("mail", 60, trace_ids=frozenset({"t1", "t2"})),
        alarm("mail", 60, template="timeout of <*>"),
        alarm("shop", 60),
        alarm("stock", 60),
    ):
        joiner = IncidentJoiner()
        joiner.take([first], 0, CALLS)
        joined = joiner.take([second], 60 * SECOND, CALLS)
        assert [(i.number, sorted(i.bits)) for i in joined] == [(1, sorted({"cart", second.service}))]


def test_alarms_that_share_nothing_or_come_late_are_incidents_of_their_own() -> None:
    joiner = IncidentJoiner()
    joiner.take([alarm("cart", 0)], 0, CALLS)
    assert [i.number for i in joiner.take([alarm("mail", 60)], 60 * SECOND, CALLS)] == [2]
    assert [i.number for i in joiner.take([alarm("cart", 181)], 181 * SECOND, CALLS)] == [3]
    assert [sorted(i.bits) for i in joiner.open] == [["cart"]]


def test_an_alarm_that_belongs_to_two_incidents_makes_them_one() -> None:
    joiner = IncidentJoiner()
    joiner.take([alarm("shop", 0), alarm("stock", 10)], 10 * SECOND, CALLS)
    assert len(joiner.open) == 2
    (joined,) = joiner.take([alarm("cart", 20)], 20 * SECOND, CALLS)
    assert (joined.number, sorted(joined.bits)) == (1, ["cart", "shop", "stock"])
    assert joiner.open == [joined]
    assert (joined.started_unix_nano, joined.last_unix_nano) == (0, 20 * SECOND)


def test_the_origin_is_the_service_whose_oddness_no_callee_explains() -> None:
    bits = {"shop": 60.0, "cart": 55.0, "stock": 50.0, "mail": 10.0}
    assert [service for service, _ in rank_origins(bits, CALLS)] == ["stock", "mail", "cart", "shop"]
    assert [service for service, _ in rank_origins(bits, {})] == ["shop", "cart", "stock", "mail"]
    assert [s for s, _ in rank_origins({"a": 5.0, "b": 5.0}, {}, {"a": 20, "b": 10})] == ["b", "a"]


def test_evidence_of_several_signals_adds_up_and_the_earlier_service_wins_a_tie() -> None:
    joiner = IncidentJoiner()
    calls = {"shop": ["mail", "cart"]}
    joiner.take([alarm("shop", 0), alarm("mail", 5)], 5 * SECOND, calls)
    (joined,) = joiner.take([alarm("cart", 20, kind) for kind in ("logs", "traces", "logs")], 20 * SECOND, calls)
    assert joined.origins(calls)[:2] == [("cart", 24.0), ("mail", 12.0)]


def test_a_restored_joiner_goes_on_where_it_was() -> None:
    joiner, restored = IncidentJoiner(), IncidentJoiner()
    joiner.take([alarm("shop", 0, trace_ids=frozenset({"t1"}), template="x"), *calm(3, 0)], 0, CALLS)
    restored.restore(decode_state(encode_state(joiner.state())))
    for made in (joiner, restored):
        made.take([alarm("cart", 30), *calm(3, 30)], 30 * SECOND, CALLS)
    assert restored.state() == joiner.state()
    assert restored.open[0].origins(CALLS) == joiner.open[0].origins(CALLS)
