"""Code lengths of sessions: what a bag, or a sequence, of symbols forces a model to learn.

A session is a run of records that belong together: the log lines of one block, the spans of one
trace, the steps of one conversation. Each record carries one symbol (template, call path, tool).
Four codes look at it, each in bits, each learning one session at a time:

    kinds      which symbols there are at all: a known set, or the nearest known one plus edits
    members    the same, symbol by symbol: how usual it is that this one is there, or missing
    counts     how often each comes: the most surprising count, beyond that symbol's usual surprise
    order      which symbol follows which: transitions never seen

A known, common session costs next to nothing; what is paid for is what has to be learned.
Everything is bounded, and equal input gives equal bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftlock_otlp.detection.columns import Codes, Floats, Ints

MAX_SYMBOLS = 2_048
"""Symbols known by name; further ones share one place."""

MAX_KINDS = 512
"""Sets of symbols that are remembered; the one not seen for longest makes room."""

MAX_TRANSITIONS = 16_384
"""Pairs of neighbours that are remembered; beyond, nothing new is learned of order."""

MEMORY_SESSIONS = 16_384
"""Sessions after which all counts are halved, so that what was usual long ago fades."""

_EXACT_COUNTS = 32
_SLOTS = 48
_OTHER = 0
_NONE = -1


class SymbolIndex:
    """Numbers for symbols, by label: 0 is all those beyond the bound, -1 one never learned."""

    def __init__(self, labels: list[str] | None = None) -> None:
        self.labels = ["<other>"] if labels is None else list(labels)
        self._numbers = {label: number for number, label in enumerate(self.labels)}

    def __len__(self) -> int:
        return len(self.labels)

    def find(self, labels: list[str]) -> Ints:
        """Return the number of each label, -1 if it is new; int64, (n,)."""
        numbers = self._numbers
        missing = _OTHER if len(self.labels) >= MAX_SYMBOLS else _NONE
        return np.fromiter((numbers.get(label, missing) for label in labels), np.int64, len(labels))

    def learn(self, labels: list[str]) -> None:
        """Give each label a number while there is room."""
        for label in labels:
            if label not in self._numbers and len(self.labels) < MAX_SYMBOLS:
                self._numbers[label] = len(self.labels)
                self.labels.append(label)


@dataclass(slots=True)
class Sessions:
    """The sessions of one window, each as a bag of numbered symbols.

    Attributes:
        ids: int64, (m,): what the window calls each session, ascending.
        starts: int64, (m + 1,): where the members of each session stand in `symbols`.
        symbols: int64, (t,): distinct known symbols, session by session, ascending within one.
        counts: int64, (t,): how often each occurs in its session.
        new_counts: int64, (m,): distinct symbols of each session that were never learned.
        lengths: int64, (m,): records of each session.
    """

    ids: Ints
    starts: Ints
    symbols: Ints
    counts: Ints
    new_counts: Ints
    lengths: Ints

    @classmethod
    def of_rows(cls, sessions: Codes, symbols: Ints, codes: Codes) -> Sessions:
        """Group the records of a window.

        Args:
            sessions: int32, (n,): session of each record.
            symbols: int64, (k,): number of the symbol behind each code, -1 if never learned.
            codes: int32, (n,): code of each record, >= 0.
        """
        width = len(symbols)
        pairs, pair_counts = np.unique(sessions.astype(np.int64) * width + codes, return_counts=True)
        owner, symbol = pairs // width, symbols[pairs % width]
        ids, first = np.unique(owner, return_index=True)
        lengths = np.add.reduceat(pair_counts, first)
        place = np.searchsorted(ids, owner)
        is_new = symbol == _NONE
        new_counts = np.bincount(place[is_new], minlength=len(ids))
        # Symbols beyond the bound share a number, so a session may name that one twice.
        keys = place[~is_new] * np.int64(MAX_SYMBOLS) + symbol[~is_new]
        distinct, where = np.unique(keys, return_inverse=True)
        counts = np.bincount(where, weights=pair_counts[~is_new], minlength=len(distinct)).astype(np.int64)
        starts = np.searchsorted(distinct, np.arange(len(ids) + 1) * np.int64(MAX_SYMBOLS))
        return cls(ids, starts, distinct % MAX_SYMBOLS, counts, new_counts.astype(np.int64), lengths)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def owners(self) -> Ints:
        """Place of the session of each member; int64, (t,)."""
        return np.repeat(np.arange(len(self.ids)), np.diff(self.starts))

    def members(self, place: int) -> Ints:
        """Return the known symbols of one session, ascending."""
        return self.symbols[self.starts[place] : self.starts[place + 1]]

    def kinds(self) -> list[bytes]:
        """Return the set of symbols of each session as bytes; empty where one of them is new."""
        data, starts, size = self.symbols.tobytes(), self.starts.tolist(), self.symbols.itemsize
        return [
            b"" if is_new else data[first * size : last * size]
            for first, last, is_new in zip(starts[:-1], starts[1:], self.new_counts.tolist(), strict=True)
        ]


class RefCode:
    """Sets of symbols as a two-part code: the nearest known set, plus edits.

    With n sessions learned, of which n_u had a set not known when they came, and m of the set v:

        known      -log2(1 - u) + log2(n / m),                    u = (n_u + 1/2) / (n + 1)
        unknown    -log2 u + min over v [ log2(n / m) + edits ]
        edit       -log2[(e + 1/2) / (n_u + 1)],  e unknown sets so far that had the symbol more, or less
        new symbol  log2(2 (n_u + 1)) + log2(symbols + 1)

    A symbol that comes and goes is cheap to edit, one that never does costs log2(2 (n_u + 1)).

    References:
        Krichevsky & Trofimov 1981 (the halves); Rissanen 1983 (two-part codes).
    """

    def __init__(self) -> None:
        self.session_count = 0.0
        self._unknown = 0.0
        self._rows: dict[bytes, int] = {}
        self._keys: list[bytes] = []
        self._multiplicity = np.zeros(0)
        self._used = np.zeros(0, np.int64)
        self._clock = 0
        self._members = np.zeros((0, 0), np.float32)
        self._edits = np.zeros((2, 0))  # symbols that were there more, and less

    def score_one(self, sessions: Sessions, symbol_count: int) -> Floats:
        """Return the bits of each session's set; float64, (m,), >= 0."""
        if not self._keys:
            return np.zeros(len(sessions))
        share = (self._unknown + 0.5) / (self.session_count + 1.0)
        rows = np.fromiter((self._rows.get(key, _NONE) for key in sessions.kinds()), np.int64, len(sessions))
        bits = np.log2(self.session_count / self._multiplicity[rows]) - np.log2(1.0 - share)
        unknown = np.flatnonzero(rows == _NONE)
        if unknown.size:
            cost, _ = self._nearest(sessions, unknown)
            new_bits = np.log2(2.0 * (self._unknown + 1.0)) + np.log2(symbol_count + 1.0)
            bits[unknown] = cost - np.log2(share) + sessions.new_counts[unknown] * new_bits
        return np.asarray(bits, np.float64)

    def learn_one(self, sessions: Sessions, symbol_count: int) -> None:
        """Take in sessions, all of whose symbols are known by now."""
        self._widen(symbol_count)
        for place, key in enumerate(sessions.kinds()):
            self._clock += 1
            row = self._rows.get(key)
            if row is None:
                row = self._add(sessions, place, key)
            self._multiplicity[row] += 1.0
            self._used[row] = self._clock
            self.session_count += 1.0
        if self.session_count >= MEMORY_SESSIONS:
            self.session_count /= 2.0
            self._unknown /= 2.0
            self._multiplicity /= 2.0
            self._edits /= 2.0

    def nearest(self, sessions: Sessions, place: int) -> tuple[float, Ints, Ints]:
        """Return how often the nearest known set was seen, and the symbols that one has more and less.

        Args:
            sessions: Sessions of a window.
            place: Which of them.

        Returns:
            Multiplicity, of the set itself if it is known; symbols that the session has and the
            nearest set has not; symbols that only the nearest set has.
        """
        row = self._rows.get(sessions.kinds()[place])
        if row is None:
            _, nearest = self._nearest(sessions, np.array([place]))
            row = int(nearest[0])
        mine = sessions.members(place)
        theirs = np.flatnonzero(self._members[row])
        return float(self._multiplicity[row]), np.setdiff1d(mine, theirs), np.setdiff1d(theirs, mine)

    def _nearest(self, sessions: Sessions, places: Ints) -> tuple[Floats, Ints]:
        """Return the cost of the cheapest known set plus edits, and its row, for each of some sessions."""
        width = self._members.shape[1]
        more, less = -np.log2((self._edits + 0.5) / (self._unknown + 1.0))
        # The edits of a row are its members not in the session, plus the session's not in the row.
        weights = np.repeat(less[None, :], len(places), axis=0)
        base = np.zeros(len(places))
        for index, place in enumerate(places.tolist()):
            mine = sessions.members(place)
            known = mine[mine < width]
            base[index] = more[known].sum() + (len(mine) - len(known)) * np.log2(2.0 * (self._unknown + 1.0))
            weights[index, known] = -more[known]
        cost = self._members @ weights.T.astype(np.float32) + np.log2(self.session_count / self._multiplicity)[:, None]
        rows = cost.argmin(axis=0)
        found: Floats = cost[rows, np.arange(len(places))].astype(np.float64) + base
        return np.maximum(found, 0.0), rows

    def _widen(self, symbol_count: int) -> None:
        missing = symbol_count - self._members.shape[1]
        if missing > 0:
            self._members = np.pad(self._members, ((0, 0), (0, missing)))
            self._edits = np.pad(self._edits, ((0, 0), (0, missing)))

    def _add(self, sessions: Sessions, place: int, key: bytes) -> int:
        mine = sessions.members(place)
        if self._keys:
            _, nearest = self._nearest(sessions, np.array([place]))
            theirs = np.flatnonzero(self._members[nearest[0]])
            self._unknown += 1.0
            self._edits[0, np.setdiff1d(mine, theirs)] += 1.0
            self._edits[1, np.setdiff1d(theirs, mine)] += 1.0
        if len(self._keys) < MAX_KINDS:
            row = len(self._keys)
            self._keys.append(key)
            self._multiplicity = np.append(self._multiplicity, 0.0)
            self._used = np.append(self._used, 0)
            self._members = np.pad(self._members, ((0, 1), (0, 0)))
        else:
            row = int(self._used.argmin())
            del self._rows[self._keys[row]]
            self._keys[row] = key
            self._multiplicity[row] = 0.0
            self._members[row] = 0.0
        self._rows[key] = row
        self._members[row, mine] = 1.0
        return row

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values and arrays."""
        return {
            "sessions": self.session_count,
            "unknown": self._unknown,
            "keys": list(self._keys),
            "multiplicity": self._multiplicity.copy(),
            "used": self._used.copy(),
            "clock": self._clock,
            "edits": self._edits.copy(),
        }

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> RefCode:
        """Return the code that gave this state."""
        code = cls()
        code.session_count, code._unknown, code._clock = state["sessions"], state["unknown"], state["clock"]
        code._keys = list(state["keys"])
        code._rows = {key: row for row, key in enumerate(code._keys)}
        code._multiplicity, code._used = state["multiplicity"].copy(), state["used"].copy()
        code._edits = state["edits"].copy()
        code._members = np.zeros((len(code._keys), code._edits.shape[1]), np.float32)
        for row, key in enumerate(code._keys):
            code._members[row, np.frombuffer(key, np.int64)] = 1.0
        return code


class MemberCode:
    """How usual it is that a symbol is there, and that it comes so often.

    A symbol that c of n sessions had is there with probability p = (c + 1/2) / (n + 1). The bits
    of presence are the sum of -log2 p over what is there and -log2(1 - p) over what is not.

    A count costs -log2 of its share among the sessions that had the symbol, an unseen one an escape
    and its Elias gamma code. Only what exceeds the mean of that cost by a standard deviation is
    charged, and only for the most surprising symbol: some counts vary in every session.
    """

    def __init__(self) -> None:
        self.session_count = 0.0
        self._counts = np.zeros((0, _SLOTS))
        self._shares = np.zeros(0)

    def presence_bits(self, sessions: Sessions) -> tuple[Floats, Floats]:
        """Return the bits of which symbols each session has and lacks, and those of its rarest; float64, (m,), >= 0."""
        new_bits = math.log2(2.0 * (self.session_count + 1.0))
        absent = -np.log2(1.0 - self._shares)
        # One more entry, for symbols that were found since: they are as rare as those never learned.
        present = np.append(-np.log2(self._shares), new_bits)[np.minimum(sessions.symbols, len(self._shares))]
        gain = present - np.append(absent, 0.0)[np.minimum(sessions.symbols, len(self._shares))]
        bits = absent.sum() + np.bincount(sessions.owners, weights=gain, minlength=len(sessions))
        rarest = np.where(sessions.new_counts > 0, new_bits, 0.0)
        np.maximum.at(rarest, sessions.owners, present)
        return np.maximum(bits + sessions.new_counts * new_bits, 0.0), rarest

    def count_bits(self, sessions: Sessions) -> Floats:
        """Return what each member's count costs beyond what its symbol's counts usually cost; float64, (t,)."""
        bits = np.zeros(len(sessions.symbols))
        known = np.flatnonzero(sessions.symbols < len(self._counts))
        symbols, where = np.unique(sessions.symbols[known], return_inverse=True)
        seen = self._counts[symbols]
        total = seen.sum(axis=1)
        distinct = (seen > 0.0).sum(axis=1)
        escape = 0.5 + 0.5 * distinct
        shares = seen / (total + escape)[:, None]
        costs = np.where(seen > 0.0, -np.log2(np.maximum(shares, 1e-12)), 0.0)
        mean = (shares * costs).sum(axis=1)
        spread = np.sqrt(np.maximum((shares * costs**2).sum(axis=1) - mean**2, 0.0))
        slots = _slots(sessions.counts[known])
        new = np.log2((total + escape) / escape)[where] + 2.0 * np.floor(np.log2(slots + 1.0)) + 1.0
        cost = np.where(seen[where, slots] > 0.0, costs[where, slots], new)
        excess = np.maximum(cost - (mean + spread)[where], 0.0)
        bits[known] = np.where(total[where] > 0.0, excess, 0.0)
        return bits

    def shares(self, symbols: Ints) -> Floats:
        """Return the probability of each symbol to be there; float64, (k,)."""
        return self._shares[symbols]

    def usual_count(self, symbol: int) -> int:
        """Return the count with which a symbol came most often."""
        return _least_of(int(self._counts[symbol].argmax()))

    def learn_one(self, sessions: Sessions, symbol_count: int) -> None:
        """Take in sessions, all of whose symbols are known by now."""
        missing = symbol_count - len(self._counts)
        if missing > 0:
            self._counts = np.pad(self._counts, ((0, missing), (0, 0)))
        np.add.at(self._counts, (sessions.symbols, _slots(sessions.counts)), 1.0)
        self.session_count += len(sessions)
        if self.session_count >= MEMORY_SESSIONS:
            self.session_count /= 2.0
            self._counts /= 2.0
        self._renew()

    def _renew(self) -> None:
        self._shares = (self._counts.sum(axis=1) + 0.5) / (self.session_count + 1.0)

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values and arrays."""
        return {"sessions": self.session_count, "counts": self._counts.copy()}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> MemberCode:
        """Return the code that gave this state."""
        code = cls()
        code.session_count, code._counts = state["sessions"], state["counts"].copy()
        code._renew()
        return code


