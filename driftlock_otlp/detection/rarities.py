"""Rare values: single records of which some number is larger than nearly all or all before it.

A window's evidence needs several records. One call that repeats itself for the tenth time, or one
input with invisible characters, is a single one. Each numeric column, given the symbol on which
it depends, has a histogram of all its values; a record's bits are those of its rarest value,
less what it costs to say which column it was in.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from driftlock_otlp.detection.claims import Change, Claim
from driftlock_otlp.detection.columns import Codes, Columns, Floats, Ints
from driftlock_otlp.detection.durations import DurationCode, log_duration, naming_bits
from driftlock_otlp.detection.records import RecordEvidence


class RareValues:
    """The largest values of all positive-scale numbers of one stream.

    An alarm needs a value that is rare even when counted over all records of the stream's life, so
    that less than one false alarm is to be expected where values do not trend.
    """

    claim = Claim("", "rare_value", "value")

    def __init__(self) -> None:
        self._code = DurationCode()
        self._records = 0.0

    def score_one(self, columns: Columns) -> RecordEvidence | None:
        """Return how rare the rarest value of each record is; None if the window has no such numbers."""
        judged = self._judge(columns)
        if not judged:
            return None
        bits = np.zeros(columns.record_count)
        for _, rows, of_column in judged:
            bits[rows] = np.maximum(bits[rows], of_column)
        margins = np.where(bits > 0.0, bits - naming_bits(self._records), -math.inf)
        return RecordEvidence(bits, margins)

    def learn_one(self, columns: Columns, evidence: RecordEvidence | None) -> None:
        """Take in a window's values, whatever the verdict: a value is rare only once."""
        names: list[str] = []
        codes: list[Codes] = []
        values: list[Floats] = []
        for name, labels, own, rows, found in _values(columns):
            keys = _keys(name, labels)
            codes.append((own if len(keys) > 1 or labels else np.zeros(len(rows), np.int32)) + np.int32(len(names)))
            names += keys
            values.append(found)
        if values:
            self._code.learn(names, np.concatenate(codes), np.concatenate(values))
        self._records += columns.record_count

    def explain(self, columns: Columns, row: int) -> tuple[str, Change]:
        """Return the column of a record's rarest value, beside the value that is usual."""
        rarest, most_bits = "", 0.0
        for name, rows, of_column in self._judge(columns):
            at = np.flatnonzero(rows == row)
            if at.size and of_column[at[0]] > most_bits:
                rarest, most_bits = name, float(of_column[at[0]])
        for name, labels, own, rows, found in _values(columns):
            at = np.flatnonzero(rows == row)
            if name != rarest:
                continue
            label = labels[own[at[0]]] if labels else ""
            slot = int(self._code.slots([_keys(name, [label] if label else [])[0]])[0])
            unit = f" {columns.numbers[name].unit}".rstrip()
            observed = f"{2.0 ** float(found[at[0]]) - 1.0:.4g}{unit}"
            usual = f"{self._code.usual_ms(slot):.4g}{unit}" if slot >= 0 else ""
            of = " of {label}" if label else ""
            return name, Change(label, f"{name}{of} is {observed}, usually {usual}", observed, usual)
        return "records", Change("", "a value larger than any before", "", "")

    def _judge(self, columns: Columns) -> list[tuple[str, Ints, Floats]]:
        """Return column, rows and the bits of the value in each, column by column."""
        judged = []
        found = _values(columns)
        for name, labels, own, rows, values in found:
            places: Ints = self._code.slots(_keys(name, labels))
            slots = places[own] if labels else np.full(len(rows), places[0])
            bits: Floats = np.maximum(self._code.tail_bits(slots, values) - math.log2(len(found)), 0.0)
            judged.append((name, rows, bits))
        return judged

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values and arrays."""
        return {"values": self._code.state(), "records": self._records}

    def restore(self, state: dict[str, Any]) -> None:
        """Become the values that gave this state."""
        self._code.restore(state["values"])
        self._records = state["records"]


def _values(columns: Columns) -> list[tuple[str, list[str], Codes, Ints, Floats]]:
    """Return column, labels given, code of each value's label, row and log value, column by column."""
    found = []
    for name, number in columns.numbers.items():
        if not number.is_positive_scale:
            continue
        given = columns.categories.get(number.given) if number.given else None
        keep = np.isfinite(number.values)
        if given is not None:
            keep &= given.codes >= 0
        rows = np.flatnonzero(keep)
        if rows.size:
            own = given.codes[rows] if given is not None else np.zeros(len(rows), np.int32)
            labels = given.labels if given is not None else []
            found.append((name, labels, own, rows, log_duration(number.values[rows])))
    return found


def _keys(name: str, labels: list[str]) -> list[str]:
    return [f"{name} {label}" for label in labels] if labels else [name]
