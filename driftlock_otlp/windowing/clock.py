"""A clock by which windows age, from times of arrival that a wall clock has said.

Wall clocks jump: they are set, and set back. Windows must neither stand still for as long as a clock
was ahead, nor age by what it was set back.
"""

from __future__ import annotations

_JITTER_NANO = 60 * 1_000_000_000
"""Requests that wait their turn are appended out of order; a clock that was set back is further off."""


class LogClock:
    """Goes forward with the times it is told, and stands still while they go back.

    The same times in the same order give the same clock, and it can be kept and restored.

    Args:
        now_unix_nano: What it says, 0 before the first time.
        wall_unix_nano: The latest time it was told, since the last that went back.
    """

    def __init__(self, now_unix_nano: int = 0, wall_unix_nano: int = 0) -> None:
        self.now_unix_nano = now_unix_nano
        self.wall_unix_nano = wall_unix_nano

    def advance(self, wall_unix_nano: int) -> int:
        """Take notice of a time of arrival and return what the clock says.

        >>> clock = LogClock()
        >>> minute = 60 * 10**9
        >>> [clock.advance(at * minute) // minute for at in (10, 11, 500, 12, 13, 14)]
        [10, 11, 500, 500, 501, 502]
        """
        if self.wall_unix_nano == 0:
            self.now_unix_nano = max(self.now_unix_nano, wall_unix_nano)
            self.wall_unix_nano = wall_unix_nano
        elif wall_unix_nano > self.wall_unix_nano:
            self.now_unix_nano += wall_unix_nano - self.wall_unix_nano
            self.wall_unix_nano = wall_unix_nano
        elif self.wall_unix_nano - wall_unix_nano > _JITTER_NANO:
            self.wall_unix_nano = wall_unix_nano
        return self.now_unix_nano
