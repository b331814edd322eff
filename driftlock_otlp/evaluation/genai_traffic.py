"""Traffic of agents and models, made from the messages of real runs: what instrumented SDKs would send.

Each recorded run becomes a conversation: its agents' messages are answers of a model, with spans
as the semantic conventions for generative AI write them, its actions are executions of tools, and
an agent's invocation is around it all. Many conversations go on side by side. Times, tokens and
errors are drawn from a seeded generator; the texts are the recorded ones.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from driftlock_otlp.errors import InputError

SERVICE = "assistants"
START_UNIX_NANO = 1_780_000_000 * 10**9
_SIDE_BY_SIDE = 40
_EXPORT_S = 1.0
_HISTORY_MESSAGES = 12
_MESSAGE_CHARS = 6_000
_THINK_S = 1.5
_ERROR_SHARE = 0.01
_LENGTH_SHARE = 0.01
_CACHE_SHARE = 0.7

LARGE, SMALL = "large-chat", "small-chat"
_RELEASES = {LARGE: "large-chat-2026-05-13", SMALL: "small-chat-2026-02-01"}
# Per model: seconds to the first chunk, milliseconds for each token.
_PACE = {LARGE: (0.9, 14.0), SMALL: (0.3, 6.0)}
# How the recorded agents' actions begin, and the tool that does such a thing.
_ACTIONS = (
    ("I typed", "web_search"),
    ("I clicked", "click"),
    ("I scrolled", "scroll"),
    ("I visited", "open_page"),
    ("I saw", "screenshot"),
    ("I went back", "history_back"),
)
_SMALL_AGENTS = ("WebSurfer", "FileSurfer", "Assistant")
_TOOL_OF_AGENT = {"FileSurfer": "read_file"}
_LEDGER = re.compile(r"\A[A-Z][\w ]{0,30}:\s*(\{.*\})\s*\Z", re.DOTALL)
_AGENT = re.compile(r"[^A-Za-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a conversation, before it is a span.

    Attributes:
        kind: `chat` or `execute_tool`.
        agent: Who acts.
        model: Asked for, of a chat.
        release: The model that answers.
        tool: Executed, or asked for by the answer; empty for none.
        arguments: Of the tool, JSON.
        instructions: System instructions of a chat.
        history: (role, text) of what the model gets; of a tool, nothing.
        output: Text of the answer, or the tool's result.
        finish_reason: Of a chat.
        error: `error.type`; empty for success.
        input_tokens, cached_tokens, output_tokens: Of a chat.
        first_chunk_s: Time to the first chunk; of a tool, 0.
        rest_s: Time after it.
        fault: Name of the fault that this operation shows; empty for none.
    """

    kind: str
    agent: str
    model: str = ""
    release: str = ""
    tool: str = ""
    arguments: str = ""
    instructions: str = ""
    history: tuple[tuple[str, str], ...] = ()
    output: str = ""
    finish_reason: str = ""
    error: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    first_chunk_s: float = 0.0
    rest_s: float = 0.0
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What a recorded run did next.

    Attributes:
        kind: `chat` or `execute_tool`.
        agent: Who.
        model: Which model an agent of its kind asks.
        tool: Executed, or asked for next.
        arguments: Of the tool, JSON.
        output: Text of the answer or the result.
    """

    kind: str
    agent: str
    model: str
    tool: str
    arguments: str
    output: str


@dataclass(frozen=True, slots=True)
class Run:
    """A recorded run as steps.

    Attributes:
        name: File it is of.
        question: What the user asked.
        instructions: By agent.
        steps: In order.
        mistakes: Numbers of the steps that the label calls the decisive mistake; one message may be two steps.
    """

    name: str
    question: str
    instructions: dict[str, str]
    steps: tuple[Step, ...]
    mistakes: frozenset[int] = frozenset()


Fault = Callable[[Operation, np.random.Generator], Operation | None]
"""Changes an operation, or returns None to leave it as it is."""
Rearrangement = Callable[[tuple[Step, ...], np.random.Generator], "tuple[tuple[Step, ...], frozenset[int]] | None"]
"""Changes the steps of a conversation that begins; returns them with the numbers of those that are wrong."""


def load_runs(data: Path) -> list[Run]:
    """Return the recorded runs, by the names of their files.

    Raises:
        InputError: They are not there, or not as they should be.
    """
    paths = sorted((data / "who_and_when").glob("*/*.json"))
    if not paths:
        raise InputError(f"{data / 'who_and_when'}: holds no runs; name the directory above it with --data")
    runs = []
    for path in paths:
        try:
            runs.append(_run(f"{path.parent.name}/{path.stem}", json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: cannot be read as a recorded run: {error}") from None
    return runs


def _run(name: str, recorded: dict[str, Any]) -> Run:
    steps: list[Step] = []
    mistakes = set()
    mistake = int(recorded.get("mistake_step", -1))
    for number, message in enumerate(recorded["history"]):
        before = len(steps)
        _add_steps(steps, message)
        if number == mistake:
            mistakes = set(range(before, len(steps)))
    prompts = recorded.get("system_prompt") or {}
    instructions = {_name(agent): prompt for agent, prompt in prompts.items() if isinstance(prompt, str)}
    return Run(name, recorded["question"], instructions, tuple(steps), frozenset(mistakes))


def _add_steps(steps: list[Step], message: dict[str, str]) -> None:
    role, text = message["role"], message["content"][:_MESSAGE_CHARS]
    agent = _name(message.get("name") or role.split(" (")[0])
    if role == "human" or "termination" in role:
        return
    if agent == "Computer_terminal":
        steps.append(Step("execute_tool", agent, "", "run_code", json.dumps({"code": _code(steps)}), text))
        return
    tool = next((tool for start, tool in _ACTIONS if text.startswith(start)), _TOOL_OF_AGENT.get(agent, ""))
    if tool:
        target = text[: text.find("\n")] if "\n" in text else text
        arguments = json.dumps({"target": target[:200]})
        steps.append(Step("chat", agent, SMALL, tool, arguments, ""))
        steps.append(Step("execute_tool", agent, "", tool, arguments, text))
        return
    ledger = _LEDGER.match(text)
    model = SMALL if agent in _SMALL_AGENTS or agent.startswith("Verif") else LARGE
    asks = "run_code" if "```" in text and message.get("name") else ""
    arguments = json.dumps({"code": _fenced(text)}) if asks else ""
    steps.append(Step("chat", agent, model, asks, arguments, ledger[1] if ledger else text))


def _name(agent: str) -> str:
    return _AGENT.sub("_", agent).strip("_") or "agent"


def _fenced(text: str) -> str:
    parts = text.split("```")
    return parts[1] if len(parts) > 2 else ""


def _code(steps: list[Step]) -> str:
    return _fenced(steps[-1].output) if steps else ""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a span because it was made.

    Attributes:
        fault: Name of the fault that it shows; empty for none.
        conversation: Its conversation.
        run: Name of the recorded run.
        is_mistake: Whether the run's label calls its step the decisive mistake.
    """

    fault: str
    conversation: str
    run: str
    is_mistake: bool = False


