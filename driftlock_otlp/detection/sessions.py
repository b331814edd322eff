"""Novelty of sessions: records that belong together, of which no known group is alike.

A session's surprise is the sum of what four codes charge for it (`sessioncodes.py`): which
symbols it has, how usual each of them is, the oddest count, and order never seen. It is spread to
the session's records, which all share its margin over the bar.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from driftlock_otlp.detection.bars import Bar
from driftlock_otlp.detection.claims import Change, Claim
from driftlock_otlp.detection.columns import Columns, Floats, Ints
from driftlock_otlp.detection.records import RecordEvidence
from driftlock_otlp.detection.sessioncodes import (
    EscapeCode,
    MemberCode,
    RefCode,
    Sessions,
    SymbolIndex,
    transitions,
)

_ARMED_AFTER_SESSIONS = 150
_RARE_SHARE = 0.1
"""A symbol that fewer sessions have makes its records odd."""
_ODD_COUNT_BITS = 2.0
_CONFIRMED_BITS = 40.0
_CONFIRMED_MARGIN_BITS = 20.0
"""What a session costs that people have called bad, and how far beyond the bar that is."""
_MOST_VERDICTS = 1_000
_SHARED = 0.5
"""Share of a session's bits that its ordinary records get, so that the odd ones are named first."""

_Kind = tuple[tuple[str, ...], tuple[int, ...]]
"""The symbols of a session, ascending, and how often it has each; no counts where any will do."""


@dataclass(slots=True)
class _Judged:
    """What the codes say about the sessions of a window.

    Attributes:
        rows: int64, (r,): the records that belong to a session and have a symbol.
        places: int64, (r,): place of each one's session.
        symbols: int64, (r,): number of each one's symbol, -1 if never learned.
        sessions: The sessions.
        pairs: The distinct transitions of each session.
        counts: float64, (t,): what each member's count costs.
        order: float64, (m,): what each session's order costs.
        bits: float64, (m,): what each session costs in all.
    """

    rows: Ints
    places: Ints
    symbols: Ints
    sessions: Sessions
    pairs: list[list[int]]
    counts: Floats
    order: Floats
    bits: Floats


