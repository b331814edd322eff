"""Generative AI operations: spans and log records with `gen_ai.*` attributes, as fields of records.

Understood are the current semantic conventions, the older names that instrumentations still
send, and their structured, textual and flattened messages. Of instructions, prompts, answers, tool
arguments and results only structure becomes a field (`genai_text.py`): never their text. What
is to be a name (of a model, a tool, an error) and does not look like one is replaced by a number.

References:
    OpenTelemetry semantic conventions for generative AI, November 2026 (repository
    semantic-conventions-genai), and 1.27 to 1.41 before it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from driftlock_otlp.model import StreamKind
from driftlock_otlp.windowing.encoding import text_of
from driftlock_otlp.windowing.extraction import (
    ATTRIBUTE_PREFIX,
    MAX_VALUE_CHARS,
    StreamBatches,
    add_record,
    first_of,
    plain_value,
    python_value,
)
from driftlock_otlp.windowing.genai_messages import Exchange
from driftlock_otlp.windowing.genai_text import MAX_TEXT_CHARS, TextTraits, bucket, traits_of

UNKNOWN_MODEL = "unknown"
"""Model of operations that name none."""

INSTRUCTION_BUCKETS = 4_096
"""Instructions and sets of tools are told apart by a number below this."""

# Field -> attributes that carry it, the current name first.
_NAMES = {
    "provider": ("gen_ai.provider.name", "gen_ai.system"),
    "operation": ("gen_ai.operation.name",),
    "request_model": ("gen_ai.request.model",),
    "response_model": ("gen_ai.response.model",),
    "error_type": ("error.type",),
    "tool": ("gen_ai.tool.name",),
    "agent": ("gen_ai.agent.name",),
    "evaluation": ("gen_ai.evaluation.name",),
    "evaluation_label": ("gen_ai.evaluation.score.label",),
}
_NUMBERS = {
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "cache_read_tokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.input_tokens.cached",
    ),
    "cache_write_tokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
    ),
    "reasoning_tokens": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.output_tokens.reasoning",
    ),
    "evaluation_score": ("gen_ai.evaluation.score.value",),
}
_FINISH_REASONS = ("gen_ai.response.finish_reasons", "gen_ai.response.finish_reason")
_TIME_TO_FIRST_CHUNK = (  # seconds
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.server.time_to_first_token",
    "gen_ai.latency.time_to_first_token",
)
_FIRST_CHUNK_EVENTS = frozenset({"gen_ai.first_chunk", "gen_ai.content.first_chunk", "first_chunk", "first_token"})
_NAME = re.compile(r"[^\W_][\w.:/@+~-]{0,63}")
_MOST_CALLS = 8
_OPENING_CHARS = 64


def add_span(batches: StreamBatches, item: int, time_unix_nano: int, span: Span, scope: str | None) -> None:
    """Add a span as an operation of its model's stream."""
    attributes = {attribute.key: attribute.value for attribute in span.attributes}
    exchange = Exchange()
    exchange.add_attributes(attributes)
    fields = _fields_of(attributes, scope)
    for event in span.events:
        if event.name == "exception":
            if fields["error_type"] is None:
                types = [attribute.value for attribute in event.attributes if attribute.key == "exception.type"]
                fields["error_type"] = (name_of(types[0].string_value) if types else "") or "exception"
        elif event.name in _FIRST_CHUNK_EVENTS:
            if fields["time_to_first_chunk_ms"] is None:
                fields["time_to_first_chunk_ms"] = max(0.0, (event.time_unix_nano - span.start_time_unix_nano) / 1e6)
        elif event.name.startswith("gen_ai."):
            exchange.add_event(event.name, {attribute.key: attribute.value for attribute in event.attributes})
    if fields["operation"] is None:
        fields["operation"] = name_of(span.name.split(" ", 1)[0][:MAX_VALUE_CHARS]) or None
    if fields["error_type"] is None and span.status.code == span.status.STATUS_CODE_ERROR:
        fields["error_type"] = "error"
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    fields["duration_ms"] = (end - start) / 1e6 if start and end >= start else None
    fields["trace_id"] = span.trace_id or None
    fields["span_id"] = span.span_id or None
    fields["parent_span_id"] = span.parent_span_id or None
    _add(batches, item, time_unix_nano, fields, exchange)


def add_log_record(
    batches: StreamBatches, item: int, time_unix_nano: int, record: LogRecord, event_name: str, scope: str | None
) -> None:
    """Add a log record as an operation of its model's stream."""
    attributes = {attribute.key: attribute.value for attribute in record.attributes}
    fields = _fields_of(attributes, scope)
    if fields["operation"] is None:
        fields["operation"] = name_of(event_name[:MAX_VALUE_CHARS]) or None
    if fields["error_type"] is None and "exception.type" in attributes:
        fields["error_type"] = name_of(attributes["exception.type"].string_value) or "exception"
    exchange = Exchange()
    if not exchange.add_event(event_name, attributes, record.body):
        exchange.add_attributes(attributes)
    elif fields["finish_reason"] is None:
        body = python_value(record.body)
        if isinstance(body, dict) and isinstance(body.get("finish_reason"), str):
            exchange.finish_reasons.add(body["finish_reason"])
    fields["duration_ms"] = None
    fields["trace_id"] = record.trace_id or None
    fields["span_id"] = record.span_id or None
    _add(batches, item, time_unix_nano, fields, exchange)


