"""Jobs: the same oddness at a steady period is expected, and stops being an alarm.

Each anomaly is remembered by its subjects, the columns and symbols of its strong claims, with the time at
which it began. A window that fires now, and whose strongest claim also began something one, two, three or
four periods ago, three times at least, is a job that runs again. The period is whatever the times show, from
half an hour on: hourly, daily, weekly. The same subject at another time, another one at that time, and a run
that lasts half as long again as the longest one are alarms as before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

RECURRENCES = 3
"""Runs of a job that are alarms; the next one at the same period is none."""
_LOOK_BACK = RECURRENCES + 1
"""Periods among which they are looked for: a job may be left out once."""
_LEAST_PERIOD_S = 1_500.0
"""25 minutes: what comes back faster is a stream that flaps."""
_TOLERANCE = 1.0 / 60.0
"""Of the period: a minute for an hourly job, 24 minutes for a daily one."""
_LEAST_TOLERANCE_WINDOWS = 2.0
_MOST_OF_PERIOD = 0.25
"""Part of a period in which something may come again and again: what comes all the time is no job."""
_LONGER = 1.5
_MOST_SIGNS = 256
_MOST_TIMES = 32
_HOUR_S, _DAY_S = 3_600.0, 86_400.0

Subject = tuple[str, str, int]
"""What a claim is about: column, symbol, and whether its values are larger (1) or smaller (-1) than usual."""


@dataclass(frozen=True, slots=True)
class Recurrence:
    """How often a subject has come at a period.

    Attributes:
        period_s: The period, seconds.
        count: Times that it came.
    """

    period_s: float
    count: int

    def told(self, now_s: float) -> str:
        """Return it in words.

        >>> Recurrence(86_400.0, 3).told(7_500.0)
        'seen at about 02:05 UTC on the last 3 days'
        """
        at = datetime.fromtimestamp(now_s, UTC)
        if abs(self.period_s - _DAY_S) <= _TOLERANCE * _DAY_S:
            return f"seen at about {at:%H:%M} UTC on the last {self.count} days"
        if abs(self.period_s - _HOUR_S) <= _TOLERANCE * _HOUR_S:
            return f"seen at about minute {at:%M} of the last {self.count} hours"
        return f"seen {self.count} times at a distance of about {self.period_s / _HOUR_S:.3g} hours"


class Recurrences:
    """When the anomalies of one stream began, by their subjects."""

    def __init__(self) -> None:
        self._times: OrderedDict[Subject, list[float]] = OrderedDict()
        self._longest_s: dict[Subject, float] = {}
        self._began_s = 0.0
        self._running: list[Subject] = []

    def find(self, subjects: Sequence[Subject], now_s: float, interval_s: float) -> Recurrence | None:
        """Return how often all of some subjects came at one period; None if one of them did not come twice.

        Args:
            subjects: Of a window that fires.
            now_s: When it closed, seconds.
            interval_s: Usual seconds between windows; NaN if unknown.
        """
        found: Recurrence | None = None
        for subject in subjects:
            of_subject = self._find(self._times.get(subject, []), now_s, interval_s)
            if of_subject is None:
                return None
            if found is None or of_subject.count < found.count:
                found = of_subject
        return found

    def is_overdue(self, subjects: Sequence[Subject], now_s: float, interval_s: float) -> bool:
        """Return whether the run that goes on is longer than it may be, or is another one."""
        longest = max((self._longest_s.get(subject, 0.0) for subject in subjects), default=0.0)
        slack = _LEAST_TOLERANCE_WINDOWS * (interval_s if interval_s > 0 else 0.0)
        is_same = all(
            subject in self._running or self._count(subject, self._began_s, interval_s) >= RECURRENCES
            for subject in subjects
        )
        return not is_same or now_s - self._began_s > _LONGER * longest + slack

    def _count(self, subject: Subject, now_s: float, interval_s: float) -> int:
        found = self._find(self._times.get(subject, []), now_s, interval_s)
        return 0 if found is None else found.count

    @property
    def is_running(self) -> bool:
        """Whether something that was expected goes on."""
        return bool(self._running)

    def begin(self, subjects: Sequence[Subject], now_s: float, *, is_expected: bool) -> None:
        """Take notice that something began.

        Args:
            subjects: Its subjects.
            now_s: When, seconds.
            is_expected: Whether it is a job.
        """
        self._began_s = now_s
        self.go_on(subjects)
        self._running = [*subjects] if is_expected else []

    def go_on(self, subjects: Sequence[Subject]) -> None:
        """Take notice of subjects of what goes on: they began with it."""
        for subject in subjects:
            times = self._times.setdefault(subject, [])
            self._times.move_to_end(subject)
            if not times or times[-1] != self._began_s:
                times.append(self._began_s)
                del times[:-_MOST_TIMES]
        while len(self._times) > _MOST_SIGNS:
            gone, _ = self._times.popitem(last=False)
            self._longest_s.pop(gone, None)

    def end(self, now_s: float) -> None:
        """Take notice that what began is over."""
        for subject, times in self._times.items():
            if times[-1] == self._began_s:
                self._longest_s[subject] = max(self._longest_s.get(subject, 0.0), now_s - self._began_s)
        self._running = []

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values."""
        return {
            "times": [[*subject, times, self._longest_s.get(subject, 0.0)] for subject, times in self._times.items()],
            "began_s": self._began_s,
            "running": [list(subject) for subject in self._running],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the recurrences that gave this state."""
        self._times = OrderedDict((tuple(subject), list(times)) for *subject, times, _ in state["times"])
        self._longest_s = {tuple(subject): longest for *subject, _, longest in state["times"] if longest}
        self._began_s = state["began_s"]
        self._running = [tuple(subject) for subject in state["running"]]

    @staticmethod
    def _find(times: list[float], now_s: float, interval_s: float) -> Recurrence | None:
        best: Recurrence | None = None
        least_s = _LEAST_TOLERANCE_WINDOWS * (interval_s if interval_s > 0 else 0.0)
        for time in reversed(times):
            # Also of a period of which the last run was left out.
            for periods in (1, 2):
                period_s = (now_s - time) / periods
                if period_s < _LEAST_PERIOD_S:
                    continue
                allowed_s = max(_TOLERANCE * period_s, least_s)
                count = sum(
                    any(abs(now_s - back * period_s - other) <= allowed_s for other in times)
                    for back in range(1, _LOOK_BACK + 1)
                )
                recent = [other for other in times if now_s - other <= _LOOK_BACK * period_s + allowed_s]
                is_new = count >= RECURRENCES - 1 and (best is None or count > best.count)
                if is_new and _longest_bout_s(recent) <= _MOST_OF_PERIOD * period_s:
                    best = Recurrence(period_s, count)
        return best


def _longest_bout_s(times: list[float]) -> float:
    """Return the longest time for which something, once it had come, was never long away."""
    longest, began = 0.0, times[0]
    for before, after in pairwise(times):
        if after - before >= _LEAST_PERIOD_S:
            began = after
        longest = max(longest, after - began)
    return longest
