"""What another significance would have alarmed."""

from __future__ import annotations

from driftlock_otlp.detection.what_if import fired
from driftlock_otlp.model import StreamKey, WindowFacts

S = 10**9


def stream(*bits: float, outcome: str = "clean", seconds: int = 60) -> list[WindowFacts]:
    key = StreamKey("logs", "checkout")
    ends = [(index + 1) * seconds * S for index in range(len(bits))]
    return [
        WindowFacts(key, end - S, end, 50, outcome, 0.1, 0.5, surprise, 0.9, 4.0, 4.0, 2.0, 2.0)
        for end, surprise in zip(ends, bits, strict=True)
    ]


def test_a_smaller_significance_needs_more_bits() -> None:
    windows = stream(1.0, 2.0, 12.0, 1.0)  # The bar is 11 bits at 0.01, three and a third more at 0.001.
    assert fired(windows, 0.01, 0.01) == [False, False, True, False]
    assert fired(windows, 0.01, 0.001) == [False] * 4


def test_two_near_each_other_fire_together() -> None:
    assert fired(stream(9.5, 1.0, 9.5), 0.01, 0.01) == [False, False, True]


def test_an_alarm_raises_the_bar_for_the_next_one() -> None:
    assert fired(stream(11.5, 0.0, 0.0, 0.0, 0.0, 11.5), 0.01, 0.01) == [True, *[False] * 5]


def test_windows_that_were_not_scored_do_not_fire() -> None:
    assert fired(stream(50.0, outcome="warming_up"), 0.01, 0.4) == [False]
