"""Numbers by group, held against taking each group by itself."""

from __future__ import annotations

import numpy as np
import pytest

from driftlock_otlp.detection.groups import BaselineGroups, SortedGroups, group_edges

RANDOM = np.random.default_rng(4)
CODES = RANDOM.integers(0, 5, 200).astype(np.int32)
VALUES = np.round(RANDOM.standard_normal(200), 1)
CODES[CODES == 3] = 2  # one group is empty


def test_groups_are_sorted_and_their_medians_are_those_of_their_values() -> None:
    groups = SortedGroups(CODES, VALUES, 5)
    for code in (0, 1, 2, 4):
        own = np.sort(VALUES[np.equal(CODES, code)])
        assert groups.group(code).tolist() == own.tolist()
        assert groups.medians()[code] == np.median(own)
        assert groups.upper_medians()[code] == own[len(own) // 2]
        assert np.allclose(groups.edges(np.array([code]))[0], np.quantile(own, np.arange(1, 16) / 16))
    assert np.isnan(groups.medians()[3])


def test_bounds_count_what_lies_below_and_at_each_edge() -> None:
    edges = np.array([[-1.0, 0.0, 0.5]])
    own = VALUES[CODES == 1]
    expected = [0]
    for edge in edges[0]:
        expected += [int((own < edge).sum()), int((own <= edge).sum())]
    assert SortedGroups(CODES, VALUES, 5).bins(np.array([1]), edges)[0].tolist() == [*expected, len(own)]


def test_spreads_are_robust_and_never_zero() -> None:
    codes = np.array([0] * 9 + [1] * 9 + [2] * 9, dtype=np.int32)
    values = np.concatenate((np.arange(9.0), [7.0] * 9, [7.0] * 8 + [16.0]))
    groups = BaselineGroups(codes, values, {"even": 0, "flat": 1, "nearly": 2, "none": 3})
    assert groups.spread[:3].tolist() == [1.4826 * 2.0, 0.07, 1.0]
    assert groups.get("none") is None
    assert groups.get("unheard of") is None
    assert groups.codes_of(["nearly", "none", "unheard of"]).tolist() == [2, -1, -1]


def test_edges_of_few_values_lie_between_them() -> None:
    assert group_edges(np.array([3.0])).tolist() == [3.0] * 15
    assert group_edges(np.array([0.0, 16.0])).tolist() == list(range(1, 16))


@pytest.mark.parametrize("count", [1, 2, 3, 40, 41])
def test_one_group_by_itself_says_what_it_says_beside_another(count: int) -> None:
    """What is alone takes a shorter way, which must come to the very same numbers."""
    values = np.round(np.random.default_rng(count).standard_normal(count), 1)
    alone = BaselineGroups(np.zeros(count, dtype=np.int32), values, {"a": 0})
    beside = BaselineGroups(
        np.repeat(np.array([0, 1], dtype=np.int32), count), np.concatenate((values, 100.0 - values)), {"a": 0, "b": 1}
    )
    code = np.zeros(1, dtype=np.int64)
    assert alone.group(0).tobytes() == beside.group(0).tobytes()
    assert (alone.median[0], alone.spread[0]) == (beside.median[0], beside.spread[0])
    assert alone.edges(code).tobytes() == beside.edges(code).tobytes()
    edges = beside.edges(code)
    assert alone.bins(code, edges).tolist() == beside.bins(code, edges).tolist()
    own = np.random.default_rng(9).standard_normal(30) + 0.3
    window = SortedGroups(np.zeros(30, dtype=np.int32), own, 1)
    mixed = SortedGroups(np.repeat(np.array([0, 1], dtype=np.int32), 30), np.concatenate((own, own)), 2)
    assert alone.shift_evidence(code, window, code).tobytes() == beside.shift_evidence(code, mixed, code).tobytes()
