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

Limits: a drift slower than the baseline's life is absorbed by it; a stream that falls silent
gives no windows; an anomaly that lasts becomes the new normal after `adopt_after_windows`.

References:
    Keogh, Lonardi & Ratanamahatana 2004, "Towards parameter-free data mining" (compression
    as a detector). Bayarri & Berger 2004 (evidence and p-values). The alarm policy and its
    measured false-alarm rates are described in docs/detection.md.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np

from driftlock_otlp.detection.baseline import (
    Baseline,
    Evaluation,
    PreparedWindow,
    log2_rate,
    prepared_of_state,
    prepared_state,
)
from driftlock_otlp.detection.calibration import Calibration
from driftlock_otlp.detection.claims import Change, Claim, Sizes
from driftlock_otlp.detection.columns import Columns, Floats
from driftlock_otlp.detection.compressor import Compressor
from driftlock_otlp.detection.records import RecordEvidence, RecordScorer

ALGORITHM = "cbad-4"
"""Part of the fingerprint; changes whenever scores change."""

LAG_WINDOWS = 6
"""Windows between a verdict and learning: a short fault is judged before it could be learned."""
_REFIT_WINDOWS = 20
_YOUNG_WINDOWS = 200
"""Until the history is this long the calibration is refitted with every window."""
_SHORT_WINDOWS = 60
"""Until the history is this long the latest windows calibrate, too: there are none to spare."""
_IMMEDIATE_BITS = 4.36
"""Beyond -log2(significance): one window alone is an alarm (11 bits at 0.01)."""
_REPEATED_BITS = 2.36
"""Beyond -log2(significance): this window and one of the three before it (9 bits at 0.01)."""
_CALM_BITS = -1.64
"""Beyond -log2(significance): below it a window is calm (5 bits at 0.01)."""
_REPEAT_WINDOWS = 3
_FEWEST_RECORDS = 3
"""A window of point series with fewer records is judged point by point alone: evidence of one or two
values has nothing to add, and speaks with every point."""
_CALM_MARGIN_BITS = -5.0
"""Below it the last points of a series are as usual, and such a window is calm."""
_GOVERNOR_BITS = 1.0
"""Each alarm raises the bars by this much; it wears off within a day or so."""
_RECORD_GOVERNOR_BITS = 3.0
"""The same for an alarm of records alone, which raises the bar of records alone: their tails are
heavier, and a scorer that cries often must not make the stream's windows unheard."""
_DAY_S = 86_400.0
_CALM_WINDOWS_PER_DAY = 8_640.0
"""One window per ten seconds: the pace for which the bars give one false alarm a day."""


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """What of the configuration changes scores.

    Attributes:
        significance: Conformal p-value at or below which a window is flagged.
        warm_up_windows: Scored windows before alarms are possible.
        calibration_windows: Scored windows remembered for calibration.
        baseline_windows: Windows in the baseline, at least.
        baseline_records: Records in the baseline, at least.
        recovery_windows: Calm windows that end an anomaly.
        adopt_after_windows: Windows of an anomaly after which its regime becomes the baseline.
    """

    significance: float = 0.01
    warm_up_windows: int = 20
    calibration_windows: int = 2000
    baseline_windows: int = 12
    baseline_records: int = 600
    recovery_windows: int = 3
    adopt_after_windows: int = 60


def fingerprint(settings: DetectorSettings, compressor: Compressor) -> str:
    """Return the identity of a detector: equal fingerprints give equal scores; 16 hex digits."""
    text = repr((ALGORITHM, compressor.fingerprint, astuple(settings)))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(slots=True)
