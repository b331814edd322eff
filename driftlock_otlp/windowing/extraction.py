"""What the extraction of all signals shares: attribute values, resources, one batch per stream.

Extraction is stateless: it walks a decoded request once and copies what windows need into
plain lists. Nothing here keeps a protobuf message alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from driftlock_otlp.model import StreamKey
from driftlock_otlp.windowing.batch import StreamBatch

UNKNOWN_SERVICE = "unknown_service"
"""Service of a resource that does not name one (OpenTelemetry resource semantic conventions)."""

ATTRIBUTE_PREFIX = "attributes."
"""Before the key of an attribute in the name of its field."""

MAX_VALUE_CHARS = 256
"""Characters kept of an attribute's string value."""

_MAX_FIELDS = 128
_MAX_REMEMBERED_BYTES = 4_096
_MAX_TIME_UNIX_NANO = (1 << 63) - 1

Plain = str | int | float | bool | None


class StreamBatches:
    """The batches of one request, one per stream and source, filled in item order.

    Args:
        tenant: Organisation the request belongs to.
    """

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._batches: dict[tuple[StreamKey, bytes, str], StreamBatch] = {}
        self._resource = b""
        self._schema_url = ""
        self._service = UNKNOWN_SERVICE

    def enter_resource(self, resource: Resource, schema_url: str) -> None:
        """Say where the records added from now on come from."""
        self._resource = resource.SerializeToString(deterministic=True)
        self._schema_url = schema_url
        self._service = _service_of(resource)

    def enter_serialized_resource(self, resource: bytes, schema_url: str) -> None:
        """Say where the records added from now on come from, by a valid Resource as protobuf."""
        self._resource, self._service = _read_resource(resource)
        self._schema_url = schema_url

    @property
    def resource(self) -> bytes:
        """The current resource, as protobuf in the one form of it that is compared and kept."""
        return self._resource

    def batch(self, kind: str, name: str = "") -> StreamBatch:
        """Return the batch of the current resource's stream of this kind and name."""
        key = StreamKey(kind, self._service, name, self._tenant)
        source = (key, self._resource, self._schema_url)
        batch = self._batches.get(source)
        if batch is None:
            batch = self._batches[source] = StreamBatch(
                key, resource=self._resource, resource_schema_url=self._schema_url
            )
        return batch

    def all(self) -> list[StreamBatch]:
        """Return the batches that hold records, in order of first appearance."""
        return [batch for batch in self._batches.values() if batch.items]


def _service_of(resource: Resource) -> str:
    for attribute in resource.attributes:
        if attribute.key == "service.name":
            return attribute.value.string_value or UNKNOWN_SERVICE
    return UNKNOWN_SERVICE


def _read_resource(serialized: bytes) -> tuple[bytes, str]:
    """Return a resource in the one form of it that is compared and kept, and its service."""
    return _remembered_resource(serialized) if len(serialized) <= _MAX_REMEMBERED_BYTES else _parse_resource(serialized)


def _parse_resource(serialized: bytes) -> tuple[bytes, str]:
    resource = Resource.FromString(serialized)
    return resource.SerializeToString(deterministic=True), _service_of(resource)


_remembered_resource = lru_cache(maxsize=1024)(_parse_resource)


def add_record(batch: StreamBatch, item: int, time_unix_nano: int, fields: dict[str, Any]) -> None:
    """Append one record; beyond 128 fields in the batch, fields with new names are left out.

    Without that bound a sender could make n records into n² cells by giving each record
    attribute names of its own. Times are cut to what 64 bits hold with a sign, as windows keep them.
    """
    known = batch.fields
    if len(known) + len(fields) > _MAX_FIELDS and not fields.keys() <= known.keys():
        room = _MAX_FIELDS - len(known)
        kept = {}
        for name, value in fields.items():
            if name not in known:
                if room <= 0:
                    continue
                room -= 1
            kept[name] = value
        fields = kept
    batch.append(item, min(time_unix_nano, _MAX_TIME_UNIX_NANO), fields)


def plain_value(value: AnyValue) -> Plain:
    """Return an attribute's value: scalars as they are, strings cut, the rest as a short marker.

    >>> plain_value(AnyValue(int_value=3)), plain_value(AnyValue(bytes_value=b"abc"))
    (3, 'bytes[3]')
    """
    text = value.string_value
    if text:
        return text if len(text) <= MAX_VALUE_CHARS else text[:MAX_VALUE_CHARS]
    which = value.WhichOneof("value")
    if which == "int_value":
        return value.int_value
    if which == "double_value":
        return value.double_value
    if which == "bool_value":
        return value.bool_value
    if which == "string_value":
        return ""
    if which == "array_value":
        return f"array[{len(value.array_value.values)}]"
    if which == "kvlist_value":
        return f"map[{len(value.kvlist_value.values)}]"
    if which == "bytes_value":
        return f"bytes[{len(value.bytes_value)}]"
    return None


def python_value(value: AnyValue, depth: int = 8) -> Any:
    """Return a value with its structure: dict, list, str, int, float, bool, bytes or None.

    Args:
        value: The value.
        depth: Levels of nesting to follow; below them there is None.
    """
    which = value.WhichOneof("value")
    if which == "array_value":
        return [python_value(item, depth - 1) for item in value.array_value.values] if depth else None
    if which == "kvlist_value":
        return {item.key: python_value(item.value, depth - 1) for item in value.kvlist_value.values} if depth else None
    # An index into a string table has no meaning outside the profiles signal.
    return None if which is None or which == "string_value_strindex" else getattr(value, which)


@lru_cache(maxsize=8192)
def attribute_field(key: str) -> tuple[str, bool]:
    """Return the name of an attribute's field, and whether the attribute is of the gen_ai namespace."""
    return ATTRIBUTE_PREFIX + key, key.startswith("gen_ai.")


def attribute_fields(attributes: Iterable[KeyValue], fields: dict[str, Any]) -> bool:
    """Add a record's attributes to its fields.

    Returns:
        True when one of them is of the gen_ai namespace.
    """
    is_gen_ai = False
    for attribute in attributes:
        key = attribute.key
        if len(key) > MAX_VALUE_CHARS:
            continue
        name, is_gen_ai_key = attribute_field(key)
        value = attribute.value
        text = value.string_value
        fields[name] = text if text and len(text) <= MAX_VALUE_CHARS else plain_value(value)
        if is_gen_ai_key:
            is_gen_ai = True
    return is_gen_ai


def first_of(values: Mapping[str, Any], names: Iterable[str]) -> Any:
    """Return the first value that is there and not empty, by order of names; None if there is none."""
    for name in names:
        value = values.get(name)
        if value is not None and value != "":
            return value
    return None
