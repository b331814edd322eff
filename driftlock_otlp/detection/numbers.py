"""Evidence from columns of numbers: how they are distributed, given a symbol where they depend on one."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from driftlock_otlp.detection.claims import (
    BURSTY_SHAPE,
    LIGHT_SHAPE,
    NORMAL_SHAPE,
    Change,
    Claim,
    ColumnEvidence,
    Sizes,
    sigma_bits,
)
from driftlock_otlp.detection.codelength import log2_mean_exp2, mix
from driftlock_otlp.detection.columns import Category, Codes, Floats, Ints, Number
from driftlock_otlp.detection.compressor import Compressor
from driftlock_otlp.detection.groups import BaselineGroups, SortedGroups, group_edges, weighted_median
from driftlock_otlp.detection.order import ORDER_RECORDS, OrderJudge

_MOST_GROUPS = 64
"""Symbols judged separately in one window; the most frequent ones."""
_FEWEST_BASELINE = 8
_FEWEST_FOR_LEVEL = 3
_FEWEST_BASELINE_FOR_LEVEL = 32
"""A spread taken from fewer values is chance, and a chance that is tiny makes any level look far
off. Time series make do with 8: they have no more, and stay what they are."""
_LEVEL_SWING = 0.1
_MEDIAN_VARIANCE = 1.5
"""Variance of a sample's median, times its size, for normal values of variance 1: 1.35 for three, pi/2 for many."""
_MEAN_VARIANCE = 1.2
"""Variance of a mean of residuals that are cut off, times its size, for values somewhat heavier than normal ones."""
_FARTHEST = 2.0
"""Spreads from the window's own median at which a value is cut off: one slow call of many must not move their mean."""
_GROUP_SWING = 0.03
"""As `_LEVEL_SWING`, of one group beyond what all groups do."""
_FEWEST_GROUPS = 3
"""Groups of which it can be said what they do together."""
_FEWEST_STEPS = 6
"""Steps from one point to the next from which a window's own noise is taken."""
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
        ascending: int32, (m,): order of the values, once asked for.
        found_steps: What `steps` returns, once asked for.
    """

    rows: Ints
    values: Floats
    labels: list[str]
    codes: Codes
    ids: Codes | None = None
    value_ids: Codes | None = None
    ascending: Codes | None = None
    found_steps: tuple[Codes, Floats] | None = None

    def by_value(self) -> Codes:
        """Return the places of the values in ascending order; int32, (m,)."""
        if self.ascending is None:
            self.ascending = np.argsort(self.values, kind="stable").astype(np.int32)
        return self.ascending

    def steps(self) -> tuple[Codes, Floats]:
        """Return how far it is from each value to the next of its symbol: code, and distance; (k,) each."""
        if self.found_steps is None:
            order = np.argsort(self.codes, kind="stable")  # a symbol's values stay in the records' order
            codes, values = self.codes[order], self.values[order]
            same = codes[1:] == codes[:-1]
            self.found_steps = codes[1:][same], np.abs(np.diff(values))[same]
        return self.found_steps

    def known_ids(self) -> Codes:
        """Return the model's number of the label of each value of a learned window; int32, (m,)."""
        if self.value_ids is None:
            assert self.ids is not None  # noqa: S101 - for the type checker: it has been learned
            self.value_ids = self.ids[self.codes]
        return self.value_ids


