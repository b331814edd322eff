"""Generative AI operations: spans and log records with `gen_ai.*` attributes, and their columns.

Understood are the current semantic conventions and the older names that instrumentations still
send. Of messages, prompts and tool arguments only lengths and structure are read; their text
never becomes a field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from driftlock_otlp.detection.columns import Columns, Number
from driftlock_otlp.model import StreamKind
from driftlock_otlp.windowing.batch import StreamBatch
from driftlock_otlp.windowing.encoding import SymbolColumns, number_values, text_of
from driftlock_otlp.windowing.extraction import (
    ATTRIBUTE_PREFIX,
    MAX_VALUE_CHARS,
    StreamBatches,
    add_record,
    first_of,
    plain_value,
    python_value,
)

UNKNOWN_MODEL = "unknown"
"""Model of operations that name none."""

_ABSENT = "none"
_MAX_JSON_CHARS = 1 << 20

# Field -> attributes that carry it, the current name first.
_NAMES = {
    "provider": ("gen_ai.provider.name", "gen_ai.system"),
    "operation": ("gen_ai.operation.name",),
    "request_model": ("gen_ai.request.model",),
    "response_model": ("gen_ai.response.model",),
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "error_type": ("error.type",),
    "tool": ("gen_ai.tool.name",),
    "agent": ("gen_ai.agent.name",),
}
_TEXT_FIELDS = ("provider", "operation", "request_model", "response_model", "error_type", "tool", "agent")
_NUMBER_FIELDS = ("input_tokens", "output_tokens")
_FINISH_REASONS = ("gen_ai.response.finish_reasons", "gen_ai.response.finish_reason")
_TIME_TO_FIRST_CHUNK = ("gen_ai.response.time_to_first_chunk", "gen_ai.server.time_to_first_token")  # seconds
_OUTPUT_MESSAGES = ("gen_ai.output.messages", "gen_ai.completion", "gen_ai.event.content")
_CONTENT_EVENTS = frozenset({"gen_ai.content.completion", "gen_ai.choice", "gen_ai.assistant.message"})
_ANSWER_EVENTS = frozenset({"gen_ai.choice", "gen_ai.assistant.message"})
_TEXT_KEYS = ("content", "text", "arguments", "result", "response")
_FIRST_CHUNK_EVENTS = frozenset({"gen_ai.first_chunk", "gen_ai.content.first_chunk", "first_chunk", "first_token"})


def add_span(batches: StreamBatches, item: int, time_unix_nano: int, span: Span, scope: str | None) -> None:
    """Add a span as an operation of its model's stream."""
    attributes = {attribute.key: attribute.value for attribute in span.attributes}
    fields = _fields_of(attributes, scope)
    for event in span.events:
        if event.name in _CONTENT_EVENTS:
            content = {attribute.key: attribute.value for attribute in event.attributes}
            _note_output(fields, content)
        elif event.name in _FIRST_CHUNK_EVENTS and fields["time_to_first_chunk_ms"] is None:
            fields["time_to_first_chunk_ms"] = max(0.0, (event.time_unix_nano - span.start_time_unix_nano) / 1e6)
        elif event.name == "exception" and fields["error_type"] is None:
            types = [attribute.value for attribute in event.attributes if attribute.key == "exception.type"]
            fields["error_type"] = (str(plain_value(types[0])) if types else "") or "exception"
    if fields["operation"] is None:
        fields["operation"] = span.name.split(" ", 1)[0][:MAX_VALUE_CHARS] or None
    if fields["error_type"] is None and span.status.code == span.status.STATUS_CODE_ERROR:
        fields["error_type"] = "error"
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    fields["duration_ms"] = (end - start) / 1e6 if start and end >= start else None
    fields["trace_id"] = span.trace_id or None
    fields["span_id"] = span.span_id or None
    fields["parent_span_id"] = span.parent_span_id or None
    _add(batches, item, time_unix_nano, fields)


def add_log_record(
    batches: StreamBatches, item: int, time_unix_nano: int, record: LogRecord, event_name: str, scope: str | None
) -> None:
    """Add a log record as an operation of its model's stream."""
    attributes = {attribute.key: attribute.value for attribute in record.attributes}
    fields = _fields_of(attributes, scope)
    if fields["operation"] is None:
        fields["operation"] = event_name[:MAX_VALUE_CHARS] or None
    if event_name in _ANSWER_EVENTS and fields["output_length"] is None:
        body = python_value(record.body)
        fields["output_length"] = _text_length(body)
        if fields["finish_reason"] is None:
            fields["finish_reason"] = _finish_reason_in(body)
    fields["duration_ms"] = None
    fields["trace_id"] = record.trace_id or None
    fields["span_id"] = record.span_id or None
    _add(batches, item, time_unix_nano, fields)


def _add(batches: StreamBatches, item: int, time_unix_nano: int, fields: dict[str, Any]) -> None:
    model = fields["request_model"] or fields["response_model"] or UNKNOWN_MODEL
    add_record(batches.batch(StreamKind.GEN_AI.value, model), item, time_unix_nano, fields)


