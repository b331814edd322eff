"""The kinds of streams: how requests are split into them, and who shapes their windows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from driftlock_otlp.detection.durations import SpanDurations
from driftlock_otlp.detection.lines import LineNovelty
from driftlock_otlp.detection.points import StreamPoints
from driftlock_otlp.detection.rarities import RareValues
from driftlock_otlp.detection.records import RecordScorer
from driftlock_otlp.detection.sessions import SessionNovelty
from driftlock_otlp.model import Signal, StreamKind
from driftlock_otlp.otlp import scanning
from driftlock_otlp.otlp.decode import decode
from driftlock_otlp.windowing import logs, metrics, traces
from driftlock_otlp.windowing.batch import Shaper, StreamBatch
from driftlock_otlp.windowing.genai_columns import GenAiShaper

_EXTRACT: dict[Signal, Callable[[Any, str], list[StreamBatch]]] = {
    Signal.LOGS: logs.extract,
    Signal.METRICS: metrics.extract,
    Signal.TRACES: traces.extract,
}
_EXTRACT_SCANNED: dict[Signal, Callable[[bytes, str, Any], list[StreamBatch]]] = {
    Signal.LOGS: logs.extract_scanned,
    Signal.METRICS: metrics.extract_scanned,
    Signal.TRACES: traces.extract_scanned,
}
_SHAPERS: dict[str, Callable[[], Shaper]] = {
    StreamKind.LOGS.value: logs.LogShaper,
    StreamKind.METRICS.value: metrics.MetricShaper,
    StreamKind.TRACES.value: traces.TraceShaper,
    StreamKind.GEN_AI.value: GenAiShaper,
}
_RECORD_SCORERS: dict[str, tuple[Callable[[], RecordScorer], ...]] = {
    StreamKind.LOGS.value: (LineNovelty, partial(SessionNovelty, "template")),
    StreamKind.METRICS.value: (StreamPoints,),
    StreamKind.TRACES.value: (SpanDurations,),
    StreamKind.GEN_AI.value: (partial(SessionNovelty, "call"), RareValues),
}


def read_request(signal: Signal, payload: bytes, tenant: str) -> list[StreamBatch]:
    """Return what `split_request` does of a request's bytes; by the scanner where it can, which is many times quicker.

    Raises:
        DecodeError: It is not a valid request.
    """
    if scanning.check(signal, payload) is not None:
        return _EXTRACT_SCANNED[signal](payload, tenant, scanning.scan)
    return split_request(signal, decode(signal, payload), tenant)


def split_request(signal: Signal, message: Any, tenant: str) -> list[StreamBatch]:
    """Return the records of one request, one batch per stream and source, each in item order.

    Args:
        signal: The request's signal.
        message: The decoded `Export<Signal>ServiceRequest`; not kept.
        tenant: Organisation it belongs to.

    Returns:
        Batches that hold at least one record. Items count all records of the request, also
        those that belong to no stream, such as our own anomaly events.
    """
    return _EXTRACT[signal](message, tenant)


def new_shaper(kind: str) -> Shaper:
    """Return a shaper that remembers nothing yet.

    Args:
        kind: Value of a `StreamKind`.
    """
    return _SHAPERS[kind]()


def new_record_scorers(kind: str) -> list[RecordScorer]:
    """Return the record scorers of a stream, which remember nothing yet.

    Args:
        kind: Value of a `StreamKind`.
    """
    return [make() for make in _RECORD_SCORERS[kind]]
