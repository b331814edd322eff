"""Records of OTLP requests in a form that can be compared, whatever requests they came in."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message

from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import request_class

_LISTS = {
    Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
    Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
}
"""What the lists of resources, of scopes and of records are called."""
_MAY_BE_ABSENT = {Signal.LOGS: "body", Signal.TRACES: "status"}
"""Messages within a record that programs write although they are empty, or leave out."""


def records_of(signal: Signal, requests: Iterable[Message]) -> Counter[bytes]:
    """Return every log record, data point or span, with its resource and scope, and how often it occurs.

    A metric without data points, and a resource or scope without records, is nothing that can arrive or be lost.
    A message that is absent and one without content say the same, of a resource, scope, body or status.
    """
    found: Counter[bytes] = Counter()
    for request in requests:
        for one in _singles(signal, request):
            found[one.SerializeToString(deterministic=True)] += 1
    return found


def shown(signal: Signal, record: bytes) -> str:
    """Return a record in words."""
    return text_format.MessageToString(request_class(signal).FromString(record), as_one_line=True)


def read_requests(signal: Signal, path: Path) -> list[Message]:
    """Return the requests that a Collector's file exporter has written with `format: proto`.

    Each follows its length, four bytes, big-endian.
    """
    content = path.read_bytes() if path.exists() else b""
    requests, position = [], 0
    while position < len(content):
        (size,) = struct.unpack_from(">I", content, position)
        position += 4
        assert position + size <= len(content), f"{path} ends within a request"
        requests.append(request_class(signal).FromString(content[position : position + size]))
        position += size
    return requests


def _singles(signal: Signal, request: Any) -> Iterator[Message]:
    """Yield the request once for each of its records, with that record only."""
    resources, scopes, records = _LISTS[signal]
    for resource in getattr(request, resources):
        for scope in getattr(resource, scopes):
            for record in getattr(scope, records):
                for part in _data_points(record) if signal is Signal.METRICS else [record]:
                    single: Any = request_class(signal)()
                    one = getattr(single, resources).add(schema_url=resource.schema_url)
                    one.resource.CopyFrom(resource.resource)
                    inner = getattr(one, scopes).add(schema_url=scope.schema_url)
                    inner.scope.CopyFrom(scope.scope)
                    getattr(inner, records).append(part)
                    if name := _MAY_BE_ABSENT.get(signal):
                        getattr(getattr(inner, records)[0], name).SetInParent()
                    yield single


def _data_points(metric: Any) -> Iterator[Any]:
    """Yield the metric once for each of its data points, with that one only."""
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    shell = type(metric)()
    shell.CopyFrom(metric)
    del getattr(shell, kind).data_points[:]
    for point in getattr(metric, kind).data_points:
        one = type(metric)()
        one.CopyFrom(shell)
        getattr(one, kind).data_points.append(point)
        yield one