class EscapeCode:
    """The order of symbols, charged for transitions never seen.

    A session costs -log2 of the share of past sessions that had at least as many distinct unseen
    transitions when they came. Where any order is usual that is nothing; where one follows the
    other, a new transition costs up to log2(n + 1).
    """

    def __init__(self) -> None:
        self._known: dict[int, None] = {}
        self._escapes = np.zeros(_SLOTS)

    def score_one(self, pairs: list[list[int]]) -> Floats:
        """Return the bits of the order of each session; float64, (m,), >= 0.

        Args:
            pairs: Of each session the distinct transitions, as `transitions` numbers them.
        """
        at_least = np.cumsum(self._escapes[::-1])[::-1]
        found = _slots(np.array([self.new_count(of_one) for of_one in pairs], np.int64))
        bits = -np.log2((at_least[found] + 1.0) / (self._escapes.sum() + 1.0))
        return np.where(found > 0, bits, 0.0)

    def new_count(self, pairs: list[int]) -> int:
        """Return how many transitions were never seen."""
        known = self._known
        return sum(pair not in known for pair in pairs)

    def learn_one(self, pairs: list[list[int]]) -> None:
        """Take in the transitions of some sessions."""
        for of_one in pairs:
            self._escapes[_slots(np.array([self.new_count(of_one)]))[0]] += 1.0
            if len(self._known) < MAX_TRANSITIONS:
                self._known.update(dict.fromkeys(of_one))
        if self._escapes.sum() >= MEMORY_SESSIONS:
            self._escapes /= 2.0

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values and arrays."""
        return {"known": np.fromiter(self._known, np.int64, len(self._known)), "escapes": self._escapes.copy()}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> EscapeCode:
        """Return the code that gave this state."""
        code = cls()
        code._known, code._escapes = dict.fromkeys(state["known"].tolist()), state["escapes"].copy()
        return code


def transitions(sessions: Codes, symbols: Ints, ids: Ints) -> list[list[int]]:
    """Return the distinct transitions of each session, in the order of its records.

    Args:
        sessions: int32, (n,): session of each record.
        symbols: int64, (n,): symbol of each record, -1 if never learned.
        ids: int64, (m,): the sessions, ascending.

    Returns:
        One list per session: each transition as one number. The first symbol follows nothing.
    """
    order = np.argsort(sessions, kind="stable")
    owner, symbol = sessions[order].astype(np.int64), symbols[order] + 1
    before = np.concatenate(([0], symbol[:-1]))
    before[np.flatnonzero(np.diff(owner, prepend=owner[:1] - 1))] = MAX_SYMBOLS + 1
    width = MAX_SYMBOLS + 2
    pairs = np.unique(owner * np.int64(width * width) + before * np.int64(width) + symbol)
    starts = np.searchsorted(pairs // (width * width), np.append(ids, ids[-1:] + 1))
    numbers = (pairs % (width * width)).tolist()
    return [numbers[first:last] for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]


def _slots(counts: Ints) -> Ints:
    """Return the slot of each count: the count itself below 32, then one a doubling."""
    doublings = np.floor(np.log2(np.maximum(counts, 1) / _EXACT_COUNTS)).astype(np.int64)
    return np.where(counts < _EXACT_COUNTS, counts, np.minimum(_EXACT_COUNTS + doublings, _SLOTS - 1))


def _least_of(slot: int) -> int:
    return slot if slot < _EXACT_COUNTS else int(_EXACT_COUNTS << (slot - _EXACT_COUNTS))
