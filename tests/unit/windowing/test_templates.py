from __future__ import annotations

import msgspec
import pytest

from driftlock_otlp.windowing import templates
from driftlock_otlp.windowing.templates import OTHER, TemplateMiner


def _labels(bodies: list[str | None], miner: TemplateMiner | None = None) -> list[str | None]:
    codes, labels = (miner or TemplateMiner()).mine(bodies)
    return [labels[code] if code >= 0 else None for code in codes]


@pytest.mark.parametrize(
    ("body", "template"),
    [
        ("payment gateway timeout after 1250 ms", "payment gateway timeout after <*> ms"),
        ("took 15ms", "took <*>ms"),
        ("connect to 10.251.43.191:50010 failed", "connect to <*> failed"),
        ("request 6fa459ea-ee8a-3ca4-894e-db77e160355e done", "request <*> done"),
        ("request fa459ea1-ee8a-3ca4-894e-db77e160355e done", "request <*> done"),
        ("at 0x7f3a9c", "at <*>"),
        ("commit 9f86d081884c7d659a2feaa0c55ad015", "commit <*>"),
        ("commit e3b0c44298fc1c149afbf4c8996fb924", "commit <*>"),
        ("block blk_1608999687919862906 served", "block blk_<*> served"),
        ('user "Jane Doe" logged in', "user <*> logged in"),
        ("file '/tmp/x' is gone, can't go on, won't try", "file <*> is gone, can't go on, won't try"),
        ("GET /users/4711/orders/9", "GET /users/<*>/orders/<*>"),
        ("a\n  b", "a b"),
        ("", ""),
    ],
)
def test_parameters_are_masked_and_words_are_kept(body: str, template: str) -> None:
    assert _labels([body]) == [template]


def test_records_without_a_body_have_no_template() -> None:
    codes, labels = TemplateMiner().mine([None, "up", None])
    assert (codes.tolist(), labels) == ([-1, 0, -1], ["up"])
    assert codes.dtype == "int32"


def test_a_window_without_records_or_bodies_is_fine() -> None:
    assert TemplateMiner().mine([])[1] == []
    assert TemplateMiner().mine([None])[0].tolist() == [-1]


def test_a_label_stays_when_its_template_generalises() -> None:
    miner = TemplateMiner()
    first = _labels(["user alice logged in from berlin office"], miner)
    second = _labels(["user bob logged in from berlin office"], miner)
    assert first == second == ["user alice logged in from berlin office"]
    assert miner.generalised() == {first[0]: "user <*> logged in from berlin office"}


def test_unlike_lines_of_one_length_stay_apart() -> None:
    assert len(set(_labels(["disk is almost full now", "queue depth grows too fast"]))) == 2


def test_a_separator_inside_a_body_does_not_shift_the_others() -> None:
    assert _labels(["a\0b 1", "second 2"]) == ["a b <*>", "second <*>"]


def test_characters_beyond_ascii_survive() -> None:
    assert (
        _labels(["Größe 12 überschritten – 温度 30", "Größe 7 überschritten – 温度 5"])
        == ["Größe <*> überschritten – 温度 <*>"] * 2
    )


def test_long_bodies_are_cut() -> None:
    assert _labels(["x" * 5000]) == ["x" * templates.MAX_BODY_CHARS]


def test_templates_beyond_the_bound_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MAX_CLUSTERS", 3)
    words = ["alpha", "beta", "gamma", "delta", "epsilon"]
    assert _labels(words) == ["alpha", "beta", "gamma", OTHER, OTHER]


def test_a_stream_of_ever_new_words_keeps_memory_bounded() -> None:
    miner = TemplateMiner()
    for window in range(30):
        miner.mine([_word(window * 300 + n) for n in range(300)])
    state = miner.state()
    assert len(state["labels"]) == templates.MAX_CLUSTERS
    assert len(state["known"]) <= 3_300


def test_a_senders_template_is_a_label_beside_the_mined_ones() -> None:
    miner = TemplateMiner()
    given = miner.adopt("order <*> of <*>")
    assert miner.adopt("order <*> of <*>") == given
    codes, labels = miner.encode([given, -1, *miner.clusters_of(["order 5 of 6"])])
    assert (codes.tolist(), labels) == ([0, -1, 0], ["order <*> of <*>"])


def test_state_is_plain_and_restores_the_very_miner() -> None:
    miner = TemplateMiner()
    miner.mine(["user alice logged in", "user bob logged in", "port 80 open"])
    miner.adopt("given <*>")
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(miner.state()))
    twin = TemplateMiner()
    twin.restore(state)
    assert twin.state() == miner.state()
    bodies: list[str | None] = ["user carol logged in", "port 443 open", "new line here"]
    assert _labels(bodies, twin) == _labels(bodies, miner)


def _word(number: int) -> str:
    letters = "bcghjklmnpqrstvwxz"
    word = ""
    for _ in range(5):
        number, digit = divmod(number, len(letters))
        word += letters[digit]
    return word
