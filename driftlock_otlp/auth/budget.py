"""Budgets: how much a sender may send per second, as token buckets.

References:
    Turner, J. (1986), "New directions in communications" (the leaky bucket as a meter).
"""

from __future__ import annotations

from collections.abc import Callable


class TokenBucket:
    """Admits at most `rate` × t + `rate` × `burst_s` within any t seconds, up to one request's overdraft.

    A request larger than the bucket passes when the bucket is full and leaves it in debt;
    otherwise it could never pass.

    Args:
        rate: Units per second, > 0.
        burst_s: What this many seconds allow may be sent at once.
        clock_s: Seconds of any clock that only goes forward.
    """

    def __init__(self, rate: float, burst_s: float, clock_s: Callable[[], float]) -> None:
        self.rate = rate
        # A burst below one unit would let nothing pass but in debt.
        self.capacity = max(rate * burst_s, 1.0)
        self._clock_s = clock_s
        self._level = self.capacity
        self._filled_s = clock_s()

    def wait_s(self, amount: float) -> float:
        """Return seconds until `amount` may be taken; 0 if it may be now."""
        self._fill()
        missing = min(amount, self.capacity) - self._level
        return max(missing / self.rate, 0.0)

    def take(self, amount: float) -> None:
        """Take `amount`; the caller has asked `wait_s`."""
        self._fill()
        self._level -= amount

    @property
    def remaining(self) -> int:
        """Whole units that may be taken now, ≥ 0."""
        self._fill()
        return max(int(self._level), 0)

    @property
    def full_in_s(self) -> float:
        """Seconds until the bucket is full again."""
        self._fill()
        return (self.capacity - self._level) / self.rate

    def _fill(self) -> None:
        now_s = self._clock_s()
        self._level = min(self._level + (now_s - self._filled_s) * self.rate, self.capacity)
        self._filled_s = now_s
