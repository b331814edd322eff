"""Evidence record by record: what a window's evidence is too coarse to say.

A window is judged as a whole by the baseline. Beside it, the detector of a stream holds record
scorers for what its kind can tell of single records: a point of a time series unlike any seen,
lines of a new template, a session that no known one resembles. Their evidence joins the
window's as claims of its own, and raises an alarm by itself when it exceeds its own budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from driftlock_otlp.detection.claims import Change, Claim
from driftlock_otlp.detection.columns import Columns, Floats


@dataclass(slots=True)
class RecordEvidence:
    """How odd each record of a window is.

    Attributes:
        bits: float64, (n,), >= 0: surprise of the record, 0 where nothing is said of it.
        margins: float64, (n,): bits beyond its budget; at or above 0 is an alarm, -inf where
            nothing is said of it.
        lasting: float64, (n,), >= 0: how odd this record and the last ones before it were, in bits
            that add over streams; None where a scorer does not keep it.
        windows_to_warm: Windows like this one that must still come before it may alarm.
    """

    bits: Floats
    margins: Floats
    lasting: Floats | None = None
    windows_to_warm: int = 0

    @property
    def strongest(self) -> int:
        """Row of the largest margin."""
        return int(np.argmax(self.margins))


class RecordScorer(Protocol):
    """Judges the records of one stream, window by window.

    `score_one` changes nothing; `learn_one` takes the same window in afterwards. Equal input
    gives equal evidence, also after `restore`.
    """

    @property
    def claim(self) -> Claim:
        """How its evidence is called beside the window's; without a column."""
        ...

    def score_one(self, columns: Columns) -> RecordEvidence | None:
        """Return the evidence of a window's records; None if it has nothing to judge in it."""
        ...

    def learn_one(self, columns: Columns, evidence: RecordEvidence | None) -> None:
        """Take in a window that was scored just before."""
        ...

    def explain(self, columns: Columns, row: int) -> tuple[str, Change]:
        """Return the column that makes a record odd, and the difference in words; before it is learned."""
        ...

    def state(self) -> Any:
        """Return everything remembered, as plain values and arrays."""
        ...

    def restore(self, state: Any) -> None:
        """Become the scorer that gave this state."""
        ...


@runtime_checkable
class JudgedScorer(RecordScorer, Protocol):
    """A record scorer to which people may say that what it found odd is good, or bad."""

    def odd(self, columns: Columns, evidence: RecordEvidence | None) -> Any:
        """Return what was odd in a window, for `judge`, as plain values; falsy if nothing was. After it is learned."""
        ...

    def judge(self, odd: Any, *, is_good: bool | None) -> None:
        """Take what people say of something odd.

        Args:
            odd: What `odd` gave.
            is_good: True: it is never odd again. False: it is never learned, so that it is odd whenever
                it comes. None: neither is said any more, and nothing of it remains.
        """
        ...

    def set_aside(self, columns: Columns) -> npt.NDArray[np.bool_] | None:
        """Return which records are good by what people said, whatever else is in the window; None if none is."""
        ...
