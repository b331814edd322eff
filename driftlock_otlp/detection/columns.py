"""The typed columns that a window is made of, as the detector sees them.

Every column has one entry per record of the window, in the records' order. A record without
a value has code -1 or NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Category:
    """A column of symbols, dictionary-encoded.

    Attributes:
        codes: int32, (n,): index into `labels`; -1 where the record has no value.
        labels: The distinct symbols. Labels are what identifies a symbol across windows;
            codes are local to this object.
    """

    codes: Codes
    labels: list[str]


@dataclass(slots=True)
class Number:
    """A column of real numbers.

    Attributes:
        values: float64, (n,); NaN where the record has no value.
        given: Name of the `Category` column on which the values depend (duration given
            operation, value given series); None if they stand alone.
        is_positive_scale: True when ratios matter rather than differences (durations, sizes):
            the detector then works on log2(1 + value). Such values are never negative.
        is_point_series: True when each value is a point of a time series of its own (one per
            symbol of `given`), to be judged point by point as well.
        unit: Unit for people, as `ms`; may be empty.
        has_order: False when the order of the values tells nothing, as of operations of many
            conversations side by side: the compressor is then not asked.
    """

    values: Floats
    given: str | None = None
    is_positive_scale: bool = False
    is_point_series: bool = False
    unit: str = ""
    has_order: bool = True


@dataclass(slots=True)
class Counts:
    """A column in which every record is itself a histogram.

    Attributes:
        counts: float64, (n, k), >= 0: observations of the record per bin.
        labels: The k bins' names.
    """

    counts: Floats
    labels: list[str]


@dataclass(slots=True)
class Columns:
    """The typed columns of one window.

    Attributes:
        record_count: n, the length of every column.
        time_unix_nano: int64, (n,): event time of each record, 0 where unknown.
        categories: Symbol columns by name.
        numbers: Numeric columns by name.
        counts: Histogram columns by name.
        sessions: int32, (n,): which records belong together, as the spans of one trace; codes are
            local to the window, -1 for a record of no session. None where the kind has no sessions.
        is_content_free: True when no label holds what people or models have written, but names, classes
            and numbers only: such labels are told whatever may be quoted.
    """

    record_count: int
    time_unix_nano: Ints
    categories: dict[str, Category] = field(default_factory=dict)
    numbers: dict[str, Number] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)
    sessions: Codes | None = None
    is_content_free: bool = False

    def only(self, rows: Ints) -> Columns:
        """Return the columns of some records; rows int64, (m,), ascending."""
        return replace(
            self,
            record_count=len(rows),
            time_unix_nano=self.time_unix_nano[rows],
            categories={name: replace(column, codes=column.codes[rows]) for name, column in self.categories.items()},
            numbers={name: replace(column, values=column.values[rows]) for name, column in self.numbers.items()},
            counts={name: replace(column, counts=column.counts[rows]) for name, column in self.counts.items()},
            sessions=None if self.sessions is None else self.sessions[rows],
        )
