"""Evidence from columns of numbers: how they are distributed, given a symbol where they depend on one."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from driftlock_otlp.detection.claims import SIGMA_UNIT, Change, Claim, ColumnEvidence, Sizes
from driftlock_otlp.detection.codelength import alphabet_evidence, log2_mean_exp2, mix
from driftlock_otlp.detection.columns import Category, Codes, Floats, Ints, Number
from driftlock_otlp.detection.compressor import Compressor
from driftlock_otlp.detection.order import ORDER_RECORDS, OrderJudge

_BINS = 16
_MOST_GROUPS = 64
"""Symbols judged separately in one window; the most frequent ones."""
_FEWEST_BASELINE = 8
_FEWEST_FOR_LEVEL = 8
_FEWEST_BASELINE_FOR_LEVEL = 32
"""A spread taken from fewer values is chance, and a chance that is tiny makes any level look far
off. Time series make do with 8: they have no more, and stay what they are."""
_LEVEL_SWING = 0.1
_MOST_LABELS = 4096
"""Labels numbered before those that have left the baseline give their numbers back."""


@dataclass(slots=True)
class NumberWindow:
    """One window's numbers, finite ones only.

    Attributes:
        rows: int64, (m,): which records they belong to.
        values: float64, (m,), on the scale that is judged.
        labels: Symbols on which they depend; [""] if on none.
        codes: int32, (m,): index into labels.
        ids: int32, (k,): the model's numbers of the labels once learned, else None.
        value_ids: int32, (m,): the same of each value, once asked for.
    """

    rows: Ints
    values: Floats
    labels: list[str]
    codes: Codes
    ids: Codes | None = None
    value_ids: Codes | None = None

    def known_ids(self) -> Codes:
        """Return the model's number of the label of each value of a learned window; int32, (m,)."""
        if self.value_ids is None:
            assert self.ids is not None  # noqa: S101 - for the type checker: it has been learned
            self.value_ids = self.ids[self.codes]
        return self.value_ids


@dataclass(slots=True)
class _Group:
    """Baseline values of one symbol."""

    values: Floats
    median: float
    spread: float


