"""Slow spans: how much longer an operation took than its calls usually take, trace by trace.

Each operation has a histogram of its durations on a logarithmic scale, from which two numbers are
read. The *bulk bits* extrapolate the middle of the distribution and rank traces, also where slow
calls are frequent. The *tail bits* are the rank among all calls remembered, and an exponential
beyond the slowest of them; `rarities.py` judges other numbers by them. Everything is vectorised
over the spans of a window, and bounded.

A single slow span raises no alarm, however slow: durations have heavy tails, and of a thousand usual
calls one may well take a thousand times as long. What is slow more often than usual shows in the
window's own evidence.

References:
    Vovk, Gammerman & Shafer 2005, "Algorithmic Learning in a Random World" (rank p-values).
    Rissanen 1983, "A universal prior for integers and estimation by minimum description length"
    (what it costs to name one of all so far).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from driftlock_otlp.detection.claims import Change, Claim
from driftlock_otlp.detection.columns import Codes, Columns, Floats, Ints
from driftlock_otlp.detection.records import RecordEvidence

_MOST_OPERATIONS = 512
"""Operations remembered per stream; the one not seen for longest makes room."""
_MOST_CALLS = 16_384.0
"""Calls an operation is remembered by: beyond, all counts are halved, so that old ones fade."""
_LEAST_COUNT = 0.05
"""What is left of a call that is forgotten, after halving."""

_BUCKETS_PER_OCTAVE = 16
_BUCKETS = 32 * _BUCKETS_PER_OCTAVE
"""On log2(1 ms + duration), up to 49 days."""

_MIDDLE, _UPPER = 0.5, 0.7
"""Quantiles that the bulk is extrapolated from: at most three in ten calls may be slow."""
_LEAST_SPREAD = 0.2
"""Octaves between the two quantiles that are noise in any operation: 15 % of its duration."""
_TAIL_SHARE = 0.02
_TAIL_PRIOR_CALLS, _TAIL_PRIOR_OCTAVES = 5.0, 0.25
"""The tail's scale before any excess has been seen, and how many excesses that is worth."""

_HEARD_AFTER_CALLS = 30.0
_ARMED_AFTER_CALLS = 300.0
_LEAST_MARGIN_BITS = 5.0
"""Traces are ranked below the bar of an alarm: from minus this up to 0, half-way at as many bits."""


def log_duration(duration_ms: Floats) -> Floats:
    """Return log2(1 + duration), durations in ms: differences below about a millisecond do not count."""
    result: Floats = np.log2(1.0 + duration_ms)
    return result


def naming_bits(number: float) -> float:
    """Return what it costs to name one of so many, without having said how many there are.

    The first terms of Rissanen's code. Summed over all numbers 2^-bits stays below one half, so
    over the life of a stream less than one false alarm is to be expected.

    >>> round(naming_bits(1), 1), round(naming_bits(1e6), 1)
    (3.0, 28.7)
    """
    first = math.log2(number + 1.0)
    return first + 2.0 * math.log2(first + 1.0) if number > 1 else 3.0


