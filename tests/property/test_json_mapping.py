"""The JSON mapping against protobuf itself: whatever a request holds comes back unchanged."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftlock_otlp.errors import DecodeError
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp import decode
from driftlock_otlp.otlp.json_mapping import request_from_json, request_to_json

_Type = FieldDescriptor
_ID_BYTES = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
_SPINE = ("resource_", "scope_", "log_records", "metrics", "spans")
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    _Type.TYPE_STRING: st.text(max_size=8),
    _Type.TYPE_BOOL: st.booleans(),
    _Type.TYPE_DOUBLE: st.floats(allow_nan=False),
    _Type.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    _Type.TYPE_SINT32: st.integers(-(2**31), 2**31 - 1),
    _Type.TYPE_ENUM: st.integers(0, 30),
    _Type.TYPE_UINT32: st.integers(0, 2**32 - 1),
    _Type.TYPE_FIXED32: st.integers(0, 2**32 - 1),
    _Type.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    _Type.TYPE_SFIXED64: st.integers(-(2**63), 2**63 - 1),
    _Type.TYPE_UINT64: st.integers(0, 2**64 - 1),
    _Type.TYPE_FIXED64: st.integers(0, 2**64 - 1),
}


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return _fields(field.message_type, depth - 1)
    if field.type == _Type.TYPE_BYTES:
        length = _ID_BYTES.get(field.name)
        return st.binary(max_size=9) if length is None else st.binary(min_size=length, max_size=length)
    return _SCALARS[field.type]


@st.composite
def _fields(draw: st.DrawFn, descriptor: Descriptor, depth: int) -> dict[str, Any]:
    """Draw constructor arguments of a message, few of its fields and one of each oneof at most."""
    usable = [field for field in descriptor.fields if depth > 0 or field.message_type is None]
    if not usable:
        return {}
    # The way down to the records is always taken, or most requests would be empty.
    spine = [field for field in usable if field.name.startswith(_SPINE)]
    others = draw(st.lists(st.sampled_from(usable), max_size=4, unique_by=lambda field: field.name))
    chosen = dict.fromkeys(spine + others)
    arguments: dict[str, Any] = {}
    taken: set[str] = set()
    for field in chosen:
        oneof = field.containing_oneof
        if oneof is not None:
            if oneof.name in taken:
                continue
            taken.add(oneof.name)
        values = _values(field, depth)
        arguments[field.name] = draw(st.lists(values, max_size=2) if field.is_repeated else values)
    return arguments


@st.composite
def requests(draw: st.DrawFn) -> tuple[Signal, Message]:
    signal = draw(st.sampled_from(list(Signal)))
    message_class = decode.request_class(signal)
    return signal, message_class(**draw(_fields(message_class.DESCRIPTOR, 8)))


_slow = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


@_slow
@given(requests())
def test_request_survives_json_and_back(request_of: tuple[Signal, Message]) -> None:
    signal, message = request_of
    read = request_from_json(signal, request_to_json(signal, message))
    assert read == message
    assert decode.encode(read) == decode.encode(message)


@_slow
@given(requests())
def test_output_names_no_field_in_snake_case(request_of: tuple[Signal, Message]) -> None:
    signal, message = request_of

    def check(node: Any) -> None:
        if isinstance(node, dict):
            assert not any("_" in key for key in node)
        for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            check(item)

    check(json.loads(request_to_json(signal, message)))


_trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["resourceLogs", "scopeLogs", "logRecords", "body", "traceId", "attributes", "value", "intValue", "key",
             "arrayValue", "values", "bytesValue", "doubleValue", "timeUnixNano", "severityNumber", "other"]
        ),
        inner,
        max_size=3,
    ),
    max_leaves=20,
)  # fmt: skip


@_slow
@given(_trees)
def test_any_json_is_either_read_or_refused_in_words(tree: object) -> None:
    try:
        request = request_from_json(Signal.LOGS, json.dumps(tree).encode())
    except DecodeError as error:
        assert str(error)
    else:
        assert decode.decode(Signal.LOGS, decode.encode(request)) == request


@_slow
@given(st.binary(max_size=64))
def test_any_bytes_are_either_read_or_refused_in_words(body: bytes) -> None:
    try:
        request_from_json(Signal.LOGS, body)
    except DecodeError as error:
        assert str(error)
