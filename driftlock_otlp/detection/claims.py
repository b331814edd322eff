"""Claims: the kinds of evidence that a column can give, and what a window's evidence is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from driftlock_otlp.detection.columns import Floats

BITS_UNIT = 3.0
"""Three bits are little evidence: the prior scale of a tail over evidence in bits."""
LIGHT_SHAPE = 0.2
"""Tail of evidence that is itself a code length, which a usual window gives little of."""
NORMAL_SHAPE = 0.1
"""Tail of how far one group has moved beyond all others: near that of a normal value, told in bits."""
BURSTY_SHAPE = 0.8
"""Tail of what many groups do at once: a slow neighbour, a pause and a queue come seldom and in any size."""
HEAVY_SHAPE = 0.5
"""Tail of evidence of which nothing better is known."""
_FREEDOM = 100.0


@dataclass(frozen=True, slots=True)
class Claim:
    """One way in which a column of a window may differ from the baseline.

    Attributes:
        column: Name of the column.
        name: `shift` (symbols or values are distributed otherwise), `novelty` (a never-seen
            symbol arrives at a rate of its own), `order` (the compressor needs more
            bits a record than before), `level` (the median moved, or one group's mean beyond
            what all did), `common` (all groups moved together), `point` (a value unlike any
            seen), `rate` (records per second).
        kind: What it tells people: `pattern`, `volume`, `value` or `sequence`.
        unit: Prior scale of its tail.
        shape: Generalised Pareto shape of its tail, > 0; fixed, since a few exceedances do not tell one.
    """

    column: str
    name: str
    kind: str
    unit: float = BITS_UNIT
    shape: float = HEAVY_SHAPE


def sigma_bits(sigmas: float) -> float:
    """Return the evidence, in bits, of a value so many standard deviations off.

    The logarithm of the density of Student's t with 100 degrees of freedom, relative to its top:
    near the square of a normal value, which has an exponential tail, and milder far out.

    >>> sigma_bits(0.0), round(sigma_bits(5.0), 1)
    (0.0, 16.3)
    """
    return (_FREEDOM + 1.0) / 2.0 * math.log2(1.0 + sigmas * sigmas / _FREEDOM)


@dataclass(slots=True)
class Sizes:
    """Bytes of a window, its baseline and both together, raw and compressed, over all columns."""

    baseline_raw: int = 0
    baseline: int = 0
    window_raw: int = 0
    window: int = 0
    both: int = 0

    def add(self, other: Sizes) -> None:
        """Add the bytes of a further column."""
        self.baseline_raw += other.baseline_raw
        self.baseline += other.baseline
        self.window_raw += other.window_raw
        self.window += other.window
        self.both += other.both

    @property
    def ncd(self) -> float:
        """Normalised compression distance, about 0 (alike) to 1; 0 without a baseline.

        References:
            Cilibrasi & Vitanyi 2005, "Clustering by compression".
        """
        larger = max(self.baseline, self.window)
        return (self.both - min(self.baseline, self.window)) / larger if larger and self.baseline else 0.0


@dataclass(slots=True)
class ColumnEvidence:
    """What one column of a window says, claim by claim.

    Attributes:
        values: float64, one per claim of the column's model; NaN where the claim does not
            apply to this window.
        sizes: Compressed sizes, for the facts reported with the window.
    """

    values: Floats
    sizes: Sizes = field(default_factory=Sizes)


@dataclass(frozen=True, slots=True)
class Change:
    """The most telling difference between a window and its baseline in one column.

    Attributes:
        label: The symbol concerned; empty where the column has none.
        text: One sentence, with `{label}` where the symbol is to be quoted.
        observed: What the window held.
        expected: What the baseline predicts.
    """

    label: str
    text: str
    observed: str
    expected: str