class DurationCode:
    """Histograms of the durations of operations, and the bits of a call given its operation."""

    def __init__(self) -> None:
        self._slots: OrderedDict[str, int] = OrderedDict()  # least recently called first
        self._counts = np.zeros((0, _BUCKETS), np.float32)
        self._tail_bits = np.zeros((0, _BUCKETS), np.float32)
        self._calls = np.zeros(0)
        self._middle = np.zeros(0)
        self._spread = np.zeros(0)
        self._slowest = np.zeros(0)
        self._tail_scale = np.zeros(0)
        self._tail_stale: set[int] = set()  # places whose tail has to be read off again

    def slots(self, operations: Sequence[str]) -> Ints:
        """Return the place of each operation; -1 for one that is not known. int64, (k,)."""
        return np.array([self._slots.get(name, -1) for name in operations], np.int64)

    def bulk_bits(self, slots: Ints, values: Floats) -> Floats:
        """Return the bits of calls under an exponential fitted to the middle of their operation.

        Args:
            slots: int64, (n,), as `slots` returned them.
            values: float64, (n,): `log_duration` of each call.

        Returns:
            float64, (n,), >= 0: 1 at the median; 0 where the operation has too few calls.
        """
        halvings = math.log2((1.0 - _MIDDLE) / (1.0 - _UPPER))
        bits = halvings * (values - self._of(self._middle, slots)) / self._of(self._spread, slots, 1.0)
        heard = self._of(self._calls, slots) >= _HEARD_AFTER_CALLS
        result: Floats = np.where(heard, np.maximum(bits - math.log2(1.0 - _MIDDLE), 0.0), 0.0)
        return result

    def tail_bits(self, slots: Ints, values: Floats) -> Floats:
        """Return minus log2 of the share of calls at least as slow, going on exponentially beyond the slowest.

        Args:
            slots: int64, (n,), as `slots` returned them.
            values: float64, (n,): `log_duration` of each call.

        Returns:
            float64, (n,), >= 0; 0 where the operation has too few calls to say how rare is rare.
        """
        if not len(self._calls):
            return np.zeros(len(values))
        self._read_tails()
        known = np.maximum(slots, 0)
        bits = self._tail_bits[known, _bucket(values)].astype(np.float64)
        # A place that nobody has had yet has no scale; slots of -1 may point to it, and are not heard.
        scale = np.where(self._tail_scale[known] > 0.0, self._tail_scale[known], 1.0)
        beyond = np.maximum(values - self._slowest[known], 0.0) / (scale * math.log(2.0))
        result: Floats = np.where(self._of(self._calls, slots) >= _ARMED_AFTER_CALLS, bits + beyond, 0.0)
        return result

    def usual_ms(self, slot: int) -> float:
        """Return the median duration of the operation at a place, ms."""
        return float(2.0 ** self._middle[slot] - 1.0)

    def learn(self, operations: Sequence[str], codes: Codes, values: Floats) -> None:
        """Take in calls.

        Args:
            operations: The distinct operations.
            codes: int32, (n,): index of each call's operation.
            values: float64, (n,): `log_duration` of each call.
        """
        for code in np.unique(codes).tolist():  # an operation without a call has nothing to be read off
            self._place(operations[code])
        at = self.slots(operations)[codes]
        kept = at >= 0  # of more operations in one window than are remembered, the first have gone again
        np.add.at(self._counts, (at[kept], _bucket(values[kept])), np.float32(1.0))
        self._read(np.unique(at[kept]))

    def state(self) -> list[Any]:
        """Return everything remembered, as plain values and arrays."""
        found = []
        for name, slot in self._slots.items():
            buckets = np.flatnonzero(self._counts[slot])
            found.append([name, buckets.astype(np.int16), self._counts[slot][buckets]])
        return found

    def restore(self, state: list[Any]) -> None:
        """Become the code that gave this state."""
        for name, buckets, counts in state:
            slot = self._place(name)
            self._counts[slot, buckets] = counts
        self._read(np.arange(len(self._slots)))

    def _of(self, column: Floats, slots: Ints, otherwise: float = 0.0) -> Floats:
        if not len(column):
            return np.full(len(slots), otherwise)
        result: Floats = np.where(slots >= 0, column[np.maximum(slots, 0)], otherwise)
        return result

    def _place(self, name: str) -> int:
        slot = self._slots.get(name)
        if slot is not None:
            self._slots.move_to_end(name)
            return slot
        if len(self._slots) >= _MOST_OPERATIONS:
            _, slot = self._slots.popitem(last=False)
            self._counts[slot] = 0.0
        else:
            slot = len(self._slots)
            if slot == len(self._calls):
                self._grow(max(8, 2 * slot))
        self._slots[name] = slot
        return slot

    def _grow(self, size: int) -> None:
        def grown(old: npt.NDArray[Any]) -> npt.NDArray[Any]:
            new = np.zeros((size, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            return new

        self._counts, self._tail_bits = grown(self._counts), grown(self._tail_bits)
        self._calls, self._middle, self._spread = grown(self._calls), grown(self._middle), grown(self._spread)
        self._slowest, self._tail_scale = grown(self._slowest), grown(self._tail_scale)

    def _read(self, slots: Ints) -> None:
        """Read off the histograms at these places what scoring needs."""
        counts = self._counts[slots].astype(np.float64)
        full = counts.sum(axis=1) > _MOST_CALLS
        if full.any():
            counts[full] *= 0.5
            counts[counts < _LEAST_COUNT] = 0.0
            self._counts[slots] = counts
        at_least = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
        self._calls[slots] = at_least[:, 0]
        middle, upper = _quantile(at_least, _MIDDLE), _quantile(at_least, _UPPER)
        self._middle[slots] = middle
        self._spread[slots] = np.maximum(upper - middle, _LEAST_SPREAD)
        self._tail_stale.update(slots.tolist())

    def _read_tails(self) -> None:
        """Read off what `tail_bits` needs, where it has changed; spans never ask for it."""
        if not self._tail_stale:
            return
        slots = np.array(sorted(self._tail_stale), np.int64)
        self._tail_stale.clear()
        counts = self._counts[slots].astype(np.float64)
        at_least = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
        self._tail_bits[slots] = -np.log2((at_least + 1.0) / (at_least[:, :1] + 1.0))
        self._slowest[slots] = _quantile(at_least, 1.0)
        edges = np.arange(_BUCKETS) / _BUCKETS_PER_OCTAVE
        excess = edges - _quantile(at_least, 1.0 - _TAIL_SHARE)[:, None]
        in_tail = np.where(excess > 0.0, counts, 0.0)
        mass = (in_tail * excess).sum(axis=1) + _TAIL_PRIOR_CALLS * _TAIL_PRIOR_OCTAVES
        self._tail_scale[slots] = mass / (in_tail.sum(axis=1) + _TAIL_PRIOR_CALLS)


class SpanDurations:
    """The slow spans of one stream, and the traces they are in.

    A trace is the spans of one session that lie in one window; what of it falls into another
    window is judged there, by itself. Its bits are those of its longest span, which is the whole,
    and those of the oddest of the others, less what it costs to name that one among them all.
    """

    claim = Claim("", "slow_span", "value")

    def __init__(self) -> None:
        self._code = DurationCode()

    def score_one(self, columns: Columns) -> RecordEvidence | None:
        """Return how slow each span and its trace are; None if the window has no durations."""
        rows, operations, codes, values = _calls(columns)
        if not len(rows):
            return None
        slots = self._code.slots(operations)[codes]
        bulk = self._code.bulk_bits(slots, values)
        trace, size = _traces(columns, rows)
        span_bits = np.maximum(bulk - np.log2(size), 0.0)
        # The trace's own bits go to the span that is to blame.
        culprit, joint = _joint(trace, values, bulk)
        span_bits[culprit] = np.maximum(joint - np.log2(size[culprit]), 0.0)
        evidence = RecordEvidence(np.zeros(columns.record_count), np.full(columns.record_count, -math.inf))
        evidence.bits[rows] = span_bits
        evidence.margins[rows] = -_LEAST_MARGIN_BITS * _LEAST_MARGIN_BITS / (_LEAST_MARGIN_BITS + span_bits)
        return evidence

    def learn_one(self, columns: Columns, evidence: RecordEvidence | None) -> None:
        """Take in a window's durations, whatever the verdict: what keeps coming becomes usual."""
        rows, operations, codes, values = _calls(columns)
        if len(rows):
            self._code.learn(operations, codes, values)

    def explain(self, columns: Columns, row: int) -> tuple[str, Change]:
        """Return how long a span took beside what is usual for its operation."""
        rows, operations, codes, values = _calls(columns)
        at = int(np.searchsorted(rows, row))
        name = operations[codes[at]]
        took_ms = float(2.0 ** values[at] - 1.0)
        slot = int(self._code.slots([name])[0])
        usual = f"{self._code.usual_ms(slot):.4g} ms" if slot >= 0 else ""
        text = "{label}" + f" took {took_ms:.4g} ms" + (f", usually {usual}" if usual else "")
        return "duration", Change(name, text, f"{took_ms:.4g} ms", usual)

    def state(self) -> list[Any]:
        """Return everything remembered, as plain values and arrays."""
        return self._code.state()

    def restore(self, state: list[Any]) -> None:
        """Become the durations that gave this state."""
        self._code.restore(state)


def _calls(columns: Columns) -> tuple[Ints, list[str], Codes, Floats]:
    """Return row, operations, operation's code and log duration of every span that has both."""
    number = columns.numbers.get("duration")
    given = columns.categories.get(number.given) if number is not None and number.given else None
    if number is None or given is None:
        return np.zeros(0, np.int64), [], np.zeros(0, np.int32), np.zeros(0)
    rows = np.flatnonzero(np.isfinite(number.values) & (given.codes >= 0))
    return rows, given.labels, given.codes[rows], log_duration(number.values[rows])


def _traces(columns: Columns, rows: Ints) -> tuple[Ints, Floats]:
    """Return the number of each span's trace, from 0, and how many spans it has here; a span of none is one itself."""
    codes = np.full(len(rows), -1, np.int64) if columns.sessions is None else columns.sessions[rows].astype(np.int64)
    alone = codes < 0
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(int(alone.sum()))
    _, trace, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    return trace, sizes[trace].astype(np.float64)


def _joint(trace: Ints, values: Floats, bits: Floats) -> tuple[Ints, Floats]:
    """Return each trace's oddest span, and the bits of its longest span and of the oddest other one together."""
    by_length = np.lexsort((-values, trace))
    starts = np.flatnonzero(np.diff(trace[by_length], prepend=-1))
    longest = by_length[starts]
    others = bits.copy()
    others[longest] = 0.0
    oddest_other = np.maximum.reduceat(others[by_length], starts)
    by_bits = np.lexsort((-bits, trace))
    return by_bits[starts], bits[longest] + oddest_other


def _bucket(values: Floats) -> Ints:
    result: Ints = np.clip(values * _BUCKETS_PER_OCTAVE, 0, _BUCKETS - 1).astype(np.int64)
    return result


def _quantile(at_least: Floats, share: float) -> Floats:
    """Return the lower edge of the bucket in which a share of the calls is reached, octaves; of each row."""
    left = (1.0 - share) * at_least[:, :1]
    reached = (at_least > left) if share < 1.0 else (at_least > 0.0)
    result: Floats = np.maximum(reached.sum(axis=1) - 1, 0) / _BUCKETS_PER_OCTAVE
    return result
