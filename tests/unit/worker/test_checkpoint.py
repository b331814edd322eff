"""A worker's own database: states of streams at one position, all or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftlock_otlp.errors import StorageFormatError
from driftlock_otlp.worker.checkpoint import Checkpoint, Place, SavedStream, check_format, decode_state, encode_state


def saved(name: str, n: int, used: int = 1, *, is_resident: bool = True) -> SavedStream:
    return SavedStream(name, encode_state({"n": n}), used, is_resident)


def test_a_new_checkpoint_has_no_place_and_no_streams(tmp_path: Path) -> None:
    with closing(Checkpoint(tmp_path / "d.db")) as checkpoint:
        assert checkpoint.place() is None
        assert list(checkpoint.states(9)) == []


def test_streams_that_did_not_change_stay_and_the_place_moves(tmp_path: Path) -> None:
    with closing(Checkpoint(tmp_path / "d.db")) as checkpoint:
        checkpoint.write(Place(10, 100, 100), [saved("a", 1, used=1), saved("b", 2, used=2)])
        checkpoint.write(Place(20, 200, 200), [saved("b", 3, used=3)])
    with closing(Checkpoint(tmp_path / "d.db")) as again:
        assert again.place() == Place(20, 200, 200)
        assert list(again.states(9)) == [(1, {"n": 1}), (3, {"n": 3})]


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[SavedStream]:
        yield saved("a", 9)
        raise OSError("told to fail")

    with closing(Checkpoint(tmp_path / "d.db")) as checkpoint:
        checkpoint.write(Place(10, 100, 100), [saved("a", 1)])
        with pytest.raises(OSError, match="told to fail"):
            checkpoint.write(Place(20, 200, 200), failing())
        assert checkpoint.place() == Place(10, 100, 100)
        assert list(checkpoint.states(9)) == [(1, {"n": 1})]
        checkpoint.write(Place(30, 300, 300), [])
        assert checkpoint.place() == Place(30, 300, 300)


def test_of_more_streams_than_may_be_followed_the_latest_used_are_taken_over(tmp_path: Path) -> None:
    with closing(Checkpoint(tmp_path / "d.db")) as checkpoint:
        checkpoint.write(Place(10, 100, 100), [saved(name, n, used=n) for n, name in ((3, "a"), (1, "b"), (2, "c"))])
        assert [used for used, _ in checkpoint.states(2)] == [2, 3]


def test_evicted_streams_are_found_by_name_and_the_longest_unused_ones_go(tmp_path: Path) -> None:
    with closing(Checkpoint(tmp_path / "d.db", most_evicted=3)) as checkpoint:
        evicted = [saved(f"gone{n}", n, used=n, is_resident=False) for n in range(5)]
        checkpoint.write(Place(10, 100, 100), [saved("here", 9, used=1), *evicted])
        assert list(checkpoint.states(9)) == [(1, {"n": 9})]
        kept = [checkpoint.state(f"gone{n}") for n in range(5)]
        assert kept == [None, None, {"n": 2}, {"n": 3}, {"n": 4}]
        assert checkpoint.state("here") == {"n": 9}
        assert checkpoint.state("never") is None


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "d.db")) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(StorageFormatError, match="format 99.*up to 3.*run the version that wrote it"):
        Checkpoint(tmp_path / "d.db")


def test_a_newer_format_is_refused_before_any_worker_starts(tmp_path: Path) -> None:
    check_format(tmp_path / "d.db")
    assert not (tmp_path / "d.db").exists()
    with closing(sqlite3.connect(tmp_path / "d.db")) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(StorageFormatError, match="d.db has checkpoint format 99"):
        check_format(tmp_path / "d.db")


def test_a_file_of_the_format_before_is_migrated(tmp_path: Path) -> None:
    golden = Path(__file__).parents[2] / "golden" / "storage" / "checkpoint-1.sql"
    with closing(sqlite3.connect(tmp_path / "d.db")) as connection:
        connection.executescript(golden.read_text())
        connection.execute("PRAGMA user_version=1")
    with closing(Checkpoint(tmp_path / "d.db")) as checkpoint:
        assert checkpoint.place() == Place(1234, 5678, 5678)
        assert [state["n"].tolist() for _, state in checkpoint.states(9)] == [[0, 1, 2]]
        checkpoint.write(Place(2000, 6000, 5900), [])
    with closing(Checkpoint(tmp_path / "d.db")) as again:
        assert again.place() == Place(2000, 6000, 5900)


def test_a_damaged_file_is_put_aside_and_streams_learn_anew(tmp_path: Path) -> None:
    with closing(Checkpoint(tmp_path / "d.db")) as checkpoint:
        checkpoint.write(
            Place(10, 100, 100), [SavedStream(str(n), bytes(1000), n, is_resident=True) for n in range(100)]
        )
    content = bytearray((tmp_path / "d.db").read_bytes())
    content[4096:8192] = b"\xa5" * 4096
    (tmp_path / "d.db").write_bytes(content)
    with closing(Checkpoint(tmp_path / "d.db")) as anew:
        assert anew.place() is None
    assert (tmp_path / "d.db.damaged").read_bytes()[4096:] == content[4096:]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.zeros((0, 4)),
        np.array([np.nan, np.inf, -0.0, 5e-324]),
        np.arange(12.0).reshape(3, 4)[:, ::2],
        np.array([True, False]),
    ],
)
def test_arrays_come_back_bit_for_bit_and_writable(array: Any) -> None:
    back = decode_state(encode_state({"deep": [array]}))["deep"][0]
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
    back[...] = 0


def test_plain_values_come_back_as_they_were() -> None:
    state = {"b": b"\0\xff", "i": (1 << 64) - 1, "f": 0.1, "none": None, "list": [1, "é"], "numpy": np.float64(0.1)}
    assert decode_state(encode_state(state)) == {**state, "numpy": 0.1}


def test_what_cannot_be_kept_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot keep a object"):
        encode_state({"x": object()})
