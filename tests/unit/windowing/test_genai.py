from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from driftlock_otlp.model import Signal
from driftlock_otlp.windowing.batch import StreamBatch
from driftlock_otlp.windowing.genai import INSTRUCTION_BUCKETS
from driftlock_otlp.windowing.genai_text import OPENING_BUCKETS, bucket
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
    "gen_ai.usage.cache_read.input_tokens": 8,
    "gen_ai.usage.cache_write.input_tokens": 2,
    "gen_ai.usage.reasoning.output_tokens": 5,
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.response.time_to_first_chunk": 0.25,
    "gen_ai.conversation.id": "c1",
    "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "You are a helpful bot"}]),
    "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "please"}]}]),
    "gen_ai.output.messages": json.dumps(
        [{"role": "assistant", "parts": [{"type": "text", "content": SECRET}], "finish_reason": "stop"}]
    ),
}
"""As the conventions of 2026 have it, messages as JSON texts."""
STRUCTURED = {
    key: json.loads(item) if isinstance(item, str) and item.startswith("[") else item for key, item in CURRENT.items()
}
"""The same with messages as values, as on events."""
FLAT = {
    "gen_ai.system": "openai",
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "large",
    "gen_ai.response.model": "large-2026",
    "gen_ai.usage.prompt_tokens": 12,
    "gen_ai.usage.completion_tokens": 34,
    "gen_ai.usage.cache_read_input_tokens": 8,
    "gen_ai.usage.cache_creation_input_tokens": 2,
    "gen_ai.usage.reasoning_tokens": 5,
    "gen_ai.server.time_to_first_token": 0.25,
    "gen_ai.conversation.id": "c1",
    "gen_ai.prompt.0.role": "system",
    "gen_ai.prompt.0.content": "You are a helpful bot",
    "gen_ai.prompt.1.role": "user",
    "gen_ai.prompt.1.content": "please",
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": SECRET,
    "gen_ai.completion.0.finish_reason": "stop",
}
"""As OpenLLMetry numbers messages."""


def _fields(batch: StreamBatch, row: int = 0) -> dict[str, Any]:
    return {name: batch.column(name)[row] for name in batch.fields}


def _of_span(found: Span) -> dict[str, Any]:
    return _fields(only(Signal.TRACES, traces([found])))


def _output(messages: Any) -> dict[str, Any]:
    return _of_span(span("chat", {"gen_ai.output.messages": messages}))


@pytest.mark.parametrize("attributes", [CURRENT, STRUCTURED, FLAT], ids=["current", "structured", "flat"])
def test_current_and_older_conventions_give_the_same_fields(attributes: dict[str, Any]) -> None:
    expected = _of_span(span("chat large", CURRENT))
    assert _of_span(span("chat large", attributes)) == expected
    assert {name: expected[name] for name in expected if not name.endswith(("_shape", "_id"))} == {
        "scope": None,
        "attributes.gen_ai.conversation.id": "c1",
        "provider": "openai",
        "operation": "chat",
        "request_model": "large",
        "response_model": "large-2026",
        "error_type": None,
        "tool": None,
        "agent": None,
        "evaluation": None,
        "evaluation_label": None,
        "input_tokens": 12.0,
        "output_tokens": 34.0,
        "cache_read_tokens": 8.0,
        "cache_write_tokens": 2.0,
        "reasoning_tokens": 5.0,
        "evaluation_score": None,
        "time_to_first_chunk_ms": 250.0,
        "finish_reason": "stop",
        "duration_ms": 10.0,
        "instructions": bucket("You are a helpful bot", INSTRUCTION_BUCKETS),
        "instructions_opening": bucket("You are a helpful bot", INSTRUCTION_BUCKETS),
        "instructions_length": 21,
        "input_length": 6,
        "input_format": "line",
        "input_language": "latin",
        "input_blob_percent": 0.0,
        "input_hidden": 0,
        "input_markers": 0,
        "input_orders": 0,
        "call_digest": None,
        "output_length": len(SECRET),
        "output_format": "line",
        "output_language": "en",
        "output_opening": bucket("the launch", OPENING_BUCKETS),
        "output_stance": "answers",
        "output_ending": "cut",
    }