class SessionNovelty:
    """Judges the sessions of one stream by the symbols of one column.

    The bar of an alarm is learned from past sessions (`bars.py`).

    Limits: a session that a window's border cuts is judged in parts. What keeps coming back
    becomes cheap as its share grows: an anomaly in one of a hundred sessions costs about 2 · 7 bits.

    Args:
        column: Name of the symbol column.
    """

    claim = Claim("", "session", "sequence")

    def __init__(self, column: str) -> None:
        self._column = column
        self._index = SymbolIndex()
        self._kinds = RefCode()
        self._members = MemberCode()
        self._order = EscapeCode()
        self._bar = Bar(learns_alarms=False)
        self._verdicts: dict[_Kind, bool] = {}
        self._judged: tuple[Columns, _Judged] | None = None

    def score_one(self, columns: Columns) -> RecordEvidence | None:
        """Return the surprise of each record's session; None if the window has no sessions."""
        judged = self._judge(columns)
        if judged is None:
            return None
        evidence = RecordEvidence(np.zeros(columns.record_count), np.full(columns.record_count, -math.inf))
        margins = judged.bits - self._bar.bits
        if self._bar.count < _ARMED_AFTER_SESSIONS:
            margins = np.minimum(np.nan_to_num(judged.bits - 100.0), -1.0)
        evidence.margins[judged.rows] = margins[judged.places]
        # The records that make the session odd come before those that only share it.
        share = np.where(self._is_odd(judged), 1.0, _SHARED)
        evidence.bits[judged.rows] = judged.bits[judged.places] * share
        for rows, is_good in self._with_verdict(columns, judged):
            evidence.margins[rows] = -math.inf if is_good else _CONFIRMED_MARGIN_BITS
            evidence.bits[rows] = 0.0 if is_good else np.maximum(evidence.bits[rows], _CONFIRMED_BITS)
        return evidence

    def learn_one(self, columns: Columns, evidence: RecordEvidence | None) -> None:
        """Take in a window's sessions, whatever the verdict: what keeps coming back becomes usual.

        Only those that people have called bad are not.
        """
        judged = self._judge(columns)
        bad = [rows for rows, is_good in self._with_verdict(columns, judged) if not is_good] if judged else []
        if bad and columns.sessions is not None:
            kept = columns.sessions.copy()
            kept[np.concatenate(bad)] = -1
            columns = replace(columns, sessions=kept)
            judged = self._judge(columns)
        if judged is None:
            return
        sessions, pairs = judged.sessions, judged.pairs
        if (judged.symbols < 0).any():
            category = columns.categories[self._column]
            codes = category.codes[judged.rows]
            self._index.learn([category.labels[code] for code in np.unique(codes).tolist()])
            symbols = self._index.find(category.labels)
            owners = sessions.ids[judged.places].astype(np.int32)
            sessions = Sessions.of_rows(owners, symbols, codes)
            pairs = transitions(owners, symbols[codes], sessions.ids)
        self._kinds.learn_one(sessions, len(self._index))
        self._members.learn_one(sessions, len(self._index))
        self._order.learn_one(pairs)
        self._bar.learn(judged.bits.tolist(), float(columns.time_unix_nano.max(initial=0)) / 1e9)
        self._judged = None

    def odd(self, columns: Columns, evidence: RecordEvidence | None) -> list[list[Any]]:
        """Return the kinds of the sessions that were an alarm: symbols, with counts where those are odd.

        After the window was learned.
        """
        judged = self._judge(columns)
        if judged is None or evidence is None:
            return []
        found: dict[_Kind, None] = {}
        for place in np.unique(judged.places[evidence.margins[judged.rows] >= 0.0]).tolist():
            labels, counts = self._kind(columns, judged, place)
            seen, more, less = self._kinds.nearest(judged.sessions, place)
            is_rare = bool(len(more) or len(less)) or seen < _RARE_SHARE * self._members.session_count
            found[labels, () if is_rare else counts] = None
        return [[list(labels), list(counts)] for labels, counts in [*found][:_MOST_VERDICTS]]

    def judge(self, odd: list[list[Any]], *, is_good: bool | None) -> None:
        """Take what people say of the kinds that `odd` gave."""
        for labels, counts in odd:
            kind = _kind(labels, counts)
            if is_good is None:
                self._verdicts.pop(kind, None)
            elif kind in self._verdicts or len(self._verdicts) < _MOST_VERDICTS:
                self._verdicts[kind] = is_good
        self._judged = None

    def set_aside(self, columns: Columns) -> None:
        """Return None: the records of a session that is good may be odd each by itself."""

    def _with_verdict(self, columns: Columns, judged: _Judged) -> list[tuple[Ints, bool]]:
        """Return the rows of each session of whose kind people have spoken, and whether it is good."""
        if not self._verdicts:
            return []
        found = []
        for place in range(len(judged.sessions)):
            labels, counts = self._kind(columns, judged, place)
            verdict = self._verdicts.get((labels, counts), self._verdicts.get((labels, ())))
            if verdict is not None:
                found.append((judged.rows[judged.places == place], verdict))
        return found

    def _kind(self, columns: Columns, judged: _Judged, place: int) -> _Kind:
        category = columns.categories[self._column]
        codes, counts = np.unique(category.codes[judged.rows[judged.places == place]], return_counts=True)
        return _kind([category.labels[code] for code in codes.tolist()], counts.tolist())

    def explain(self, columns: Columns, row: int) -> tuple[str, Change]:
        """Return the column, and how a record's session differs from the nearest known one."""
        judged = self._judge(columns)
        found = np.flatnonzero(judged.rows == row) if judged is not None else np.zeros(0, np.int64)
        if judged is None or not found.size:
            return self._column, Change("", "a session unlike any seen before", "", "")
        place = int(judged.places[found[0]])
        length = int(judged.sessions.lengths[place])
        of = f"a session of {length} record{'s' if length > 1 else ''}"
        if judged.sessions.new_counts[place]:
            mine = judged.rows[(judged.places == place) & (judged.symbols < 0)]
            category = columns.categories[self._column]
            label = category.labels[category.codes[mine[0]]]
            others = int(judged.sessions.new_counts[place]) - 1
            more = f" and {others} more that were never seen" if others else ""
            return self._column, Change(label, f"{of} has a new {{label}}{more}", "new", "never seen")
        return self._column, self._difference(judged, place, of)

    def _difference(self, judged: _Judged, place: int, of: str) -> Change:
        sessions, total = judged.sessions, self._members.session_count
        seen, more, less = self._kinds.nearest(sessions, place)
        labels = self._index.labels
        first, last = sessions.starts[place], sessions.starts[place + 1]
        counts = judged.counts[first:last]
        edits = len(more) + len(less)
        like = f"the nearest known kind, seen {seen:.0f} times in {total:.0f},"
        if edits:
            # The rarest of what is there too much, or the commonest of what is missing.
            costs = -np.log2(self._members.shares(more) + 1e-9)
            missing = -np.log2(1.0 - self._members.shares(less) + 1e-9)
            rest = f" ({edits} differences)" if edits > 1 else ""
            if costs.max(initial=-1.0) >= missing.max(initial=-1.0):
                label = labels[more[costs.argmax()]]
                return Change(label, f"{of} has {{label}}, which {like} has not{rest}", "present", "absent")
            label = labels[less[missing.argmax()]]
            return Change(label, f"{of} lacks {{label}}, which {like} has{rest}", "absent", "present")
        oddest = int(counts.argmax()) if counts.size else 0
        symbol, count = int(sessions.symbols[first + oddest]), int(sessions.counts[first + oddest])
        if counts.size and counts[oddest] > judged.order[place]:
            usual = self._members.usual_count(symbol)
            return Change(labels[symbol], f"{of} has {{label}} {count} times, usually {usual}", str(count), str(usual))
        shares = self._members.shares(sessions.members(place))
        rarest = labels[sessions.members(place)[shares.argmin()]]
        if judged.order[place] > -math.log2(max(float(shares.min()), 1e-9)):
            new = self._order.new_count(judged.pairs[place])
            return Change("", f"{of} has {new} transitions never seen", f"{new} new transitions", "none")
        expected = f"{seen:.0f} of {total:.0f}"
        return Change(
            rarest, f"{of} is of a rare kind, seen {seen:.0f} times in {total:.0f}, with {{label}}", "1", expected
        )

    def _judge(self, columns: Columns) -> _Judged | None:
        if self._judged is not None and self._judged[0] is columns:
            return self._judged[1]
        category = columns.categories.get(self._column)
        if columns.sessions is None or category is None:
            return None
        rows = np.flatnonzero((columns.sessions >= 0) & (category.codes >= 0))
        if not rows.size:
            return None
        symbols = self._index.find(category.labels)
        owners, codes = columns.sessions[rows], category.codes[rows]
        sessions = Sessions.of_rows(owners, symbols, codes)
        pairs = transitions(owners, symbols[codes], sessions.ids)
        order = self._order.score_one(pairs)
        counts = self._members.count_bits(sessions)
        oddest = np.zeros(len(sessions))
        np.maximum.at(oddest, sessions.owners, counts)
        presence, rarest = self._members.presence_bits(sessions)
        bits = self._kinds.score_one(sessions, len(self._index)) + presence + rarest + oddest + order
        places = np.searchsorted(sessions.ids, owners)
        judged = _Judged(rows, places, symbols[codes], sessions, pairs, counts, order, bits)
        self._judged = columns, judged
        return judged

    def _is_odd(self, judged: _Judged) -> npt.NDArray[np.bool_]:
        """Return which records have a new or rare symbol, or one of an odd count; all where a session has none."""
        sessions = judged.sessions
        width = len(self._index)
        keys = judged.places * width + np.maximum(judged.symbols, 0)
        where = np.searchsorted(sessions.owners * width + sessions.symbols, keys)
        known = judged.symbols >= 0
        odd = ~known
        odd[known] = (judged.counts[where[known]] > _ODD_COUNT_BITS) | (
            self._members.shares(judged.symbols[known]) < _RARE_SHARE
        )
        has_odd = np.bincount(judged.places, weights=odd, minlength=len(sessions)) > 0
        result: npt.NDArray[np.bool_] = odd | ~has_odd[judged.places]
        return result

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values and arrays."""
        return {
            "labels": list(self._index.labels),
            "kinds": self._kinds.state(),
            "members": self._members.state(),
            "order": self._order.state(),
            "bar": self._bar.state(),
            "verdicts": [[list(labels), list(counts), good] for (labels, counts), good in self._verdicts.items()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the novelty that gave this state."""
        self._verdicts = {_kind(labels, counts): good for labels, counts, good in state["verdicts"]}
        self._index = SymbolIndex(state["labels"])
        self._kinds = RefCode.of_state(state["kinds"])
        self._members = MemberCode.of_state(state["members"])
        self._order = EscapeCode.of_state(state["order"])
        self._bar = Bar.of_state(state["bar"], learns_alarms=False)
        self._judged = None


def _kind(labels: list[str], counts: list[int]) -> _Kind:
    """Return a kind by its symbols, in any order, and how often each comes if that matters."""
    if not counts:
        return tuple(sorted(labels)), ()
    named = sorted(zip(labels, counts, strict=True))
    return tuple(label for label, _ in named), tuple(count for _, count in named)
