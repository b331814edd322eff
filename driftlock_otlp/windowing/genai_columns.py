"""The columns of windows of generative-AI operations."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from driftlock_otlp.detection.columns import Codes, Columns, Floats, Number
from driftlock_otlp.windowing.batch import StreamBatch
from driftlock_otlp.windowing.encoding import SymbolColumns, number_values
from driftlock_otlp.windowing.extraction import ATTRIBUTE_PREFIX
from driftlock_otlp.windowing.genai_text import ShapeModel

MAX_CONVERSATIONS = 2_000
"""Conversations whose last tools are remembered; the one that was silent longest makes room."""

_ABSENT = "none"
_REMEMBERED_CALLS = 16
_CONVERSATION = (f"{ATTRIBUTE_PREFIX}gen_ai.conversation.id", f"{ATTRIBUTE_PREFIX}session.id")
# Operations that name what they do something with: the name belongs to the operation.
_OF_TOOL = frozenset({"execute_tool"})
_OF_AGENT = frozenset({"invoke_agent", "create_agent"})

# Column -> field; columns come up when the first window holds a value. The dot in a name says that the
# order of its symbols tells nothing: each record stands for itself.
_SYMBOLS = {
    "agent": "agent",
    "evaluation": "evaluation_label",
    "instructions.text": "instructions",
    "instructions.opening": "instructions_opening",
    "instructions.tools": "tools",
    "input.format": "input_format",
    "input.language": "input_language",
    "output.format": "output_format",
    "output.language": "output_language",
    "output.opening": "output_opening",
    "output.stance": "output_stance",
    "output.ending": "output_ending",
}
# Column -> (field, unit, given).
_NUMBERS = {
    "input_tokens": ("input_tokens", "tokens", "operation"),
    "output_tokens": ("output_tokens", "tokens", "operation"),
    "cache_read_tokens": ("cache_read_tokens", "tokens", None),
    "cache_write_tokens": ("cache_write_tokens", "tokens", None),
    "reasoning_tokens": ("reasoning_tokens", "tokens", None),
    "duration": ("duration_ms", "ms", "operation"),
    "time_to_first_chunk": ("time_to_first_chunk_ms", "ms", None),
    "evaluation_score": ("evaluation_score", "", "operation"),
    "instructions_length": ("instructions_length", "chars", None),
    "input_length": ("input_length", "chars", "operation"),
    "output_length": ("output_length", "chars", "operation"),
    "input_blobs": ("input_blob_percent", "%", None),
    "input_hidden": ("input_hidden", "chars", None),
    "input_markers": ("input_markers", "", None),
    "input_orders": ("input_orders", "", None),
}


_AVERAGED = ("input_tokens", "output_tokens", "time_to_first_chunk")
_MEAN_RATE = 1 / 16


@dataclass(slots=True)
class _Conversation:
    """What was called last in a conversation."""

    step: str = ""
    run: int = 0
    calls: list[int] = field(default_factory=list)


class GenAiShaper:
    """Columns of windows of operations of one model.

    Categories: `operation` (with the tool or agent that it is about), `model` (which answered),
    `finish_reason`, `error_type` (`none` without an error), `call` (the tool called before in the
    conversation → this one), and the structure of instructions, input and output. Numbers: tokens,
    running means of them, `duration` and time per output token given the operation,
    `time_to_first_chunk`, lengths,
    what is unusual in an input, `tool_run` (calls of one tool in a row), `tool_repeats` (how often the
    same call came before), and `input_surprise` and `output_surprise`, bits per change of the kind
    of character that the stream's earlier texts would have needed.
    """

    def __init__(self) -> None:
        self._symbols = SymbolColumns()
        self._conversations: OrderedDict[int, _Conversation] = OrderedDict()
        self._shapes = {"input": ShapeModel(), "output": ShapeModel()}
        self._means: dict[str, float] = {}

    def shape(self, batch: StreamBatch) -> Columns:
        """Return the typed columns of one window, windows being given in order."""
        n = len(batch.items)
        columns = Columns(
            record_count=n,
            time_unix_nano=np.array(batch.times_unix_nano, dtype=np.int64),
            sessions=_sessions(batch),
            is_content_free=True,
        )
        # The model that answered may change behind an unchanged name, as with an alias moved on.
        answered = zip(batch.column("response_model"), batch.column("request_model"), strict=True)
        steps, runs, repeats = self._steps(batch)
        symbols: dict[str, list[Any]] = {
            "operation": _operations(batch),
            "model": [response or request for response, request in answered],
            "finish_reason": batch.column("finish_reason"),
            "error_type": [error or _ABSENT for error in batch.column("error_type")],
            "call": steps,
        }
        symbols |= {name: batch.column(source) for name, source in _SYMBOLS.items() if source in batch.fields}
        for name, values in symbols.items():
            if any(value is not None for value in values):
                columns.categories[name] = self._symbols.encode(name, values)
        numbers = {name: number_values(batch.column(source)) for name, (source, _, _) in _NUMBERS.items()}
        self._add_numbers(columns, numbers)
        _add(columns, "tool_run", number_values(runs), "calls", "operation")
        _add(columns, "tool_repeats", number_values(repeats), "calls", "operation")
        for side, model in self._shapes.items():
            bits = number_values(model.bits(batch.column(f"{side}_shape")))
            _add(columns, f"{side}_surprise", bits, "bits", "operation")
        return columns

    def _add_numbers(self, columns: Columns, numbers: dict[str, Floats]) -> None:
        for name, (_, unit, given) in _NUMBERS.items():
            _add(columns, name, numbers[name], unit, given)
        for name in _AVERAGED:
            _add(columns, f"{name}_mean", self._running_mean(name, numbers[name]), _NUMBERS[name][1], None)
        tokens, duration = numbers["output_tokens"], numbers["duration"]
        waited = np.nan_to_num(numbers["time_to_first_chunk"], nan=0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = 100.0 * tokens / numbers["input_tokens"]
            pace = 1000.0 * np.maximum(duration - waited, 0.0) / tokens
        _add(columns, "output_share", np.where(np.isfinite(share), share, np.nan), "%", None)
        _add(columns, "time_per_output_token", np.where(np.isfinite(pace), pace, np.nan), "µs", "operation")

    def _running_mean(self, name: str, values: Floats) -> Floats:
        """Return the exponential average up to each value: few long answers move it, the median not."""
        means = np.full(len(values), np.nan)
        for row in np.flatnonzero(values >= 0).tolist():
            value = float(values[row])
            mean = self._means.get(name, value)
            self._means[name] = means[row] = mean + _MEAN_RATE * (value - mean)
        return means

    def _steps(self, batch: StreamBatch) -> tuple[list[str | None], list[int | None], list[int | None]]:
        """Return for each record that calls a tool: the call before → its own, calls in a row, repeats."""
        steps: list[str | None] = []
        runs: list[int | None] = []
        repeats: list[int | None] = []
        names = (batch.column(name) for name in ("tool", "tool_calls", "call_digest", "trace_id", *_CONVERSATION))
        for tool, asked, digest, trace, *conversations in zip(*names, strict=True):
            step = tool or asked
            if step is None:
                steps.append(None)
                runs.append(None)
                repeats.append(None)
                continue
            known = self._conversation(next((item for item in conversations if item), trace))
            steps.append(f"{known.step or 'start'} -> {step}")
            known.run = known.run + 1 if step == known.step else 1
            known.step = step
            runs.append(known.run)
            repeats.append(None if digest is None else known.calls.count(digest))
            if digest is not None:
                known.calls = [*known.calls[1 - _REMEMBERED_CALLS :], digest]
        return steps, runs, repeats

    def _conversation(self, identity: object) -> _Conversation:
        if identity is None:
            return _Conversation()
        key = zlib.crc32(identity if isinstance(identity, bytes) else str(identity).encode("utf-8", "replace"))
        known = self._conversations.get(key)
        if known is None:
            known = self._conversations[key] = _Conversation()
            if len(self._conversations) > MAX_CONVERSATIONS:
                self._conversations.popitem(last=False)
        else:
            self._conversations.move_to_end(key)
        return known

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values."""
        return {
            "symbols": self._symbols.state(),
            "conversations": [[key, known.step, known.run, known.calls] for key, known in self._conversations.items()],
            "means": dict(self._means),
            "shapes": {side: model.state() for side, model in self._shapes.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the shaper that returned this state."""
        self._symbols = SymbolColumns.of_state(state["symbols"])
        self._conversations = OrderedDict(
            (key, _Conversation(step, run, list(calls))) for key, step, run, calls in state["conversations"]
        )
        self._means = dict(state["means"])
        self._shapes = {side: ShapeModel(counts) for side, counts in state["shapes"].items()}


def _sessions(batch: StreamBatch) -> Codes:
    """Return which conversation each record belongs to, or which trace where it names none; int32, (n,)."""
    known: dict[object, int] = {}
    traces = batch.column("trace_id")
    sessions = np.full(len(traces), -1, np.int32)
    for row, names in enumerate(zip(*(batch.column(name) for name in _CONVERSATION), traces, strict=True)):
        identity = next((name for name in names if name), None)
        if identity is not None:
            sessions[row] = known.setdefault(identity, len(known))
    return sessions


def _operations(batch: StreamBatch) -> list[str | None]:
    operations: list[str | None] = []
    names = (batch.column(name) for name in ("operation", "tool", "agent", "evaluation"))
    for operation, tool, agent, evaluation in zip(*names, strict=True):
        subject = tool if operation in _OF_TOOL else agent if operation in _OF_AGENT else evaluation
        operations.append(f"{operation} {subject}" if subject else operation)
    return operations


def _add(columns: Columns, name: str, values: Floats, unit: str, given: str | None) -> None:
    values[values < 0] = np.nan  # a positive scale has no negative values
    if np.isfinite(values).any():
        columns.numbers[name] = Number(values, given=given, is_positive_scale=True, unit=unit, has_order=False)
