from __future__ import annotations

import numpy as np
import pytest

from driftlock_otlp.windowing.encoding import MAX_SYMBOLS, SymbolColumn, category, number_values, shape
from driftlock_otlp.windowing.templates import OTHER


def test_labels_stand_in_order_of_first_appearance() -> None:
    column = category(["b", None, "a", "b"])
    assert (column.codes.tolist(), column.labels, column.codes.dtype) == ([0, -1, 1, 0], ["b", "a"], np.dtype("int32"))


def test_scalars_of_any_type_become_distinct_symbols() -> None:
    column = category([1, True, 1.5, "1", None, False])
    texts = [column.labels[code] if code >= 0 else None for code in column.codes]
    assert texts == ["1", "true", "1.5", "1", None, "false"]


def test_an_empty_column_is_fine() -> None:
    column = SymbolColumn().encode([])
    assert (column.codes.shape, column.labels) == ((0,), [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eu-west-1", "a-a-0"),
        ("user42", "a0"),
        ("9f86d081884c7d65", "*"),
        ("6fa459ea-ee8a-3ca4-894e-db77e160355e", "uuid"),
        ("10.0.0.7:443", "0.0.0.0:0"),
        ("", ""),
        ("x-" * 100, ("a-" * 100)[:32]),
    ],
)
def test_shape_of_a_value(text: str, expected: str) -> None:
    assert shape(text) == expected


def test_shapes_are_bounded_too() -> None:
    column = SymbolColumn()
    kinds = ["-", "_", "/", "."]
    values = ["".join(kinds[(n >> 2 * k) & 3] for k in range(7)) for n in range(4 * MAX_SYMBOLS)]
    encoded = column.encode(values)
    assert len(encoded.labels) == MAX_SYMBOLS + 1
    assert encoded.labels[-1] == OTHER
    assert column.encode(["letters"]).labels == [OTHER]


def test_numbers_are_finite_or_nan() -> None:
    np.testing.assert_array_equal(
        number_values([1, None, 2.5, float("inf"), float("nan"), True]), [1, np.nan, 2.5, np.nan, np.nan, 1]
    )
    np.testing.assert_array_equal(number_values([1, "x"]), [1, np.nan])
    assert number_values([]).shape == (0,)