def test_events_of_single_messages_are_read_from_body_and_attributes() -> None:
    body = {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "12345"}}
    system = {"gen_ai.system": "openai"}
    found = only(
        Signal.LOGS,
        logs(
            [
                record({"content": "You are kind"}, system, event_name="gen_ai.system.message"),
                record({"content": "Weather in Paris?"}, system, event_name="gen_ai.user.message"),
                record({"id": "call_1", "content": "rainy"}, system, event_name="gen_ai.tool.message"),
                record({"content": "an earlier answer"}, system, event_name="gen_ai.assistant.message"),
                record(body, system, event_name="gen_ai.choice"),
                record({"content": "by attribute"}, {**system, "event.name": "gen_ai.user.message"}),
            ]
        ),
    )
    assert found.column("operation") == [
        "gen_ai.system.message",
        "gen_ai.user.message",
        "gen_ai.tool.message",
        "gen_ai.assistant.message",
        "gen_ai.choice",
        "gen_ai.user.message",
    ]
    assert found.column("instructions_length") == [12, None, None, None, None, None]
    assert found.column("input_length") == [None, 17, 5, None, None, 12]
    assert found.column("output_length") == [None, None, None, None, 5, None]
    assert found.column("finish_reason") == [None, None, None, None, "length", None]
    assert set(found.column("duration_ms")) == {None}


def test_a_choice_that_asks_for_tools_is_no_empty_answer() -> None:
    calls = [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}]
    body = {"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "tool_calls": calls}}
    fields = _fields(only(Signal.LOGS, logs([record(body, {"gen_ai.system": "x"}, event_name="gen_ai.choice")])))
    assert (fields["output_format"], fields["output_length"]) == ("tool_call", len('{"city":"Paris"}'))
    part = {"type": "tool_call", "id": "1", "name": "get_weather", "arguments": {"city": "Paris"}}
    current = _output([{"role": "assistant", "parts": [part]}])
    flat = _of_span(
        span(
            "chat",
            {
                "gen_ai.completion.0.finish_reason": "tool_calls",
                "gen_ai.completion.0.tool_calls.0.name": "get_weather",
                "gen_ai.completion.0.tool_calls.0.arguments": '{"city":"Paris"}',
            },
        )
    )
    assert fields["tool_calls"] == current["tool_calls"] == flat["tool_calls"]
    assert current["output_format"] == flat["output_format"] == "tool_call"


def test_the_event_of_operation_details_is_an_operation_of_the_model() -> None:
    event = record(None, STRUCTURED, event_name="gen_ai.client.inference.operation.details")
    found = only(Signal.LOGS, logs([event]))
    assert found.key.name == "large"
    expected = _of_span(span("chat large", CURRENT))
    assert _fields(found) == {name: item for name, item in expected.items() if name != "parent_span_id"} | {
        "duration_ms": None
    }


@pytest.mark.parametrize("name", ["gen_ai.content.completion", "gen_ai.choice"])
def test_span_events_carry_messages_as_older_instrumentations_write_them(name: str) -> None:
    chat = span("chat", {"gen_ai.system": "az.ai.inference", "gen_ai.request.model": "m"})
    answer = {"message": {"content": SECRET, "role": "assistant"}, "finish_reason": "stop", "index": 0}
    key = "gen_ai.completion" if name == "gen_ai.content.completion" else "gen_ai.event.content"
    prompt = json.dumps([{"role": "user", "content": "please"}])
    chat.events.add(name="gen_ai.content.prompt", attributes=pairs({"gen_ai.prompt": prompt}))
    chat.events.add(name=name, attributes=pairs({key: json.dumps(answer)}))
    fields = _of_span(chat)
    assert (fields["input_length"], fields["output_length"], fields["finish_reason"]) == (6, len(SECRET), "stop")


def test_only_what_came_after_the_last_answer_is_input() -> None:
    history = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "a first question that was long"},
        {"role": "assistant", "content": "an answer"},
        {"role": "user", "content": [{"type": "text", "text": "next"}, {"type": "image_url", "image_url": "data:"}]},
    ]
    fields = _of_span(span("chat", {"gen_ai.input.messages": json.dumps(history)}))
    assert (fields["input_length"], fields["instructions_length"]) == (4, 7)


