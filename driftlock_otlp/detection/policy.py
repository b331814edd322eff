"""When calibrated bits are an alarm: the bars, and what moves them.

All bars stand so many bits beyond -log2(significance). A stream whose windows follow each other
fast owes more, and so does one that has alarmed of late (the governor).
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

IMMEDIATE_BITS = 4.36
"""Beyond -log2(significance): one window alone is an alarm (11 bits at 0.01)."""
REPEATED_BITS = 2.36
"""Beyond -log2(significance): this window and one of the three before it (9 bits at 0.01)."""
CALM_BITS = -1.64
"""Beyond -log2(significance): below it a window is calm (5 bits at 0.01)."""
_REPEAT_WINDOWS = 3
_GOVERNOR_BITS = 1.0
"""Each alarm raises the bars by this much; it wears off within a day or so."""
_RECORD_GOVERNOR_BITS = 3.0
"""The same for an alarm of records alone, which raises the bar of records alone: their tails are
heavier, and a scorer that cries often must not make the stream's windows unheard."""
_DAY_S = 86_400.0
_CALM_WINDOWS_PER_DAY = 8_640.0
"""One window per ten seconds: the pace for which the bars give one false alarm a day."""


class AlarmPolicy:
    """The bars of one stream.

    Args:
        significance: Conformal p-value at or below which a window is flagged, by the configuration.
    """

    def __init__(self, significance: float) -> None:
        self._configured = significance
        self._own: float | None = None
        self._recent_bits: deque[float] = deque(maxlen=_REPEAT_WINDOWS)
        self._governor_bits = 0.0
        self._record_governor_bits = 0.0
        self._last_closed_unix_nano = 0
        self.interval_s = math.nan

    @property
    def significance(self) -> float:
        """The significance in force."""
        return self._configured if self._own is None else self._own

    def set_significance(self, significance: float | None) -> None:
        """Let a value of the stream's own take the place of the configured one; None gives it back its place."""
        self._own = significance

    def bar(self, beyond_bits: float) -> float:
        """Return a bar in bits, raised for streams with more windows a day than one in ten seconds."""
        pace = 0.0
        if self.interval_s > 0:
            # Half of log2: windows that follow each other fast are far from independent.
            pace = 0.5 * max(0.0, math.log2(_DAY_S / self.interval_s / _CALM_WINDOWS_PER_DAY))
        # A coarse significance must not leave a calm bar that no window can stay below.
        return max(-math.log2(self.significance) + beyond_bits + pace, 1.0)

    def is_window_alarm(self, bits: float, *, is_governed: bool = True) -> bool:
        """Return whether a window with these bits fires, alone or with one of those before it.

        Args:
            bits: Its calibrated surprise.
            is_governed: Whether past alarms raise the bars.
        """
        governor = self._governor_bits if is_governed else 0.0
        repeated = self.bar(REPEATED_BITS) + governor
        return bits - self.bar(IMMEDIATE_BITS) >= governor or (
            bits >= repeated and any(past >= repeated for past in self._recent_bits)
        )

    def is_record_alarm(self, margin_bits: float, *, is_governed: bool = True) -> bool:
        """Return whether records so many bits beyond their own bar fire.

        Their bars know nothing of the significance: one of the stream's own moves them by as much as all others.
        """
        shift = math.log2(self._configured / self.significance)
        return margin_bits >= shift + (self._record_governor_bits if is_governed else 0.0)

    def is_sparse_alarm(self, margin_bits: float) -> bool:
        """Return whether a window that is judged by its records alone fires."""
        return margin_bits >= math.log2(self._configured / self.significance) + self._governor_bits

    def alarmed(self, *, is_of_records: bool) -> None:
        """Raise the bars after an alarm."""
        if is_of_records:
            self._record_governor_bits += _RECORD_GOVERNOR_BITS
        else:
            self._governor_bits += _GOVERNOR_BITS

    def remember(self, bits: float) -> None:
        """Take notice of a window's bits."""
        self._recent_bits.append(bits)

    def passed(self, closed_unix_nano: int) -> None:
        """Let time pass until a window closed."""
        if self._last_closed_unix_nano:
            elapsed_s = max(closed_unix_nano - self._last_closed_unix_nano, 0) / 1e9
            self._governor_bits *= math.exp(-elapsed_s / _DAY_S)
            self._record_governor_bits *= math.exp(-elapsed_s / _DAY_S)
            if math.isnan(self.interval_s):
                self.interval_s = elapsed_s
            self.interval_s += 0.02 * (elapsed_s - self.interval_s)
        self._last_closed_unix_nano = closed_unix_nano

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values."""
        return {
            "significance": self._own,
            "recent_bits": [*self._recent_bits],
            "governor_bits": self._governor_bits,
            "record_governor_bits": self._record_governor_bits,
            "last_closed_unix_nano": self._last_closed_unix_nano,
            "interval_s": self.interval_s,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the policy that gave this state."""
        self._own = state["significance"]
        self._recent_bits.extend(state["recent_bits"])
        self._governor_bits = state["governor_bits"]
        self._record_governor_bits = state["record_governor_bits"]
        self._last_closed_unix_nano = state["last_closed_unix_nano"]
        self.interval_s = state["interval_s"]