def _add(batches: StreamBatches, item: int, time_unix_nano: int, fields: dict[str, Any], exchange: Exchange) -> None:
    _note_exchange(fields, exchange)
    model = fields["request_model"] or fields["response_model"] or UNKNOWN_MODEL
    add_record(batches.batch(StreamKind.GEN_AI.value, model), item, time_unix_nano, fields)


def _fields_of(attributes: Mapping[str, AnyValue], scope: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"scope": scope}
    # Identifiers only: any other attribute of such a record may hold what people have written.
    for key, value in attributes.items():
        if key.endswith((".id", "_id")) and len(key) <= MAX_VALUE_CHARS:
            fields[ATTRIBUTE_PREFIX + key] = plain_value(value)
    for field, names in _NAMES.items():
        found = first_of(_plain(attributes, names), names)
        fields[field] = None if found is None else name_of(text_of(found))
    for field, names in _NUMBERS.items():
        fields[field] = _number(attributes, names)
    seconds = _number(attributes, _TIME_TO_FIRST_CHUNK)
    fields["time_to_first_chunk_ms"] = None if seconds is None else seconds * 1e3
    fields["finish_reason"] = _finish_reasons(attributes)
    return fields


def _note_exchange(fields: dict[str, Any], exchange: Exchange) -> None:
    """Add the structure of what went in and came out; nothing of it where nothing was told."""
    if fields["finish_reason"] is None and exchange.finish_reasons:
        fields["finish_reason"] = ",".join(sorted(map(name_of, exchange.finish_reasons)))[:MAX_VALUE_CHARS]
    if exchange.instructions:
        text = "\n".join(exchange.instructions)
        fields["instructions"] = bucket(text[:MAX_TEXT_CHARS], INSTRUCTION_BUCKETS)
        fields["instructions_opening"] = bucket(text[:_OPENING_CHARS], INSTRUCTION_BUCKETS)
        fields["instructions_length"] = len(text)
    if exchange.tools is not None:
        fields["tools"] = bucket(" ".join(exchange.tools), INSTRUCTION_BUCKETS)
    if exchange.inputs:
        text = "\n".join(exchange.inputs)
        traits = traits_of(text)
        fields["input_length"] = traits.length
        fields["input_format"] = traits.format
        fields["input_language"] = traits.language
        fields["input_shape"] = traits.shape
        fields["call_digest"] = zlib.crc32(text.encode("utf-8", "replace")) if fields["tool"] else None
        _note_unusual(fields, traits)
    if exchange.has_output:
        _note_output(fields, exchange)


def _note_unusual(fields: dict[str, Any], traits: TextTraits) -> None:
    """Add what is unusual in a text that a model reads."""
    for field, found in (
        ("input_blob_percent", traits.blob_percent),
        ("input_hidden", traits.hidden),
        ("input_markers", traits.markers),
        ("input_orders", traits.orders),
    ):
        fields[field] = max(fields.get(field) or 0, found)


def _note_output(fields: dict[str, Any], exchange: Exchange) -> None:
    text = "\n".join(exchange.outputs)
    traits = traits_of(text)
    fields["output_length"] = traits.length + sum(len(arguments) for _, arguments in exchange.calls)
    if fields["tool"]:
        _note_unusual(fields, traits)  # what a tool returns goes into the model
    if traits.format == "empty" and exchange.calls:
        fields["output_format"] = "tool_call"
    else:
        fields["output_format"] = traits.format
    if traits.format != "empty":
        fields["output_language"] = traits.language
        fields["output_opening"] = traits.opening
        fields["output_stance"] = "declines" if traits.declines else "answers"
        fields["output_ending"] = "cut" if traits.is_cut else "whole"
        fields["output_shape"] = traits.shape
    if exchange.calls:
        codes = [f"#{zlib.crc32(name.encode('utf-8', 'replace')):08x}" for name, _ in exchange.calls[:_MOST_CALLS]]
        fields["tool_calls"] = "+".join(codes)
        called = "\0".join(f"{name}\0{arguments}" for name, arguments in exchange.calls)
        fields["call_digest"] = zlib.crc32(called.encode("utf-8", "replace"))


def name_of(text: str) -> str:
    """Return a name as it is, and anything that does not look like one as a number that stands for it.

    What should name a tool or an error sometimes holds a sentence, and sentences may be content.

    >>> name_of("get_weather"), name_of("the key is 1234")
    ('get_weather', '#e62930f0')
    """
    if _NAME.fullmatch(text) or not text:
        return text
    return f"#{zlib.crc32(text.encode('utf-8', 'replace')):08x}"


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
            texts = sorted({name_of(str(reason)) for reason in reasons if reason})
            if texts:
                return ",".join(texts)[:MAX_VALUE_CHARS]
    return None
