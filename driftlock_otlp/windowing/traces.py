"""Spans: extraction from requests, and the columns of a window of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from driftlock_otlp.detection.columns import Columns, Number
from driftlock_otlp.model import StreamKind
from driftlock_otlp.windowing import genai
from driftlock_otlp.windowing.batch import StreamBatch
from driftlock_otlp.windowing.encoding import SymbolColumns, number_values
from driftlock_otlp.windowing.extraction import (
    ATTRIBUTE_PREFIX,
    MAX_VALUE_CHARS,
    StreamBatches,
    add_record,
    attribute_field,
    attribute_fields,
)
from driftlock_otlp.windowing.templates import WILDCARD

MAX_ATTRIBUTE_COLUMNS = 8
"""Attributes of a stream that become columns; first seen, first served."""

MAX_REMEMBERED_SPANS = 20_000
"""Spans of earlier windows whose operation is known to later children."""

_KINDS = ("", "", "server", "client", "producer", "consumer")
_STATUSES = ("unset", "ok", "error")
_ID_BYTES = 24
# Attributes with few values, each with the names that earlier conventions gave it.
_ATTRIBUTE_COLUMNS = {
    "http.response.status_code": ("http.status_code",),
    "rpc.grpc.status_code": ("rpc.response.status_code",),
    "http.route": (),
    "http.request.method": ("http.method",),
    "error.type": (),
    "db.system.name": ("db.system",),
    "db.operation.name": ("db.operation",),
    "rpc.method": (),
    "peer.service": ("service.peer.name",),
    "messaging.system": (),
    "messaging.destination.name": ("messaging.destination",),
    "server.address": ("net.peer.name",),
}
_ALL_NAMES = {
    f"{ATTRIBUTE_PREFIX}{name}": tuple(f"{ATTRIBUTE_PREFIX}{spelling}" for spelling in (name, *earlier))
    for name, earlier in _ATTRIBUTE_COLUMNS.items()
}
_ERROR_TYPE = f"{ATTRIBUTE_PREFIX}error.type"
_NO_ERROR = "none"

# The parts of a span name that tell one call from another rather than one operation from
# another: whole words of digits or hexadecimal, UUIDs, and longer numbers after an underscore.
# Words such as v1, s3 or oauth2 stay.
_VARIABLE_PART = re.compile(
    r"(?<![\w.])(?:"
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    r"|(?=[0-9a-fA-F]*[0-9])[0-9a-fA-F]{8,}"
    r"|0x[0-9a-fA-F]+"
    r"|\d+"
    r")(?![\w.])|(?<=_)\d{2,}(?!\w)"
)


def extract(message: ExportTraceServiceRequest, tenant: str) -> list[StreamBatch]:
    """Return the request's spans, one batch per stream.

    Spans with `gen_ai.*` attributes go to streams of kind gen_ai. A span's event time is its
    end, when it was handed over; its start where it has no end.

    Args:
        message: The decoded request.
        tenant: Organisation it belongs to.

    Returns:
        Batches with the fields `operation` (kind and masked name), `status`, `duration_ms`,
        `trace_id`, `span_id`, `parent_span_id`, `exceptions` (number of exception events),
        `scope` and `attributes.<key>`.
    """
    batches = StreamBatches(tenant)
    item = -1
    for resource_spans in message.resource_spans:
        batches.enter_resource(resource_spans.resource, resource_spans.schema_url)
        batch = batches.batch(StreamKind.TRACES.value)
        for scope_spans in resource_spans.scope_spans:
            scope = scope_spans.scope.name[:MAX_VALUE_CHARS] or None
            for span in scope_spans.spans:
                item += 1
                _add_span(batches, batch, item, span, scope)
    return batches.all()


def extract_scanned(payload: bytes, tenant: str, scan: Any) -> list[StreamBatch]:
    """Return what `extract` does, from protobuf that the scanner has checked.

    Args:
        payload: The request.
        tenant: Organisation it belongs to.
        scan: The scanner.
    """
    batches = StreamBatches(tenant)
    item = -1
    for resource, schema_url, scopes in scan.envelopes(payload):
        batches.enter_serialized_resource(resource, schema_url)
        batch = batches.batch(StreamKind.TRACES.value)

        def add_slowly(item: int, start: int, stop: int, scope: str | None, batch: StreamBatch = batch) -> None:
            _add_span(batches, batch, item, Span.FromString(payload[start:stop]), scope)

        reader = scan.SpanReader(
            payload, batch.fields, batch.items, batch.times_unix_nano, _column_of_attribute, add_slowly
        )
        reader.prepare(operation_of, _STATUSES)
        for name, start, stop in scopes:
            scope = name[:MAX_VALUE_CHARS] or None
            item = reader.read(start, stop, item, scope)
    return batches.all()


@lru_cache(maxsize=8192)
def _column_of_attribute(key: str) -> str | None:
    """Return the field of an attribute; None for those that change what becomes of their span."""
    name, is_gen_ai = attribute_field(key)
    return None if is_gen_ai else name


def _add_span(batches: StreamBatches, batch: StreamBatch, item: int, span: Span, scope: str | None) -> None:
    """Add a span to the batch of its resource's spans, or to where else it belongs."""
    fields: dict[str, Any] = {}
    is_gen_ai = attribute_fields(span.attributes, fields)
    time = span.end_time_unix_nano or span.start_time_unix_nano
    if is_gen_ai:
        genai.add_span(batches, item, time, span, scope)
        return
    fields["operation"] = operation_of(span.name[:MAX_VALUE_CHARS], span.kind)
    fields["status"] = status_of(span)
    fields["duration_ms"] = duration_ms(span)
    fields["trace_id"] = span.trace_id or None
    fields["span_id"] = span.span_id or None
    fields["parent_span_id"] = span.parent_span_id or None
    fields["exceptions"] = sum(event.name == "exception" for event in span.events) if span.events else 0
    fields["scope"] = scope
    add_record(batch, item, time, fields)


