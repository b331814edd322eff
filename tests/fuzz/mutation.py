"""Changes requests as messages: a fuzzer that changes bytes seldom hits on valid protobuf."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from driftlock_otlp.otlp import decode
from tests.fuzz.inputs import signal_and_rest

_Type = FieldDescriptor
_MOST_COPIES = 40
_TEXTS = (
    "", "a", "service.name", "gen_ai.request.model", "gen_ai.choice", "gen_ai.output.messages", "gen_ai.system",
    "gen_ai.usage.input_tokens", "event.name", "exception", "exception.type", "log.record.template", "error.type",
    "driftlock.anomaly.id", "driftlock.cbad", "http.route", "{}", '{"a":{"b":[1,null]}}', '[{"finish_reason":1}]',
    "1e999", "nan", "0x1f", "é\U0001f600\0", "x" * 300, "7af34428b7af57c0 took 12 ms", "<*>",
)  # fmt: skip
_SIGNED = (0, 1, -1, 7, 2**31 - 1, -(2**31))
_UNSIGNED = (0, 1, 2, 20, 2**31, 2**32 - 1)
_LONG = (10**18, 2**62)
_DOUBLES = (0.0, -0.0, 1.0, -1.5, 1e308, 5e-324, math.nan, math.inf, -math.inf, 2.0**63)
_SIGNED_TYPES = frozenset({_Type.TYPE_INT32, _Type.TYPE_SINT32, _Type.TYPE_SFIXED32, _Type.TYPE_ENUM})
_SIGNED_LONG_TYPES = frozenset({_Type.TYPE_INT64, _Type.TYPE_SINT64, _Type.TYPE_SFIXED64})
_UNSIGNED_LONG_TYPES = frozenset({_Type.TYPE_UINT64, _Type.TYPE_FIXED64})


def mutate(data: bytes, max_size: int, seed: int, mutate_bytes: Callable[[bytes, int], bytes]) -> bytes:
    """Return a changed input: mostly another request, now and then other bytes.

    Args:
        data: An input of a protobuf target.
        max_size: Most bytes it may have.
        seed: Decides what is changed.
        mutate_bytes: The fuzzer's own way.
    """
    chance = random.Random(seed)
    signal, payload = signal_and_rest(data)
    if chance.random() < 0.2:
        return mutate_bytes(data, max_size)
    try:
        message = decode.request_class(signal).FromString(payload)
    except DecodeError:
        return mutate_bytes(data, max_size)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        _change(message, chance)
    changed = data[:1] + message.SerializeToString()
    return changed if len(changed) <= max_size else data


def _change(message: Any, chance: random.Random) -> None:
    """Change one field somewhere within the message."""
    while True:
        fields = message.DESCRIPTOR.fields
        present = [field for field, _ in message.ListFields() if field.message_type is not None]
        if present and chance.random() < 0.75:
            field = chance.choice(present)
            value = getattr(message, field.name)
            if field.is_repeated:
                if chance.random() < 0.3:
                    _change_list(value, chance)
                    return
                value = chance.choice(value)
            message = value
            continue
        field = chance.choice(fields)
        break
    if chance.random() < 0.15:
        message.ClearField(field.name)
    elif field.is_repeated:
        values = getattr(message, field.name)
        if field.message_type is not None:
            values.add()
        else:
            values.extend(_value(field, chance) for _ in range(chance.choice((1, 2, 5))))
    elif field.message_type is not None:
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, _value(field, chance))


def _change_list(messages: Any, chance: random.Random) -> None:
    index = chance.randrange(len(messages))
    if chance.random() < 0.4:
        del messages[index]
        return
    if len(messages) < _MOST_COPIES:
        copy: Message = type(messages[index])()
        copy.CopyFrom(messages[index])
        messages.append(copy)


def _value(field: FieldDescriptor, chance: random.Random) -> Any:
    kind = field.type
    if kind == _Type.TYPE_STRING:
        return chance.choice(_TEXTS)
    if kind == _Type.TYPE_BYTES:
        return chance.randbytes(chance.choice((0, 1, 8, 8, 16, 16, 17)))
    if kind == _Type.TYPE_BOOL:
        return chance.random() < 0.5
    if kind in (_Type.TYPE_DOUBLE, _Type.TYPE_FLOAT):
        return chance.choice(_DOUBLES)
    if kind in _SIGNED_TYPES:
        return chance.choice(_SIGNED)
    if kind in _SIGNED_LONG_TYPES:
        return chance.choice((*_SIGNED, *_LONG, 2**63 - 1, -(2**63)))
    if kind in _UNSIGNED_LONG_TYPES:
        return chance.choice((*_UNSIGNED, *_LONG, 2**64 - 1, chance.randrange(2**61)))
    return chance.choice(_UNSIGNED)
