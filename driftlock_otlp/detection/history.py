"""The past evidence of one stream, and the calibration that is made of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from driftlock_otlp.detection.calibration import Calibration
from driftlock_otlp.detection.claims import Claim
from driftlock_otlp.detection.columns import Floats

LAG_WINDOWS = 6
"""Windows between a verdict and learning: a short fault is judged before it could be learned."""
_REFIT_WINDOWS = 20
_YOUNG_WINDOWS = 200
"""Until the history is this long the calibration is refitted with every window."""
_SHORT_WINDOWS = 60
"""Until the history is this long the latest windows calibrate, too: there are none to spare."""


class EvidenceHistory:
    """The last evidence vectors of a stream, numbered from its beginning, and what they say.

    Args:
        calibration_windows: Vectors that calibrate.
        warm_up_windows: Vectors before there is a calibration.
    """

    def __init__(self, calibration_windows: int, warm_up_windows: int) -> None:
        self._calibration_windows, self._warm_up_windows = calibration_windows, warm_up_windows
        # Longer than the calibration looks back, so that the last fit can be done again.
        self._vectors: deque[Floats] = deque(maxlen=calibration_windows + LAG_WINDOWS + _REFIT_WINDOWS)
        self._left_out: set[int] = set()
        self.total = 0
        self.calibration: Calibration | None = None
        self._calibrated_on = (0, 0, 0)
        self._since_refit = 0

    def learn(self, vector: Floats, claims: Sequence[Claim]) -> None:
        """Take in a vector.

        Args:
            vector: float64, (d,): the evidence for the first d claims.
            claims: All claims there are by now, at least d.
        """
        self._vectors.append(vector)
        self.total += 1
        # A young stream has no window to spare; an old one does not measure a fault by its own beginning.
        last = self.total - LAG_WINDOWS
        if last < max(_SHORT_WINDOWS, self._warm_up_windows):
            last = self.total
        first = max(0, last - self._calibration_windows)
        if last < self._warm_up_windows:
            return
        self._since_refit += 1
        if self.calibration is None or last < _YOUNG_WINDOWS or self._since_refit >= _REFIT_WINDOWS:
            self._fit(first, last, claims)
            self._since_refit = 0

    def leave_out(self, numbers: Iterable[int], claims: Sequence[Claim]) -> None:
        """Calibrate without these vectors from now on."""
        self._set_left_out(self._left_out | set(numbers), claims)

    def let_in(self, numbers: Iterable[int], claims: Sequence[Claim]) -> None:
        """Calibrate with these vectors again."""
        self._set_left_out(self._left_out - set(numbers), claims)

    def _set_left_out(self, numbers: set[int], claims: Sequence[Claim]) -> None:
        oldest = self.total - len(self._vectors)
        self._left_out = {number for number in numbers if number >= oldest}
        if self.calibration is not None:
            first, last, width = self._calibrated_on
            self._fit(first, last, claims[:width])

    def _fit(self, first: int, last: int, claims: Sequence[Claim]) -> None:
        """Calibrate on the vectors numbered `first` to `last`, over these claims."""
        start, width = self.total - len(self._vectors), len(claims)
        rows = [*self._vectors][first - start : last - start]
        kept = [row for number, row in enumerate(rows, first) if number not in self._left_out]
        if len(kept) < self._warm_up_windows:
            kept = rows  # a calibration of too few says nothing
        history = np.full((len(kept), width), np.nan)
        for i, row in enumerate(kept):
            known = min(len(row), width)
            history[i, :known] = row[:known]
        self.calibration = Calibration(
            history,
            np.array([claim.unit for claim in claims]),
            np.array([claim.shape for claim in claims]),
            fewest=self._warm_up_windows,
        )
        self._calibrated_on = (first, last, width)

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values and arrays."""
        return {
            "history": [*self._vectors],
            "history_total": self.total,
            "left_out": sorted(self._left_out),
            "since_refit": self._since_refit,
            "calibrated_on": None if self.calibration is None else list(self._calibrated_on),
        }

    def restore(self, state: dict[str, Any], claims: Sequence[Claim]) -> None:
        """Become the history that gave this state, of a stream with these claims."""
        self._vectors.extend(state["history"])
        self.total = state["history_total"]
        self._left_out = set(state["left_out"])
        self._since_refit = state["since_refit"]
        if state["calibrated_on"] is not None:
            first, last, width = state["calibrated_on"]
            self._fit(first, last, claims[:width])
