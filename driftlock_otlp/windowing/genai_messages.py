"""What a record of a generative-AI operation says went in and came out, in whichever shape it says it.

Instrumentations have written messages as structured attributes, as JSON texts, flattened into
numbered attributes, as span events and as log records. All of them become one `Exchange`, which
lives only while its record is read: it holds text.

References:
    OpenTelemetry semantic conventions for generative AI: messages and instructions as attributes
    (since 1.37), events of single messages (up to 1.36), span events (up to 1.27); OpenLLMetry's
    numbered attributes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from driftlock_otlp.windowing.extraction import python_value

_MAX_JSON_CHARS = 1 << 20
_MAX_DEPTH = 8
_MAX_TEXTS = 64

_INSTRUCTIONS = ("gen_ai.system_instructions", "gen_ai.system.message")
_INPUT = ("gen_ai.input.messages", "gen_ai.prompt")
_OUTPUT = ("gen_ai.output.messages", "gen_ai.completion")
_TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
_TOOL_RESULT = "gen_ai.tool.call.result"
_TOOL_DEFINITIONS = "gen_ai.tool.definitions"
_EVENT_CONTENT = "gen_ai.event.content"
# Name of a span event or log record -> role of the message that it carries.
_ROLE_OF_EVENT = {
    "gen_ai.content.prompt": "",
    "gen_ai.content.completion": "assistant",
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.tool.message": "tool",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.choice": "assistant",
}
_FLAT = re.compile(r"gen_ai\.(prompt|completion)\.(\d{1,6})\.(.+)")
_INSTRUCTING_ROLES = frozenset({"system", "developer"})
_ANSWERING_ROLES = frozenset({"assistant", "model", "ai"})
_TEXT_KEYS = ("content", "text", "result", "response", "message", "parts", "output")
_CALL_TYPES = frozenset({"tool_call", "function_call", "tool_use", "server_tool_call", "function"})
_DATA_TYPES = frozenset({"blob", "file", "uri", "image_url", "image", "input_audio"})


@dataclass(slots=True)
class Exchange:
    """What went in and came out.

    Attributes:
        instructions: Texts of the system's or developer's instructions.
        inputs: Texts that are new to the model: what came after its last answer.
        outputs: Texts of the answer.
        calls: (name, arguments) of the tools that the answer asks for.
        tools: Names of the tools on offer; None if not told.
        finish_reasons: As the output's messages say.
        has_output: Whether anything was told about the output, be it that it is empty.
    """

    instructions: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    tools: list[str] | None = None
    finish_reasons: set[str] = field(default_factory=set)
    has_output: bool = False

    def add_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        """Take in what a record's attributes carry."""
        for name in _INSTRUCTIONS:
            if name in attributes:
                _collect(_structured(attributes[name]), self.instructions)
        for name in _INPUT:
            if name in attributes:
                self._add_history(_messages(_structured(attributes[name])))
                break
        for name in _OUTPUT:
            if name in attributes:
                self._add_output(_messages(_structured(attributes[name])))
                break
        if _TOOL_DEFINITIONS in attributes:
            self.tools = _names_of_tools(_structured(attributes[_TOOL_DEFINITIONS]))
        if _TOOL_ARGUMENTS in attributes:
            # Of an execution: what the model has written goes into the tool, and its result comes back.
            _collect(_structured(attributes[_TOOL_ARGUMENTS]), self.inputs, whole=True)
        if _TOOL_RESULT in attributes:
            self.has_output = True
            _collect(_structured(attributes[_TOOL_RESULT]), self.outputs, whole=True)
        self._add_flat(attributes)

    def add_event(self, name: str, attributes: Mapping[str, AnyValue], body: AnyValue | None = None) -> bool:
        """Take in a span event or log record that carries one message; return whether it does.

        Args:
            name: The event's name.
            attributes: Its attributes.
            body: The body of a log record.
        """
        role = _ROLE_OF_EVENT.get(name)
        if role is None:
            return False
        value: Any = None
        for key in (_EVENT_CONTENT, *_INPUT, *_OUTPUT, "content", "message"):
            if key in attributes:
                value = _structured(attributes[key])
                break
        if value is None and body is not None and body.WhichOneof("value"):
            value = _structured(body)
        messages = [_with_role(message, role) for message in _messages(value)]
        if role == "assistant":
            if name == "gen_ai.assistant.message":
                return True  # an earlier answer, told as history
            self._add_output(messages)
        else:
            self._add_history(messages)
        return True

    def _add_history(self, messages: list[Any]) -> None:
        """Take in a conversation as the model got it; only what came after its last answer is new."""
        answered = max((row for row, message in enumerate(messages) if _role(message) in _ANSWERING_ROLES), default=-1)
        for row, message in enumerate(messages):
            if _role(message) in _INSTRUCTING_ROLES:
                _collect(message, self.instructions)
            elif row > answered:
                _collect(message, self.inputs)

    def _add_output(self, messages: list[Any]) -> None:
        self.has_output = True
        for message in messages:
            _collect(message, self.outputs, self.calls)
            if isinstance(message, dict) and isinstance(message.get("finish_reason"), str):
                self.finish_reasons.add(message["finish_reason"])

    def _add_flat(self, attributes: Mapping[str, AnyValue]) -> None:
        """Take in `gen_ai.prompt.0.content` and the like."""
        found: dict[str, dict[int, dict[str, Any]]] = {"prompt": {}, "completion": {}}
        for key, value in attributes.items():
            match = _FLAT.fullmatch(key) if key.startswith(("gen_ai.prompt.", "gen_ai.completion.")) else None
            if match is None:
                continue
            message = found[match[1]].setdefault(int(match[2]), {})
            path = match[3].split(".")
            if path[0] == "tool_calls" and len(path) == 3:
                calls = message.setdefault("flat_calls", {})
                calls.setdefault(path[1], {"type": "tool_call"})[path[2]] = _structured(value)
            else:
                message[match[3]] = _structured(value)
        for direction, by_number in found.items():
            if not by_number:
                continue
            messages = []
            for _, message in sorted(by_number.items()):
                message["tool_calls"] = list(message.pop("flat_calls", {}).values())
                messages.append(message)
            if direction == "prompt":
                self._add_history(messages)
            else:
                self._add_output(messages)


