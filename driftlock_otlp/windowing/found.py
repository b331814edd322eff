"""What is told of windows: their facts, and the anomalies and drifts that begin with them."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime

from driftlock_otlp.detection.drift import Drift
from driftlock_otlp.detection.explain import LONGEST_NAME_BYTES, explain, quoted, severity
from driftlock_otlp.detection.levels import severity_at
from driftlock_otlp.detection.scores import WindowScore, to_score
from driftlock_otlp.model import (
    Anomaly,
    AnomalyLevel,
    AnomalyState,
    AnomalyWindow,
    Evidence,
    StreamKey,
    WindowFacts,
)
from driftlock_otlp.windowing.assembler import Window
from driftlock_otlp.windowing.tracked_stream import TrackedStream


def anomaly_of(
    stream: TrackedStream,
    window: Window,
    score: WindowScore,
    level: AnomalyLevel,
    quote_max_bytes: int,
    compressor_fingerprint: str,
) -> Anomaly:
    """Return what is told of an anomaly that begins; before its window is learned.

    Args:
        stream: Where.
        window: The window that raised it.
        score: Its verdict.
        level: How far it is to be heard.
        quote_max_bytes: Longest quotation of payload text.
        compressor_fingerprint: Name and version of the compressor.
    """
    key, batch, baseline = stream.key, window.batch, stream.detector.baseline
    told = explain(stream.detector, score, key.kind, _subject(key), quote_max_bytes)
    facts = facts_of(window, score)
    traces, spans = batch.column("trace_id"), batch.column("span_id")
    traced = [row for row in told.rows if traces[row]]
    strongest = traced[0] if traced else told.rows[0]
    resource, schema_url = window.source_of(strongest)
    related = dict.fromkeys(traces[row].hex() for row in traced)
    place = (window.session, str(facts.start_unix_nano), str(window.positions[0]), stream.fingerprint)
    return Anomaly(
        id=_id(key, *place),
        stream=key,
        state=AnomalyState.OPEN.value,
        severity=severity_at(level, severity(score.margin_bits)).label,
        detected_unix_nano=facts.end_unix_nano,
        window_start_unix_nano=facts.start_unix_nano,
        window_end_unix_nano=facts.end_unix_nano,
        record_count=len(window.positions),
        score=score.score,
        p_value=score.p_value,
        bits=score.bits,
        ncd=facts.ncd,
        compression_ratio=facts.compression_ratio,
        baseline_compression_ratio=facts.baseline_compression_ratio,
        entropy_bits=facts.entropy_bits,
        baseline_entropy_bits=facts.baseline_entropy_bits,
        baseline_windows=baseline.window_count,
        baseline_records=baseline.record_count,
        explanation=told.sentence,
        evidence=told.evidence,
        trace_id=traces[strongest].hex() if traced else "",
        span_id=spans[strongest].hex() if traced and spans[strongest] else "",
        related_trace_ids=tuple(list(related)[1:]),
        template=told.template,
        resource=resource,
        resource_schema_url=schema_url,
        fingerprint=stream.fingerprint,
        compressor=compressor_fingerprint,
        level=level.value,
    )


def drift_of(
    stream: TrackedStream,
    window: Window,
    score: WindowScore,
    drift: Drift,
    quote_max_bytes: int,
    compressor_fingerprint: str,
) -> Anomaly:
    """Return what is told of a drift that begins; no record belongs to it.

    Args:
        stream: Where.
        window: The window at which it was found.
        score: Its verdict.
        drift: The drift.
        quote_max_bytes: Longest quotation of payload text.
        compressor_fingerprint: Name and version of the compressor.
    """
    key, baseline, change = stream.key, stream.detector.baseline, drift.change
    if score.columns.is_content_free:
        quote_max_bytes = max(quote_max_bytes, LONGEST_NAME_BYTES)
    since = datetime.fromtimestamp(drift.since_unix_nano / 1e9, UTC)
    of = f" of {quoted(change.label, quote_max_bytes)}" if change.label else ""
    text = (
        f"since {since:%Y-%m-%d %H:%M} UTC {drift.claim.column}{of} has drifted:"
        f" {change.observed} in a window of now, {change.expected} at that time"
    )
    margin_bits, past_bits = drift.bits - drift.bar_bits, math.log2(drift.check_count + 1)
    evidence = Evidence(drift.claim.column, "drift", past_bits, text, change.observed, change.expected)
    facts = facts_of(window, score)
    resource, schema_url = window.source_of(0)
    return Anomaly(
        id=_id(key, "drift", str(drift.since_unix_nano), str(window.positions[0]), stream.fingerprint),
        stream=key,
        state=AnomalyState.OPEN.value,
        severity=severity(margin_bits).label,
        detected_unix_nano=facts.end_unix_nano,
        window_start_unix_nano=drift.since_unix_nano,
        window_end_unix_nano=facts.end_unix_nano,
        record_count=baseline.record_count,
        score=to_score(margin_bits),
        p_value=1.0 / (drift.check_count + 1),
        bits=past_bits,
        ncd=facts.ncd,
        compression_ratio=facts.compression_ratio,
        baseline_compression_ratio=facts.baseline_compression_ratio,
        entropy_bits=facts.entropy_bits,
        baseline_entropy_bits=facts.baseline_entropy_bits,
        baseline_windows=baseline.window_count,
        baseline_records=baseline.record_count,
        explanation=f"{_subject(key)}: {text} ({margin_bits:.1f} bits more than it ever swung by itself)",
        evidence=(evidence,),
        trace_id="",
        span_id="",
        related_trace_ids=(),
        template=change.label if drift.claim.column == "template" and quote_max_bytes else "",
        resource=resource,
        resource_schema_url=schema_url,
        fingerprint=stream.fingerprint,
        compressor=compressor_fingerprint,
    )


def further_of(stream: TrackedStream, end_unix_nano: int, score: WindowScore, level: AnomalyLevel) -> AnomalyWindow:
    """Return what is told of a further window of an anomaly."""
    return AnomalyWindow(
        stream.anomaly_id,
        end_unix_nano,
        stream.anomaly_windows,
        score.bits,
        score.is_fired,
        level.value,
        severity_at(level, severity(score.margin_bits)).label,
    )


def facts_of(window: Window, score: WindowScore) -> WindowFacts:
    """Return what is kept of a scored window."""
    times = [time for time in window.batch.times_unix_nano if time] or [window.opened_unix_nano]
    evaluation, sizes = score.evaluation, score.sizes
    return WindowFacts(
        stream=window.key,
        start_unix_nano=min(times),
        end_unix_nano=max(times),
        record_count=len(window.positions),
        outcome=outcome_of(score),
        score=score.score,
        p_value=score.p_value,
        bits=score.bits,
        ncd=sizes.ncd,
        compression_ratio=sizes.window_raw / max(sizes.window, 1),
        baseline_compression_ratio=sizes.baseline_raw / max(sizes.baseline, 1),
        entropy_bits=evaluation.entropy_bits if evaluation else 0.0,
        baseline_entropy_bits=evaluation.baseline_entropy_bits if evaluation else 0.0,
    )


def outcome_of(score: WindowScore) -> str:
    """Return the outcome of a window: warming_up, anomalous, flagged or clean."""
    if not score.is_warm:
        return "warming_up"
    if score.is_anomalous:
        return "anomalous"
    return "flagged" if score.is_flagged else "clean"


def _subject(key: StreamKey) -> str:
    return f"{key.service} {key.name}" if key.name else key.service


def _id(key: StreamKey, *place: str) -> str:
    """Return an id that is the same however often the same is found; 32 hex digits."""
    identity = "\0".join((key.tenant, key.kind, key.service, key.name, *place))
    return hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
