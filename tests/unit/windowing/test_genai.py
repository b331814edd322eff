from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from driftlock_otlp.detection.columns import Category
from driftlock_otlp.model import Signal
from driftlock_otlp.windowing.batch import StreamBatch
from driftlock_otlp.windowing.genai import GenAiShaper
from driftlock_otlp.windowing.streams import split_request
from tests.unit.windowing.messages import SECOND, T0, logs, only, pairs, record, span, traces

SECRET = "the launch code is 0000"

CURRENT = {
    "gen_ai.provider.name": "openai",
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "large",
    "gen_ai.response.model": "large-2026",
    "gen_ai.usage.input_tokens": 12,
    "gen_ai.usage.output_tokens": 34,
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.response.time_to_first_chunk": 0.25,
    "gen_ai.conversation.id": "c1",
    "gen_ai.output.messages": json.dumps(
        [{"role": "assistant", "parts": [{"type": "text", "content": SECRET}], "finish_reason": "stop"}]
    ),
}
OLDER = {
    "gen_ai.system": "openai",
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "large",
    "gen_ai.response.model": "large-2026",
    "gen_ai.usage.prompt_tokens": 12,
    "gen_ai.usage.completion_tokens": 34,
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.server.time_to_first_token": 0.25,
    "gen_ai.conversation.id": "c1",
    "gen_ai.prompt.0.content": "please",
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": SECRET,
}


def _fields(batch: StreamBatch) -> dict[str, Any]:
    return {name: batch.column(name)[0] for name in batch.fields}


def _of_span(found: Span) -> dict[str, Any]:
    return _fields(only(Signal.TRACES, traces([found])))


def _texts(column: Category) -> list[str | None]:
    return [column.labels[code] if code >= 0 else None for code in column.codes]


@pytest.mark.parametrize("attributes", [CURRENT, OLDER], ids=["current", "older"])
def test_current_and_older_conventions_give_the_same_fields(attributes: dict[str, Any]) -> None:
    assert _of_span(span("chat large", attributes)) == {
        "provider": "openai",
        "operation": "chat",
        "request_model": "large",
        "response_model": "large-2026",
        "input_tokens": 12.0,
        "output_tokens": 34.0,
        "finish_reason": "stop",
        "time_to_first_chunk_ms": 250.0,
        "output_length": len(SECRET),
        "error_type": None,
        "tool": None,
        "agent": None,
        "duration_ms": 10.0,
        "scope": None,
        "trace_id": None,
        "span_id": None,
        "parent_span_id": None,
        "attributes.gen_ai.conversation.id": "c1",
    }


def test_no_text_of_a_message_becomes_a_field() -> None:
    attributes = {
        **CURRENT,
        **OLDER,
        "gen_ai.input.messages": SECRET,
        "gen_ai.system_instructions": SECRET,
        "gen_ai.tool.call.arguments": SECRET,
        "input.value": SECRET,
        "traceloop.entity.output": SECRET,
    }
    chat = span("chat large", attributes)
    chat.events.add(name="gen_ai.content.completion", attributes=pairs({"gen_ai.completion": SECRET}))
    event = record({"message": {"content": SECRET}, "index": 0}, {"gen_ai.system": "x"}, event_name="gen_ai.choice")
    for batch in (only(Signal.TRACES, traces([chat])), only(Signal.LOGS, logs([event]))):
        assert "launch code" not in repr(batch.fields)


def test_streams_are_per_model() -> None:
    request = traces(
        [
            span("a", {"gen_ai.request.model": "one", "gen_ai.response.model": "x"}),
            span("b", {"gen_ai.response.model": "two"}),
            span("c", {"gen_ai.system": "s"}),
        ]
    )
    assert [(b.key.name, b.items) for b in split_request(Signal.TRACES, request, "")] == [
        ("one", [0]),
        ("two", [1]),
        ("unknown", [2]),
    ]


@pytest.mark.parametrize(
    ("output", "length"),
    [
        ([{"parts": [{"type": "text", "content": "four"}, {"type": "text", "content": "nine"}]}], 8),
        ('[{"role": "assistant", "content": "four"}]', 4),
        ("[broken", 7),
        ('[{"parts": [{"type": "tool_call", "name": "f", "arguments": {"content": "xx"}}]}]', 2),
        ("[" * 3000, 3000),
    ],
)
def test_output_is_measured_in_characters_of_its_texts(output: Any, length: int) -> None:
    assert _of_span(span("chat", {"gen_ai.output.messages": output}))["output_length"] == length


def test_choices_in_log_events_give_length_and_finish_reason() -> None:
    body = {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "12345"}}
    fields = _fields(only(Signal.LOGS, logs([record(body, {"gen_ai.system": "s"}, event_name="gen_ai.choice")])))
    assert (fields["output_length"], fields["finish_reason"], fields["operation"]) == (5, "length", "gen_ai.choice")
    assert fields["duration_ms"] is None


def test_errors_are_named_by_attribute_exception_or_status() -> None:
    failed = Status(code=Status.STATUS_CODE_ERROR)
    model = {"gen_ai.request.model": "m"}
    named = span("chat", {**model, "error.type": "timeout"}, status=failed)
    thrown = span("chat", model)
    thrown.events.add(name="exception", attributes=pairs({"exception.type": "ValueError"}))
    found = only(Signal.TRACES, traces([named, thrown, span("chat", model, status=failed), span("chat", model)]))
    assert found.column("error_type") == ["timeout", "ValueError", "error", None]


def test_the_first_chunk_may_be_told_by_an_event() -> None:
    chat = span("chat", {"gen_ai.request.model": "m"}, start_time_unix_nano=T0 - SECOND)
    chat.events.add(name="gen_ai.first_chunk", time_unix_nano=T0 - SECOND // 2)
    assert _of_span(chat)["time_to_first_chunk_ms"] == 500.0


def test_columns_of_a_window() -> None:
    batch = only(
        Signal.TRACES,
        traces(
            [
                span("chat large", CURRENT),
                span("execute_tool search", {"gen_ai.request.model": "large", "gen_ai.tool.name": "search"}),
                span("chat large", {"gen_ai.request.model": "large", "gen_ai.usage.input_tokens": -5}),
            ]
        ),
    )
    columns = GenAiShaper().shape(batch)
    assert {name: _texts(column) for name, column in columns.categories.items()} == {
        "operation": ["chat", "execute_tool", "chat"],
        "model": ["large-2026", "large", "large"],
        "finish_reason": ["stop", None, None],
        "error_type": ["none", "none", "none"],
        "tool": [None, "search", None],
    }
    tokens = ["input_tokens", "output_tokens"]
    assert list(columns.numbers) == [*tokens, "output_length", "duration", "time_to_first_chunk"]
    np.testing.assert_array_equal(columns.numbers["input_tokens"].values, [12, np.nan, np.nan])
    assert columns.numbers["duration"].given == "operation"
    assert all(column.is_positive_scale for column in columns.numbers.values())
