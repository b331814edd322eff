"""Novelty of single log lines: templates never seen before that come at a rate of their own.

A known template costs nothing, and nearly every line ends there. For one that is new, with n lines
learned and k occurrences among the last W = 21 lines:

    bits = log2[ KT(k, W - k) / (p^k (1 - p)^(W - k)) ],    p = (1/2) / (n + 1)

that is the evidence that it now arrives at its own rate rather than as seldom as what was never
seen (Krichevsky & Trofimov 1981). One occurrence is a notice of a few bits; three among 21 lines, or
two of a severity that is rare, exceed the bar. The line's severity adds its own code length.

People may say once and for all of a template that it is good or bad; good ones are never odd here, bad
ones always are.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from driftlock_otlp.detection.bars import Bar
from driftlock_otlp.detection.claims import Change, Claim
from driftlock_otlp.detection.codelength import novelty_evidence
from driftlock_otlp.detection.columns import Columns, Floats, Ints
from driftlock_otlp.detection.records import RecordEvidence

WINDOW_LINES = 21
"""Lines among which repetitions of a new template are counted."""

ALARM_BITS = 20.0
"""Least bar of an alarm: about three occurrences in 21 lines after 5,000 lines."""

MAX_TEMPLATES = 8_192
"""Templates known by name; further ones are not called new."""

_CONFIRMED_BITS = 40.0
"""What a line of a template costs that people have called bad."""
_FEWEST_LINES = 3
"""Lines of a new template in one window before a verdict on the window is one on the template."""
_MAX_SEVERITIES = 64
_RARE_SEVERITY_BITS = 2.0
"""Lines of a severity that less than a quarter of all lines have are put into order by it."""


class LineNovelty:
    """Judges the lines of one stream by their templates.

    Limits: a template is new for one window, and for the 21 lines behind its first one; a fault
    that shows itself in fewer than three new lines at a time is left to the window's evidence.
    """

    claim = Claim("", "line", "pattern")

    def __init__(self) -> None:
        self._known: dict[str, None] = {}
        self._verdicts: dict[str, bool] = {}
        self._line_count = 0
        # Lines of templates first seen among the last ones: their rows, counted back from the next line.
        self._fresh: dict[str, list[int]] = {}
        self._severities: dict[str, int] = {}
        self._bar = Bar(learns_alarms=True)

    def mark(self, template: str, *, is_good: bool | None) -> None:
        """Silence a template for good, or confirm it as bad; a later call takes the place of an earlier one.

        Args:
            template: Its label.
            is_good: True: its lines are never to be called odd. False: they always are. None: as if nothing
                had been said.
        """
        if is_good is None:
            self._verdicts.pop(template, None)
        elif template in self._verdicts or len(self._verdicts) < MAX_TEMPLATES:
            self._verdicts[template] = is_good

    def odd(self, columns: Columns, evidence: RecordEvidence | None) -> list[str]:
        """Return the new templates of a window that came more than twice, or were an alarm."""
        template = columns.categories.get("template")
        if template is None or evidence is None:
            return []
        counts = np.bincount(template.codes[evidence.bits > 0.0] + 1, minlength=len(template.labels) + 1)[1:]
        alarms = np.bincount(template.codes[evidence.margins >= 0.0] + 1, minlength=len(template.labels) + 1)[1:]
        return [template.labels[code] for code in np.flatnonzero((counts >= _FEWEST_LINES) | (alarms > 0)).tolist()]

    def judge(self, odd: list[str], *, is_good: bool | None) -> None:
        """Take what people say of the templates that `odd` gave."""
        for template in odd:
            self.mark(template, is_good=is_good)

    def set_aside(self, columns: Columns) -> npt.NDArray[np.bool_] | None:
        """Return which lines are of silenced templates; None if none is."""
        template = columns.categories.get("template")
        if template is None or not self._verdicts:
            return None
        silenced = np.array([*(self._verdicts.get(label, False) for label in template.labels), False])
        rows: npt.NDArray[np.bool_] = silenced[template.codes]
        return rows if rows.any() else None

    def score_one(self, columns: Columns) -> RecordEvidence | None:
        """Return the surprise of each line of a window; None if no line is new, rarely severe, or has a verdict."""
        odd = self._odd(columns)
        n = columns.record_count
        bar = max(self._bar.bits if math.isfinite(self._bar.bits) else 0.0, ALARM_BITS)
        severity_bits = self._severity_bits(columns, np.arange(n))
        # By its severity alone a line is put into order, and never alarms.
        rare = severity_bits >= _RARE_SEVERITY_BITS
        if not odd and not rare.any():
            return None
        margins = np.where(rare, np.minimum(severity_bits - bar, -1.0), -math.inf)
        evidence = RecordEvidence(np.zeros(n), margins)
        for label, (rows, bits) in odd.items():
            evidence.bits[rows] = bits
            evidence.margins[rows] = bits - (ALARM_BITS if label in self._verdicts else bar)
        return evidence

    def learn_one(self, columns: Columns, evidence: RecordEvidence | None) -> None:
        """Take a window's templates as seen: a template is new only once."""
        template = columns.categories.get("template")
        n = columns.record_count
        if template is None or not n:
            return
        peaks: list[float] = []
        # New for as long as its first line is among the last: what stays is new only once.
        fresh = {label: [row - n for row in rows] for label, rows in self._fresh.items() if rows[0] - n > -WINDOW_LINES}
        for label, (rows, bits) in self._odd(columns).items():
            if label in self._verdicts:
                continue
            peaks.append(float(bits.max()))
            if label in fresh or (label not in self._known and rows[0] - n > -WINDOW_LINES):
                fresh.setdefault(label, []).extend((rows - n).tolist())
        self._fresh = fresh
        if len(self._known) < MAX_TEMPLATES:
            used = np.unique(template.codes[template.codes >= 0])
            self._known.update(dict.fromkeys(template.labels[code] for code in used.tolist()))
        self._line_count += n
        self._learn_severities(columns)
        self._bar.learn(peaks, float(columns.time_unix_nano.max(initial=0)) / 1e9)

    def explain(self, columns: Columns, row: int) -> tuple[str, Change]:
        """Return the column, and what is new about a line."""
        template = columns.categories["template"]
        code = template.codes[row]
        label = template.labels[code] if code >= 0 else ""
        if label in self._verdicts:
            return "template", Change(label, "template {label} was confirmed as bad", "confirmed as bad", "none")
        rows = np.flatnonzero(template.codes == code)
        if code < 0 or (label in self._known and label not in self._fresh):
            return "severity", Change("", "a line of a rare severity", "1", "0")
        count = int(_recent_counts(rows, self._fresh.get(label, []))[np.searchsorted(rows, row)])
        lines = min(self._line_count + row + 1, WINDOW_LINES)
        return "template", Change(
            label,
            f"new template {{label}} in {count} of the last {lines} lines",
            f"{count} of {lines}",
            f"0 of {self._line_count}",
        )

    def _odd(self, columns: Columns) -> dict[str, tuple[Ints, Floats]]:
        """Return rows and bits of each template that is new, or has a verdict of being bad."""
        template = columns.categories.get("template")
        if template is None:
            return {}
        known, verdicts, fresh = self._known, self._verdicts, self._fresh
        odd: dict[str, tuple[Ints, Floats]] = {}
        labels = template.labels
        for code in np.unique(template.codes[template.codes >= 0]).tolist():
            label = labels[code]
            verdict = verdicts.get(label)
            is_new = (label not in known or label in fresh) and len(known) < MAX_TEMPLATES
            if verdict is True or not (is_new or verdict is False):
                continue
            rows = np.flatnonzero(template.codes == code)
            if verdict is False:
                odd[label] = rows, np.full(len(rows), _CONFIRMED_BITS)
            elif self._line_count:
                odd[label] = rows, self._bits(rows, fresh.get(label, [])) + self._severity_bits(columns, rows)
        return odd

    def _bits(self, rows: Ints, before: list[int]) -> Floats:
        counts = _recent_counts(rows, before)
        lines = np.minimum(self._line_count + rows + 1, WINDOW_LINES)
        return novelty_evidence(counts, lines, 0.5 / (self._line_count + 1.0))

    def _severity_bits(self, columns: Columns, rows: Ints) -> Floats:
        severity = columns.categories.get("severity")
        if severity is None or not self._severities:
            return np.zeros(len(rows))
        total = sum(self._severities.values())
        counts = np.array([self._severities.get(label, 0) for label in severity.labels] + [total])
        bits: Floats = np.log2((total + 1.0) / (counts[severity.codes[rows]] + 0.5))
        return np.maximum(bits, 0.0)

    def _learn_severities(self, columns: Columns) -> None:
        severity = columns.categories.get("severity")
        if severity is None:
            return
        counts = np.bincount(severity.codes[severity.codes >= 0], minlength=len(severity.labels)).tolist()
        for label, count in zip(severity.labels, counts, strict=True):
            if count and (label in self._severities or len(self._severities) < _MAX_SEVERITIES):
                self._severities[label] = self._severities.get(label, 0) + count

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values and arrays."""
        return {
            "known": list(self._known),
            "verdicts": dict(self._verdicts),
            "lines": self._line_count,
            "fresh": {label: list(rows) for label, rows in self._fresh.items()},
            "severities": dict(self._severities),
            "bar": self._bar.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the novelty that gave this state."""
        self._known = dict.fromkeys(state["known"])
        self._verdicts, self._severities = dict(state["verdicts"]), dict(state["severities"])
        self._line_count = state["lines"]
        self._fresh = {label: list(rows) for label, rows in state["fresh"].items()}
        self._bar = Bar.of_state(state["bar"], learns_alarms=True)


def _recent_counts(rows: Ints, before: list[int]) -> Ints:
    """Return, for each of a template's rows, how many of the last 21 lines are of it; rows before are negative."""
    every = np.concatenate((np.array(before, np.int64), rows))
    counts: Ints = np.arange(1, len(every) + 1) - np.searchsorted(every, every - WINDOW_LINES, side="right")
    return counts[len(before) :]
