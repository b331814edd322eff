"""From lists of plain values to encoded columns, with a bound on the symbols of each.

An attribute may hold one of five regions or a different request id in every record. The second
kind says nothing by its values, but may by their *shape*. A column starts with its values and
changes over, for good, when it has had too many of them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from driftlock_otlp.detection.columns import Category, Floats
from driftlock_otlp.windowing.templates import OTHER

MAX_SYMBOLS = 1_000
"""Distinct values after which a column shows their shapes, and distinct shapes it can show."""

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_MIXED = re.compile(r"[^\W_]*\d[^\W_]*")
_LETTERS = re.compile(r"[^\W\d_]+")
_DIGITS = re.compile(r"\d+")
_MAX_SHAPE_CHARS = 32


class SymbolColumn:
    """Encodes one column, window after window."""

    def __init__(self) -> None:
        # Checksums, not the values: a thousand long values a column would be too much to keep. A
        # collision only delays the change-over by one.
        self._seen: dict[int, None] = {}
        self._shows_shapes = False

    def encode(self, values: Sequence[Any]) -> Category:
        """Return the column of these values, texts or None; other scalars become text."""
        column = category(values)
        if not self._shows_shapes and not self._take_in(column.labels):
            self._shows_shapes = True
            self._seen = {}
        if not self._shows_shapes:
            return column
        shapes = [shape(label) for label in column.labels]
        self._take_in(shapes)
        known = [text if _checksum(text) in self._seen else OTHER for text in shapes]
        merged = category(known)
        # Through a table from value to shape; the extra last place serves code -1.
        table = np.append(merged.codes, np.int32(-1))
        return Category(codes=table[column.codes].astype(np.int32), labels=merged.labels)

    def _take_in(self, labels: list[str]) -> bool:
        """Remember new labels while there is room; return whether there was."""
        seen = self._seen
        for label in labels:
            number = _checksum(label)
            if number not in seen:
                if len(seen) >= MAX_SYMBOLS:
                    return False
                seen[number] = None
        return True

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values."""
        return {"seen": list(self._seen), "shows_shapes": self._shows_shapes}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> SymbolColumn:
        """Return the column that had this state."""
        column = cls()
        column._seen = dict.fromkeys(state["seen"])
        column._shows_shapes = state["shows_shapes"]
        return column


class SymbolColumns:
    """Several columns by name, made when first used."""

    def __init__(self) -> None:
        self._columns: dict[str, SymbolColumn] = {}

    def encode(self, name: str, values: Sequence[Any]) -> Category:
        """Return the named column of these values."""
        column = self._columns.get(name)
        if column is None:
            column = self._columns[name] = SymbolColumn()
        return column.encode(values)

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values."""
        return {name: column.state() for name, column in self._columns.items()}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> SymbolColumns:
        """Return the columns that had this state."""
        columns = cls()
        columns._columns = {name: SymbolColumn.of_state(item) for name, item in state.items()}
        return columns


def category(values: Sequence[Any]) -> Category:
    """Return a dictionary-encoded column, labels in order of first appearance; None becomes -1.

    >>> category(["GET", None, "PUT", "GET"]).codes.tolist()
    [0, -1, 1, 0]
    """
    if not _all_texts(values):
        values = [None if value is None else text_of(value) for value in values]
    distinct = dict.fromkeys(values)
    distinct.pop(None, None)
    labels: list[str] = list(distinct)
    index: dict[str | None, int] = {label: code for code, label in enumerate(labels)}
    index[None] = -1
    return Category(codes=np.fromiter(map(index.__getitem__, values), np.int32, len(values)), labels=labels)


def number_values(values: list[Any]) -> Floats:
    """Return float64 values; NaN for None, for texts and for anything not finite."""
    try:
        numbers = np.array(values, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError, OverflowError):
        numbers = np.array([v if isinstance(v, (int, float)) else None for v in values], dtype=np.float64)
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers


def text_of(value: Any) -> str:
    """Return a scalar as the text of its symbol.

    >>> text_of(True), text_of(200), text_of(0.5)
    ('true', '200', '0.5')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def shape(text: str) -> str:
    """Return what a value looks like: letters as a, digits as 0, runs of either as one.

    Words that mix both more than once are a single `*`, as hexadecimal ids would otherwise have
    a shape each.

    >>> shape("abc12-def"), shape("9f86d081-x"), shape("6fa459ea-ee8a-3ca4-894e-db77e160355e")
    ('a0-a', '*-a', 'uuid')
    """
    if _UUID.fullmatch(text):
        return "uuid"
    return _LETTERS.sub("a", _DIGITS.sub("0", _MIXED.sub(_word_shape, text)))[:_MAX_SHAPE_CHARS]


def _word_shape(match: re.Match[str]) -> str:
    word = _LETTERS.sub("a", _DIGITS.sub("0", match[0]))
    return "*" if len(word) > 2 else word


def _all_texts(values: Iterable[Any]) -> bool:
    return set(map(type, values)) <= {str, type(None)}


def _checksum(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "replace"))
