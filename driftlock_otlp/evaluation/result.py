"""What a suite found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of one detector.

    Attributes:
        detector: Its name.
        figures: One for each column of the table; None where there is none.
        source: Where they come from, if not from this run.
    """

    detector: str
    figures: tuple[float | None, ...]
    source: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Detectors beside each other.

    Attributes:
        title: What is compared.
        columns: Names of the figures.
        rows: Detectors, ours first.
        note: How to read it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """Everything that one suite found; the same data and settings give the same result, but for its cost.

    Attributes:
        suite: Its name.
        data: Which part of which set.
        split: What was learned from, and what was judged.
        settings: Fingerprints of the detectors, or what else identifies the settings.
        tables: The figures.
        record_count: Records scored.
        cpu_s: CPU seconds that took.
    """

    suite: str
    data: str
    split: str
    settings: str
    tables: tuple[Table, ...]
    record_count: int
    cpu_s: float

    @property
    def cost(self) -> str:
        """CPU time per record, in words."""
        per_record_us = self.cpu_s / max(self.record_count, 1) * 1e6
        return f"{self.record_count:,} records in {self.cpu_s:.1f} s of CPU, {per_record_us:.0f} µs a record"


def figure_text(figure: float | None) -> str:
    """Return a figure for people.

    >>> figure_text(72.345), figure_text(0.4567), figure_text(None)
    ('72.3', '0.457', '')
    """
    if figure is None:
        return ""
    return f"{figure:.1f}" if abs(figure) >= 10 else f"{figure:.3g}"