@dataclass(slots=True)
class _Conversation:
    run: Run
    steps: tuple[Step, ...]
    wrong: frozenset[int]
    identity: str
    trace_id: bytes
    root_id: bytes
    started_s: float
    now_s: float
    next_step: int = 0
    history: list[tuple[str, str]] = field(default_factory=list)


class Traffic:
    """Conversations that go on side by side, step by step; the same seed gives the same spans.

    Args:
        runs: What they are made of, drawn in a random order, over and over.
        seed: Seed of everything that is drawn.
    """

    def __init__(self, runs: list[Run], seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._runs = runs
        self._deck: list[Run] = []
        self._numbers = 0
        self._load = 0.0
        self._change: Fault | None = None
        self._rearrange: Rearrangement | None = None
        self.fault = ""
        self.now_s = 0.0
        self._pending: list[tuple[Span, Truth]] = []
        self._open = [self._begin(float(self._random.uniform(0, 60))) for _ in range(_SIDE_BY_SIDE)]
        for conversation in self._open:  # in the middle of what they do, not all at the beginning
            conversation.next_step = int(self._random.integers(len(conversation.steps)))

    def fork(
        self,
        seed: int,
        runs: list[Run],
        fault: str = "",
        change: Fault | None = None,
        rearrange: Rearrangement | None = None,
    ) -> Traffic:
        """Return the same traffic going on with other chances, other runs and perhaps a fault."""
        other = copy.deepcopy(self)
        other._random = np.random.default_rng(seed)
        other._runs, other._deck = runs, []
        other.fault, other._change, other._rearrange = fault, change, rearrange
        return other

    def spans(self, duration_s: float) -> list[tuple[Span, Truth]]:
        """Return the spans that end in the next seconds, by their ends, with what is known of each."""
        self.now_s += duration_s
        while True:
            conversation = min(self._open, key=lambda item: item.now_s)
            if conversation.now_s >= self.now_s:
                break
            self._pending.extend(self._advance(conversation))
        now = _nano(self.now_s)
        ended = [pair for pair in self._pending if pair[0].end_time_unix_nano <= now]
        self._pending = [pair for pair in self._pending if pair[0].end_time_unix_nano > now]
        return sorted(ended, key=lambda pair: pair[0].end_time_unix_nano)

    def _begin(self, at_s: float) -> _Conversation:
        if not self._deck:
            self._deck = [self._runs[row] for row in self._random.permutation(len(self._runs))]
        run = self._deck.pop()
        steps, wrong = run.steps, frozenset[int]()
        if self._rearrange is not None:
            rearranged = self._rearrange(steps, self._random)
            if rearranged is not None:
                steps, wrong = rearranged
        self._numbers += 1
        trace, root = self._random.bytes(16), self._random.bytes(8)
        opened = _Conversation(run, steps, wrong, f"conv_{self._numbers}_{trace[:4].hex()}", trace, root, at_s, at_s)
        opened.history.append(("user", run.question))
        return opened

    def _advance(self, conversation: _Conversation) -> Iterator[tuple[Span, Truth]]:
        if conversation.next_step >= len(conversation.steps):
            yield self._invocation(conversation), Truth("", conversation.identity, conversation.run.name)
            self._open[self._open.index(conversation)] = self._begin(
                conversation.now_s + float(self._random.exponential(_THINK_S * 4))
            )
            return
        number = conversation.next_step
        step = conversation.steps[number]
        operation = self._operation(conversation, step)
        if number in conversation.wrong:
            operation = replace(operation, fault=self.fault)
        elif self._change is not None:
            changed = self._change(operation, self._random)
            if changed is not None:
                operation = replace(changed, fault=self.fault)
        started = conversation.now_s + float(self._random.exponential(_THINK_S)) * 0.2
        ended = started + operation.first_chunk_s + operation.rest_s
        conversation.now_s, conversation.next_step = ended, number + 1
        if operation.kind == "chat":
            conversation.history.append(("assistant", operation.output))
        else:
            conversation.history.append(("tool", operation.output))
        is_mistake = number in conversation.run.mistakes and not conversation.wrong
        truth = Truth(operation.fault, conversation.identity, conversation.run.name, is_mistake)
        yield _span(conversation, operation, started, ended, self._random.bytes(8)), truth

    def _operation(self, conversation: _Conversation, step: Step) -> Operation:
        # The providers' load wanders: slow minutes and fast ones.
        self._load += -0.02 * self._load + 0.03 * float(self._random.standard_normal())
        noise = float(np.exp(self._load + 0.25 * self._random.standard_normal()))
        failed = self._random.random() < _ERROR_SHARE
        if step.kind == "execute_tool":
            seconds = 0.4 * noise * (1.0 + len(step.output) / 4000)
            error = "timeout" if failed else ""
            return Operation(
                "execute_tool", step.agent, tool=step.tool, arguments=step.arguments,
                output="" if error else step.output, error=error, rest_s=seconds,
            )  # fmt: skip
        history = tuple(conversation.history[-_HISTORY_MESSAGES:])
        instructions = conversation.run.instructions.get(step.agent) or _default_instructions(step.agent)
        read = len(instructions) + sum(len(text) for _, text in history)
        input_tokens = max(int(read / 4.1 * (1 + 0.03 * self._random.standard_normal())), 8)
        written = len(step.output) + len(step.arguments)
        output_tokens = max(int(written / 4.0 * (1 + 0.05 * self._random.standard_normal())), 3)
        cached = int(input_tokens * 0.8) if self._random.random() < _CACHE_SHARE and len(history) > 2 else 0
        first_s, token_ms = _PACE[step.model]
        output, reason = step.output, "tool_calls" if step.tool else "stop"
        if not step.tool and self._random.random() < _LENGTH_SHARE:
            output, reason = output[: len(output) // 2], "length"
            output_tokens = max(output_tokens // 2, 3)
        operation = Operation(
            "chat", step.agent, step.model, _RELEASES[step.model], step.tool, step.arguments, instructions, history,
            output, reason, "", input_tokens, cached, output_tokens,
            first_s * noise * (1 + input_tokens / 40_000),
            token_ms / 1000 * output_tokens * float(np.exp(self._load + 0.1 * self._random.standard_normal())),
        )  # fmt: skip
        return failing(operation, "rate_limit_exceeded") if failed else operation

    def _invocation(self, conversation: _Conversation) -> Span:
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": "openai",
            "gen_ai.agent.name": "team",
            "gen_ai.conversation.id": conversation.identity,
        }
        started, ended = conversation.started_s, conversation.now_s
        return Span(
            trace_id=conversation.trace_id, span_id=conversation.root_id, name="invoke_agent team",
            kind=Span.SPAN_KIND_INTERNAL, start_time_unix_nano=_nano(started), end_time_unix_nano=_nano(ended),
            attributes=_pairs(attributes),
        )  # fmt: skip


def failing(operation: Operation, error: str) -> Operation:
    """Return a chat that its provider has refused."""
    return replace(
        operation, error=error, output="", finish_reason="", output_tokens=0, input_tokens=0, cached_tokens=0,
        first_chunk_s=0.2, rest_s=0.0, tool="", arguments="",
    )  # fmt: skip


def _default_instructions(agent: str) -> str:
    return f"You are {agent}, a member of a team of agents. Work on the task step by step and answer briefly."


def _span(conversation: _Conversation, operation: Operation, started_s: float, ended_s: float, span_id: bytes) -> Span:
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": operation.kind,
        "gen_ai.provider.name": "openai",
        "gen_ai.agent.name": operation.agent,
        "gen_ai.conversation.id": conversation.identity,
    }
    subject = operation.tool
    if operation.kind == "chat":
        subject = operation.model
        attributes |= _chat_attributes(operation)
    else:
        attributes |= {"gen_ai.tool.name": operation.tool, "gen_ai.tool.type": "function"}
        attributes |= {"gen_ai.tool.call.arguments": operation.arguments}
        if not operation.error:
            attributes["gen_ai.tool.call.result"] = operation.output
    span = Span(
        trace_id=conversation.trace_id, span_id=span_id, parent_span_id=conversation.root_id,
        name=f"{operation.kind} {subject}",
        kind=Span.SPAN_KIND_CLIENT if operation.kind == "chat" else Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=_nano(started_s), end_time_unix_nano=_nano(ended_s),
    )  # fmt: skip
    if operation.error:
        attributes["error.type"] = operation.error
        span.status.code = Status.STATUS_CODE_ERROR
    span.attributes.extend(_pairs(attributes))
    return span


def _chat_attributes(operation: Operation) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "gen_ai.request.model": operation.model,
        "gen_ai.request.stream": True,
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": operation.instructions}]),
        "gen_ai.input.messages": json.dumps(
            [{"role": role, "parts": [_part(role, text)]} for role, text in operation.history]
        ),
    }
    if operation.error:
        return attributes
    parts: list[dict[str, Any]] = []
    if operation.output:
        parts.append({"type": "text", "content": operation.output})
    if operation.tool:
        call = {"type": "tool_call", "id": "call_1", "name": operation.tool}
        parts.append({**call, "arguments": json.loads(operation.arguments or "{}")})
    return attributes | {
        "gen_ai.response.model": operation.release,
        "gen_ai.response.finish_reasons": [operation.finish_reason],
        "gen_ai.response.time_to_first_chunk": operation.first_chunk_s,
        "gen_ai.usage.input_tokens": operation.input_tokens,
        "gen_ai.usage.cache_read.input_tokens": operation.cached_tokens,
        "gen_ai.usage.output_tokens": operation.output_tokens,
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": parts}]),
    }


def _part(role: str, text: str) -> dict[str, Any]:
    if role == "tool":
        return {"type": "tool_call_response", "id": "call_1", "response": text}
    return {"type": "text", "content": text}


def _nano(seconds: float) -> int:
    return START_UNIX_NANO + int(seconds * 1e9)


def _pairs(attributes: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[_value(item) for item in value]))
    return AnyValue(string_value=value)


def requests(traffic: Traffic, duration_s: float) -> Iterator[tuple[ExportTraceServiceRequest, list[Truth], int]]:
    """Yield the next seconds as export requests, one a second: request, what is known of its spans, time of sending.

    Args:
        traffic: Where the spans come from.
        duration_s: Seconds, a whole number.
    """
    for _ in range(round(duration_s / _EXPORT_S)):
        spans = traffic.spans(_EXPORT_S)
        if not spans:
            continue
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.attributes.extend(_pairs({"service.name": SERVICE}))
        resource.scope_spans.add(spans=[span for span, _ in spans]).scope.name = "opentelemetry.instrumentation.genai"
        yield request, [truth for _, truth in spans], _nano(traffic.now_s)
