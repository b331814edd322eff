"""OTLP/JSON: read as protobuf's own mapping reads it, but for what OTLP and RFC 8259 ask otherwise."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor

from driftlock_otlp.errors import DecodeError
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp import decode, json_mapping
from tests.fuzz.inputs import signal_and_rest

_IDS = frozenset({"traceId", "spanId", "parentSpanId"})

# What we refuse and protobuf takes: docs/operations.md, "Bad input".
_STRICTER = re.compile(
    "hexadecimal digits"  # ids
    "|does not take the names of"  # enums
    "|expected base64"  # protobuf skips what is not of the alphabet
    "|-bit integer"  # protobuf takes what Python's int() takes: 1_000, +5, ５
    "|expected a number, "  # and float(): 1_0, infinity, true
    "|expected an object"  # and iterates over whatever can be
)


def check(data: bytes) -> None:
    """Read a request whose signal the first byte tells."""
    signal, body = signal_and_rest(data)
    try:
        message = json_mapping.request_from_json(signal, body)
    except DecodeError as error:
        _check_refusal(signal, body, str(error))
        return
    encoded = decode.encode(message)
    assert decode.encode(decode.decode(signal, encoded)) == encoded
    assert encoded == decode.encode(_as_protobuf_reads(signal, _tree(body)))
    text = json_mapping.request_to_json(signal, message)
    assert json_mapping.request_to_json(signal, json_mapping.request_from_json(signal, text)) == text


def _check_refusal(signal: Signal, body: bytes, reason: str) -> None:
    assert reason
    if _STRICTER.search(reason):
        return
    try:
        _as_protobuf_reads(signal, _tree(body))
    except (ValueError, RecursionError, json_format.Error):
        return
    raise AssertionError(f"refused, and protobuf takes it: {reason}")


def _tree(body: bytes) -> Any:
    """Parse with another parser, as strict as RFC 8259 and RFC 7493 ask.

    Raises:
        ValueError: It is not JSON.
    """
    text = body.decode("utf-8")
    tree = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    json.dumps(tree, ensure_ascii=False).encode("utf-8")  # a lone surrogate is no character
    return tree


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is out of range")
    return number


def _as_protobuf_reads(signal: Signal, tree: Any) -> Any:
    message_class = decode.request_class(signal)
    return json_format.ParseDict(
        _translated(tree, message_class.DESCRIPTOR), message_class(), ignore_unknown_fields=True
    )


def _translated(tree: Any, descriptor: Descriptor, depth: int = 0) -> Any:
    """Return the tree as protobuf's mapping wants it: ids in base64, no names in snake_case."""
    if not isinstance(tree, dict) or depth > json_mapping.MAX_DEPTH + 1:
        return tree
    fields = {field.json_name: field for field in descriptor.fields}
    translated: dict[str, Any] = {}
    for key, value in tree.items():
        field = fields.get(key)
        if field is None:
            continue
        if field.message_type is not None:
            inner = field.message_type
            translated[key] = (
                [_translated(item, inner, depth + 1) for item in value]
                if isinstance(value, list)
                else _translated(value, inner, depth + 1)
            )
        elif key in _IDS and isinstance(value, str):
            translated[key] = base64.b64encode(bytes.fromhex(value)).decode()
        else:
            translated[key] = value
    return translated
