"""From evidence to words: which columns said so, what was seen, what was expected."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from driftlock_otlp.detection.claims import Change, Claim
from driftlock_otlp.detection.columns import Floats
from driftlock_otlp.detection.detector import StreamDetector
from driftlock_otlp.detection.scores import WindowScore
from driftlock_otlp.model import AnomalySeverity, Evidence

_NOUNS = {"logs": "log records", "metrics": "data points", "traces": "spans", "gen_ai": "LLM operations"}
_LEAST_BITS = 4.0
_MOST_COLUMNS = 6
_MOST_RELATED = 20
LONGEST_NAME_BYTES = 160


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a window was called anomalous.

    Attributes:
        sentence: One sentence for people.
        evidence: Columns, strongest first.
        rows: Records that contribute most, strongest first; int64, (m,), m >= 1.
        template: Log template with the strongest evidence, empty if none or not quoted.
    """

    sentence: str
    evidence: tuple[Evidence, ...]
    rows: list[int]
    template: str


def explain(detector: StreamDetector, score: WindowScore, kind: str, subject: str, quote_max_bytes: int) -> Explanation:
    """Say in words why a window is anomalous; to be called before the window is learned.

    Args:
        detector: The stream's detector, as it was when it scored the window.
        score: The verdict.
        kind: Kind of stream, for the noun.
        subject: What the sentence is about: the service, or service and metric.
        quote_max_bytes: Longest quotation of a symbol; 0 replaces it by a hash, unless the window's columns
            hold no payload text.
    """
    noun = _NOUNS[kind]
    if score.columns.is_content_free:
        quote_max_bytes = max(quote_max_bytes, LONGEST_NAME_BYTES)
    saved = detector.record_bits(score)
    evidence: list[Evidence] = []
    template = ""
    told_bits = _told_bits(score)
    for index in _strongest_claims(score, told_bits):
        claim = score.claims[index]
        column = claim.column
        if index < len(score.records):
            column, change = detector.record_change(score, index)
        else:
            change = _change(detector, score, claim, noun)
        if any(item.column == column for item in evidence):
            continue  # a column's records and its windows are told as one
        if evidence and change.observed and change.observed == change.expected:
            continue  # rounded for people there is no difference to tell
        text = change.text.replace("{label}", quoted(change.label, quote_max_bytes))
        evidence.append(Evidence(column, claim.kind, float(told_bits[index]), text, change.observed, change.expected))
        if column == "template" and change.label and not template and quote_max_bytes:
            template = _cut(change.label, quote_max_bytes)
    head = evidence[0]
    others = [item.column for item in evidence[1:]]
    also = f"; also {', '.join(dict.fromkeys(others))}" if others else ""
    seen = f"; {score.recurrence.told(score.closed_unix_nano / 1e9)}" if score.recurrence else ""
    sentence = f"{subject}: {head.text}{also}{seen} (p ≤ {score.p_value:.2g}, {score.bits:.1f} bits)"
    return Explanation(sentence, tuple(evidence), _rows(saved), template)


def severity(margin_bits: float) -> AnomalySeverity:
    """Return how bad an anomaly is, by the bits beyond the bar of an immediate alarm."""
    if margin_bits < 0:
        return AnomalySeverity.LOW
    if margin_bits < 4:
        return AnomalySeverity.MEDIUM
    return AnomalySeverity.HIGH if margin_bits < 12 else AnomalySeverity.CRITICAL


def _told_bits(score: WindowScore) -> Floats:
    """Return the bits of each claim: of records that alarm by themselves, those of the oddest one; float64, (d,)."""
    bits: Floats = score.column_bits.copy()
    for index, found in enumerate(score.records):
        if found is not None and found.margins.max() >= 0:
            bits[index] = max(bits[index], float(found.bits.max()))
    return bits


def _strongest_claims(score: WindowScore, bits: Floats) -> list[int]:
    """Return one claim per column, strongest first."""
    # What says which symbol or value it was tells people more than what it costs to compress.
    telling = {
        claim.column for claim, b in zip(score.claims, bits, strict=True) if claim.name != "order" and b >= _LEAST_BITS
    }
    chosen: list[int] = []
    seen: set[str] = set()
    for index in np.argsort(-bits, kind="stable"):
        claim = score.claims[index]
        column = claim.column or claim.name
        if claim.name == "order" and column in telling:
            continue
        if column in seen or (chosen and bits[index] < _LEAST_BITS) or len(chosen) == _MOST_COLUMNS:
            continue
        seen.add(column)
        chosen.append(int(index))
    return chosen


def _change(detector: StreamDetector, score: WindowScore, claim: Claim, noun: str) -> Change:
    change = detector.baseline.change(score.prepared, claim, noun)
    if claim.name != "order":
        return change
    index = score.claims.index(claim)
    usual = detector.usual(index)
    return Change(
        change.label,
        f"the sequence of {claim.column} costs {score.vector[index]:.2f} bits a record to compress,"
        f" expected {usual:.2f}",
        f"{score.vector[index]:.2f} bits",
        f"{usual:.2f} bits",
    )


def _rows(saved: Floats) -> list[int]:
    order = np.argsort(-saved, kind="stable")
    kept = [int(row) for row in order[:_MOST_RELATED] if saved[row] > 0]
    return kept or [int(order[0])]


def quoted(label: str, most_bytes: int) -> str:
    """Return a symbol in quotation marks, cut to so many bytes; a hash of it if nothing may be quoted."""
    if most_bytes == 0:
        return f"#{hashlib.blake2b(label.encode(), digest_size=4).hexdigest()}"
    return f"“{_cut(label, most_bytes)}”"


def _cut(label: str, most_bytes: int) -> str:
    data = label.encode()
    return label if len(data) <= most_bytes else data[:most_bytes].decode(errors="ignore") + "…"
