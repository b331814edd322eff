"""Log records: extraction from requests, and the columns of a window of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from driftlock_otlp.detection.columns import Category, Columns, Number
from driftlock_otlp.model import StreamKind
from driftlock_otlp.otlp.anomaly_event import is_own
from driftlock_otlp.windowing import genai
from driftlock_otlp.windowing.batch import StreamBatch
from driftlock_otlp.windowing.encoding import SymbolColumns, number_values, text_of
from driftlock_otlp.windowing.extraction import (
    ATTRIBUTE_PREFIX,
    StreamBatches,
    add_record,
    attribute_field,
    attribute_fields,
    python_value,
)
from driftlock_otlp.windowing.templates import MAX_BODY_CHARS, TemplateMiner

MAX_ATTRIBUTE_COLUMNS = 16
"""Attributes of a stream that become columns; first seen, first served."""

TEMPLATE_ATTRIBUTE = "log.record.template"
"""Attribute in which the Collector's drain processor puts a record's template."""

_TEMPLATE_FIELD = ATTRIBUTE_PREFIX + TEMPLATE_ATTRIBUTE
_SEVERITY_BANDS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_MAX_LABEL_CHARS = 64
_MAX_TEXT_ITEMS = 64
# These repeat the body or are prose: they would only take the place of attributes that say something.
_NOT_COLUMNS = frozenset(
    ATTRIBUTE_PREFIX + key
    for key in (
        TEMPLATE_ATTRIBUTE,
        f"{TEMPLATE_ATTRIBUTE}.params",
        "log.record.original",
        "log.record.uid",
        "exception.message",
        "exception.stacktrace",
        "event.name",
    )
)
# Numbers that name something: their values are symbols, not quantities.
_NAMING_SUFFIXES = ("code", "port", "id", "line", "lineno", "line.number")


def extract(message: ExportLogsServiceRequest, tenant: str) -> list[StreamBatch]:
    """Return the request's log records, one batch per stream.

    Our own anomaly events are left out: an alarm must not become evidence. Records with
    `gen_ai.*` attributes or event names go to streams of kind gen_ai.

    Args:
        message: The decoded request.
        tenant: Organisation it belongs to.

    Returns:
        Batches with the fields `body` (str, cut), `body_length` (characters before the cut),
        `severity`, `scope`, `event_name`, `trace_id`, `span_id`, `log.record.template` and
        `attributes.<key>`.
    """
    batches = StreamBatches(tenant)
    item = -1
    for resource_logs in message.resource_logs:
        batches.enter_resource(resource_logs.resource, resource_logs.schema_url)
        batch = batches.batch(StreamKind.LOGS.value)
        for scope_logs in resource_logs.scope_logs:
            scope = scope_logs.scope.name[:_MAX_LABEL_CHARS] or None
            for record in scope_logs.log_records:
                item += 1
                _add_log_record(batches, batch, item, record, scope)
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
        batch = batches.batch(StreamKind.LOGS.value)

        def add_slowly(item: int, start: int, stop: int, scope: str | None, batch: StreamBatch = batch) -> None:
            _add_log_record(batches, batch, item, LogRecord.FromString(payload[start:stop]), scope)

        reader = scan.LogReader(
            payload, batch.fields, batch.items, batch.times_unix_nano, _column_of_attribute, add_slowly
        )
        reader.prepare(severity_named, json_text, MAX_BODY_CHARS)
        for name, start, stop in scopes:
            scope = name[:_MAX_LABEL_CHARS] or None
            if is_own(scope or "", ""):
                item += scan.count_items(payload, start, stop)
            else:
                item = reader.read(start, stop, item, scope)
    return batches.all()


@lru_cache(maxsize=8192)
def _column_of_attribute(key: str) -> str | None:
    """Return the field of an attribute; None for those that change what becomes of their record."""
    name, is_gen_ai = attribute_field(key)
    return None if is_gen_ai or key in (TEMPLATE_ATTRIBUTE, "event.name") else name


def _add_log_record(
    batches: StreamBatches, batch: StreamBatch, item: int, record: LogRecord, scope: str | None
) -> None:
    """Add a record to the batch of its resource's logs, or to where else it belongs."""
    fields: dict[str, Any] = {}
    is_gen_ai = attribute_fields(record.attributes, fields)
    event_name = record.event_name or fields.get("attributes.event.name") or None
    if is_own(scope or "", str(event_name or "")):
        return
    time = record.time_unix_nano or record.observed_time_unix_nano
    if is_gen_ai or (event_name and str(event_name).startswith("gen_ai.")):
        genai.add_log_record(batches, item, time, record, str(event_name or ""), scope)
        return
    _add_record_fields(record, fields)
    fields["scope"] = scope
    fields["event_name"] = str(event_name)[:_MAX_LABEL_CHARS] if event_name else None
    add_record(batch, item, time, fields)


def _add_record_fields(record: LogRecord, fields: dict[str, Any]) -> None:
    text = record.body.string_value
    body = text if text and text[0] != "{" else body_text(record.body)
    if body is None:
        fields["body"] = fields["body_length"] = None
    else:
        fields["body"] = body[:MAX_BODY_CHARS]
        fields["body_length"] = len(body)
    fields["severity"] = severity_of(record)
    fields["trace_id"] = record.trace_id or None
    fields["span_id"] = record.span_id or None
    template = fields.pop(_TEMPLATE_FIELD, None)
    if template:
        # Read again in full: attribute values are cut where templates need not be.
        full = next(item.value.string_value for item in record.attributes if item.key == TEMPLATE_ATTRIBUTE)
        fields[TEMPLATE_ATTRIBUTE] = full[:MAX_BODY_CHARS] or None


