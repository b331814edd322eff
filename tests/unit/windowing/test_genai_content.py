"""What people and models write is scored, and is nowhere in what the detector keeps or says."""

from __future__ import annotations

import functools
import json
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from driftlock_otlp.config.file import load
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.model import Anomaly, Signal
from driftlock_otlp.windowing.scoring import StreamScoring
from driftlock_otlp.worker.checkpoint import encode_state
from tests.unit.windowing.messages import SECOND, T0, logs, pairs, record, span, traces

CANARY = "zqcanaryzq"
WINDOW = 20
WARM = 60


def _chat(number: int, second: int, *, is_odd: bool) -> Span:
    text = f"{CANARY} answer {number} of many. {CANARY}"
    if is_odd:
        text = f"I'm sorry, I cannot speak of {CANARY}"
    messages = [{"role": "user", "parts": [{"type": "text", "content": f"{CANARY} please, {number}"}]}]
    part: dict[str, Any] = {"type": "text", "content": text}
    call = {"type": "tool_call", "name": CANARY, "arguments": {CANARY: CANARY}}
    output = [{"role": "assistant", "parts": [part, call]}]
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.conversation.id": f"c{number % 7}",
        "gen_ai.response.finish_reasons": ["refused" if is_odd else "stop"],
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": f"you are {CANARY}"}]),
        "gen_ai.input.messages": json.dumps(messages),
        "gen_ai.output.messages": json.dumps(output),
        "gen_ai.tool.definitions": json.dumps([{"type": "function", "name": CANARY, "description": CANARY}]),
        "gen_ai.prompt.0.content": CANARY,
        "gen_ai.retrieval.query.text": CANARY,
        "app.note": CANARY,
    }
    end = T0 + second * SECOND
    chat = span("chat m", attributes, start_time_unix_nano=end - SECOND, end_time_unix_nano=end)
    if is_odd:
        chat.status.code = Status.STATUS_CODE_ERROR
        chat.events.add(
            name="exception",
            attributes=pairs({"exception.type": f"Error: {CANARY}", "exception.message": CANARY}),
        )
    return chat


def _tool(number: int, second: int, *, is_odd: bool) -> Span:
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.request.model": "m",
        "gen_ai.tool.name": "delete_all" if is_odd else "search",
        "gen_ai.tool.description": CANARY,
        "gen_ai.tool.call.arguments": json.dumps({"q": f"{CANARY} {number}"}),
        "gen_ai.tool.call.result": f"{CANARY} found",
        "gen_ai.conversation.id": f"c{number % 7}",
    }
    end = T0 + second * SECOND
    return span("execute_tool", attributes, start_time_unix_nano=end - SECOND, end_time_unix_nano=end)


@functools.cache
def _run() -> tuple[bytes, list[Anomaly], str]:
    sizes = [f"windows.gen_ai.size={WINDOW}", "windows.gen_ai.baseline_records=160", "detection.warm_up_windows=20"]
    scoring = StreamScoring(load(None, sizes, environ={}), new_compressor("auto"), with_records=True)
    found: list[Anomaly] = []
    said = ""
    states = b""
    for turn in range(WARM + 4):
        is_odd = turn >= WARM
        # One record more than a window, so that some window is always open.
        spans = [
            (_tool if number % 4 == 0 else _chat)(number, turn * 10, is_odd=is_odd and number % 2 == 0)
            for number in range(WINDOW if turn else WINDOW + 1)
        ]
        verdicts = scoring.feed(Signal.TRACES, traces(spans).SerializeToString(), turn, T0 + turn * 10 * SECOND)
        found += verdicts.opened
        said += repr(verdicts)
        if turn >= WARM - 1:
            states += b"".join(encode_state(change.state) for change in scoring.take_changes())
    event = record({"message": {"content": CANARY}}, {"gen_ai.request.model": "m"}, event_name="gen_ai.choice")
    scoring.feed(Signal.LOGS, logs([event]).SerializeToString(), WARM + 4, T0 + WARM * 10 * SECOND)
    states += b"".join(encode_state(change.state) for change in scoring.take_changes())
    return states, found, said


def test_no_text_of_a_message_is_kept_or_said() -> None:
    states, found, said = _run()
    assert found
    assert len(states) > 1000
    assert CANARY.encode() not in states
    assert CANARY not in said
    assert CANARY not in repr(found)


def test_names_of_tools_models_and_errors_are_told_without_quoting() -> None:
    _, found, _ = _run()
    told = " ".join(item.text for anomaly in found for item in anomaly.evidence)
    assert "delete_all" in told or "refused" in told or "declines" in told


def test_quoting_is_off_for_generative_ai_unless_it_is_set() -> None:
    unset = load(None, [], environ={})
    assert (unset.quote_max_bytes("gen_ai"), unset.quote_max_bytes("logs")) == (0, 160)
    for value in (0, 40):
        given = load(None, [f"detection.quote_max_bytes={value}"], environ={})
        assert {given.quote_max_bytes(kind) for kind in ("gen_ai", "logs", "traces", "metrics")} == {value}
