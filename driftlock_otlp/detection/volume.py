"""Evidence from how many records arrive."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from driftlock_otlp.detection.claims import LIGHT_SHAPE, Change, Claim, ColumnEvidence, sigma_bits

_LEAST_SPREAD = 0.15
"""Least spread of log2 rate: 10 % more or less is never called odd by itself."""


class VolumeModel:
    """Baseline of the rate of records, on a logarithmic scale.

    The rate of a window is its records over the time since the window before ended, both in
    event time, so that batching by the sender does not show.
    """

    name = "rate"

    def __init__(self) -> None:
        self.claims = [Claim("rate", "rate", "volume", shape=LIGHT_SHAPE)]
        self._rates: deque[float] = deque()

    def evaluate(self, log2_rate: float) -> ColumnEvidence:
        """Return the bits of how many robust deviations log2 of the rate is off."""
        if not self._rates or not math.isfinite(log2_rate):
            return ColumnEvidence(np.array([np.nan]))
        median, spread = self._centre()
        return ColumnEvidence(np.array([sigma_bits(abs(log2_rate - median) / spread)]))

    def learn(self, log2_rate: float) -> None:
        """Add a window's rate to the baseline; infinite or NaN stands for unknown."""
        self._rates.append(log2_rate)

    def forget(self) -> None:
        """Take the oldest rate out of the baseline."""
        self._rates.popleft()

    def change(self, log2_rate: float, noun: str) -> Change:
        """Return the difference in words."""
        median, _ = self._centre()
        observed, expected = f"{2.0**log2_rate:.3g}/s", f"{2.0**median:.3g}/s"
        return Change("", f"{noun} arrive at {observed}, expected {expected}", observed, expected)

    def restore(self, rates: list[float]) -> None:
        """Become the model with these rates as its baseline."""
        self._rates = deque(rates)

    def _centre(self) -> tuple[float, float]:
        rates = np.array([rate for rate in self._rates if math.isfinite(rate)])
        if not len(rates):
            return 0.0, math.inf
        median = float(np.median(rates))
        return median, max(1.4826 * float(np.median(np.abs(rates - median))), _LEAST_SPREAD)

    def state(self) -> dict[str, Any]:
        """Return nothing: the rates stand in the baseline's windows."""
        return {}
