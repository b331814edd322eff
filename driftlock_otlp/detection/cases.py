"""What a stream's detector remembers of its anomalies, so that people can say of them what they were.

A case keeps the first odd windows of an anomaly, and what was odd in them. Nothing that people say
is learned: it is laid over what is, and can be taken away again without a trace.

    good    The pattern is one more reference: a claim counts only for what it says beyond both the baseline
            and the case. References are each of its windows, all of them together, and for symbols each
            mixed with a usual window, since a fault that begins within a window fills a part of it.
    bad     A window with the same strongest claim is protected: it is not learned, not adopted, and past
            alarms do not raise the bars for it.

Limits: of an anomaly the first three odd windows are kept, of a stream the last 24 cases that people spoke of
and six others; what was said of templates and sessions lasts. A claim that the case holds too few values
to judge counts as known if it was as strong in the case, in the same column and for the same symbol.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from driftlock_otlp.detection.baseline import (
    Baseline,
    PreparedWindow,
    copy_unlearned,
    prepared_of_state,
    prepared_state,
)
from driftlock_otlp.detection.claims import Claim
from driftlock_otlp.detection.columns import Columns, Floats
from driftlock_otlp.detection.compressor import Compressor

_MOST_UNJUDGED = 6
_MOST_JUDGED = 24
"""Cases that people have spoken of."""
_CASE_WINDOWS = 3
_MOST_SIGNS = 64
_MOST_ODD = 1_000
"""Points, templates or sessions of one case."""
_SLACK = 1.1
"""A claim may be this much stronger than in the case and still be the same."""

Sign = tuple[str, str, str, int]
"""Column, name and symbol of a claim, and whether its values are larger (1) or smaller (-1) than usual."""
Waiting = tuple[PreparedWindow, bool, float]
"""A window that waits to be learned, whether it may be, and its bits."""


@dataclass(slots=True)
class Case:
    """One anomaly.

    Attributes:
        is_good: What people said: True a false alarm, False confirmed, None nothing.
        windows: Its first odd windows.
        numbers: Numbers of its vectors in the history.
        signs: Strongest evidence by sign, raw.
        odd: What was odd, for each record scorer, window by window.
        exchanged: What is not in force of: the baseline's windows, and those waiting to be learned, from
            before its regime was adopted, and from after. None if it was not adopted.
    """

    is_good: bool | None = None
    windows: list[PreparedWindow] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    signs: dict[Sign, float] = field(default_factory=dict)
    odd: list[list[Any]] = field(default_factory=list)
    exchanged: tuple[list[PreparedWindow], list[Waiting]] | None = None


class Cases:
    """The anomalies of one stream, by id, the latest last."""

    def __init__(self) -> None:
        self._cases: OrderedDict[str, Case] = OrderedDict()

    def __iter__(self) -> Iterator[Case]:
        return iter(self._cases.values())

    def get(self, anomaly_id: str) -> Case | None:
        """Return the case of an anomaly; None if it is not remembered."""
        return self._cases.get(anomaly_id)

    def open(self, anomaly_id: str, scorer_count: int) -> None:
        """Begin the case of an anomaly; the longest past ones make room."""
        self._cases[anomaly_id] = Case(odd=[[] for _ in range(scorer_count)])
        for is_judged, most in ((False, _MOST_UNJUDGED), (True, _MOST_JUDGED)):
            found = [key for key, case in self._cases.items() if (case.is_good is not None) is is_judged]
            for key in found[:-most]:
                del self._cases[key]

    def judged(self, *, is_good: bool) -> list[Case]:
        """Return the cases with this verdict."""
        return [case for case in self._cases.values() if case.is_good is is_good]

    def state(self) -> list[Any]:
        """Return everything remembered, as plain values and arrays."""
        return [
            [
                key,
                case.is_good,
                [prepared_state(window) for window in case.windows],
                case.numbers,
                [[*sign, bits] for sign, bits in case.signs.items()],
                case.odd,
                case.exchanged
                and [[prepared_state(window) for window in case.exchanged[0]], waiting_state(case.exchanged[1])],
            ]
            for key, case in self._cases.items()
        ]

    def restore(self, state: list[Any]) -> None:
        """Become the cases that gave this state."""
        for key, is_good, windows, numbers, signs, odd, exchanged in state:
            self._cases[key] = Case(
                is_good,
                [prepared_of_state(item) for item in windows],
                list(numbers),
                {(column, name, label, direction): bits for column, name, label, direction, bits in signs},
                [list(items) for items in odd],
                exchanged and ([prepared_of_state(item) for item in exchanged[0]], waiting_of_state(exchanged[1])),
            )


def waiting_state(waiting: Iterable[Waiting]) -> list[Any]:
    """Return windows that wait to be learned as plain values and arrays."""
    return [[prepared_state(window), keep, bits] for window, keep, bits in waiting]


def waiting_of_state(state: list[Any]) -> list[Waiting]:
    """Return the windows that gave this state."""
    return [(prepared_of_state(window), keep, bits) for window, keep, bits in state]


def remember(case: Case, window: PreparedWindow | None, signs: dict[Sign, float]) -> None:
    """Add an odd window to a case.

    Args:
        case: The case.
        window: The window; None if it was judged by its records alone.
        signs: Raw evidence of its strong claims.
    """
    if len(case.windows) < _CASE_WINDOWS and window is not None:
        case.windows.append(copy_unlearned(window))
    for sign, bits in signs.items():
        if sign in case.signs or len(case.signs) < _MOST_SIGNS:
            case.signs[sign] = max(bits, case.signs.get(sign, bits))


def remember_odd(case: Case, odd: list[Any]) -> None:
    """Add to a case what record scorers found odd in a window, one entry each; falsy where nothing was."""
    for found, items in zip(odd, case.odd, strict=True):
        if found and sum(map(len, items)) < _MOST_ODD:
            items.append(found)


def beyond(
    case: Case,
    columns: Columns,
    window: PreparedWindow,
    usual: PreparedWindow | None,
    claims: list[Claim],
    vector: Floats,
    signs: dict[Sign, float],
    compressor: Compressor,
) -> Floats:
    """Return what a window's claims say beyond a case.

    Args:
        case: The case.
        columns: The window.
        window: The same, prepared.
        usual: A usual window to mix with the case's.
        claims: The claims, (d,).
        vector: float64, (d,): their raw evidence against the baseline.
        signs: Raw evidence of the strong ones among them, by sign.
        compressor: Judges order and structure.

    Returns:
        float64, (d,): at most `vector`.
    """
    result = vector.copy()
    least = _least_evidence(case, columns, window.log2_rate, usual, compressor)
    strong = {sign[:2]: sign for sign in signs}
    for index, claim in enumerate(claims):
        sign = strong.get((claim.column, claim.name))
        if sign is None:
            continue  # too weak to matter
        against = least.get((claim.column, claim.name), np.nan)
        is_number = claim.column in window.numbers
        if np.isfinite(against) and (not is_number or sign in case.signs):
            result[index] = min(result[index], against)
        if sign in case.signs and (not np.isfinite(against) or claim.name == "order"):
            is_known = vector[index] <= _SLACK * case.signs[sign]
            result[index] = min(result[index], 0.0) if is_known else result[index]
    return result


def _least_evidence(
    case: Case, columns: Columns, log2_rate: float, usual: PreparedWindow | None, compressor: Compressor
) -> dict[tuple[str, str], float]:
    """Return the least evidence of each claim against any of the case's references; NaN where none tells."""
    least: dict[tuple[str, str], float] = {}
    for reference, is_mixed in _references(case, usual):
        baseline = Baseline(len(reference), 1, compressor)
        own = baseline.prepare(columns, log2_rate)
        for window in reference:
            baseline.learn(copy_unlearned(window))
        for claim, value in zip(baseline.claims, baseline.evaluate(own).values.tolist(), strict=True):
            # Values of two regimes have a spread in which everything beyond them is lost.
            if claim.column in own.symbols or not is_mixed:
                key = claim.column, claim.name
                least[key] = float(np.fmin(least.get(key, np.nan), value))
    return least


def _references(case: Case, usual: PreparedWindow | None) -> Iterator[tuple[list[PreparedWindow], bool]]:
    """Yield windows to compare with, and whether a usual one is among them."""
    for window in case.windows:
        yield [window], False
        if usual is not None:
            yield [usual, window], True
    if len(case.windows) > 1:
        yield case.windows, False
