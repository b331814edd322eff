"""Small columns and windows, written down by hand, that the tests here share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from driftlock_otlp.detection.columns import Category, Columns, Number
from driftlock_otlp.detection.compressor import Compressor, ZstdCompressor, new_compressor

COMPRESSOR: Compressor = new_compressor("auto")
ZSTD = ZstdCompressor()


def category(symbols: Sequence[str | None]) -> Category:
    """Return the column of these symbols, None where a record has none."""
    labels = list(dict.fromkeys(symbol for symbol in symbols if symbol is not None))
    codes = [-1 if symbol is None else labels.index(symbol) for symbol in symbols]
    return Category(np.array(codes, dtype=np.int32), labels)


def number(values: Sequence[float], given: str | None = None, **nature: bool | str) -> Number:
    """Return the column of these numbers."""
    return Number(np.array(values, dtype=np.float64), given, **nature)  # type: ignore[arg-type]


def window(
    categories: dict[str, Sequence[str | None]] | None = None, numbers: dict[str, Number] | None = None
) -> Columns:
    """Return a window of these columns."""
    made = {name: category(symbols) for name, symbols in (categories or {}).items()}
    sizes = [len(column.codes) for column in made.values()] + [len(n.values) for n in (numbers or {}).values()]
    return Columns(sizes[0], np.zeros(sizes[0], dtype=np.int64), made, dict(numbers or {}))