def _structured(value: AnyValue) -> Any:
    """Return a value with its structure; where that is a JSON text, the structure in it."""
    plain = python_value(value, _MAX_DEPTH)
    if isinstance(plain, str) and plain[:1] in ("[", "{") and len(plain) <= _MAX_JSON_CHARS:
        try:
            return msgspec.json.decode(plain)
        except (msgspec.DecodeError, RecursionError):
            return plain
    return plain


def _messages(value: Any) -> list[Any]:
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        value = value["messages"]
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _with_role(message: Any, role: str) -> Any:
    if not role:
        return message
    if isinstance(message, dict):
        return message if message.get("role") else {**message, "role": role}
    return {"role": role, "content": message}


def _role(message: Any) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    return role.lower() if isinstance(role, str) else ""


def _collect(
    value: Any,
    texts: list[str],
    calls: list[tuple[str, str]] | None = None,
    depth: int = _MAX_DEPTH,
    *,
    whole: bool = False,
) -> None:
    """Add the texts of a message or of parts of it, and the tool calls in it.

    Args:
        value: A message, a list of them, a part, or a text.
        texts: Where texts go.
        calls: Where tool calls go; None to leave them out.
        depth: Levels of nesting to follow.
        whole: Take a structure of another kind as one JSON text, as the arguments of a tool are.
    """
    if len(texts) >= _MAX_TEXTS or not depth:
        return
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, list):
        for item in value[:_MAX_TEXTS]:
            _collect(item, texts, calls, depth - 1, whole=whole)
    elif isinstance(value, dict):
        kind = value.get("type")
        if kind in _DATA_TYPES:
            return
        nested = [value[key] for key in _TEXT_KEYS if value.get(key) is not None]
        if kind in _CALL_TYPES or (kind is None and "name" in value and "arguments" in value):
            if calls is not None:
                _add_call(value, calls)
        elif whole and not nested:
            texts.append(_json(value))
        else:
            for item in nested:
                _collect(item, texts, calls, depth - 1, whole=whole)
        asked = value.get("tool_calls")
        if calls is not None and isinstance(asked, list):
            for call in asked[:_MAX_TEXTS]:
                if isinstance(call, dict):
                    _add_call(call, calls)
    elif whole and value is not None:
        texts.append(_json(value))


def _add_call(call: dict[str, Any], calls: list[tuple[str, str]]) -> None:
    if len(calls) >= _MAX_TEXTS:
        return
    function = call.get("function")
    inner = function if isinstance(function, dict) else call
    name = inner.get("name")
    arguments = next((inner[key] for key in ("arguments", "input", "server_tool_call") if key in inner), "")
    calls.append((name if isinstance(name, str) else "", arguments if isinstance(arguments, str) else _json(arguments)))


def _names_of_tools(value: Any) -> list[str]:
    names = []
    for tool in _messages(value)[:1024]:
        inner = tool.get("function") if isinstance(tool, dict) and isinstance(tool.get("function"), dict) else tool
        name = inner.get("name") if isinstance(inner, dict) else inner
        if isinstance(name, str):
            names.append(name)
    return sorted(names)


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        return str(type(value))