class WindowScore:
    """The verdict on one window, with everything that led to it.

    Attributes:
        is_warm: Whether the stream is calibrated; before, nothing is flagged.
        bits: Calibrated surprise of the window, bits.
        p_value: Conformal p-value, (0, 1]; 1 while warming up.
        margin_bits: Bits beyond the bar of an immediate alarm; negative below it.
        is_flagged: p_value at or below the significance level, or as many bits as that says.
        is_alarm: This window raises an alarm.
        is_anomalous: It belongs to an anomaly, as the first window or a later one.
        is_resolved: With this window a running anomaly ends.
        is_adopted: It ends since its regime becomes the new baseline.
        columns: The window.
        column_bits: Calibrated surprise of each claim, float64, (d,).
        claims: The claims, (d,).
        vector: Raw evidence of each claim, float64, (d,); NaN where it does not apply.
        evaluation: Raw evidence and facts; None before the baseline is ready.
        prepared: The window in the baseline's form.
        is_of_records: It fires by single records alone; as a whole the window would not.
        is_sparse: Judged record by record alone: the window holds too little to compare.
        records: Evidence record by record, one entry for each of the stream's record scorers, whose
            claims come first.
        past: Surprise of the strongest claim in each window of the calibration, ascending, float64: what
            the p-value ranks this window among; None where it is not a rank.
    """

    columns: Columns
    prepared: PreparedWindow
    closed_unix_nano: int
    is_warm: bool = False
    bits: float = 0.0
    p_value: float = 1.0
    margin_bits: float = -math.inf
    is_fired: bool = False
    is_flagged: bool = False
    is_alarm: bool = False
    is_anomalous: bool = False
    is_resolved: bool = False
    is_adopted: bool = False
    column_bits: Floats = field(default_factory=lambda: np.zeros(0))
    claims: list[Claim] = field(default_factory=list)
    vector: Floats = field(default_factory=lambda: np.zeros(0))
    evaluation: Evaluation | None = None
    is_sparse: bool = False
    is_of_records: bool = False
    records: list[RecordEvidence | None] = field(default_factory=list)
    past: Floats | None = None

    @property
    def score(self) -> float:
        """Oddness in [0, 1]: 0 while warming up, 0.5 at the bar of an immediate alarm."""
        return to_score(self.margin_bits)

    @property
    def record_margin_bits(self) -> float:
        """Largest margin of any record; -inf where no record scorer says anything."""
        return max((float(found.margins.max()) for found in self.records if found is not None), default=-math.inf)

    @property
    def sizes(self) -> Sizes:
        """Compressed sizes over all columns."""
        return self.evaluation.sizes if self.evaluation else Sizes()


def to_score(margin_bits: float) -> float:
    """Map bits beyond the bar to [0, 1].

    >>> to_score(0.0), round(to_score(-11.0), 3)
    (0.5, 0.022)
    """
    return 0.0 if margin_bits == -math.inf else 1.0 / (1.0 + 2.0 ** min(-margin_bits / 2.0, 1000.0))


