"""Template mining under arbitrary text: total, deterministic, resumable, stable in its labels."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from driftlock_otlp.windowing.templates import TemplateMiner

_WORDS = ["user", "alice", "bob", "logged", "in", "timeout", "after", "12", "7ms", "0x1f", '"a b"', "deadbeef01", "é"]
_lines = st.one_of(
    st.none(),
    st.lists(st.sampled_from(_WORDS), max_size=7).map(" ".join),
    st.text(max_size=40),
)
_windows = st.lists(st.lists(_lines, max_size=12), min_size=1, max_size=6)


def _run(miner: TemplateMiner, windows: list[list[str | None]]) -> list[list[str | None]]:
    labels_of = []
    for window in windows:
        codes, labels = miner.mine(window)
        assert codes.shape == (len(window),)
        assert len(set(labels)) == len(labels)
        labels_of.append([labels[code] if code >= 0 else None for code in codes])
        assert [label is None for label in labels_of[-1]] == [body is None for body in window]
    return labels_of


@given(_windows, st.data())
def test_a_miner_restored_at_any_window_continues_alike(windows: list[list[str | None]], data: st.DataObject) -> None:
    split = data.draw(st.integers(0, len(windows)))
    straight = _run(TemplateMiner(), windows)
    first, second = TemplateMiner(), TemplateMiner()
    before = _run(first, windows[:split])
    second.restore(first.state())
    assert before + _run(second, windows[split:]) == straight


@given(_windows)
def test_a_body_seen_again_has_the_same_label(windows: list[list[str | None]]) -> None:
    miner = TemplateMiner()
    first = _run(miner, windows)
    assert _run(miner, windows) == first


@given(st.lists(st.sampled_from(_WORDS[:7]), min_size=1, max_size=6), st.integers(0, 10**30), st.integers(0, 10**30))
def test_lines_that_differ_in_a_number_share_a_template(words: list[str], one: int, other: int) -> None:
    lines: list[str | None] = [" ".join([*words, str(number), "end"]) for number in (one, other)]
    codes, _ = TemplateMiner().mine(lines)
    assert codes[0] == codes[1]
