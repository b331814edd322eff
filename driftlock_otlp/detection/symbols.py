"""Evidence from columns of symbols: which, how often, in what order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftlock_otlp.detection.claims import LIGHT_SHAPE, Change, Claim, ColumnEvidence, Sizes
from driftlock_otlp.detection.codelength import (
    alphabet_evidence,
    binary_evidence,
    entropy_bits,
    log2_mean_exp2,
    mix,
    novelty_evidence,
)
from driftlock_otlp.detection.columns import Category, Codes, Counts, Floats, Ints
from driftlock_otlp.detection.compressor import Compressor
from driftlock_otlp.detection.order import ORDER_RECORDS, OrderJudge

_MOST_SYMBOLS = 4096
"""Symbols known by name per column; further ones share the symbol `<other>`."""
_MOST_OBSERVATIONS = 256
"""Observations that a histogram column may count for: they are not independent records."""
_SHIFT_SHAPE = 0.25
"""Tail of how a mix of symbols shifts: somewhat heavier than a code length's, since mixes wander."""
OTHER = "<other>"


@dataclass(slots=True)
class SymbolWindow:
    """One window's symbols.

    Attributes:
        labels: The distinct symbols, in order of first use.
        counts: int64, (k,), >= 1.
        codes: int32, (n,): index into labels, -1 where absent; None for histogram columns.
        ids: int64, (k,): the model's numbers of the symbols once learned, else None.
    """

    labels: list[str]
    counts: Ints
    codes: Codes | None
    ids: Ints | None = None

    @property
    def total(self) -> int:
        """All occurrences."""
        return int(self.counts.sum())