ALARM_SCORE = to_score(0.0)
"""Score at the bar of an alarm: the threshold that is fixed beforehand."""


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
        # Longer than the calibration looks back, so that the last fit can be done again.
        self._history: deque[Floats] = deque(maxlen=settings.calibration_windows + LAG_WINDOWS + _REFIT_WINDOWS)
        self._history_total = 0
        self._calibration: Calibration | None = None
        self._calibrated_on = (0, 0, 0)
        self._since_refit = 0
        self._pending: deque[tuple[PreparedWindow, bool, float]] = deque()
        self._recent: deque[PreparedWindow] = deque(maxlen=settings.baseline_windows)
        self._recent_bits: deque[float] = deque(maxlen=_REPEAT_WINDOWS)
        self._governor_bits = 0.0
        self._record_governor_bits = 0.0
        self._last_closed_unix_nano = 0
        self._interval_s = math.nan
        self._is_open = False
        self._open_windows = 0
        self._calm_windows = 0
        self._sparse_to_warm: int | None = None

    @property
    def is_warm(self) -> bool:
        """Whether the stream is calibrated and may alarm."""
        return self._calibration is not None or self._sparse_to_warm == 0

    @property
    def windows_to_warm(self) -> int:
        """Windows that must come at least before it may alarm; 0 once it may."""
        if self.is_warm:
            return 0
        if self._sparse_to_warm is not None:
            return self._sparse_to_warm
        baseline_left = max(self._settings.baseline_windows - self.baseline.window_count, 0)
        return baseline_left + max(self._settings.warm_up_windows - self._history_total, 1)

    @property
    def has_constant_scores(self) -> bool:
        """Whether all windows of the calibration were as odd as each other: nothing in them is compared."""
        return self._calibration is not None and bool(self._calibration.past[0] == self._calibration.past[-1])

    @property
    def has_open_anomaly(self) -> bool:
        """Whether an anomaly is going on."""
        return self._is_open

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
        prepared = self.baseline.prepare(columns, log2_rate(columns.record_count, duration_s))
        score = WindowScore(columns, prepared, closed_unix_nano)
        score.records = [scorer.score_one(columns) for scorer in self._record_scorers]
        if not self.baseline.is_ready:
            return score
        score.evaluation = self.baseline.evaluate(prepared)
        score.claims = self._claims()
        of_records = [math.nan if found is None else float(found.bits.max()) for found in score.records]
        score.vector = np.concatenate((of_records, score.evaluation.values))
        if self._calibration is None:
            return score
        self._judge(score, self._calibration)
        return score

    def learn_one(self, score: WindowScore) -> None:
        """Take in a window that was scored just before."""
        for scorer, found in zip(self._record_scorers, score.records, strict=True):
            scorer.learn_one(score.columns, found)
        if not score.is_sparse:
            self._sparse_to_warm = None
            self._recent.append(score.prepared)
        if score.is_alarm:
            if score.is_of_records:
                self._record_governor_bits += _RECORD_GOVERNOR_BITS
            else:
                self._governor_bits += _GOVERNOR_BITS
            self._is_open, self._open_windows = True, 0
            # What came just before and was odd already must not be learned either.
            limit = self._bar(_CALM_BITS)
            self._pending = deque((w, keep and bits < limit, bits) for w, keep, bits in self._pending)
        if self._is_open:
            self._open_windows += 1
            self._calm_windows = self._calm_windows + 1 if self._is_calm(score) else 0
        if score.is_resolved:
            self._is_open, self._calm_windows = False, 0
        if score.is_sparse:
            to_warm = [found.windows_to_warm for found in score.records if found is not None]
            self._sparse_to_warm = min(to_warm, default=self._sparse_to_warm)
            self._pace(score.closed_unix_nano)
            return
        self._recent_bits.append(score.bits)
        if score.is_adopted:
            self._adopt()
        else:
            # Of an anomaly only its first window is remembered: what keeps coming back becomes
            # usual, one long fault does not.
            if score.vector.size and (score.is_alarm or not score.is_anomalous):
                self._history.append(score.vector)
                self._history_total += 1
                self._refit()
            self._learn_baseline(score)
        self._pace(score.closed_unix_nano)

    def record_margins(self, score: WindowScore) -> Floats:
        """Return how odd each record of a window is, as bits beyond the alarm bar; float64, (n,).

        The record that contributes most gets the window's own margin, the others less by what
        they contribute. While warming up, records are ranked by their own surprise, below any
        bar.
        """
        n = score.columns.record_count
        bar = self._bar(_IMMEDIATE_BITS)
        saved = self.record_bits(score)
        top = float(saved.max()) if n else 0.0
        if score.is_sparse:
            margins = np.full(n, -np.inf)
        elif score.is_warm:
            share = saved / top if top > 0 else np.ones(n)
            margins = score.bits * share - bar
        elif score.evaluation is not None:
            # Raw bits are not calibrated ones; a quarter of them is about what they turn out to be.
            margins = np.minimum(0.25 * saved - bar, -1.0)
        else:
            margins = np.full(n, -np.inf)
        for found in score.records:
            if found is not None:
                margins = np.maximum(margins, np.minimum(found.margins, math.inf if score.is_warm else -1.0))
        result: Floats = margins
        return result

    def record_bits(self, score: WindowScore) -> Floats:
        """Return what each record contributes to the window's oddness; float64, (n,), bits, >= 0."""
        weights: dict[str, float] = {}
        if score.evaluation is None:
            pass
        elif score.is_warm:
            top = float(score.column_bits.max())
            for claim, bits in zip(score.claims, score.column_bits, strict=True):
                if claim.column and claim.name != "rate" and bits > 0.25 * top:
                    weights[claim.column] = max(weights.get(claim.column, 0.0), float(bits / max(top, 1e-9)))
        else:
            weights = {claim.column: 1.0 for claim in score.claims if claim.column and claim.name != "rate"}
        saved = self.baseline.record_bits(score.prepared, weights)
        for found in score.records:
            if found is not None:
                saved = np.maximum(saved, found.bits)
        return saved

    def record_change(self, score: WindowScore, index: int) -> tuple[str, Change]:
        """Return the column and the words of what a record scorer found oddest, by the index of its claim."""
        found = score.records[index]
        row = found.strongest if found is not None else 0
        return self._record_scorers[index].explain(score.columns, row)

    def usual(self, index: int) -> float:
        """Return the median of a claim's evidence over the calibration; NaN while the claim is silent."""
        known = self._calibration.median if self._calibration is not None else np.zeros(0)
        return float(known[index]) if index < len(known) else math.nan

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values and arrays."""
        return {
            "baseline": self.baseline.state(),
            "records": [scorer.state() for scorer in self._record_scorers],
            "history": [*self._history],
            "history_total": self._history_total,
            "since_refit": self._since_refit,
            "calibrated_on": None if self._calibration is None else list(self._calibrated_on),
            "pending": [[prepared_state(w), keep, bits] for w, keep, bits in self._pending],
            "recent": [prepared_state(w) for w in self._recent],
            "recent_bits": [*self._recent_bits],
            "governor_bits": self._governor_bits,
            "record_governor_bits": self._record_governor_bits,
            "last_closed_unix_nano": self._last_closed_unix_nano,
            "interval_s": self._interval_s,
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
        self._history.extend(state["history"])
        self._history_total = state["history_total"]
        self._since_refit = state["since_refit"]
        if state["calibrated_on"] is not None:
            self._fit(*state["calibrated_on"])
        self._pending = deque((prepared_of_state(w), keep, bits) for w, keep, bits in state["pending"])
        self._recent.extend(prepared_of_state(w) for w in state["recent"])
        self._recent_bits.extend(state["recent_bits"])
        self._governor_bits = state["governor_bits"]
        self._record_governor_bits = state["record_governor_bits"]
        self._last_closed_unix_nano = state["last_closed_unix_nano"]
        self._interval_s = state["interval_s"]
        self._is_open = state["is_open"]
        self._open_windows, self._calm_windows = state["open_windows"], state["calm_windows"]
        self._sparse_to_warm = state["sparse_to_warm"]

    def _claims(self) -> list[Claim]:
        return [*(scorer.claim for scorer in self._record_scorers), *self.baseline.claims]

    def _judge(self, score: WindowScore, calibration: Calibration) -> None:
        known = len(calibration.median)
        score.is_warm = True
        score.column_bits = np.zeros(len(score.vector))
        score.column_bits[:known] = calibration.column_bits(score.vector[None, :known])[0]
        strongest = float(score.column_bits.max())
        score.bits = calibration.window_bits(strongest)
        score.p_value = calibration.p_value(strongest)
        score.past = calibration.past
        # A conformal p-value cannot fall below 1/(n+1); while the calibration is young the tail decides.
        level = self._settings.significance
        can_rank = (1 + len(calibration.past)) * level >= 1.0
        score.is_flagged = score.p_value <= level if can_rank else score.bits >= -math.log2(level)
        score.margin_bits = score.bits - self._bar(_IMMEDIATE_BITS)
        of_window = score.margin_bits >= self._governor_bits or self._is_repeated(score.bits)
        score.is_of_records = not of_window and score.record_margin_bits >= self._record_governor_bits
        score.is_fired = of_window or score.is_of_records
        score.margin_bits = max(score.margin_bits, score.record_margin_bits)
        self._decide(score)

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
            score.is_flagged = score.p_value <= self._settings.significance
            score.margin_bits = score.record_margin_bits
            score.is_fired = score.margin_bits >= self._governor_bits
            self._decide(score)
        return score

    def _decide(self, score: WindowScore) -> None:
        """Say what becomes of a window that fires, or does not."""
        score.is_alarm = score.is_fired and not self._is_open
        if self._is_open:
            calm = self._calm_windows + 1 if self._is_calm(score) else 0
            score.is_adopted = self._open_windows + 1 >= self._settings.adopt_after_windows
            score.is_resolved = score.is_adopted or calm >= self._settings.recovery_windows
        score.is_anomalous = (score.is_fired or self._is_open) and not score.is_resolved

    def _is_repeated(self, bits: float) -> bool:
        bar = self._bar(_REPEATED_BITS) + self._governor_bits
        return bits >= bar and any(past >= bar for past in self._recent_bits)

    def _is_calm(self, score: WindowScore) -> bool:
        if score.is_sparse:
            return score.margin_bits < _CALM_MARGIN_BITS
        return not score.is_fired and score.bits < self._bar(_CALM_BITS)

    def _bar(self, beyond_bits: float) -> float:
        """Return a bar in bits, raised for streams with more windows a day than one in ten seconds."""
        pace = 0.0
        if self._interval_s > 0:
            # Half of log2: windows that follow each other fast are far from independent.
            pace = 0.5 * max(0.0, math.log2(_DAY_S / self._interval_s / _CALM_WINDOWS_PER_DAY))
        # A coarse significance must not leave a calm bar that no window can stay below.
        return max(-math.log2(self._settings.significance) + beyond_bits + pace, 1.0)

    def _pace(self, closed_unix_nano: int) -> None:
        if self._last_closed_unix_nano:
            elapsed_s = max(closed_unix_nano - self._last_closed_unix_nano, 0) / 1e9
            self._governor_bits *= math.exp(-elapsed_s / _DAY_S)
            self._record_governor_bits *= math.exp(-elapsed_s / _DAY_S)
            if math.isnan(self._interval_s):
                self._interval_s = elapsed_s
            self._interval_s += 0.02 * (elapsed_s - self._interval_s)
        self._last_closed_unix_nano = closed_unix_nano

    def _learn_baseline(self, score: WindowScore) -> None:
        if not self.baseline.is_ready:
            self.baseline.learn(score.prepared)
            return
        self._pending.append((score.prepared, not score.is_flagged and not score.is_anomalous, score.bits))
        while len(self._pending) > LAG_WINDOWS:
            window, keep, _ = self._pending.popleft()
            if keep:
                self.baseline.learn(window)

    def _refit(self) -> None:
        # A young stream has no window to spare; an old one does not measure a fault by its own beginning.
        last = self._history_total - LAG_WINDOWS
        if last < max(_SHORT_WINDOWS, self._settings.warm_up_windows):
            last = self._history_total
        first = max(0, last - self._settings.calibration_windows)
        if last < self._settings.warm_up_windows:
            return
        self._since_refit += 1
        if self._calibration is None or last < _YOUNG_WINDOWS or self._since_refit >= _REFIT_WINDOWS:
            self._fit(first, last, len(self._claims()))
            self._since_refit = 0

    def _fit(self, first: int, last: int, width: int) -> None:
        """Calibrate on the evidence vectors numbered `first` to `last`, over `width` claims."""
        start = self._history_total - len(self._history)
        rows = [*self._history][first - start : last - start]
        history = np.full((len(rows), width), np.nan)
        for i, row in enumerate(rows):
            known = min(len(row), width)
            history[i, :known] = row[:known]
        claims = self._claims()[:width]
        self._calibration = Calibration(
            history,
            np.array([claim.unit for claim in claims]),
            np.array([claim.shape for claim in claims]),
            fewest=self._settings.warm_up_windows,
        )
        self._calibrated_on = (first, last, width)

    def _adopt(self) -> None:
        """Make the last windows of the anomaly the new baseline."""
        self._pending.clear()
        self.baseline.clear()
        for window in self._recent:
            self.baseline.learn(window)


def _is_sparse(columns: Columns) -> bool:
    return columns.record_count < _FEWEST_RECORDS and any(number.is_point_series for number in columns.numbers.values())
