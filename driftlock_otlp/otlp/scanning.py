"""Use of the compiled scanner, where it is compiled: one table per signal, made from protobuf's descriptors.

Where it is not compiled, protobuf does all the work: an interpreted scanner would take many times as long.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import MOST_ENVELOPES, refuse_hollow_request, request_class

_ITEMS = frozenset({"log_records", "spans", "data_points"})
_ENVELOPES = frozenset(
    {"resource_logs", "resource_spans", "resource_metrics", "scope_logs", "scope_spans", "scope_metrics", "metrics"}
)
_SPAN_IDS = frozenset({"span_id", "parent_span_id"})


def _load() -> ModuleType | None:
    try:
        module = importlib.import_module("driftlock_otlp.otlp.scan")
    except ImportError:  # interpreted, it needs Cython
        return None
    return module if module.is_compiled else None


scan: Any = _load()
"""The scanner as a module; None where it is not compiled."""


class Tables:
    """What the scanner knows of the messages of one request.

    Args:
        root: The request.
        module: The scanner, for the numbers by which it calls things.
    """

    def __init__(self, root: Any, module: Any) -> None:
        self._module = module
        self._kind_of_type = {
            FieldDescriptor.TYPE_DOUBLE: module.FIXED64,
            FieldDescriptor.TYPE_FIXED64: module.FIXED64,
            FieldDescriptor.TYPE_SFIXED64: module.FIXED64,
            FieldDescriptor.TYPE_FIXED32: module.FIXED32,
            FieldDescriptor.TYPE_SFIXED32: module.FIXED32,
            FieldDescriptor.TYPE_FLOAT: module.FIXED32,
            FieldDescriptor.TYPE_STRING: module.STRING,
            FieldDescriptor.TYPE_BYTES: module.BYTES,
            FieldDescriptor.TYPE_MESSAGE: module.MESSAGE,
        }
        found = _messages_of(root)
        numbers = {message.full_name: number for number, message in enumerate(found)}
        rows = []
        for message in found:
            kinds, marks, messages = (bytearray(module.FIELDS) for _ in range(3))
            for field in message.fields:
                kinds[field.number] = self._kind(field)
                marks[field.number] = self._mark(field)
                if field.message_type is not None:
                    messages[field.number] = numbers[field.message_type.full_name]
            rows.append((kinds, marks, messages))
        self.kinds, self.marks, self.messages = (b"".join(parts) for parts in zip(*rows, strict=True))

    def check(self, payload: bytes) -> int | None:
        """Return the number of items of a request that is whole and valid; None if protobuf has to decide."""
        found = self._module.check(payload, self.kinds, self.marks, self.messages, MOST_ENVELOPES)
        return None if found < 0 else int(found)

    def _kind(self, field: FieldDescriptor) -> int:
        kind: int = self._kind_of_type.get(field.type, self._module.VARINT)
        if field.is_repeated and kind == self._module.VARINT:
            return int(self._module.VARINTS)
        if field.is_repeated and kind == self._module.FIXED64:
            return int(self._module.FIXED64S)
        return kind

    def _mark(self, field: FieldDescriptor) -> int:
        scan = self._module
        if field.type == FieldDescriptor.TYPE_BYTES:
            return int(
                scan.IS_TRACE_ID if field.name == "trace_id" else scan.IS_SPAN_ID if field.name in _SPAN_IDS else 0
            )
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            return 0
        if field.is_repeated:
            return int(scan.IS_ITEM if field.name in _ITEMS else scan.IS_ENVELOPE if field.name in _ENVELOPES else 0)
        return int(scan.IS_ONE_OF if field.containing_oneof is not None else scan.IS_SINGLE)


def _messages_of(root: Any) -> list[Any]:
    """Return a message and all that occur in it, itself first."""
    found = {root.full_name: root}
    waiting = [root]
    while waiting:
        for field in waiting.pop().fields:
            inner = field.message_type
            if inner is not None and inner.full_name not in found:
                found[inner.full_name] = inner
                waiting.append(inner)
    return list(found.values())


def tables_of(module: Any) -> dict[Signal, Tables]:
    """Return the tables of each signal's request for a scanner, compiled or not."""
    return {signal: Tables(request_class(signal).DESCRIPTOR, module) for signal in Signal}


_TABLES = tables_of(scan) if scan is not None else {}


def check(signal: Signal, payload: bytes) -> int | None:
    """Return the number of items of a request if the scanner is sure that it is valid, its ids included.

    Args:
        signal: Which request it is.
        payload: Protobuf.

    Returns:
        None where there is no scanner, or where it is not sure: protobuf has to decide.

    Raises:
        DecodeError: It consists of empty messages.
    """
    if scan is None:
        return None
    refuse_hollow_request(payload)
    return _TABLES[signal].check(payload)
