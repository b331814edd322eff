"""Windows by count, by age and by session, on a clock that is handed in."""

from __future__ import annotations

import pytest

from driftlock_otlp.config.detection import WindowConfig, WindowsConfig
from driftlock_otlp.model import StreamKey
from driftlock_otlp.windowing.assembler import Window, WindowAssembler
from driftlock_otlp.windowing.batch import StreamBatch

SECOND = 1_000_000_000
LOGS = StreamKey("logs", "shop")


def assembler(size: int = 4, max_age: float = 10.0, session_key: str | None = None) -> WindowAssembler:
    window = WindowConfig(size=size, max_age=max_age, session_key=session_key)
    made = WindowAssembler(WindowsConfig(logs=window, traces=window))
    list(made.advance(1000 * SECOND))
    return made


def batch(first: int, count: int, key: StreamKey = LOGS, **fields: list[object]) -> StreamBatch:
    return StreamBatch(
        key,
        list(range(count)),
        [first + n for n in range(count)],
        {"body": [f"b{first + n}" for n in range(count)], **fields},
    )


def bodies(window: Window) -> list[object]:
    return window.batch.column("body")


def test_a_window_closes_at_its_size_and_the_next_goes_on_within_the_same_request() -> None:
    windows = assembler(size=4)
    assert list(windows.add(batch(0, 3), 10)) == []
    assert windows.oldest_position() == 10
    closed = list(windows.add(batch(3, 6), 20))
    assert [bodies(window) for window in closed] == [["b0", "b1", "b2", "b3"], ["b4", "b5", "b6", "b7"]]
    assert [window.positions for window in closed] == [[10, 10, 10, 20], [20, 20, 20, 20]]
    assert [window.batch.items for window in closed] == [[0, 1, 2, 0], [1, 2, 3, 4]]
    assert windows.oldest_position() == 20
    (rest,) = windows.flush()
    assert bodies(rest) == ["b8"]
    assert windows.oldest_position() is None
    assert windows.oldest_opened_unix_nano() is None


def test_a_window_closes_at_its_age_which_counts_from_its_first_record() -> None:
    windows = assembler(max_age=10.0)
    list(windows.add(batch(0, 1), 0))
    assert list(windows.advance(1005 * SECOND)) == []
    list(windows.add(batch(1, 1), 1))
    assert list(windows.advance(1010 * SECOND - 1)) == []
    (closed,) = windows.advance(1010 * SECOND)
    assert bodies(closed) == ["b0", "b1"]
    assert (closed.opened_unix_nano, closed.closed_unix_nano) == (1000 * SECOND, 1010 * SECOND)


def test_a_clock_that_runs_backwards_stands_still() -> None:
    windows = assembler(max_age=10.0)
    list(windows.add(batch(0, 1), 0))
    assert list(windows.advance(1)) == []
    assert windows.clock_unix_nano == 1000 * SECOND
    list(windows.add(batch(1, 1, StreamKey("logs", "other")), 1))
    assert len(list(windows.advance(1010 * SECOND))) == 2


def test_windows_expire_in_the_order_they_opened_and_streams_do_not_mix() -> None:
    windows = assembler(max_age=10.0)
    keys = [StreamKey("logs", name) for name in "cab"]
    for second, key in enumerate(keys):
        list(windows.advance((1000 + second) * SECOND))
        list(windows.add(batch(second, 1, key), second))
    assert windows.oldest_opened_unix_nano() == 1000 * SECOND
    assert [window.key for window in windows.advance(1011 * SECOND)] == keys[:2]
    assert [window.key for window in windows.flush()] == keys[2:]


def test_fields_that_only_some_records_have_stay_beside_their_record() -> None:
    windows = assembler(size=4)
    list(windows.add(batch(0, 1), 0))
    list(windows.add(batch(1, 1, code=[500]), 1))
    (closed,) = windows.add(batch(2, 2), 2)
    assert closed.batch.column("code") == [None, 500, None, None]


def test_session_windows_hold_one_value_each_and_close_when_idle() -> None:
    windows = assembler(size=100, max_age=10.0, session_key="session.id")
    sessions: dict[str, list[object]] = {"attributes.session.id": ["x", "y", "x"]}
    list(windows.add(batch(0, 3, **sessions), 0))
    list(windows.advance(1006 * SECOND))
    list(windows.add(batch(3, 1, **{"attributes.session.id": ["x"]}), 1))
    (idle,) = windows.advance(1010 * SECOND)
    assert (idle.session, bodies(idle)) == ("y", ["b1"])
    assert list(windows.advance(1016 * SECOND - 1)) == []
    (late,) = windows.advance(1016 * SECOND)
    assert (late.session, bodies(late), late.positions) == ("x", ["b0", "b2", "b3"], [0, 0, 1])


def test_records_without_a_session_share_a_tumbling_window() -> None:
    windows = assembler(size=2, session_key="session.id")
    closed = list(windows.add(batch(0, 3, **{"attributes.session.id": [None, "x", None]}), 0))
    assert [(window.session, bodies(window)) for window in closed] == [("", ["b0", "b2"])]


def test_a_session_may_be_keyed_by_trace() -> None:
    windows = assembler(size=2, session_key="trace_id")
    key = StreamKey("traces", "shop")
    (closed,) = windows.add(batch(0, 3, key, trace_id=[b"\1" * 16, b"\2" * 16, b"\1" * 16]), 0)
    assert (closed.session, bodies(closed)) == ("01" * 16, ["b0", "b2"])


@pytest.mark.parametrize("session_key", [None, "session.id"])
def test_restored_windows_go_on_as_if_nothing_had_happened(session_key: str | None) -> None:
    keys = [StreamKey("logs", name) for name in ("b", "a")]

    def feed(windows: WindowAssembler, turn: int) -> list[tuple[str, str, list[object], int]]:
        closed = list(windows.advance((1000 + 3 * turn) * SECOND))
        for place, key in enumerate(keys):
            records = batch(turn, 3, key, **{"attributes.session.id": ["x", "y", None]})
            closed += windows.add(records, 10 * turn + place)
        # Streams have nothing to do with each other, so only the order within each counts.
        facts = [(w.key.service, w.session, bodies(w), w.closed_unix_nano) for w in closed]
        return sorted(facts, key=lambda fact: fact[0])

    undisturbed, first = (assembler(max_age=5.0, session_key=session_key) for _ in range(2))
    expected = [feed(undisturbed, turn) for turn in range(12)]
    for turn in range(5):
        feed(first, turn)
    second = assembler(max_age=5.0, session_key=session_key)
    second.clock_unix_nano = first.clock_unix_nano
    for key in sorted(keys):
        second.restore(key, first.open_windows(key))
    second.settle()
    assert second.oldest_position() == first.oldest_position()
    assert [feed(second, turn) for turn in range(5, 12)] == expected[5:]


def test_open_windows_are_counted_by_stream() -> None:
    windows = assembler(size=4, session_key="user")
    assert windows.open_counts() == {}
    other = StreamKey("traces", "shop")
    list(windows.add(batch(0, 3, **{"attributes.user": ["ann", "bob", "ann"]}), 10))
    list(windows.advance(1002 * SECOND))
    list(windows.add(batch(3, 1, **{"attributes.user": ["cid"]}), 20))
    list(windows.add(batch(0, 2, other, **{"attributes.user": [None, None]}), 30))
    assert windows.open_counts() == {LOGS: (3, 4, 1000 * SECOND), other: (1, 2, 1002 * SECOND)}
