"""OTLP/JSON to OTLP protobuf and back (OTLP specification, "JSON Protobuf Encoding").

OTLP deviates from protobuf's own JSON mapping: trace and span ids are hexadecimal, enum values
are integers, field names are lowerCamelCase only, and unknown fields are ignored. Both
directions are driven by the message descriptors, through tables built once per message type;
nothing here names a field of a signal.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from driftlock_otlp.errors import DecodeError
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import refuse_hollow, request_class

MAX_DEPTH = 100
"""Messages within messages, the outermost included; protobuf's own parsers stop there too."""

_ID_BYTES = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
_SPECIAL_DOUBLES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"-?[0-9]{1,40}")
_LONGEST_NUMBER = 1100  # digits; the longest exact double has fewer
_LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127

_Type = FieldDescriptor
_INTEGER_BITS = {
    _Type.TYPE_INT32: (True, 32),
    _Type.TYPE_SINT32: (True, 32),
    _Type.TYPE_SFIXED32: (True, 32),
    _Type.TYPE_UINT32: (False, 32),
    _Type.TYPE_FIXED32: (False, 32),
    _Type.TYPE_INT64: (True, 64),
    _Type.TYPE_SINT64: (True, 64),
    _Type.TYPE_SFIXED64: (True, 64),
    _Type.TYPE_UINT64: (False, 64),
    _Type.TYPE_FIXED64: (False, 64),
}

_Reader = Callable[[Any, int], Any]
_Writer = Callable[[Any], Any]


