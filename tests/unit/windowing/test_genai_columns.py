from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from driftlock_otlp.detection.columns import Category, Columns
from driftlock_otlp.model import Signal
from driftlock_otlp.windowing.genai_columns import GenAiShaper
from tests.unit.windowing.messages import only, span, traces


def _texts(column: Category) -> list[str | None]:
    return [column.labels[code] if code >= 0 else None for code in column.codes]


def _shape(spans: list[Span], shaper: GenAiShaper | None = None) -> Columns:
    return (shaper or GenAiShaper()).shape(only(Signal.TRACES, traces(spans)))


def _chat(**attributes: Any) -> Span:
    named = {key.replace("__", "."): item for key, item in attributes.items()}
    return span("chat m", {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", **named})


def _tool(name: str, conversation: str = "c1", arguments: str | None = None) -> Span:
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.conversation.id": conversation,
    }
    if arguments is not None:
        attributes["gen_ai.tool.call.arguments"] = arguments
    return span(f"execute_tool {name}", attributes)


def _says(text: str) -> Span:
    return _chat(gen_ai__output__messages=json.dumps([{"role": "assistant", "parts": [{"content": text}]}]))


def test_columns_of_a_window_without_content() -> None:
    columns = _shape(
        [
            _chat(
                gen_ai__response__model="m-2026",
                gen_ai__usage__input_tokens=200,
                gen_ai__usage__output_tokens=50,
                gen_ai__response__finish_reasons=["stop"],
                gen_ai__response__time_to_first_chunk=0.005,
            ),
            _chat(gen_ai__usage__input_tokens=-5, error__type="timeout"),
        ]
    )
    assert {name: _texts(column) for name, column in columns.categories.items()} == {
        "operation": ["chat", "chat"],
        "model": ["m-2026", "m"],
        "finish_reason": ["stop", None],
        "error_type": ["none", "timeout"],
    }
    found = {name: column.values.tolist() for name, column in columns.numbers.items()}
    assert found.pop("input_tokens") == [200, pytest.approx(np.nan, nan_ok=True)]
    assert {name: values[0] for name, values in found.items()} == {
        "output_tokens": 50,
        "input_tokens_mean": 200,
        "output_tokens_mean": 50,
        "time_to_first_chunk_mean": 5.0,
        "duration": 10.0,
        "time_to_first_chunk": 5.0,
        "output_share": 25.0,
        "time_per_output_token": 100.0,
    }
    assert columns.numbers["duration"].given == "operation"
    assert all(column.is_positive_scale for column in columns.numbers.values())


def test_columns_of_content_come_up_with_it() -> None:
    shaper = GenAiShaper()
    assert "output.format" not in _shape([_chat()], shaper).categories
    columns = _shape([_says('{"a": 1}'), _chat(), _says("")], shaper)
    assert _texts(columns.categories["output.format"]) == ["json", None, "empty"]
    assert {"output_length", "output_surprise"} <= set(columns.numbers)


def test_operations_are_named_with_what_they_are_about() -> None:
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "Coder"}
    columns = _shape([span("invoke_agent Coder", agent), _tool("search")])
    assert _texts(columns.categories["operation"]) == ["invoke_agent Coder", "execute_tool search"]


def test_calls_are_told_with_the_one_before_in_their_conversation() -> None:
    shaper = GenAiShaper()
    first = _shape([_tool("search", "c1"), _tool("open", "c2"), _tool("open", "c1")], shaper)
    assert _texts(first.categories["call"]) == ["start -> search", "start -> open", "search -> open"]
    assert _texts(_shape([_tool("open", "c1")], shaper).categories["call"]) == ["open -> open"]


def test_calls_in_a_row_and_repeats_are_counted() -> None:
    calls = [_tool("search", arguments='{"q": "a"}')] * 3 + [_tool("open", arguments="{}"), _tool("search")]
    numbers = _shape(calls).numbers
    assert numbers["tool_run"].values.tolist() == [1, 2, 3, 1, 1]
    np.testing.assert_array_equal(numbers["tool_repeats"].values, [0, 1, 2, 0, np.nan])


def test_tools_that_an_answer_asks_for_are_calls_too() -> None:
    part = {"type": "tool_call", "name": "search", "arguments": {}}
    ask = json.dumps([{"role": "assistant", "parts": [part]}])
    chats = [_chat(gen_ai__conversation__id="c1", gen_ai__output__messages=ask) for _ in range(2)]
    labels = _texts(_shape(chats).categories["call"])
    assert labels[0] != labels[1]
    assert "search" not in repr(labels)


def test_the_surprise_of_a_text_is_measured_by_earlier_windows() -> None:
    shaper = GenAiShaper()
    for _ in range(5):
        usual = _shape([_says("This is an answer, as they all are. It has two sentences.")] * 20, shaper)
    odd = _shape([_says("%%%% {{{{ ]]]] 0x00 0x01 ~~~~ ==== //// ;;;;")], shaper)
    assert odd.numbers["output_surprise"].values[0] > 2 * usual.numbers["output_surprise"].values[0]


def test_a_shaper_is_restored_from_its_state() -> None:
    shaper = GenAiShaper()
    _shape([_tool("search", arguments="{}"), _tool("open")], shaper)
    _shape([_says("One answer.")], shaper)
    restored = GenAiShaper()
    restored.restore(shaper.state())
    for spans in ([_tool("search", arguments="{}")], [_says("Another answer?")]):
        _assert_equal(_shape(spans, restored), _shape(spans, shaper))


def _assert_equal(ours: Columns, theirs: Columns) -> None:
    assert {name: _texts(column) for name, column in ours.categories.items()} == {
        name: _texts(column) for name, column in theirs.categories.items()
    }
    for name, column in ours.numbers.items():
        np.testing.assert_array_equal(column.values, theirs.numbers[name].values)
