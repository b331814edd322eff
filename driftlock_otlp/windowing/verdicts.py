"""What scoring says: verdicts on stretches of input."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from driftlock_otlp.model import Anomaly, AnomalyWindow, EvidenceBundle, ItemRange, StreamKey, WindowFacts


@dataclass(slots=True)
class RecordScores:
    """Scores of every record of one window, for replay.

    Attributes:
        positions: Position of each record's request.
        items: Index of each record in its request.
        times_unix_nano: Event times.
        stream: The stream.
        scores: [0, 1] per record.
        p_value: Of the window.
        is_anomalous: Whether the window belongs to an anomaly.
    """

    positions: list[int]
    items: list[int]
    times_unix_nano: list[int]
    stream: StreamKey
    scores: list[float]
    p_value: float
    is_anomalous: bool


@dataclass(slots=True)
class Verdicts:
    """What came out of a stretch of input.

    Attributes:
        opened: Anomalies that began.
        ongoing: Further windows of anomalies that began before.
        resolved: (anomaly id, event time of the end, resolution) of those that ended.
        diverted: Ranges of anomalous items by position of their request.
        windows: Number of windows by (kind, outcome).
        facts: What is kept of every scored window.
        evidence: Of anomalies that began.
        unscored_items: Items that no window took, by reason.
        evicted_streams: Streams that made room for others.
        records: Scores record by record, if asked for.
        orders: Orders of people by outcome: `obeyed`, or `unknown` (no such stream or anomaly).
    """

    opened: list[Anomaly] = field(default_factory=list)
    ongoing: list[AnomalyWindow] = field(default_factory=list)
    resolved: list[tuple[str, int, str]] = field(default_factory=list)
    diverted: dict[int, list[ItemRange]] = field(default_factory=dict)
    windows: Counter[tuple[str, str]] = field(default_factory=Counter)
    facts: list[WindowFacts] = field(default_factory=list)
    evidence: list[EvidenceBundle] = field(default_factory=list)
    unscored_items: Counter[str] = field(default_factory=Counter)
    evicted_streams: int = 0
    records: list[RecordScores] = field(default_factory=list)
    orders: Counter[str] = field(default_factory=Counter)