class NumberModel:
    """Baseline of one numeric column, and a window's evidence against it.

    Args:
        name: The column's name.
        column: A column of that name, for its nature.
    """

    def __init__(self, name: str, column: Number) -> None:
        self.name = name
        self.given = column.given
        self.unit = column.unit
        self.is_positive_scale = column.is_positive_scale
        self.is_point_series = column.is_point_series
        # Values of the window and of the baseline that a group needs for its level to be judged.
        self._fewest_for_level = (
            (1, _FEWEST_BASELINE) if column.is_point_series else (_FEWEST_FOR_LEVEL, _FEWEST_BASELINE_FOR_LEVEL)
        )
        self.claims = [
            Claim(name, "shift", "value"),
            Claim(name, "level", "value", unit=SIGMA_UNIT),
            Claim(name, "order", "sequence", unit=0.2),
        ]
        self._ids: dict[str, int] = {}
        self._windows: deque[NumberWindow] = deque()
        self._groups: dict[str, _Group] | None = None
        self._recent: npt.NDArray[np.int16] | None = None
        self._order = OrderJudge()

    @classmethod
    def of_state(cls, name: str, state: dict[str, Any]) -> NumberModel:
        """Return an empty model of the nature that the state tells."""
        nature = Number(
            np.zeros(0), state["given"], state["is_positive_scale"], state["is_point_series"], state["unit"]
        )
        return cls(name, nature)

    def prepare(self, column: Number | None, given: Category | None) -> NumberWindow:
        """Return the window's finite values in the form the other methods take."""
        if column is None:
            nothing = np.zeros(0, dtype=np.int64)
            return NumberWindow(nothing, np.zeros(0), [""], nothing.astype(np.int32))
        keep = np.isfinite(column.values)
        if given is not None:
            keep &= given.codes >= 0
        rows = np.flatnonzero(keep)
        values = column.values[rows]
        if self.is_positive_scale:
            values = np.log2(1.0 + np.maximum(values, 0.0))
        if given is None:
            return NumberWindow(rows, values, [""], np.zeros(len(rows), dtype=np.int32))
        present, codes = np.unique(given.codes[rows], return_inverse=True)
        return NumberWindow(rows, values, [given.labels[i] for i in present], codes.astype(np.int32))

    def evaluate(self, window: NumberWindow, compressor: Compressor) -> ColumnEvidence:
        """Return the evidence for each of `claims`; changes nothing that later results rest on."""
        values = np.full(len(self.claims), np.nan)
        groups = self._baseline_groups()
        if len(window.values) == 0 or not groups:
            return ColumnEvidence(values)
        shifts, levels = [], []
        for label, own in self._own_groups(window):
            group = groups.get(label)
            if group is None:
                continue
            if self._has_shift(group):
                shifts.append(_shift_evidence(group.values, np.sort(own)))
            if self._has_level(own, group):
                levels.append(_level_sigmas(own, group))
        if shifts:
            evidence = np.array(shifts)
            values[0] = mix(float(evidence.sum()), log2_mean_exp2(evidence))
        if levels:
            values[1] = max(levels)
        values[2], sizes = self._judge_order(window, groups, compressor)
        return ColumnEvidence(values, sizes)

    def learn(self, window: NumberWindow) -> None:
        """Add the window to the baseline."""
        self._windows.append(window)
        if len(self._ids) > _MOST_LABELS:
            self._ids.clear()
            for known in self._windows:
                self._number(known)
        else:
            self._number(window)
        self._changed()

    def forget(self, window: NumberWindow) -> None:
        """Take the oldest learned window out of the baseline."""
        if window.ids is None:
            return
        self._windows.popleft()
        self._changed()

    def record_bits(self, window: NumberWindow, record_count: int) -> Floats:
        """Return how many bits each record saves under the window's own model; float64, (n,), >= 0."""
        result = np.zeros(record_count)
        groups = self._baseline_groups()
        for code, label in enumerate(window.labels):
            group = groups.get(label)
            at = np.flatnonzero(window.codes == code)
            if group is None or len(group.values) < _FEWEST_BASELINE or not len(at):
                continue
            edges = _edges(group.values)[1::2]
            own_bins = np.searchsorted(edges, window.values[at], side="right")
            base = np.bincount(np.searchsorted(edges, group.values, side="right"), minlength=len(edges) + 1)
            own = np.bincount(own_bins, minlength=len(edges) + 1)
            half = (len(edges) + 1) / 2
            saved = np.log2((own + 0.5) / (len(at) + half)) - np.log2((base + 0.5) / (len(group.values) + half))
            bits = np.maximum(saved, 0.0)[own_bins]
            # Within a bin the value that lies farther out is the odder one.
            distance = np.abs(window.values[at] - group.median) / group.spread
            result[window.rows[at]] = bits + np.log2(1.0 + distance) * (bits > 0)
        return result

    def change(self, window: NumberWindow, claim: Claim, noun: str) -> Change:
        """Return the group of values that says most, in words."""
        groups = self._baseline_groups()
        best, best_bits = None, -np.inf
        for label, own in self._own_groups(window):
            group = groups.get(label)
            if group is None or not (self._has_level(own, group) if claim.name == "level" else self._has_shift(group)):
                continue
            bits = _level_sigmas(own, group) if claim.name == "level" else _shift_evidence(group.values, np.sort(own))
            if bits > best_bits:
                best, best_bits = (label, own, group), bits
        if best is None:
            return Change("", f"{self.name} changed", "", "")
        label, own, group = best
        observed, expected = self._shown(float(np.median(own))), self._shown(group.median)
        of = " of {label}" if label else ""
        if claim.name == "order":
            return Change(label, f"the order of {self.name}{of} changed", "", "")
        text = f"median {self.name}{of} is {observed}, expected {expected} ({len(own)} {noun})"
        if observed == expected:
            observed, expected = self._span(own), self._span(group.values)
            text = f"{self.name}{of} lies between {observed}, expected {expected} ({len(own)} {noun})"
        return Change(label, text, observed, expected)

    def state(self) -> dict[str, Any]:
        """Return all but the baseline's windows, which the caller keeps."""
        return {
            "given": self.given,
            "unit": self.unit,
            "is_positive_scale": self.is_positive_scale,
            "is_point_series": self.is_point_series,
            "ids": self._ids,
        }

    def restore(self, state: dict[str, Any], windows: list[NumberWindow]) -> None:
        """Become the model that gave this state, with these windows as its baseline."""
        self._ids = dict(state["ids"])
        self._windows = deque(window for window in windows if window.ids is not None)
        self._changed()

    def _changed(self) -> None:
        """Let go of what was computed from the baseline."""
        self._groups = self._recent = None
        self._order.forget()

    def _has_shift(self, group: _Group) -> bool:
        return len(group.values) >= _FEWEST_BASELINE

    def _has_level(self, own: Floats, group: _Group) -> bool:
        least_own, least_baseline = self._fewest_for_level
        return len(own) >= least_own and len(group.values) >= least_baseline

    def _number(self, window: NumberWindow) -> None:
        window.ids = np.array([self._ids.setdefault(label, len(self._ids)) for label in window.labels], dtype=np.int32)
        window.value_ids = None

    def _own_groups(self, window: NumberWindow) -> list[tuple[str, Floats]]:
        if len(window.labels) == 1:
            return [(window.labels[0], window.values)] if len(window.values) else []
        counts = np.bincount(window.codes, minlength=len(window.labels))
        chosen = np.argsort(-counts, kind="stable")[:_MOST_GROUPS]
        order = np.argsort(window.codes, kind="stable")
        starts = np.concatenate(([0], np.cumsum(counts)))
        return [(window.labels[i], window.values[order[starts[i] : starts[i + 1]]]) for i in chosen if counts[i]]

    def _baseline_groups(self) -> dict[str, _Group]:
        if self._groups is None:
            self._groups = {}
            if self._windows:
                codes = np.concatenate([window.known_ids() for window in self._windows])
                values = np.concatenate([window.values for window in self._windows])
                order = np.lexsort((values, codes))
                codes, values = codes[order], values[order]
                starts = np.searchsorted(codes, np.arange(len(self._ids) + 1))
                for label, i in self._ids.items():
                    own = values[starts[i] : starts[i + 1]]
                    if len(own):
                        self._groups[label] = _group(own)
        return self._groups

    def _judge_order(
        self, window: NumberWindow, groups: dict[str, _Group], compressor: Compressor
    ) -> tuple[float, Sizes]:
        if self._recent is None:
            self._recent = self._quantised_baseline(groups)
        return self._order.judge(self._recent, _quantised(window, groups), compressor)

    def _quantised_baseline(self, groups: dict[str, _Group]) -> npt.NDArray[np.int16]:
        """Return the newest windows that make up `ORDER_RECORDS` values, quantised; int16, (m,)."""
        chosen: list[NumberWindow] = []
        held = 0
        for earlier in reversed(self._windows):
            chosen.append(earlier)
            held += len(earlier.values)
            if held >= ORDER_RECORDS:
                break
        chosen.reverse()
        # All at once: a sparse series has hundreds of windows of one value.
        medians, spreads = np.zeros(len(self._ids)), np.ones(len(self._ids))
        for label, i in self._ids.items():
            if label in groups:
                medians[i], spreads[i] = groups[label].median, groups[label].spread
        ids = np.concatenate([window.known_ids() for window in chosen])
        values = np.concatenate([window.values for window in chosen])
        return _eighths((values - medians[ids]) / spreads[ids])

    def _shown(self, value: float) -> str:
        real = 2.0**value - 1.0 if self.is_positive_scale else value
        unit = self.unit.strip("{}")  # UCUM writes annotations such as {job} in braces
        return f"{real:.4g}{' ' + unit if unit else ''}"

    def _span(self, values: Floats) -> str:
        low, high = np.quantile(values, (0.05, 0.95))
        return f"{self._shown(float(low))} and {self._shown(float(high))}"