class SymbolModel:
    """Baseline of one symbol column, and a window's evidence against it.

    Args:
        name: The column's name.
        has_order: True to let the compressor judge the order of symbols, too.
        is_histogram: True when the symbols are bins of histograms.
    """

    def __init__(self, name: str, *, has_order: bool, is_histogram: bool = False) -> None:
        self.name = name
        self.has_order = has_order
        kind = "value" if is_histogram else "pattern"
        self.claims = [Claim(name, "shift", kind, shape=_SHIFT_SHAPE)]
        if not is_histogram:
            self.claims.append(Claim(name, "novelty", kind, shape=LIGHT_SHAPE))
        if has_order:
            self.claims.append(Claim(name, "order", "sequence", unit=0.2))
        self.is_histogram = is_histogram
        self._ids: dict[str, int] = {OTHER: 0}
        self._labels: list[str] = [OTHER]
        self._baseline: Ints = np.zeros(16, dtype=np.int64)
        self._baseline_total = 0
        self._learned: Ints = np.zeros(16, dtype=np.int64)
        self._learned_total = 0
        self._novel_total = 0
        self._sequences: deque[Codes] = deque()
        self._order = OrderJudge()

    def prepare(self, column: Category | Counts | None) -> SymbolWindow:
        """Return the window's symbols in the form the other methods take."""
        if column is None:
            return SymbolWindow([], np.zeros(0, dtype=np.int64), None)
        if isinstance(column, Counts):
            total = column.counts.sum(axis=0)
            scale = min(1.0, _MOST_OBSERVATIONS / max(float(total.sum()), 1.0))
            whole = np.rint(total * scale).astype(np.int64)
            present = np.flatnonzero(whole)
            return SymbolWindow([column.labels[i] for i in present], whole[present], None)
        valid = column.codes[column.codes >= 0]
        counts = np.bincount(valid, minlength=len(column.labels)).astype(np.int64)
        present = np.flatnonzero(counts)
        renumbered = np.full(len(column.labels) + 1, -1, dtype=np.int32)
        renumbered[present] = np.arange(len(present), dtype=np.int32)
        return SymbolWindow([column.labels[i] for i in present], counts[present], renumbered[column.codes])

    def evaluate(self, window: SymbolWindow, compressor: Compressor) -> ColumnEvidence:
        """Return the evidence for each of `claims`; changes nothing that later results rest on."""
        values = np.full(len(self.claims), np.nan)
        if window.total == 0 or self._baseline_total == 0:
            return ColumnEvidence(values)
        base, count, _ = self._aligned(window)
        present = count > 0
        n = window.total
        whole = alphabet_evidence(base[present], count[present], self._baseline_total, len(base) + 1)
        parts = [whole, log2_mean_exp2(binary_evidence(base, count, self._baseline_total, n))]
        values[0] = mix(*parts)
        sizes = Sizes()
        if not self.is_histogram:
            values[1] = self._novelty(window)
        if self.has_order and window.codes is not None:
            values[-1], sizes = self._judge_order(window, compressor)
        return ColumnEvidence(values, sizes)

    def learn(self, window: SymbolWindow) -> None:
        """Add the window to the baseline and to what has ever been seen."""
        ids = np.empty(len(window.labels), dtype=np.int64)
        for i, label in enumerate(window.labels):
            known = self._id(label)
            if known < 0:
                known = self._ids[label] = len(self._labels)
                self._labels.append(label)
            ids[i] = known
        size = len(self._labels)
        if size > len(self._baseline):
            room = 2 * size - len(self._baseline)
            self._baseline = np.concatenate((self._baseline, np.zeros(room, dtype=np.int64)))
            self._learned = np.concatenate((self._learned, np.zeros(room, dtype=np.int64)))
        if self._learned_total:
            self._novel_total += int(np.count_nonzero(self._learned[ids] == 0))
        np.add.at(self._baseline, ids, window.counts)
        np.add.at(self._learned, ids, window.counts)
        self._baseline_total += window.total
        self._learned_total += window.total
        window.ids = ids
        if self.has_order:
            self._sequences.append(self._numbered(window))
            self._order.forget()

    def forget(self, window: SymbolWindow) -> None:
        """Take the oldest learned window out of the baseline; what was ever seen stays seen."""
        if window.ids is None:
            return
        np.subtract.at(self._baseline, window.ids, window.counts)
        self._baseline_total -= window.total
        if self.has_order:
            self._sequences.popleft()
            self._order.forget()

    def record_bits(self, window: SymbolWindow, record_count: int) -> Floats:
        """Return how many bits each record saves under the window's own model; float64, (n,), >= 0."""
        if window.codes is None or window.total == 0 or self._baseline_total == 0:
            return np.zeros(record_count)
        ids = self._known_ids(window)
        base = np.where(ids >= 0, self._baseline[ids], 0)
        alphabet = np.count_nonzero(self._baseline) + np.count_nonzero(base == 0) + 1
        own = (window.counts + 0.5) / (window.total + alphabet / 2)
        expected = (base + 0.5) / (self._baseline_total + alphabet / 2)
        saved = np.append(np.maximum(np.log2(own / expected), 0.0), 0.0)
        result: Floats = saved[window.codes]
        return result

    def change(self, window: SymbolWindow, claim: Claim, noun: str) -> Change:
        """Return the symbol that says most, in words."""
        base, count, labels = self._aligned(window)
        n = max(window.total, 1)
        if claim.name == "order":
            return Change("", f"the order of {self.name} changed", "", "")
        if claim.name == "novelty":
            fresh = [i for i, label in enumerate(labels) if count[i] and not self._was_learned(label)]
            best = max(fresh, key=lambda i: count[i]) if fresh else int(np.argmax(count))
        else:
            best = int(np.argmax(binary_evidence(base, count, self._baseline_total, n)))
        expected = base[best] * n / max(self._baseline_total, 1)
        label = labels[best]
        if self.is_histogram:
            share, usual = count[best] / n, expected / n
            return Change(
                label,
                f"{share:.0%} of observations fall into {{label}}, expected {usual:.0%}",
                f"{share:.0%}",
                f"{usual:.0%}",
            )
        if base[best] == 0 and not self._was_learned(label):
            text = f"{count[best]} of {n} {noun} have a new {self.name} {{label}}"
        elif count[best] == 0:
            text = f"no {self.name} {{label}} any more, expected {expected:.0f} of {n} {noun}"
        else:
            text = f"{count[best]} of {n} {noun} have {self.name} {{label}}, expected {_short(expected)}"
        return Change(label, text, str(int(count[best])), _short(expected))

    def window_entropy_bits(self, window: SymbolWindow) -> float:
        """Return the entropy of the window's symbols, bits a record."""
        return entropy_bits(window.counts)

    def baseline_entropy_bits(self) -> float:
        """Return the entropy of the baseline's symbols, bits a record."""
        return entropy_bits(self._baseline)

    def state(self) -> dict[str, Any]:
        """Return all but the baseline's windows, which the caller keeps."""
        return {
            "has_order": self.has_order,
            "is_histogram": self.is_histogram,
            "labels": self._labels,
            "learned": self._learned,
            "learned_total": self._learned_total,
            "novel_total": self._novel_total,
        }

    def restore(self, state: dict[str, Any], windows: list[SymbolWindow]) -> None:
        """Become the model that gave this state, with these windows as its baseline."""
        self._labels = list(state["labels"])
        self._ids = {label: i for i, label in enumerate(self._labels)}
        self._learned = state["learned"].copy()
        self._learned_total, self._novel_total = state["learned_total"], state["novel_total"]
        self._baseline = np.zeros(len(self._learned), dtype=np.int64)
        self._baseline_total = 0
        self._sequences.clear()
        self._order.forget()
        for window in windows:
            if window.ids is not None:
                np.add.at(self._baseline, window.ids, window.counts)
                self._baseline_total += window.total
                if self.has_order:
                    self._sequences.append(self._numbered(window))

    def _known_ids(self, window: SymbolWindow) -> Ints:
        return np.array([self._id(label) for label in window.labels], dtype=np.int64)

    def _id(self, label: str) -> int:
        """Return the symbol's number; -1 if it has none yet, that of `<other>` if it will get none."""
        return self._ids.get(label, -1 if len(self._labels) < _MOST_SYMBOLS else 0)

    def _was_learned(self, label: str) -> bool:
        # Once there is no room for names, nobody can tell whether one is new: none is called so.
        known = self._id(label)
        return known == 0 or (known > 0 and bool(self._learned[known]))

    def _aligned(self, window: SymbolWindow) -> tuple[Ints, Ints, list[str]]:
        """Return baseline counts, window counts and labels over the symbols of either."""
        ids = self._known_ids(window)
        seen = np.flatnonzero(self._baseline[: len(self._labels)])
        position = np.full(len(self._labels), -1, dtype=np.int64)
        position[seen] = np.arange(len(seen))
        where = np.where(ids >= 0, position[ids], -1)
        extra = np.flatnonzero(where < 0)
        base = np.concatenate((self._baseline[seen], np.zeros(len(extra), dtype=np.int64)))
        count = np.zeros(len(base), dtype=np.int64)
        np.add.at(count, where[where >= 0], window.counts[where >= 0])
        count[len(seen) :] = window.counts[extra]
        labels = [self._labels[i] for i in seen] + [window.labels[i] for i in extra]
        return base, count, labels

    def _novelty(self, window: SymbolWindow) -> float:
        fresh = [c for label, c in zip(window.labels, window.counts, strict=True) if not self._was_learned(label)]
        if not fresh:
            return 0.0
        rate = (self._novel_total + 0.5) / (self._learned_total + 1.0)
        return float(novelty_evidence(int(max(fresh)), window.total, rate))

    def _numbered(self, window: SymbolWindow) -> Codes:
        """Return the window's sequence in the model's own numbers, present records only."""
        if window.codes is None:
            return np.zeros(0, dtype=np.int32)
        ids = window.ids if window.ids is not None else self._known_ids(window)
        unknown = len(self._labels) + np.cumsum(ids < 0) - 1
        numbers = np.where(ids >= 0, ids, unknown)
        result: Codes = numbers[window.codes[window.codes >= 0]].astype(np.int32)
        return result

    def _judge_order(self, window: SymbolWindow, compressor: Compressor) -> tuple[float, Sizes]:
        own = np.minimum(self._numbered(window), 255).astype(np.uint8)
        recent: list[Codes] = []
        held = 0
        for sequence in reversed(self._sequences):
            recent.append(sequence)
            held += len(sequence)
            if held >= ORDER_RECORDS:
                break
        base = np.minimum(np.concatenate(recent[::-1]), 255).astype(np.uint8) if recent else own[:0]
        return self._order.judge(base, own, compressor)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