@dataclass(frozen=True, slots=True)
class _Judged:
    """Evidence of the groups of one window, those judged.

    Attributes:
        shift_labels, shifts: Groups with enough values for `shift`, and theirs; float64, (g,), bits.
        level_labels, levels: The same for `level`, in sigmas.
        common: Sigmas by which they have moved together; NaN if there are too few.
        common_spreads: The same in spreads of each group, with its sign.
    """

    shift_labels: list[str]
    shifts: Floats
    level_labels: list[str]
    levels: Floats
    common: float = math.nan
    common_spreads: float = 0.0


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
        # Many groups side by side, as durations of operations: what they do together is told from what one does.
        self._is_grouped = column.given is not None and not column.is_point_series
        self.claims = [
            Claim(name, "shift", "value", shape=BURSTY_SHAPE if self._is_grouped else LIGHT_SHAPE),
            Claim(name, "level", "value", shape=LIGHT_SHAPE if column.given is None else NORMAL_SHAPE),
        ]
        if self._is_grouped:
            self.claims.append(Claim(name, "common", "value", shape=BURSTY_SHAPE))
        self.has_order = column.has_order
        if column.has_order:
            self.claims.append(Claim(name, "order", "sequence", unit=0.2))
        self._ids: dict[str, int] = {}
        self._windows: deque[NumberWindow] = deque()
        self._groups: BaselineGroups | None = None
        self._usual_steps: Floats | None = None
        self._recent: npt.NDArray[np.int16] | None = None
        self._order = OrderJudge()

    @classmethod
    def of_state(cls, name: str, state: dict[str, Any]) -> NumberModel:
        """Return an empty model of the nature that the state tells."""
        nature = Number(
            np.zeros(0),
            state["given"],
            state["is_positive_scale"],
            state["is_point_series"],
            state["unit"],
            state["has_order"],
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
        if len(window.values) == 0 or not len(groups.values):
            return ColumnEvidence(values)
        judged = self._judge_groups(window, groups)
        if len(judged.shifts):
            values[0] = mix(float(judged.shifts.sum()), log2_mean_exp2(judged.shifts))
        if len(judged.levels):
            values[1] = sigma_bits(float(judged.levels.max()))
        if self._is_grouped:
            values[2] = sigma_bits(judged.common)
        if not self.has_order:
            return ColumnEvidence(values)
        values[-1], sizes = self._judge_order(window, groups, compressor)
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
            edges = group_edges(group.values)[1::2]
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
        judged = self._judge_groups(window, self._baseline_groups())
        if claim.name == "common":
            return self._common_change(judged, noun, len(window.values))
        by_level = claim.name == "level"
        labels, evidence = (judged.level_labels, judged.levels) if by_level else (judged.shift_labels, judged.shifts)
        if not len(evidence):
            return Change("", f"{self.name} changed", "", "")
        label = labels[int(np.argmax(evidence))]
        group = self._baseline_groups().get(label)
        assert group is not None  # noqa: S101 - for the type checker: it has been judged
        own = window.values[window.codes == window.labels.index(label)]
        observed, expected = self._shown(float(np.median(own))), self._shown(group.median)
        of = " of {label}" if label else ""
        if claim.name == "order":
            return Change(label, f"the order of {self.name}{of} changed", "", "")
        text = f"median {self.name}{of} is {observed}, expected {expected} ({len(own)} {noun})"
        if observed == expected:
            observed, expected = self._span(own), self._span(group.values)
            text = f"{self.name}{of} lies between {observed}, expected {expected} ({len(own)} {noun})"
        return Change(label, text, observed, expected)

    def _common_change(self, judged: _Judged, noun: str, count: int) -> Change:
        """Return in words that all groups have moved together."""
        way = "larger" if judged.common_spreads > 0 else "smaller"
        observed = f"{abs(judged.common_spreads):.2g} usual deviations {way}"
        groups = len(judged.level_labels)
        return Change(
            "", f"{self.name} is {observed} in most of {groups} groups ({count} {noun})", observed, "as before"
        )

    def direction(self, window: NumberWindow, label: str) -> int:
        """Return 1 if the window's median of a group lies above the baseline's, -1 if below, 0 if neither is known."""
        group = self._baseline_groups().get(label)
        own = window.values[window.codes == window.labels.index(label)] if label in window.labels else window.values[:0]
        return int(np.sign(np.median(own) - group.median)) if group is not None and len(own) else 0

    def state(self) -> dict[str, Any]:
        """Return all but the baseline's windows, which the caller keeps."""
        return {
            "given": self.given,
            "unit": self.unit,
            "is_positive_scale": self.is_positive_scale,
            "is_point_series": self.is_point_series,
            "has_order": self.has_order,
            "ids": self._ids,
        }

    def restore(self, state: dict[str, Any], windows: list[NumberWindow]) -> None:
        """Become the model that gave this state, with these windows as its baseline."""
        self._ids = dict(state["ids"])
        self._windows = deque(window for window in windows if window.ids is not None)
        self._changed()

    def hold(self, windows: list[NumberWindow]) -> None:
        """Make these windows the baseline."""
        self._windows = deque(windows)
        for window in windows:
            self._number(window)
        self._changed()

    def _changed(self) -> None:
        """Let go of what was computed from the baseline."""
        self._groups = self._usual_steps = self._recent = None
        self._order.forget()

    def _number(self, window: NumberWindow) -> None:
        window.ids = np.array([self._ids.setdefault(label, len(self._ids)) for label in window.labels], dtype=np.int32)
        window.value_ids = None

    def _judge_groups(self, window: NumberWindow, groups: BaselineGroups) -> _Judged:
        """Return what each of the window's most frequent groups says that the baseline knows well enough."""
        own = SortedGroups(window.codes, window.values, len(window.labels))
        chosen = np.argsort(-own.counts, kind="stable")[:_MOST_GROUPS]
        codes = groups.codes_of([window.labels[i] for i in chosen])
        held = np.where(codes >= 0, groups.counts[codes], 0)
        least_own, least_baseline = self._fewest_for_level
        has_shift = (held >= _FEWEST_BASELINE) & (own.counts[chosen] > 0)
        has_level = (held >= least_baseline) & (own.counts[chosen] >= least_own)
        shifts = groups.shift_evidence(codes[has_shift], own, chosen[has_shift])
        at, base = chosen[has_level], codes[has_level]
        shift_labels, level_labels = ([window.labels[i] for i in chosen[kept]] for kept in (has_shift, has_level))
        scarce = 1.0 / own.counts[at] + 1.0 / groups.counts[base]
        # The constants stand for the slow swing of the level itself, which more values do not average out.
        if not self._is_grouped:
            moved = (own.medians()[at] - groups.median[base]) / groups.spread[base]
            levels = np.abs(moved) / np.sqrt(_MEDIAN_VARIANCE * scarce + _LEVEL_SWING)
            if self.is_point_series:
                levels /= self._noise(window, groups)
            return _Judged(shift_labels, shifts, level_labels, levels)
        all_codes = groups.codes_of(window.labels)
        spreads = np.where(all_codes >= 0, groups.spread[all_codes], 1.0)
        moved = (own.cut_means(spreads, _FARTHEST)[at] - groups.median[base]) / groups.spread[base]
        variance = _MEAN_VARIANCE * scarce + _GROUP_SWING
        if len(at) < _FEWEST_GROUPS:
            return _Judged(shift_labels, shifts, level_labels, np.abs(moved) / np.sqrt(variance))
        together = weighted_median(moved, 1.0 / variance)
        common = abs(together) / math.sqrt(1.0 / float((1.0 / variance).sum()) + _LEVEL_SWING)
        levels = np.abs(moved - together) / np.sqrt(variance)
        return _Judged(shift_labels, shifts, level_labels, levels, common, together)

    def _noise(self, window: NumberWindow, groups: BaselineGroups) -> float:
        """Return how many times as far as usual it is from one point to the next in a window, at least 1.

        Where all series are noisier than usual their levels are less certain. A median, so that the one
        step at which a level changes does not count.
        """
        codes, steps = window.steps()
        if len(steps) < _FEWEST_STEPS:
            return 1.0
        if self._usual_steps is None:
            of_windows = [
                (known.ids[known.steps()[0]], known.steps()[1]) for known in self._windows if known.ids is not None
            ]
            ids, distances = (np.concatenate(parts) for parts in zip(*of_windows, strict=True))
            self._usual_steps = SortedGroups(ids, distances, len(self._ids)).medians()
        known_codes = groups.codes_of(window.labels)[codes]
        usual = np.where(known_codes >= 0, self._usual_steps[known_codes], np.nan)
        ratios = steps[usual > 0] / usual[usual > 0]
        return max(float(np.median(ratios)), 1.0) if len(ratios) >= _FEWEST_STEPS else 1.0

    def _baseline_groups(self) -> BaselineGroups:
        if self._groups is None:
            # Each window in ascending order: the groups' sort has then only to merge them.
            codes = [window.known_ids()[window.by_value()] for window in self._windows]
            values = [window.values[window.by_value()] for window in self._windows]
            self._groups = BaselineGroups(
                np.concatenate(codes) if codes else np.zeros(0, dtype=np.int32),
                np.concatenate(values) if values else np.zeros(0),
                self._ids,
            )
        return self._groups

    def _judge_order(self, window: NumberWindow, groups: BaselineGroups, compressor: Compressor) -> tuple[float, Sizes]:
        if self._recent is None:
            self._recent = self._quantised_baseline(groups)
        return self._order.judge(self._recent, _quantised(window, groups), compressor)

    def _quantised_baseline(self, groups: BaselineGroups) -> npt.NDArray[np.int16]:
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
        ids = np.concatenate([window.known_ids() for window in chosen])
        values = np.concatenate([window.values for window in chosen])
        return _eighths((values - groups.median[ids]) / groups.spread[ids])

    def _shown(self, value: float) -> str:
        real = 2.0**value - 1.0 if self.is_positive_scale else value
        unit = self.unit.strip("{}")  # UCUM writes annotations such as {job} in braces
        return f"{real:.4g}{' ' + unit if unit else ''}"

    def _span(self, values: Floats) -> str:
        low, high = np.quantile(values, (0.05, 0.95))
        return f"{self._shown(float(low))} and {self._shown(float(high))}"


def _quantised(window: NumberWindow, groups: BaselineGroups) -> npt.NDArray[np.int16]:
    """Return residuals from each group's median in eighths of its spread, int16, (m,)."""
    codes = groups.codes_of(window.labels)
    medians = np.where(codes >= 0, groups.median[codes], 0.0)
    spreads = np.where(codes >= 0, groups.spread[codes], 1.0)
    residual = (window.values - medians[window.codes]) / spreads[window.codes]
    return _eighths(residual)


def _eighths(residual: Floats) -> npt.NDArray[np.int16]:
    whole: npt.NDArray[np.int16] = np.clip(np.rint(8.0 * residual), -32000, 32000).astype(np.int16)
    return whole
