"""The bar that evidence in bits must reach to be an alarm by itself, learned from the stream's past."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

_REMEMBERED = 1_000
_FALSE_ALARM_DAYS = 2.0
"""Days in which one false alarm is allowed for."""
_BULK = (0.8, 0.9)
"""Quantiles of the past from which its tail is extrapolated: the bulk, which anomalies do not reach."""
_RECENT_CASES = 50.0
"""About so many cases say whether what was odd is usual by now."""
_USUAL_SHARE = 0.5
_DAY_S = 86_400.0
_PACE_S = 3_600.0
_FOLLOWS = 1_000
"""Cases over which the bar follows what the past says, so that those of one day meet about one bar."""


class Bar:
    """A bar over the bits of cases (sessions, new templates) that come at some pace.

    It lies where past cases extrapolate to with one case in two days: an exponential tail through
    their median and (on average) their 70, 80 and 90 % quantiles, at least a bit for each halving,
    which is what a code that fits has. It rests on the bulk of the past, so that a few per cent of
    anomalies in it hardly move it.

    Args:
        learns_alarms: Whether cases above the bar become part of the past, as they should where
            whatever keeps coming is usual; else anomalies, also many of them, do not move it, unless
            every second case is above it, for then that is what the stream is like now.
    """

    def __init__(self, *, learns_alarms: bool) -> None:
        self._learns_alarms = learns_alarms
        self.bits = math.inf
        self.count = 0
        self._past: deque[float] = deque(maxlen=_REMEMBERED)
        self._recent_count = 0.0  # cases, and seconds, of about the last day
        self._recent_s = 0.0
        self._last_s = 0.0
        self._above = 0.0  # of about the last fifty cases

    def learn(self, bits: list[float], now_s: float) -> None:
        """Take in the cases of one window.

        Args:
            bits: Of each case.
            now_s: Event time of the window in seconds; 0 if unknown.
        """
        gap_s = max(now_s - self._last_s, 0.0) if self._last_s else 0.0
        fade = math.exp(-gap_s / _DAY_S)
        self._recent_count = fade * self._recent_count + len(bits)
        self._recent_s = fade * self._recent_s + gap_s
        self._last_s = max(now_s, self._last_s)
        self.count += len(bits)
        kept = bits if self._learns_alarms else [case for case in bits if case < self.bits]
        self._above = self._above * (1.0 - 1.0 / _RECENT_CASES) ** len(bits) + len(bits) - len(kept)
        if self._above > _USUAL_SHARE * _RECENT_CASES:
            kept = bits
        self._past.extend(kept)
        if len(self._past) < 2 or not kept:
            return
        target = self._target()
        weight = 1.0 if math.isinf(self.bits) else min(len(kept) / min(self.count, _FOLLOWS), 1.0)
        self.bits = target if weight == 1.0 else self.bits + weight * (target - self.bits)

    def _target(self) -> float:
        # Cases come in bursts: a pace is believed once it has held for an hour.
        a_day = _DAY_S * self._recent_count / (self._recent_s + _PACE_S)
        budget = math.log2(max(_FALSE_ALARM_DAYS * a_day, len(self._past)))
        median, *upper = np.quantile(np.array(self._past), (0.5, *_BULK)).tolist()
        scales = [(bits - median) / (-math.log2(1.0 - at) - 1.0) for bits, at in zip(upper, _BULK, strict=True)]
        return float(median + max(sum(scales) / len(scales), 1.0) * (budget - 1.0))

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values and arrays."""
        return {
            "bits": self.bits,
            "count": self.count,
            "past": np.array(self._past),
            "recent_count": self._recent_count,
            "recent_s": self._recent_s,
            "last_s": self._last_s,
            "above": self._above,
        }

    @classmethod
    def of_state(cls, state: dict[str, Any], *, learns_alarms: bool) -> Bar:
        """Return the bar that gave this state."""
        bar = cls(learns_alarms=learns_alarms)
        bar.bits, bar.count = state["bits"], state["count"]
        bar._past.extend(state["past"].tolist())
        bar._recent_count, bar._recent_s, bar._last_s = state["recent_count"], state["recent_s"], state["last_s"]
        bar._above = state["above"]
        return bar
