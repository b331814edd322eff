"""What people say of anomalies, held against the windows of one stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from driftlock_otlp.detection.baseline import Baseline
from driftlock_otlp.detection.cases import Case, Cases, Sign, beyond, remember, remember_odd
from driftlock_otlp.detection.claims import Change
from driftlock_otlp.detection.columns import Columns, Floats, Ints
from driftlock_otlp.detection.compressor import Compressor
from driftlock_otlp.detection.records import JudgedScorer, RecordScorer
from driftlock_otlp.detection.recurrences import Subject
from driftlock_otlp.detection.scores import WindowScore

SIGN_BITS = 4.0
"""Claims with fewer bits do not tell one anomaly from another."""


class Feedback:
    """Recognises what people have spoken of.

    Args:
        record_scorers: Those of the stream; they keep what concerns single records.
        compressor: Judges order and structure.
    """

    def __init__(self, record_scorers: Sequence[RecordScorer], compressor: Compressor) -> None:
        self._record_scorers = record_scorers
        # Asked once: whether an object is of a protocol takes Python 3.11 longer than what is then asked of it.
        self._judged = [scorer if isinstance(scorer, JudgedScorer) else None for scorer in record_scorers]
        self._compressor = compressor
        self.cases = Cases()

    @property
    def has_good(self) -> bool:
        """Whether people have called anything a false alarm."""
        return any(case.is_good for case in self.cases)

    def tell_scorers(self, case: Case) -> None:
        """Let the record scorers know of a new verdict, or that there is none any more."""
        # The others again: they may share a template or a value with it.
        for known in (case, *(other for other in self.cases if other.is_good is not None)):
            for scorer, odd in zip(self._judged, known.odd, strict=True):
                if scorer is not None:
                    for found in odd:
                        scorer.judge(found, is_good=known.is_good)

    def kept_rows(self, columns: Columns) -> Ints | None:
        """Return the records that people have not called good for good; int64, None if that is all."""
        kept: Ints | None = None
        for scorer in self._judged:
            aside = scorer.set_aside(columns) if scorer is not None else None
            if aside is not None:
                rows = np.flatnonzero(~aside)
                kept = rows if kept is None else np.intersect1d(kept, rows)
        return kept

    def beyond_good(self, score: WindowScore, columns: Columns, baseline: Baseline) -> Floats:
        """Return what a window's claims say beyond all that is good; float64, (d,).

        Args:
            score: Its verdict so far.
            columns: The records of it that `score.prepared` holds.
            baseline: The stream's baseline.
        """
        vector, signs, usual = score.vector, self.signs(score, baseline), baseline.windows[-1]
        for case in self.cases.judged(is_good=True):
            vector = beyond(case, columns, score.prepared, usual, score.claims, vector, signs, self._compressor)
        return vector

    def is_bad(self, score: WindowScore, baseline: Baseline) -> bool:
        """Return whether a window's strongest claim is one of an anomaly that was confirmed."""
        bad = self.cases.judged(is_good=False)
        if not bad:
            return False
        strongest = {int(score.column_bits.argmax())}
        strongest |= {i for i, found in enumerate(score.records) if found is not None and found.margins.max() >= 0.0}
        signs = {self._sign(score, baseline, index) for index in strongest}
        return any(sign in case.signs for case in bad for sign in signs)

    def remember(self, case: Case, score: WindowScore, baseline: Baseline) -> None:
        """Keep of a case what one of its windows is, if that is odd; before it is learned."""
        if score.is_fired or score.is_flagged:
            remember(case, None if score.is_sparse else score.prepared, self.signs(score, baseline))

    def remember_odd(self, case: Case, score: WindowScore) -> None:
        """Keep of a case what the record scorers found odd in one of its windows; after it was learned."""
        judged = zip(self._judged, score.records, strict=True)
        remember_odd(case, [s.odd(score.columns, e) if s is not None else None for s, e in judged])

    def signs(self, score: WindowScore, baseline: Baseline) -> dict[Sign, float]:
        """Return the raw evidence of a window's strong claims; before it is learned."""
        raw = score.vector if score.vector.size else score.column_bits
        strong = np.flatnonzero(score.column_bits >= SIGN_BITS).tolist()
        return {self._sign(score, baseline, index): float(raw[index]) for index in strong}

    def telling(self, score: WindowScore, baseline: Baseline, least_bits: float) -> list[Subject]:
        """Return what a window's claims with so many bits are about, and its strongest; before it is learned."""
        chosen = {int(score.column_bits.argmax()), *np.flatnonzero(score.column_bits >= least_bits).tolist()}
        chosen |= {i for i, found in enumerate(score.records) if found is not None and found.margins.max() >= 0.0}
        found: dict[Subject, None] = {}
        for index in sorted(chosen):
            column, name, label, direction = self._sign(score, baseline, index)
            if index < len(score.records) and score.records[index] is not None:
                column = oddest_record(self._record_scorers, score, index)[0]
            found[column or name, label, direction] = None
        return [*found]

    def _sign(self, score: WindowScore, baseline: Baseline, index: int) -> Sign:
        claim = score.claims[index]
        if index >= len(score.records):
            label = baseline.symbol_of(score.prepared, claim)
            return claim.column, claim.name, label, baseline.direction(score.prepared, claim.column, label)
        if score.records[index] is None:
            return claim.column, claim.name, "", 0
        column, change = oddest_record(self._record_scorers, score, index)
        return claim.column, claim.name, change.label, baseline.direction(score.prepared, column, change.label)


def oddest_record(scorers: Sequence[RecordScorer], score: WindowScore, index: int) -> tuple[str, Change]:
    """Return the column and the words of what a record scorer found oddest; before it is learned.

    Args:
        scorers: The stream's record scorers.
        score: The verdict.
        index: Which of them.
    """
    found = score.records[index]
    row = found.strongest if found is not None else 0
    return scorers[index].explain(score.columns, row)