def severity_of(record: LogRecord) -> str | None:
    """Return a record's severity: its text in capitals, else the name of its number's band.

    >>> severity_of(LogRecord(severity_number=18))
    'ERROR'
    """
    return severity_named(record.severity_text, record.severity_number)


def severity_named(text: str, number: int) -> str | None:
    """Return a severity by the text and the number that a record gives, either of which may be missing."""
    if text:
        return text[:_MAX_LABEL_CHARS].strip().upper() or None
    return _SEVERITY_BANDS[(number - 1) // 4] if 1 <= number <= 24 else None


def body_text(body: AnyValue) -> str | None:
    """Return a body as text; a structured one as `key=value` pairs, sorted by key.

    Texts that hold a JSON object are taken as structured: their keys would otherwise hide what
    differs between two messages of one sentence.

    >>> body_text(AnyValue(string_value='{"msg": "paid", "amount": {"eur": 5}}'))
    'amount={eur=5} msg=paid'
    """
    text = body.string_value
    if text:
        return json_text(text)
    value = python_value(body)
    return None if value is None else _structured_text(value, 8)


def json_text(text: str) -> str:
    """Return a text that holds a JSON object as `key=value` pairs, any other as it is."""
    if text[0] == "{" and text[-1] == "}":
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return text
        return _structured_text(value, 8)
    return text


def _structured_text(value: Any, depth: int) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return f"bytes[{len(value)}]"
    if isinstance(value, dict):
        if not depth:
            return f"map[{len(value)}]"
        pairs = []
        for key in sorted(value)[:_MAX_TEXT_ITEMS]:
            item = value[key]
            text = _structured_text(item, depth - 1)
            pairs.append(f"{key}={{{text}}}" if isinstance(item, dict) else f"{key}={text}")
        return " ".join(pairs)
    if isinstance(value, list):
        if not depth:
            return f"array[{len(value)}]"
        return "[" + ", ".join(_structured_text(item, depth - 1) for item in value[:_MAX_TEXT_ITEMS]) + "]"
    return "null" if value is None else text_of(value)


class LogShaper:
    """Columns of windows of log records, one stream's in order.

    Categories: `template`, `severity`, `scope` and `event_name` once the stream has shown any,
    and attributes. Numbers: `body_length` in characters and numeric attributes.
    """

    def __init__(self) -> None:
        self._miner = TemplateMiner()
        self._symbols = SymbolColumns()
        self._attributes: dict[str, bool] = {}  # name of the field -> is a number
        self._optional: dict[str, None] = {}

    def shape(self, batch: StreamBatch) -> Columns:
        """Return the typed columns of one window, windows being given in order."""
        n = len(batch.items)
        columns = Columns(record_count=n, time_unix_nano=np.array(batch.times_unix_nano, dtype=np.int64))
        bodies = batch.column("body")
        columns.categories["template"] = self._templates(bodies, batch.column(TEMPLATE_ATTRIBUTE))
        columns.categories["severity"] = self._symbols.encode("severity", batch.column("severity"))
        for name in ("scope", "event_name"):
            values = batch.column(name)
            if name in self._optional or any(values):
                self._optional[name] = None
                columns.categories[name] = self._symbols.encode(name, values)
        columns.numbers["body_length"] = Number(
            number_values(batch.column("body_length")), is_positive_scale=True, unit="chars"
        )
        self._admit_attributes(batch.fields)
        for name, is_number in self._attributes.items():
            values = batch.column(name)
            if is_number:
                columns.numbers[name] = Number(number_values(values))
            else:
                columns.categories[name] = self._symbols.encode(name, values)
        return columns

    def _templates(self, bodies: list[str | None], given: list[str | None]) -> Category:
        miner = self._miner
        if not any(given):
            codes, labels = miner.mine(bodies)
            return Category(codes, labels)
        mined = iter(
            miner.clusters_of(
                [body for body, template in zip(bodies, given, strict=True) if not template and body is not None]
            )
        )
        clusters = []
        for body, template in zip(bodies, given, strict=True):
            if template:
                clusters.append(miner.adopt(template))
            else:
                clusters.append(-1 if body is None else next(mined))
        return Category(*miner.encode(clusters))

    def _admit_attributes(self, fields: Mapping[str, list[Any]]) -> None:
        for name, values in fields.items():
            if len(self._attributes) >= MAX_ATTRIBUTE_COLUMNS:
                return
            if name.startswith(ATTRIBUTE_PREFIX) and name not in self._attributes and name not in _NOT_COLUMNS:
                kinds = {type(value) for value in values if value is not None}
                if kinds:
                    self._attributes[name] = kinds <= {int, float} and not name.endswith(_NAMING_SUFFIXES)

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values."""
        return {
            "miner": self._miner.state(),
            "symbols": self._symbols.state(),
            "attributes": dict(self._attributes),
            "optional": list(self._optional),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the shaper that returned this state."""
        self._miner.restore(state["miner"])
        self._symbols = SymbolColumns.of_state(state["symbols"])
        self._attributes = dict(state["attributes"])
        self._optional = dict.fromkeys(state["optional"])