def _fields_of(attributes: Mapping[str, AnyValue], scope: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"scope": scope}
    # Identifiers only: any other attribute of such a record may hold what people have written.
    for key, value in attributes.items():
        if key.endswith((".id", "_id")) and len(key) <= MAX_VALUE_CHARS:
            fields[ATTRIBUTE_PREFIX + key] = plain_value(value)
    for field in _TEXT_FIELDS:
        value = first_of(_plain(attributes, _NAMES[field]), _NAMES[field])
        fields[field] = None if value is None else text_of(value)
    for field in _NUMBER_FIELDS:
        fields[field] = _number(attributes, _NAMES[field])
    seconds = _number(attributes, _TIME_TO_FIRST_CHUNK)
    fields["time_to_first_chunk_ms"] = None if seconds is None else seconds * 1e3
    fields["finish_reason"] = _finish_reasons(attributes)
    fields["output_length"] = None
    _note_output(fields, attributes)
    return fields


def _plain(attributes: Mapping[str, AnyValue], names: Iterable[str]) -> dict[str, Any]:
    return {name: plain_value(attributes[name]) for name in names if name in attributes}


def _number(attributes: Mapping[str, AnyValue], names: tuple[str, ...]) -> float | None:
    value = first_of(_plain(attributes, names), names)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return None if value is None else float(value)


def _finish_reasons(attributes: Mapping[str, AnyValue]) -> str | None:
    for name in _FINISH_REASONS:
        if name in attributes:
            value = python_value(attributes[name])
            reasons = value if isinstance(value, list) else [value]
            texts = sorted({str(reason) for reason in reasons if reason})
            if texts:
                return ",".join(texts)[:MAX_VALUE_CHARS]
    return None


def _note_output(fields: dict[str, Any], attributes: Mapping[str, AnyValue]) -> None:
    """Set the output's length, and its finish reason where nothing else has said it."""
    for name in _OUTPUT_MESSAGES:
        if name not in attributes:
            continue
        messages = _messages(python_value(attributes[name]))
        fields["output_length"] = (fields["output_length"] or 0) + _text_length(messages)
        if fields["finish_reason"] is None:
            fields["finish_reason"] = _finish_reason_in(messages)
        return
    # Flattened by older instrumentations: gen_ai.completion.0.content and so on.
    flat = [
        value.string_value
        for key, value in attributes.items()
        if key.startswith("gen_ai.completion.") and key.endswith((".content", ".arguments"))
    ]
    if flat:
        fields["output_length"] = (fields["output_length"] or 0) + sum(map(len, flat))


def _messages(value: Any) -> Any:
    """Return messages with their structure; spans carry them as JSON texts."""
    if isinstance(value, str) and value[:1] in ("[", "{") and len(value) <= _MAX_JSON_CHARS:
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return value
    return value


def _text_length(value: Any, depth: int = 8) -> int:
    """Return the characters of the texts in a message or a list of messages."""
    if isinstance(value, str):
        return len(value)
    if not depth:
        return 0
    if isinstance(value, list):
        return sum(_text_length(item, depth - 1) for item in value)
    if isinstance(value, dict):
        nested = [value[key] for key in _TEXT_KEYS if key in value]
        inner = [value[key] for key in ("message", "parts", "tool_calls", "function") if key in value]
        return sum(_text_length(item, depth - 1) for item in nested + inner)
    return 0


def _finish_reason_in(value: Any) -> str | None:
    messages = value if isinstance(value, list) else [value]
    reasons = {str(item["finish_reason"]) for item in messages if isinstance(item, dict) and item.get("finish_reason")}
    return ",".join(sorted(reasons))[:MAX_VALUE_CHARS] or None


class GenAiShaper:
    """Columns of windows of operations of one model.

    Categories: `operation`, `model` (which answered), `finish_reason`, `error_type` (`none`
    without an error) and `tool`. Numbers: `input_tokens`, `output_tokens`, `output_length` in
    characters, `duration` in ms given the operation, `time_to_first_chunk` in ms.
    """

    def __init__(self) -> None:
        self._symbols = SymbolColumns()

    def shape(self, batch: StreamBatch) -> Columns:
        """Return the typed columns of one window, windows being given in order."""
        n = len(batch.items)
        columns = Columns(record_count=n, time_unix_nano=np.array(batch.times_unix_nano, dtype=np.int64))
        # The model that answered may change behind an unchanged name, as with an alias moved on.
        answered = zip(batch.column("response_model"), batch.column("request_model"), strict=True)
        symbols = {
            "operation": batch.column("operation"),
            "model": [response or request for response, request in answered],
            "finish_reason": batch.column("finish_reason"),
            "error_type": [error or _ABSENT for error in batch.column("error_type")],
            "tool": batch.column("tool"),
        }
        for name, values in symbols.items():
            columns.categories[name] = self._symbols.encode(name, values)
        for name, field, unit, given in (
            ("input_tokens", "input_tokens", "tokens", None),
            ("output_tokens", "output_tokens", "tokens", None),
            ("output_length", "output_length", "chars", None),
            ("duration", "duration_ms", "ms", "operation"),
            ("time_to_first_chunk", "time_to_first_chunk_ms", "ms", None),
        ):
            numbers = number_values(batch.column(field))
            numbers[numbers < 0] = np.nan  # a positive scale has no negative values
            columns.numbers[name] = Number(numbers, given=given, is_positive_scale=True, unit=unit)
        return columns

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values."""
        return {"symbols": self._symbols.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Become the shaper that returned this state."""
        self._symbols = SymbolColumns.of_state(state["symbols"])
