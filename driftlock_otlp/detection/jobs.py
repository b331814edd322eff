"""Which windows of a stream are jobs that run again, as its detector goes on."""

from __future__ import annotations

import math
from typing import Any

from driftlock_otlp.detection.baseline import Baseline
from driftlock_otlp.detection.feedback import SIGN_BITS, Feedback
from driftlock_otlp.detection.recurrences import RECURRENCES, Recurrences
from driftlock_otlp.detection.scores import WindowScore


class Jobs:
    """Follows the anomalies and jobs of one stream.

    Args:
        feedback: Tells what windows are about.
        recovery_windows: Calm windows after which a job is over.
    """

    def __init__(self, feedback: Feedback, recovery_windows: int) -> None:
        self._feedback = feedback
        self._recovery_windows = recovery_windows
        self._recurrences = Recurrences()
        self._calm_windows = 0

    def expect(self, score: WindowScore, baseline: Baseline, interval_s: float) -> None:
        """Say whether a window that fires is a job, in its verdict.

        Args:
            score: The verdict.
            baseline: The stream's baseline.
            interval_s: Usual seconds between windows; NaN if unknown.
        """
        now_s = score.closed_unix_nano / 1e9
        # Which weaker claims come with it is chance.
        subjects = self._feedback.telling(score, baseline, math.inf)
        if self._recurrences.is_running:
            score.is_expected = not self._recurrences.is_overdue(subjects, now_s, interval_s)
        else:
            score.recurrence = self._recurrences.find(subjects, now_s, interval_s)
            score.is_expected = score.recurrence is not None and score.recurrence.count >= RECURRENCES

    def follow(self, score: WindowScore, baseline: Baseline) -> None:
        """Remember when an anomaly or a job began, what it showed, and when it was over; before it is learned."""
        now_s = score.closed_unix_nano / 1e9
        if score.is_anomalous or score.is_expected:
            if score.is_fired:
                subjects = self._feedback.telling(score, baseline, SIGN_BITS)
                if score.is_alarm or (score.is_expected and not self._recurrences.is_running):
                    self._recurrences.begin(subjects, now_s, is_expected=score.is_expected)
                else:
                    self._recurrences.go_on(subjects)
            self._calm_windows = 0
        elif self._recurrences.is_running:
            self._calm_windows += 1
        if score.is_resolved or self._calm_windows >= self._recovery_windows:
            self._recurrences.end(now_s)
            self._calm_windows = 0

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values."""
        return {"recurrences": self._recurrences.state(), "calm_windows": self._calm_windows}

    def restore(self, state: dict[str, Any]) -> None:
        """Become the jobs that gave this state."""
        self._recurrences.restore(state["recurrences"])
        self._calm_windows = state["calm_windows"]