def test_an_execution_of_a_tool_is_read_from_its_arguments_and_result() -> None:
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "get_weather",
        "gen_ai.tool.call.id": "call_1",
        "gen_ai.tool.call.arguments": '{"city":"Paris"}',
        "gen_ai.tool.call.result": {"weather": "rainy"},
    }
    fields = _of_span(span("execute_tool get_weather", attributes))
    assert (fields["operation"], fields["tool"], fields["input_format"]) == ("execute_tool", "get_weather", "json")
    assert fields["output_format"] == "json"
    assert fields["call_digest"] is not None


def test_evaluations_have_their_name_label_and_score() -> None:
    attributes = {
        "gen_ai.evaluation.name": "Relevance",
        "gen_ai.evaluation.score.value": 4.5,
        "gen_ai.evaluation.score.label": "pass",
        "gen_ai.evaluation.explanation": SECRET,
    }
    fields = _fields(only(Signal.LOGS, logs([record(None, attributes, event_name="gen_ai.evaluation.result")])))
    assert (fields["evaluation"], fields["evaluation_label"], fields["evaluation_score"]) == ("Relevance", "pass", 4.5)


def test_what_is_no_name_is_replaced_by_a_number() -> None:
    chat = span("chat", {"gen_ai.request.model": "m", "error.type": SECRET, "gen_ai.tool.name": SECRET})
    fields = _of_span(chat)
    assert fields["error_type"] == fields["tool"] != SECRET
    assert fields["tool"].startswith("#")


def test_no_text_of_a_message_becomes_a_field() -> None:
    secrets = {
        "gen_ai.input.messages": SECRET,
        "gen_ai.output.messages": [{"role": "assistant", "finish_reason": SECRET, "parts": [{"content": SECRET}]}],
        "gen_ai.system_instructions": SECRET,
        "gen_ai.tool.definitions": [{"name": SECRET, "description": SECRET}],
        "gen_ai.tool.call.arguments": SECRET,
        "gen_ai.tool.call.result": SECRET,
        "gen_ai.evaluation.explanation": SECRET,
        "gen_ai.retrieval.query.text": SECRET,
        "input.value": SECRET,
        "traceloop.entity.output": SECRET,
    }
    chat = span("chat large", {**FLAT, "gen_ai.response.finish_reasons": [SECRET], **secrets})
    chat.events.add(name="gen_ai.content.completion", attributes=pairs({"gen_ai.completion": SECRET}))
    chat.events.add(name="exception", attributes=pairs({"exception.type": SECRET, "exception.message": SECRET}))
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
        ([{"parts": [{"type": "text", "content": "four"}, {"type": "text", "content": "nine"}]}], 9),
        ('[{"role": "assistant", "content": "four"}]', 4),
        ("[broken", 7),
        ('[{"parts": [{"type": "tool_call", "name": "f", "arguments": {"content": "xx"}}]}]', 16),
        ("[" * 3000, 3000),
        ([{"parts": [{"type": "blob", "modality": "image", "content": "aGVsbG8="}]}], 0),
        ([], 0),
    ],
)
def test_output_is_measured_in_characters_of_its_texts_and_arguments(output: Any, length: int) -> None:
    assert _output(output)["output_length"] == length


def test_errors_are_named_by_attribute_exception_or_status() -> None:
    failed = Status(code=Status.STATUS_CODE_ERROR)
    model = {"gen_ai.request.model": "m"}
    named = span("chat", {**model, "error.type": "timeout"}, status=failed)
    thrown = span("chat", model)
    thrown.events.add(name="exception", attributes=pairs({"exception.type": "ValueError"}))
    found = only(Signal.TRACES, traces([named, thrown, span("chat", model, status=failed), span("chat", model)]))
    assert found.column("error_type") == ["timeout", "ValueError", "error", None]


def test_exceptions_that_are_told_as_events_are_errors() -> None:
    event = record(None, {"exception.type": "RateLimitError"}, event_name="gen_ai.client.operation.exception")
    assert _fields(only(Signal.LOGS, logs([event])))["error_type"] == "RateLimitError"


def test_the_first_chunk_may_be_told_by_an_event() -> None:
    chat = span("chat", {"gen_ai.request.model": "m"}, start_time_unix_nano=T0 - SECOND)
    chat.events.add(name="gen_ai.first_chunk", time_unix_nano=T0 - SECOND // 2)
    assert _of_span(chat)["time_to_first_chunk_ms"] == 500.0
