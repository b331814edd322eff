"""Windows on a wall clock that is set forward and back while records arrive."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from driftlock_otlp.config.detection import WindowConfig, WindowsConfig
from driftlock_otlp.model import StreamKey
from driftlock_otlp.windowing.assembler import Window, WindowAssembler
from driftlock_otlp.windowing.batch import StreamBatch
from driftlock_otlp.windowing.clock import LogClock

SECOND = 1_000_000_000
DAY_S = 86_400
LOGS = StreamKey("logs", "shop")
MAX_AGE_S = 100
SIZE = 60
LONGEST_STEP_S = 30
JITTER_S = 60

steps = st.lists(
    st.tuples(
        st.integers(LONGEST_STEP_S // 2, LONGEST_STEP_S),  # seconds that really pass
        st.one_of(st.just(0), st.just(0), st.integers(-3 * DAY_S, 3 * DAY_S), st.integers(-90, 90)),  # the clock is set
        st.integers(0, 2),  # records
    ),
    max_size=60,
)


@given(steps=steps, start_s=st.integers(10 * DAY_S, 30_000 * DAY_S), stops=st.sets(st.integers(0, 59)))
@settings(max_examples=200, deadline=None)
def test_no_window_outlives_its_age_and_no_record_is_lost_whatever_the_wall_clock_says(
    steps: list[tuple[int, int, int]], start_s: int, stops: set[int]
) -> None:
    config = WindowsConfig(logs=WindowConfig(size=SIZE, max_age=float(MAX_AGE_S)))
    windows, clock = WindowAssembler(config), LogClock()
    real_s, offset_s, sent = 0, start_s, 0
    opened: dict[int, tuple[int, int]] = {}  # by first record: real time, times the clock was set back before
    set_back = 0
    closed: list[list[object]] = []
    last = 0

    def close(window: Window) -> None:
        bodies = window.batch.column("body")
        closed.append(list(bodies))
        opened.pop(int(str(bodies[0])))

    for number, (step_s, jump_s, count) in enumerate(steps):
        real_s += step_s
        offset_s = max(offset_s + jump_s, DAY_S)
        set_back += jump_s < 0
        if number in stops:
            clock = LogClock(clock.now_unix_nano, clock.wall_unix_nano)
        now = clock.advance((real_s + offset_s) * SECOND)
        assert now >= last
        last = now
        for window in windows.advance(now):
            close(window)
        for born_s, set_back_before in opened.values():
            # Set back, it stands still for a step, or until the wall has caught up if that is not long.
            allowed_s = MAX_AGE_S + (set_back - set_back_before) * (LONGEST_STEP_S + JITTER_S)
            assert real_s - born_s <= allowed_s + LONGEST_STEP_S
        for _ in range(count):
            is_first = not windows.open_counts()
            batch = StreamBatch(LOGS, [0], [0], {"body": [str(sent)]})
            if is_first:
                opened[sent] = real_s, set_back
            for window in windows.add(batch, sent):
                close(window)
            sent += 1
    for window in windows.flush():
        close(window)
    assert [int(str(body)) for bodies in closed for body in bodies] == list(range(sent))


@given(walls=st.lists(st.integers(1, 1 << 62), min_size=1, max_size=40), cut=st.integers(0, 39))
def test_clock_goes_on_after_a_restart_as_if_there_had_been_none(walls: list[int], cut: int) -> None:
    undisturbed, clock = LogClock(), LogClock()
    for number, wall in enumerate(walls):
        if number == cut:
            clock = LogClock(clock.now_unix_nano, clock.wall_unix_nano)
        assert clock.advance(wall) == undisturbed.advance(wall)
