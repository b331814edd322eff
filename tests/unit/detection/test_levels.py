"""How far an alarm is to be heard."""

from __future__ import annotations

import math

import pytest

from driftlock_otlp.detection.levels import StreamLevel, Tick, severity_at
from driftlock_otlp.model import AnomalyLevel, AnomalySeverity

NOTICE, PAGE = AnomalyLevel.NOTICE, AnomalyLevel.PAGE
SECOND = 10**9


@pytest.mark.parametrize(
    ("margins", "levels"),
    [
        ([1.9], [NOTICE]),
        ([2.0], [PAGE]),
        ([0.0, 0.0], [NOTICE, PAGE]),
        ([0.0, -5.0, -5.0, 0.0], [NOTICE, NOTICE, NOTICE, PAGE]),
        ([0.0, -5.0, -5.0, -5.0, 0.0], [NOTICE] * 5),
        ([-math.inf, -1.0, -1.0], [NOTICE] * 3),
    ],
)
def test_two_bits_more_or_the_bar_twice_in_four_windows_is_a_page(
    margins: list[float], levels: list[AnomalyLevel]
) -> None:
    stream = StreamLevel()
    assert [stream.take(margin) for margin in margins] == levels


def test_level_of_a_stream_goes_on_from_its_state() -> None:
    before = StreamLevel()
    before.take(0.5)
    assert StreamLevel(before.state()).take(0.5) is PAGE


def test_level_says_how_severe_it_is_at_least() -> None:
    assert severity_at(NOTICE, AnomalySeverity.LOW) is AnomalySeverity.LOW
    assert severity_at(PAGE, AnomalySeverity.LOW) is AnomalySeverity.MEDIUM
    assert severity_at(AnomalyLevel.FLEET, AnomalySeverity.MEDIUM) is AnomalySeverity.HIGH
    assert severity_at(PAGE, AnomalySeverity.CRITICAL, AnomalySeverity.LOW) is AnomalySeverity.CRITICAL


def tick(odd: dict[str, float], calm: int, *, at: int = 100 * SECOND) -> Tick:
    made = Tick()
    for number in range(calm):
        made.take(f"calm-{number}", at, 0.5)
    for stream, bits in odd.items():
        made.take(stream, at, bits)
    return made


def test_several_streams_that_stand_out_together_are_a_page_of_each() -> None:
    both = tick({"a": 11.5, "b": 9.5}, calm=98)
    assert both.stands_out("a")
    assert both.stands_out("b")
    assert not both.stands_out("calm-1")
    assert not both.stands_out("never seen")


def test_one_stream_alone_and_one_of_another_time_have_their_own_bars() -> None:
    assert not tick({"a": 15.0}, calm=99).stands_out("a")
    apart = tick({"a": 11.5}, calm=98)
    apart.take("b", 200 * SECOND, 11.5)
    assert not apart.stands_out("b")


def test_more_streams_ask_for_more_bits() -> None:
    assert tick({"a": 9.0, "b": 9.0}, calm=50).stands_out("a")
    assert not tick({"a": 9.0, "b": 9.0}, calm=5_000).stands_out("a")