def _group(values: Floats) -> _Group:
    median = float(values[len(values) // 2])
    deviations = np.abs(values - median)
    spread = 1.4826 * float(np.median(deviations))
    if spread <= 1e-6 * abs(median):
        # More than half of the values are equal; a flat baseline has no spread at all, and a
        # hundredth of its level stands in.
        spread = max(float(deviations.mean()), 0.01 * abs(median), 1e-9)
    return _Group(values, median, spread)


def _level_sigmas(own: Floats, group: _Group) -> float:
    """Return how far the median moved, in units of what the sample size lets it move.

    The constant stands for the slow swing of the level itself, which more values do not average
    out.
    """
    return abs(float(np.median(own)) - group.median) / (group.spread * math.sqrt(1.0 / len(own) + _LEVEL_SWING))


def _edges(values: Floats) -> Floats:
    """Return the interior quantiles of sorted values, (15,)."""
    position = np.linspace(0, len(values) - 1, _BINS + 1)[1:-1]
    low = position.astype(np.int64)
    fraction = position - low
    result: Floats = values[low] * (1 - fraction) + values[np.minimum(low + 1, len(values) - 1)] * fraction
    return result


def _shift_evidence(baseline: Floats, window: Floats) -> float:
    """Return the evidence that two sorted samples differ, averaged over 16, 8, 4 and 2 bins.

    A value equal to an edge falls into a bin of its own, so that ties (a flat series, a
    counter that rarely moves) are told from what lies beside them.
    """
    edges = _edges(baseline)
    base_left, base_right = np.searchsorted(baseline, edges, "left"), np.searchsorted(baseline, edges, "right")
    own_left, own_right = np.searchsorted(window, edges, "left"), np.searchsorted(window, edges, "right")
    results = []
    for step in (1, 2, 4, 8):
        pick = slice(step - 1, None, step)
        base = _bin_counts(base_left[pick], base_right[pick], len(baseline))
        own = _bin_counts(own_left[pick], own_right[pick], len(window))
        held = own > 0
        alphabet = int(np.count_nonzero(base + own))
        results.append(alphabet_evidence(base[held], own[held], len(baseline), max(alphabet, 2)))
    return log2_mean_exp2(np.array(results))


def _bin_counts(left: Ints, right: Ints, total: int) -> Ints:
    bounds = np.empty(2 * len(left) + 2, dtype=np.int64)
    bounds[0], bounds[-1] = 0, total
    bounds[1:-1:2], bounds[2:-1:2] = left, right
    # Equal edges repeat their bounds: what a repeated edge would count again is cut off.
    return np.maximum(np.diff(np.maximum.accumulate(bounds)), 0)


def _quantised(window: NumberWindow, groups: dict[str, _Group]) -> npt.NDArray[np.int16]:
    """Return residuals from each group's median in eighths of its spread, int16, (m,)."""
    medians = np.array([groups[label].median if label in groups else 0.0 for label in window.labels])
    spreads = np.array([groups[label].spread if label in groups else 1.0 for label in window.labels])
    residual = (window.values - medians[window.codes]) / spreads[window.codes]
    return _eighths(residual)


def _eighths(residual: Floats) -> npt.NDArray[np.int16]:
    whole: npt.NDArray[np.int16] = np.clip(np.rint(8.0 * residual), -32000, 32000).astype(np.int16)
    return whole
