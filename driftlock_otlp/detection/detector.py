"""Compression-based anomaly detection on one stream of windows.

Each window of typed columns is compared with the baseline: how many bits would it save to
have a model of its own? Evidence is calibrated by the stream's own past, and becomes a flag
(conformal p-value at most the significance level) and, when it is overwhelming or accumulates,
an alarm. `score_one` changes nothing; `learn_one` takes the verdict in.

                 baseline (last unflagged windows)
                      |
    window -> evidence per claim -> calibrated bits -> flag -> alarm -> anomaly (until calm)
                                                        |
                                     unflagged: learned, 6 windows later

Beside that, `feedback` holds windows against what people have said, `jobs` against what came before at a
steady period, and `drift` the baseline against one of long ago.

Limits: a stream that falls silent gives no windows; an anomaly that lasts becomes the new normal after
`adopt_after_windows`, unless people have confirmed it.

References:
    Keogh, Lonardi & Ratanamahatana 2004, "Towards parameter-free data mining" (compression
    as a detector). Bayarri & Berger 2004 (evidence and p-values). The alarm policy and its
    measured false-alarm rates are described in docs/detection.md.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from driftlock_otlp.detection.baseline import Baseline, PreparedWindow, log2_rate, prepared_of_state, prepared_state
from driftlock_otlp.detection.calibration import Calibration
from driftlock_otlp.detection.cases import Case, Waiting, waiting_of_state, waiting_state
from driftlock_otlp.detection.claims import Change, Claim
from driftlock_otlp.detection.columns import Columns, Floats
from driftlock_otlp.detection.compressor import Compressor
from driftlock_otlp.detection.contributions import record_bits, record_margins
from driftlock_otlp.detection.drift import DriftWatch
from driftlock_otlp.detection.feedback import Feedback, oddest_record
from driftlock_otlp.detection.history import LAG_WINDOWS, EvidenceHistory
from driftlock_otlp.detection.jobs import Jobs
from driftlock_otlp.detection.policy import CALM_BITS, IMMEDIATE_BITS, AlarmPolicy
from driftlock_otlp.detection.records import RecordScorer
from driftlock_otlp.detection.scores import DetectorSettings, WindowScore

_FEWEST_RECORDS = 3
"""A window of point series with fewer records is judged point by point alone: evidence of one or two
values has nothing to add, and speaks with every point."""
_CALM_MARGIN_BITS = -5.0
"""Below it the last points of a series are as usual, and such a window is calm."""


class StreamDetector:
    """Detector of one stream.

    Args:
        settings: What to compare with, and when to call it odd.
        compressor: Judges order and structure.
        record_scorers: Judge its records one by one; not shared with another stream.
    """

    def __init__(
        self, settings: DetectorSettings, compressor: Compressor, record_scorers: Sequence[RecordScorer] = ()
    ) -> None:
        self._settings = settings
        self._record_scorers = record_scorers
        self.baseline = Baseline(settings.baseline_windows, settings.baseline_records, compressor)
        self._history = EvidenceHistory(settings.calibration_windows, settings.warm_up_windows)
        self._policy = AlarmPolicy(settings.significance)
        self._feedback = Feedback(record_scorers, compressor)
        self._jobs = Jobs(self._feedback, settings.recovery_windows)
        self.drift = DriftWatch(compressor)
        self._pending: deque[Waiting] = deque()
        self._recent: deque[PreparedWindow] = deque(maxlen=settings.baseline_windows)
        self._is_open = False
        self._open_id = ""
        self._is_protected = False
        self._open_windows = 0
        self._calm_windows = 0
        self._sparse_to_warm: int | None = None

    @property
    def is_warm(self) -> bool:
        """Whether the stream is calibrated and may alarm."""
        return self._history.calibration is not None or self._sparse_to_warm == 0

    @property
    def windows_to_warm(self) -> int:
        """Windows that must come at least before it may alarm; 0 once it may."""
        if self.is_warm:
            return 0
        if self._sparse_to_warm is not None:
            return self._sparse_to_warm
        baseline_left = max(self._settings.baseline_windows - self.baseline.window_count, 0)
        return baseline_left + max(self._settings.warm_up_windows - self._history.total, 1)

    @property
    def has_constant_scores(self) -> bool:
        """Whether all windows of the calibration were as odd as each other: nothing in them is compared."""
        calibration = self._history.calibration
        return calibration is not None and bool(calibration.past[0] == calibration.past[-1])

    @property
    def has_open_anomaly(self) -> bool:
        """Whether an anomaly is going on."""
        return self._is_open

    @property
    def significance(self) -> float:
        """The significance in force."""
        return self._policy.significance

    def set_significance(self, significance: float | None) -> None:
        """Let a significance of the stream's own take the place of the configured one; None gives it back its place."""
        self._policy.set_significance(significance)

    def judge(self, anomaly_id: str, *, is_good: bool | None) -> bool | None:
        """Take what people say of an anomaly; in force from the next window on.

        Args:
            anomaly_id: As `learn_one` was told.
            is_good: True: a false alarm, the pattern is usual. False: confirmed, what was odd in it is never
                learned. None: neither is said any more, and all is as if it had not been.

        Returns:
            Whether it was going on and ends by that; None if it is not remembered.
        """
        if anomaly_id and anomaly_id == self.drift.anomaly_id:
            return self.drift.judge(is_good=is_good)
        case = self._feedback.cases.get(anomaly_id)
        if case is None:
            return None
        if case.is_good is False:
            self._history.let_in(case.numbers, self._claims())
            self._exchange(case)
        case.is_good = is_good
        if is_good is False:
            self._history.leave_out(case.numbers, self._claims())
            self._exchange(case)
        self._feedback.tell_scorers(case)
        if not self._is_open or anomaly_id != self._open_id:
            return False
        self._is_protected = is_good is False
        if is_good:
            self._is_open, self._calm_windows = False, 0  # nor is it protected
        return bool(is_good)

    def score_one(self, columns: Columns, closed_unix_nano: int, duration_s: float) -> WindowScore:
        """Return the verdict on a window, as things stand.

        Args:
            columns: The window.
            closed_unix_nano: Time at which it closed, on the clock that closes windows.
            duration_s: Seconds that its records span in event time, from the end of the window
                before; 0 or less if unknown.

        Raises:
            CompressorError: The compressor failed; the window cannot be scored.
        """
        if _is_sparse(columns):
            return self._score_sparse(columns, closed_unix_nano)
        kept = self._feedback.kept_rows(columns)
        compared = columns if kept is None else columns.only(kept)
        rate = log2_rate(columns.record_count, duration_s)
        if kept is not None:
            # What is set aside may have come on top of the others, or in their stead.
            rate = self.baseline.usual_rate([log2_rate(len(kept), duration_s), rate])
        prepared = self.baseline.prepare(compared, rate)
        score = WindowScore(columns, prepared, closed_unix_nano, kept_rows=kept)
        score.records = [scorer.score_one(columns) for scorer in self._record_scorers]
        if not self.baseline.is_ready:
            return score
        score.evaluation = self.baseline.evaluate(prepared)
        score.claims = self._claims()
        of_records = [math.nan if found is None else float(found.bits.max()) for found in score.records]
        score.vector = np.concatenate((of_records, score.evaluation.values))
        if self._history.calibration is not None:
            self._judge(score, compared, self._history.calibration)
        return score

    def learn_one(self, score: WindowScore, anomaly_id: str = "") -> None:
        """Take in a window that was scored just before.

        Args:
            score: Its verdict.
            anomaly_id: What the anomaly is called that begins with it, if one does.
        """
        if score.is_alarm:
            self._open_id = anomaly_id or str(score.closed_unix_nano)
            self._feedback.cases.open(self._open_id, len(self._record_scorers))
        case = self._feedback.cases.get(self._open_id) if score.is_anomalous else None
        if case is not None:
            self._feedback.remember(case, score, self.baseline)
        self._jobs.follow(score, self.baseline)
        for scorer, found in zip(self._record_scorers, score.records, strict=True):
            scorer.learn_one(score.columns, found)
        if case is not None:
            self._feedback.remember_odd(case, score)
        if not score.is_sparse:
            self._sparse_to_warm = None
            self._recent.append(score.prepared)
        if score.is_alarm:
            if not score.is_protected:
                self._policy.alarmed(is_of_records=score.is_of_records)
            self._is_open, self._open_windows, self._is_protected = True, 0, False
            # What came just before and was odd already must not be learned either.
            limit = self._policy.bar(CALM_BITS)
            self._pending = deque((w, keep and bits < limit, bits) for w, keep, bits in self._pending)
        if self._is_open:
            self._open_windows += 1
            self._is_protected |= score.is_protected
            self._calm_windows = self._calm_windows + 1 if self._is_calm(score) else 0
        if score.is_resolved:
            self._is_open, self._is_protected, self._calm_windows = False, False, 0
        if score.is_sparse:
            to_warm = [found.windows_to_warm for found in score.records if found is not None]
            self._sparse_to_warm = min(to_warm, default=self._sparse_to_warm)
            self._policy.passed(score.closed_unix_nano)
            return
        self._policy.remember(score.bits)
        if score.is_adopted:
            self._adopt()
            self.drift.adopt()
        else:
            # Of an anomaly only its first window is remembered: what keeps coming back becomes
            # usual, one long fault does not, nor what people have called bad.
            is_usual = not score.is_anomalous and not score.is_expected
            if score.vector.size and not self._is_protected and (score.is_alarm or is_usual):
                if case is not None:
                    case.numbers.append(self._history.total)
                self._history.learn(score.vector, self._claims())
            self._learn_baseline(score)
            if score.is_warm and not score.is_anomalous:
                self.drift.observe(self.baseline, score.closed_unix_nano)
        self._policy.passed(score.closed_unix_nano)

    def record_margins(self, score: WindowScore) -> Floats:
        """Return how odd each record of a window is, as bits beyond the alarm bar; float64, (n,).

        The record that contributes most gets the window's own margin, the others less by what
        they contribute. While warming up, records are ranked by their own surprise, below any
        bar.
        """
        return record_margins(score, self.baseline, self._policy.bar(IMMEDIATE_BITS))

    def record_bits(self, score: WindowScore) -> Floats:
        """Return what each record contributes to the window's oddness; float64, (n,), bits, >= 0."""
        return record_bits(score, self.baseline)

    def record_change(self, score: WindowScore, index: int) -> tuple[str, Change]:
        """Return the column and the words of what a record scorer found oddest, by the index of its claim."""
        return oddest_record(self._record_scorers, score, index)

    def usual(self, index: int) -> float:
        """Return the median of a claim's evidence over the calibration; NaN while the claim is silent."""
        calibration = self._history.calibration
        known = calibration.median if calibration is not None else np.zeros(0)
        return float(known[index]) if index < len(known) else math.nan

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values and arrays."""
        return {
            "baseline": self.baseline.state(),
            "records": [scorer.state() for scorer in self._record_scorers],
            **self._history.state(),
            **self._policy.state(),
            "cases": self._feedback.cases.state(),
            "jobs": self._jobs.state(),
            "drift": self.drift.state(),
            "pending": waiting_state(self._pending),
            "recent": [prepared_state(w) for w in self._recent],
            "open_id": self._open_id,
            "is_protected": self._is_protected,
            "is_open": self._is_open,
            "open_windows": self._open_windows,
            "calm_windows": self._calm_windows,
            "sparse_to_warm": self._sparse_to_warm,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the detector that gave this state."""
        self.baseline.restore(state["baseline"])
        for scorer, its_state in zip(self._record_scorers, state["records"], strict=True):
            scorer.restore(its_state)
        self._history.restore(state, self._claims())
        self._policy.restore(state)
        self._feedback.cases.restore(state["cases"])
        self._jobs.restore(state["jobs"])
        self.drift.restore(state["drift"])
        self._pending = deque(waiting_of_state(state["pending"]))
        self._recent.extend(prepared_of_state(w) for w in state["recent"])
        self._open_id, self._is_protected = state["open_id"], state["is_protected"]
        self._is_open = state["is_open"]
        self._open_windows, self._calm_windows = state["open_windows"], state["calm_windows"]
        self._sparse_to_warm = state["sparse_to_warm"]

    def _claims(self) -> list[Claim]:
        return [*(scorer.claim for scorer in self._record_scorers), *self.baseline.claims]

    def _judge(self, score: WindowScore, columns: Columns, calibration: Calibration) -> None:
        score.is_warm, score.past = True, calibration.past
        self._weigh(score, calibration)
        if score.is_flagged or score.is_fired:
            if self._feedback.has_good:
                score.vector = self._feedback.beyond_good(score, columns, self.baseline)
                self._weigh(score, calibration)
            self._protect(score)
        score.margin_bits = max(score.margin_bits, score.record_margin_bits)
        self._decide(score)

    def _weigh(self, score: WindowScore, calibration: Calibration) -> None:
        """Tell surprise and bars of a window by its vector."""
        known = len(calibration.median)
        score.column_bits = np.zeros(len(score.vector))
        score.column_bits[:known] = calibration.column_bits(score.vector[None, :known])[0]
        strongest = float(score.column_bits.max())
        score.bits = calibration.window_bits(strongest)
        score.p_value = calibration.p_value(strongest)
        # A conformal p-value cannot fall below 1/(n+1); while the calibration is young the tail decides.
        level = self._policy.significance
        can_rank = (1 + len(calibration.past)) * level >= 1.0
        score.is_flagged = score.p_value <= level if can_rank else score.bits >= -math.log2(level)
        score.margin_bits = score.bits - self._policy.bar(IMMEDIATE_BITS)
        of_window = self._policy.is_window_alarm(score.bits)
        score.is_of_records = not of_window and self._policy.is_record_alarm(score.record_margin_bits)
        score.is_fired = of_window or score.is_of_records

    def _protect(self, score: WindowScore) -> None:
        """Recognise what people have called bad: past alarms do not raise the bars for it."""
        score.is_protected = self._feedback.is_bad(score, self.baseline)
        if score.is_protected and not score.is_fired:
            margin_bits = score.record_margin_bits
            of_window = self._policy.is_window_alarm(score.bits, is_governed=False)
            score.is_of_records = not of_window and self._policy.is_record_alarm(margin_bits, is_governed=False)
            score.is_fired = of_window or score.is_of_records

    def _exchange(self, case: Case) -> None:
        """Go back to the baseline from before a case's regime was adopted, or to the one from after."""
        if case.exchanged is not None:
            windows, waiting = case.exchanged
            case.exchanged = self.baseline.windows, [*self._pending]
            self.baseline.replace(windows)
            self._pending = deque(waiting)

    def _score_sparse(self, columns: Columns, closed_unix_nano: int) -> WindowScore:
        """Return the verdict of the record scorers alone."""
        score = WindowScore(columns, PreparedWindow(columns.record_count, math.nan), closed_unix_nano, is_sparse=True)
        score.records = [scorer.score_one(columns) for scorer in self._record_scorers]
        score.claims = [scorer.claim for scorer in self._record_scorers]
        score.column_bits = np.array([0.0 if found is None else float(found.bits.max()) for found in score.records])
        to_warm = [found.windows_to_warm for found in score.records if found is not None]
        score.is_warm = min(to_warm) == 0 if to_warm else self._sparse_to_warm == 0
        if score.is_warm:
            score.bits = float(score.column_bits.max())
            # They are the larger of two channels, each calibrated by itself.
            score.p_value = min(2.0 ** (1.0 - score.bits), 1.0)
            score.is_flagged = score.p_value <= self._policy.significance
            score.margin_bits = score.record_margin_bits
            score.is_fired = self._policy.is_sparse_alarm(score.margin_bits)
            if score.is_fired:
                self._protect(score)
            self._decide(score)
        return score

    def _decide(self, score: WindowScore) -> None:
        """Say what becomes of a window that fires, or does not."""
        score.is_alarm = score.is_fired and not self._is_open
        if score.is_alarm and not score.is_protected:
            self._jobs.expect(score, self.baseline, self._policy.interval_s)
            score.is_alarm = not score.is_expected
        if self._is_open:
            calm = self._calm_windows + 1 if self._is_calm(score) else 0
            is_long = self._open_windows + 1 >= self._settings.adopt_after_windows
            score.is_adopted = is_long and not (self._is_protected or score.is_protected)
            score.is_resolved = score.is_adopted or calm >= self._settings.recovery_windows
        score.is_anomalous = ((score.is_fired and not score.is_expected) or self._is_open) and not score.is_resolved

    def _is_calm(self, score: WindowScore) -> bool:
        if score.is_sparse:
            return score.margin_bits < _CALM_MARGIN_BITS
        return not score.is_fired and score.bits < self._policy.bar(CALM_BITS)

    def _learn_baseline(self, score: WindowScore) -> None:
        if not self.baseline.is_ready:
            self.baseline.learn(score.prepared)
            return
        keep = not (score.is_flagged or score.is_anomalous or score.is_expected)
        self._pending.append((score.prepared, keep, score.bits))
        while len(self._pending) > LAG_WINDOWS:
            window, keep, _ = self._pending.popleft()
            if keep:
                self.baseline.learn(window)

    def _adopt(self) -> None:
        """Make the last windows of the anomaly the new baseline."""
        for known in self._feedback.cases:
            if known.is_good is None:
                known.exchanged = None  # one baseline to go back to is enough
        case = self._feedback.cases.get(self._open_id)
        if case is not None:
            case.exchanged = self.baseline.windows, [*self._pending]
        self._pending.clear()
        self.baseline.clear()
        for window in self._recent:
            self.baseline.learn(window)


def _is_sparse(columns: Columns) -> bool:
    return columns.record_count < _FEWEST_RECORDS and any(number.is_point_series for number in columns.numbers.values())