@lru_cache(maxsize=8192)
def operation_of(name: str, kind: int) -> str:
    """Return what a span does: its kind, if it crosses a border, and its name without ids.

    >>> operation_of("GET /api/v1/users/4711", 2)
    'server GET /api/v1/users/<*>'
    """
    masked = _VARIABLE_PART.sub(WILDCARD, name)
    prefix = _KINDS[kind] if 0 <= kind < len(_KINDS) else ""
    return f"{prefix} {masked}" if prefix else masked


def status_of(span: Span) -> str:
    """Return `unset`, `ok` or `error`."""
    code = span.status.code
    return _STATUSES[code] if 0 <= code < len(_STATUSES) else "unset"


def duration_ms(span: Span) -> float | None:
    """Return a span's duration in milliseconds; None when it has no start, no end, or ends before it starts."""
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    return (end - start) / 1e6 if start and end >= start else None


class TraceShaper:
    """Columns of windows of spans, one stream's in order.

    Categories: `operation`, `status` (operation and status), `call` (the parent's operation and
    the span's own) and attributes with few values. Numbers: `duration` in ms given the
    operation, and `exceptions`. Sessions are the traces, as far as their spans lie in the window.

    A parent is looked up among the spans of the window and of windows before it. Parents of
    other services, and parents that end after the window has closed, are not there: `?`.
    """

    def __init__(self) -> None:
        self._symbols = SymbolColumns()
        # There from the start, so that the first error of all stands against a baseline without.
        self._attributes: dict[str, None] = {_ERROR_TYPE: None}
        self._operations: dict[bytes, str] = {}  # trace id and span id -> operation, oldest first

    def shape(self, batch: StreamBatch) -> Columns:
        """Return the typed columns of one window, windows being given in order."""
        n = len(batch.items)
        columns = Columns(record_count=n, time_unix_nano=np.array(batch.times_unix_nano, dtype=np.int64))
        operation = self._symbols.encode("operation", batch.column("operation"))
        # Parts of further columns are the symbols of this one, so that its bound bounds them too.
        operations = [operation.labels[code] if code >= 0 else "?" for code in operation.codes.tolist()]
        columns.categories["operation"] = operation
        columns.categories["status"] = self._symbols.encode(
            "status", [f"{name} {status}" for name, status in zip(operations, batch.column("status"), strict=True)]
        )
        columns.categories["call"] = self._symbols.encode("call", self._calls(batch, operations))
        columns.numbers["duration"] = Number(
            number_values(batch.column("duration_ms")), given="operation", is_positive_scale=True, unit="ms"
        )
        columns.numbers["exceptions"] = Number(number_values(batch.column("exceptions")), is_positive_scale=True)
        traces: dict[bytes | None, int] = {None: -1}
        columns.sessions = np.array(
            [traces.setdefault(trace, len(traces) - 1) for trace in batch.column("trace_id")], np.int32
        )
        self._admit_attributes(batch.fields)
        for name in self._attributes:
            values = _conventional(batch, name)
            if name == _ERROR_TYPE:
                values = [_NO_ERROR if value is None else value for value in values]
            columns.categories[name] = self._symbols.encode(name, values)
        return columns

    def _calls(self, batch: StreamBatch, operations: list[str]) -> list[str]:
        traces = [trace or b"" for trace in batch.column("trace_id")]
        known = self._operations
        for trace, span, operation in zip(traces, batch.column("span_id"), operations, strict=True):
            if span and len(trace) + len(span) == _ID_BYTES:
                known[trace + span] = operation
        calls = []
        for trace, parent, operation in zip(traces, batch.column("parent_span_id"), operations, strict=True):
            caller = known.get(trace + parent, "?") if parent else "root"
            calls.append(f"{caller} -> {operation}")
        excess = len(known) - MAX_REMEMBERED_SPANS
        if excess > 0:
            for key in list(known)[:excess]:
                del known[key]
        return calls

    def _admit_attributes(self, fields: Mapping[str, list[Any]]) -> None:
        for name, spellings in _ALL_NAMES.items():
            if len(self._attributes) >= MAX_ATTRIBUTE_COLUMNS:
                return
            if name not in self._attributes and any(spelling in fields for spelling in spellings):
                self._attributes[name] = None

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values."""
        # Packed: 20,000 separate keys would be most of a snapshot.
        index = {name: code for code, name in enumerate(dict.fromkeys(self._operations.values()))}
        codes = np.fromiter(map(index.__getitem__, self._operations.values()), np.int32, len(self._operations))
        return {
            "symbols": self._symbols.state(),
            "attributes": list(self._attributes),
            "span_ids": b"".join(self._operations),
            "span_operations": codes.astype("<i4").tobytes(),
            "operations": list(index),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the shaper that returned this state."""
        self._symbols = SymbolColumns.of_state(state["symbols"])
        self._attributes = dict.fromkeys(state["attributes"])
        ids, operations = state["span_ids"], state["operations"]
        codes = np.frombuffer(state["span_operations"], dtype="<i4").tolist()
        self._operations = {
            ids[row * _ID_BYTES : (row + 1) * _ID_BYTES]: operations[code] for row, code in enumerate(codes)
        }


def _conventional(batch: StreamBatch, name: str) -> list[Any]:
    """Return an attribute under whichever of its names each record carries it."""
    found = [batch.column(spelling) for spelling in _ALL_NAMES[name] if spelling in batch.fields]
    if len(found) == 1:
        return found[0]
    if not found:
        return [None] * len(batch.items)
    return [next((value for value in row if value not in (None, "")), None) for row in zip(*found, strict=True)]
