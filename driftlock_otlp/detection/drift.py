"""Slow drift: the baseline of now beside one of long ago.

The baseline follows its stream, so what moves slowly never stands out against it. Once a stream is warm,
its baseline is frozen as the anchor, named by its time. Every hour, and 60 windows at least, the median
evidence of the baseline's windows against the anchor is taken, claim by claim. The first day of checks
shows how far the stream swings by itself; from then on a claim drifts that lies a quarter and five bits
beyond its largest of that day in three checks running, and has come back when it did not for a whole day.

Only distributions, levels and rates are compared: the order within windows and symbols never seen before
are for single windows. The anchor stays until the stream adopts another regime or people say that the
drift is none; then the next baseline takes its place.

`python -m driftlock_otlp.evaluation.calibration.drift` measures it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftlock_otlp.detection.baseline import (
    Baseline,
    PreparedWindow,
    copy_unlearned,
    prepared_of_state,
    prepared_state,
)
from driftlock_otlp.detection.claims import Change, Claim
from driftlock_otlp.detection.compressor import Compressor

_CLAIMS = frozenset({"shift", "level", "rate"})
_CHECK_NANO = 3_600 * 10**9
_CHECK_WINDOWS = 60
_LEARNING_NANO = 86_400 * 10**9
_LEARNING_CHECKS = 24
_FEWEST_CHECKS = 12
"""Checks of the first day in which a claim must have been heard."""
_FACTOR, _EXTRA_BITS = 1.25, 5.0
_RUNNING = 3
_CALM_CHECKS = 24
"""A whole day: what drifts on top of a season stands out at one time of it alone."""

Name = tuple[str, str]
"""Column and name of a claim."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A drift that began.

    Attributes:
        claim: What drifts.
        change: How, in words.
        since_unix_nano: When the anchor was frozen.
        bits: Median evidence against it.
        bar_bits: What it had to exceed.
        check_count: Checks of which none was as large.
    """

    claim: Claim
    change: Change
    since_unix_nano: int
    bits: float
    bar_bits: float
    check_count: int


class DriftWatch:
    """Compares the baseline of one stream with its anchor.

    Args:
        compressor: For the models; order is not judged.
    """

    def __init__(self, compressor: Compressor) -> None:
        self._compressor = compressor
        self.anomaly_id = ""
        self.anchored_unix_nano = 0
        self._anchor: list[PreparedWindow] = []
        self._largest: dict[Name, tuple[float, int]] = {}
        self._check_count = 0
        self._windows_since = 0
        self._checked_unix_nano = 0
        self._beyond: dict[Name, int] = {}
        self._drifting: Name | None = None
        self._calm_checks = 0
        self._news: list[Drift | str] = []
        self._before: dict[str, Any] | None = None
        self._reference: Baseline | None = None

    @property
    def is_drifting(self) -> bool:
        """Whether a drift goes on."""
        return self._drifting is not None

    def observe(self, baseline: Baseline, closed_unix_nano: int) -> None:
        """Take notice of a usual window, and check if it is time to.

        Args:
            baseline: The stream's baseline.
            closed_unix_nano: When the window closed.
        """
        if not self._anchor:
            self._anchor = [copy_unlearned(window) for window in baseline.windows]
            self.anchored_unix_nano = self._checked_unix_nano = closed_unix_nano
            return
        self._windows_since += 1
        if self._windows_since < _CHECK_WINDOWS or closed_unix_nano - self._checked_unix_nano < _CHECK_NANO:
            return
        self._windows_since, self._checked_unix_nano = 0, closed_unix_nano
        found = self._compare(baseline)
        self._check_count += 1
        is_learning = closed_unix_nano - self.anchored_unix_nano <= _LEARNING_NANO
        if is_learning or self._check_count <= _LEARNING_CHECKS:
            for name, bits in found.items():
                largest, count = self._largest.get(name, (0.0, 0))
                self._largest[name] = max(largest, bits), count + 1
        else:
            self._judge(found, baseline)

    def take_news(self) -> list[Drift | str]:
        """Return drifts that began, and how some ended, `recovered` or `adopted`, since this was last called."""
        news, self._news = self._news, []
        return news

    def judge(self, *, is_good: bool | None) -> bool:
        """Take what people say of the last drift; return whether it ends by that.

        Args:
            is_good: True: what the stream is now is usual, and the next baseline is the anchor. False: it is
                told once more when it comes back, as it would be in any case. None: the anchor is what it
                was.
        """
        if is_good:
            was_drifting, before = self.is_drifting, self._state_of_anchor()
            self._forget()
            self.anomaly_id, self._before = before["anomaly_id"], before
            return was_drifting
        if is_good is None and self._before is not None:
            self.restore({**self._before, "before": None})
        return False

    def adopt(self) -> None:
        """Let the next baseline be the anchor: the stream is another one."""
        was_drifting = self.is_drifting
        self._forget()
        self._news = ["adopted"] if was_drifting else []

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values and arrays."""
        return {**self._state_of_anchor(), "before": self._before}

    def restore(self, state: dict[str, Any]) -> None:
        """Become the watch that gave this state."""
        self._take(state)
        self._before = state["before"]

    def _compare(self, baseline: Baseline) -> dict[Name, float]:
        """Return the median evidence of the baseline's windows against the anchor, of the claims that most had."""
        reference = self._reference_for(baseline)
        wanted = [(place, claim) for place, claim in enumerate(reference.claims) if claim.name in _CLAIMS]
        values = np.array([reference.evaluate(reference.fitted(window)).values for window in baseline.windows])
        found = {}
        for place, claim in wanted:
            heard = values[:, place][np.isfinite(values[:, place])]
            if 2 * len(heard) > len(values):
                found[claim.column, claim.name] = float(np.median(heard))
        return found

    def _judge(self, found: dict[Name, float], baseline: Baseline) -> None:
        margins = {name: bits - bar for name, bits in found.items() if (bar := self._bar(name)) is not None}
        self._beyond = {name: self._beyond.get(name, 0) + 1 for name, margin in margins.items() if margin > 0}
        lasting = [name for name, count in self._beyond.items() if count >= _RUNNING]
        if self._drifting is not None:
            self._calm_checks = 0 if self._drifting in self._beyond else self._calm_checks + 1
            if self._calm_checks >= _CALM_CHECKS:
                self._drifting = None
                self._news.append("recovered")
        elif lasting:
            self._drifting, self._calm_checks = max(lasting, key=lambda name: margins[name]), 0
            self._news.append(self._drift(self._drifting, found, baseline))

    def _drift(self, name: Name, found: dict[Name, float], baseline: Baseline) -> Drift:
        reference = self._reference_for(baseline)
        place = next(place for place, claim in enumerate(reference.claims) if (claim.column, claim.name) == name)
        windows = [reference.fitted(window) for window in baseline.windows]
        # The window in the middle is the one to show.
        bits = np.nan_to_num([reference.evaluate(window).values[place] for window in windows])
        middle = windows[int(np.argsort(bits, kind="stable")[len(bits) // 2])]
        claim = reference.claims[place]
        change = reference.change(middle, claim, "records")
        bar = self._bar(name) or 0.0
        return Drift(claim, change, self.anchored_unix_nano, found[name], bar, self._check_count)

    def _bar(self, name: Name) -> float | None:
        largest, count = self._largest.get(name, (math.nan, 0))
        return _FACTOR * largest + _EXTRA_BITS if count >= _FEWEST_CHECKS else None

    def _reference_for(self, baseline: Baseline) -> Baseline:
        """Return the anchor as a baseline with all columns that the stream has by now."""
        if self._reference is None or len(self._reference.claims) < _claim_count(baseline):
            self._reference = baseline.empty_without_order(len(self._anchor))
            for window in self._anchor:
                self._reference.learn(copy_unlearned(window))
        return self._reference

    def _forget(self) -> None:
        self.__dict__.update(DriftWatch(self._compressor).__dict__)

    def _state_of_anchor(self) -> dict[str, Any]:
        return {
            "anomaly_id": self.anomaly_id,
            "anchored_unix_nano": self.anchored_unix_nano,
            "anchor": [prepared_state(window) for window in self._anchor],
            "largest": [[*name, bits, count] for name, (bits, count) in self._largest.items()],
            "check_count": self._check_count,
            "windows_since": self._windows_since,
            "checked_unix_nano": self._checked_unix_nano,
            "beyond": [[*name, count] for name, count in self._beyond.items()],
            "drifting": None if self._drifting is None else list(self._drifting),
            "calm_checks": self._calm_checks,
        }

    def _take(self, state: dict[str, Any]) -> None:
        self.anomaly_id, self.anchored_unix_nano = state["anomaly_id"], state["anchored_unix_nano"]
        self._anchor = [prepared_of_state(window) for window in state["anchor"]]
        self._largest = {(column, name): (bits, count) for column, name, bits, count in state["largest"]}
        self._check_count, self._windows_since = state["check_count"], state["windows_since"]
        self._checked_unix_nano = state["checked_unix_nano"]
        self._beyond = {(column, name): count for column, name, count in state["beyond"]}
        self._drifting = None if state["drifting"] is None else (state["drifting"][0], state["drifting"][1])
        self._calm_checks = state["calm_checks"]
        self._reference = None


def _claim_count(baseline: Baseline) -> int:
    return sum(claim.name != "order" for claim in baseline.claims)
