"""What a detector is told, and what it says of a window."""

from __future__ import annotations

import hashlib
import math
from dataclasses import astuple, dataclass, field

import numpy as np

from driftlock_otlp.detection.baseline import Evaluation, PreparedWindow
from driftlock_otlp.detection.claims import Claim, Sizes
from driftlock_otlp.detection.columns import Columns, Floats, Ints
from driftlock_otlp.detection.compressor import Compressor
from driftlock_otlp.detection.records import RecordEvidence
from driftlock_otlp.detection.recurrences import Recurrence

ALGORITHM = "cbad-6"
"""Part of the fingerprint; changes whenever scores change."""


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
        is_expected: It fires, and is a job that runs again.
        recurrence: How often what fires came at a steady period; None if it did not.
        is_protected: People have called one like it bad: it is not learned.
        kept_rows: int64, (m,): the records that `prepared` holds; None for all. The others are good by what
            people said.
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
    is_expected: bool = False
    recurrence: Recurrence | None = None
    is_protected: bool = False
    kept_rows: Ints | None = None
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
