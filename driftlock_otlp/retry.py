"""When to try again: exponential back-off with jitter, and a destination's own wish.

Pure: nothing here sleeps or reads a clock.

References:
    Brooker, M. (2015), "Exponential Backoff and Jitter". OTLP specification, "Failures" and
    "OTLP/HTTP Throttling"; RFC 9110, section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import math
from datetime import UTC
from email.utils import parsedate_to_datetime
from random import Random

from driftlock_otlp.config.exporters import RetryConfig

LONGEST_RETRY_AFTER_S = 3600.0
"""A longer wish is cut to this: a destination whose clock is wrong must not park the data for years."""


class Backoff:
    """The delays of one run of failures.

    Args:
        config: First and longest delay, growth, jitter, and when to give up.
        random: Source of the jitter.
    """

    def __init__(self, config: RetryConfig, random: Random) -> None:
        self._config = config
        self._random = random
        # Drawn delays reach (1 + factor) times this, which is then just the longest delay. Cutting
        # the drawn delay instead would make all senders return at the same moment.
        self._longest_interval_s = config.max_interval / (1.0 + config.randomization_factor)
        self._interval_s = 0.0
        self._first_failure_s: float | None = None
        self.reset()

    def next_delay_s(self, retry_after_s: float | None = None) -> float:
        """Return how long to wait before the next attempt, and lengthen the delay after it.

        Args:
            retry_after_s: Seconds for which the destination asked; never undercut, and jittered
                upwards only.

        Returns:
            Seconds, >= 0; at most `max_interval` unless the destination asked for more.
        """
        interval_s = self._interval_s
        spread = self._config.randomization_factor
        self._interval_s = min(interval_s * self._config.multiplier, self._longest_interval_s)
        delay_s = interval_s * self._random.uniform(1.0 - spread, 1.0 + spread)
        if retry_after_s is None:
            return delay_s
        return max(delay_s, retry_after_s + interval_s * self._random.uniform(0.0, spread))

    def is_exhausted(self, now_s: float, delay_s: float = 0.0) -> bool:
        """Return True when the data should be given up rather than tried again after a delay.

        Ask after each failure: the first question since the last `reset` starts the clock.

        Args:
            now_s: Seconds of any clock that only goes forward.
            delay_s: How long the next attempt has to wait.
        """
        if not self._config.enabled:
            return True
        if self._first_failure_s is None:
            self._first_failure_s = now_s
        longest_s = self._config.max_elapsed_time
        return longest_s > 0 and now_s + delay_s - self._first_failure_s >= longest_s

    def reset(self) -> None:
        """Begin anew, as after a success."""
        self._interval_s = min(self._config.initial_interval, self._longest_interval_s)
        self._first_failure_s = None


def parse_retry_after_s(value: str | None, now_unix_s: float) -> float | None:
    """Return the seconds that an HTTP `Retry-After` header asks for.

    Args:
        value: The header: seconds, or an HTTP date; None if there was none.
        now_unix_s: Wall clock, seconds since the Unix epoch.

    Returns:
        0 to `LONGEST_RETRY_AFTER_S`; None if there is no header, or it makes no sense.

    >>> parse_retry_after_s("120", 0.0)
    120.0
    >>> parse_retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", 50.0)
    10.0
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
            # A date without a zone is GMT, the only zone that RFC 9110 knows.
            aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            seconds = aware.timestamp() - now_unix_s
        except (ValueError, OverflowError):
            return None
    return bounded_retry_after_s(seconds)


def bounded_retry_after_s(seconds: float) -> float | None:
    """Return `seconds` within 0 and `LONGEST_RETRY_AFTER_S`; None if it is not a number."""
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)