def request_from_json(signal: Signal, body: bytes) -> Message:
    """Decode one Export request in OTLP/JSON.

    Unknown fields are ignored, snake_case names among them; null leaves a field unset.

    Args:
        signal: Which of the three requests it is.
        body: JSON text in UTF-8.

    Raises:
        DecodeError: The body is not JSON, or a value does not fit its field; the message names
            its place, as `resourceLogs[0].scopeLogs[0].logRecords[2].traceId`.
    """
    refuse_hollow(body, b"{}", b"[]")
    try:
        tree = msgspec.json.decode(body)
    except RecursionError:
        raise DecodeError("the JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(f"the body is not valid JSON: {error}") from None
    message_class = request_class(signal)
    try:
        fields = _read_message(_reader_of(message_class.DESCRIPTOR), tree, MAX_DEPTH)
    except _Mismatch as mismatch:
        raise DecodeError(mismatch.describe()) from None
    return message_class(**fields)


def request_to_json(signal: Signal, message: Message) -> bytes:
    """Encode one Export request as OTLP/JSON; fields at their default are left out.

    Args:
        signal: Which of the three requests it is.
        message: A message of `decode.request_class(signal)`.
    """
    if not isinstance(message, request_class(signal)):
        raise TypeError(f"expected {request_class(signal).__name__}, got {type(message).__name__}")
    return msgspec.json.encode(_write_message(message))


class _Mismatch(Exception):
    """A value that does not fit its field; collects its path on the way up."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []

    def describe(self) -> str:
        path = "".join(reversed(self.path)).removeprefix(".")
        return f"{path}: {self.reason}" if path else self.reason


def _refuse(expected: str, value: object) -> NoReturn:
    if isinstance(value, dict | list):
        shown = "an object" if isinstance(value, dict) else "a list"
    else:
        shown = msgspec.json.encode(value[:40] if isinstance(value, str) else value).decode()
    raise _Mismatch(f"expected {expected}, got {shown}")


class _MessageReader:
    """How to read one message type: its fields by JSON name, and which of them exclude each other."""

    __slots__ = ("fields", "name", "oneofs")

    def __init__(self, descriptor: Descriptor) -> None:
        self.name = descriptor.name
        self.fields: dict[str, tuple[str, _Reader]] = {}
        self.oneofs: dict[str, str] = {}
        for field in descriptor.fields:
            read = _read_list_of(_value_reader(field)) if field.is_repeated else _value_reader(field)
            self.fields[field.json_name] = (field.name, read)
            oneof = field.containing_oneof
            if oneof is not None and len(oneof.fields) > 1:
                self.oneofs[field.name] = oneof.name


@cache
def _reader_of(descriptor: Descriptor) -> _MessageReader:
    return _MessageReader(descriptor)


def _read_message(reader: _MessageReader, value: Any, depth: int) -> dict[str, Any]:
    """Return constructor arguments of the message; `depth` is how many levels may still follow."""
    if type(value) is not dict:
        _refuse(f"an object ({reader.name})", value)
    if depth == 0:
        raise _Mismatch(f"more than {MAX_DEPTH} messages within one another")
    known = reader.fields
    arguments: dict[str, Any] = {}
    for key, item in value.items():
        field = known.get(key)
        if field is None or item is None:
            continue
        name, read = field
        try:
            arguments[name] = read(item, depth)
        except _Mismatch as mismatch:
            mismatch.path.append(f".{key}")
            raise
    if len(arguments) > 1 and reader.oneofs:
        _check_oneofs(reader, arguments)
    return arguments


def _check_oneofs(reader: _MessageReader, arguments: dict[str, Any]) -> None:
    taken: dict[str, str] = {}
    for name in arguments:
        oneof = reader.oneofs.get(name)
        if oneof is not None and taken.setdefault(oneof, name) != name:
            raise _Mismatch(f"{taken[oneof]} and {name} exclude each other: {reader.name} has one {oneof}")


def _value_reader(field: FieldDescriptor) -> _Reader:
    if field.message_type is not None:
        return _message_reader(field.message_type)
    if field.enum_type is not None:
        return _enum_reader(field.enum_type.name)
    if field.type == _Type.TYPE_BYTES:
        return _id_reader(_ID_BYTES[field.name]) if field.name in _ID_BYTES else _read_base64
    if field.type in _INTEGER_BITS:
        return _integer_reader(*_INTEGER_BITS[field.type])
    return _SCALAR_READERS[field.type]


def _message_reader(descriptor: Descriptor) -> _Reader:
    # AnyValue contains itself: its table is looked up at the first use, not while it is built.
    reader: _MessageReader | None = None

    def read(value: Any, depth: int) -> dict[str, Any]:
        nonlocal reader
        if reader is None:
            reader = _reader_of(descriptor)
        return _read_message(reader, value, depth - 1)

    return read


def _read_list_of(read_item: _Reader) -> _Reader:
    def read(value: Any, depth: int) -> list[Any]:
        if type(value) is not list:
            _refuse("a list", value)
        items: list[Any] = []
        try:
            for item in value:
                items.append(read_item(item, depth))  # one by one: on failure len(items) is the index
        except _Mismatch as mismatch:
            mismatch.path.append(f"[{len(items)}]")
            raise
        return items

    return read


def _read_string(value: Any, depth: int) -> str:
    if type(value) is not str:
        _refuse("a string", value)
    return value


def _read_bool(value: Any, depth: int) -> bool:
    if type(value) is not bool:
        _refuse("true or false", value)
    return value


def _read_double(value: Any, depth: int) -> float:
    if type(value) is float:
        return value
    try:
        if type(value) is int:
            return float(value)
        if type(value) is str:
            if value in _SPECIAL_DOUBLES:
                return _SPECIAL_DOUBLES[value]
            if len(value) <= _LONGEST_NUMBER and _NUMBER.fullmatch(value) and math.isfinite(number := float(value)):
                return number
    except OverflowError:
        pass
    _refuse('a number, "NaN", "Infinity" or "-Infinity"', value)


def _read_float32(value: Any, depth: int) -> float:
    number = _read_double(value, depth)
    if math.isfinite(number) and abs(number) > _LARGEST_FLOAT32:
        _refuse("a number in the range of float", value)
    return number


def _integer_reader(signed: bool, bits: int) -> _Reader:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    expected = f"a{' signed' if signed else 'n unsigned'} {bits}-bit integer, as a number or a decimal string"

    def read(value: Any, depth: int) -> int:
        if type(value) is int:
            number = value
        elif (type(value) is str and _INTEGER.fullmatch(value)) or (type(value) is float and value.is_integer()):
            number = int(value)
        else:
            _refuse(expected, value)
        if not low <= number <= high:
            _refuse(expected, value)
        return number

    return read


def _enum_reader(enum: str) -> _Reader:
    read_integer = _integer_reader(signed=True, bits=32)

    def read(value: Any, depth: int) -> int:
        if type(value) is str:
            _refuse(f"an integer: OTLP/JSON does not take the names of {enum} values", value)
        number: int = read_integer(value, depth)
        return number

    return read


def _id_reader(n_bytes: int) -> _Reader:
    expected = f"{2 * n_bytes} hexadecimal digits, or an empty string for no id"

    def read(value: Any, depth: int) -> bytes:
        if value == "":
            return b""
        # bytes.fromhex skips white space: both lengths must be right.
        if type(value) is str and len(value) == 2 * n_bytes:
            try:
                decoded = bytes.fromhex(value)
            except ValueError:
                decoded = b""
            if len(decoded) == n_bytes:
                return decoded
        _refuse(expected, value)

    return read


def _read_base64(value: Any, depth: int) -> bytes:
    if type(value) is str:
        # Both alphabets, padded or not, as protobuf's JSON mapping asks.
        text = value.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            pass
    _refuse("base64", value)


_SCALAR_READERS: dict[int, _Reader] = {
    _Type.TYPE_STRING: _read_string,
    _Type.TYPE_BOOL: _read_bool,
    _Type.TYPE_DOUBLE: _read_double,
    _Type.TYPE_FLOAT: _read_float32,
}


def _write_message(message: Message) -> dict[str, Any]:
    writers = _writers(message.DESCRIPTOR)
    written: dict[str, Any] = {}
    for field, value in message.ListFields():
        json_name, repeated, write = writers[field.number]
        if repeated:
            written[json_name] = list(value) if write is None else [write(item) for item in value]
        else:
            written[json_name] = value if write is None else write(value)
    return written


@cache
def _writers(descriptor: Descriptor) -> dict[int, tuple[str, bool, _Writer | None]]:
    return {field.number: (field.json_name, field.is_repeated, _value_writer(field)) for field in descriptor.fields}


def _value_writer(field: FieldDescriptor) -> _Writer | None:
    """Return how to turn a value of the field into what JSON can hold; None: it can as it is."""
    if field.type == _Type.TYPE_MESSAGE:
        return _write_message
    if field.type == _Type.TYPE_BYTES:
        return bytes.hex if field.name in _ID_BYTES else _write_base64
    if field.type in _INTEGER_BITS and _INTEGER_BITS[field.type][1] == 64:
        return str
    return _write_double if field.type in (_Type.TYPE_DOUBLE, _Type.TYPE_FLOAT) else None


def _write_base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _write_double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
