"""OTLP Export requests in protobuf: decoding, counting and encoding, from one table per signal.

Decoding keeps fields it does not know, so that a request of a newer minor version passes
through unharmed (OTLP specification, "Future Versions and Interoperability").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from driftlock_otlp.errors import DecodeError
from driftlock_otlp.model import Signal

MOST_ENVELOPES = 100_000
"""Resources, scopes or metrics in one request. Each costs microseconds here, and two bytes to who sends it."""

_HOLLOW_BYTES = 1 << 20
_HOLLOW_SHARE = 16


def _count_log_records(request: Any) -> int:
    _require_few(sum(len(resource.scope_logs) for resource in _few(request.resource_logs)))
    return sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)


def _count_spans(request: Any) -> int:
    _require_few(sum(len(resource.scope_spans) for resource in _few(request.resource_spans)))
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


def _few(envelopes: Any) -> Any:
    _require_few(len(envelopes))
    return envelopes


def _require_few(count: int) -> None:
    if count > MOST_ENVELOPES:
        raise DecodeError(f"the request has {count} resources, scopes or metrics and {MOST_ENVELOPES} are allowed")


def _count_data_points(request: Any) -> int:
    count = 0
    _require_few(sum(len(resource.scope_metrics) for resource in _few(request.resource_metrics)))
    _require_few(sum(len(scope.metrics) for resource in request.resource_metrics for scope in resource.scope_metrics))
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                # Every kind of metric data calls its repeated field `data_points`.
                if kind is not None:
                    count += len(getattr(metric, kind).data_points)
    return count


@dataclass(frozen=True, slots=True)
class _Export:
    request_class: type[Message]
    response_class: type[Message]
    count_items: Callable[[Any], int]


_EXPORTS = {
    Signal.LOGS: _Export(ExportLogsServiceRequest, ExportLogsServiceResponse, _count_log_records),
    Signal.METRICS: _Export(ExportMetricsServiceRequest, ExportMetricsServiceResponse, _count_data_points),
    Signal.TRACES: _Export(ExportTraceServiceRequest, ExportTraceServiceResponse, _count_spans),
}


def request_class(signal: Signal) -> type[Message]:
    """Return the class of the signal's `Export<Signal>ServiceRequest`."""
    return _EXPORTS[signal].request_class


def response_class(signal: Signal) -> type[Message]:
    """Return the class of the signal's `Export<Signal>ServiceResponse`."""
    return _EXPORTS[signal].response_class


def decode(signal: Signal, payload: bytes) -> Message:
    """Decode one Export request.

    Args:
        signal: Which of the three requests it is.
        payload: The request as protobuf, uncompressed.

    Raises:
        DecodeError: It is not valid protobuf, nests deeper than 100 messages, has a string that is
            not UTF-8, or consists of empty messages.
    """
    refuse_hollow_request(payload)
    try:
        return request_class(signal).FromString(payload)
    except ProtobufError as error:
        # upb says "Error parsing message with type '…': why".
        why = str(error).rpartition("': ")[2]
        why = "messages nest too deeply" if "MaxDepth" in why else why
        name = request_class(signal).DESCRIPTOR.name
        raise DecodeError(f"the body is not a valid {name} in protobuf: {why}") from None


def refuse_hollow_request(payload: bytes) -> None:
    """Refuse a large request in protobuf that consists of empty messages, as `refuse_hollow` does."""
    # An empty message of field 1 or 2 has two bytes on the wire and some 64 in memory.
    refuse_hollow(payload, b"\n\x00", b"\x12\x00")


def refuse_hollow(body: bytes, *empty: bytes) -> None:
    """Refuse a large body that consists of empty parts: it would take many times its size in memory.

    Args:
        body: What was received, uncompressed.
        empty: How an empty part is written.

    Raises:
        DecodeError: More than one byte in eight is such a part.
    """
    if len(body) > _HOLLOW_BYTES and sum(map(body.count, empty)) > len(body) // _HOLLOW_SHARE:
        raise DecodeError("the request consists of empty messages; leave out what holds nothing")


def encode(message: Message) -> bytes:
    """Return the message as protobuf, fields in the order of their numbers.

    >>> encode(decode(Signal.LOGS, b""))
    b''
    """
    return message.SerializeToString(deterministic=True)


def count_items(signal: Signal, message: Message) -> int:
    """Return the number of log records, of data points of all metric kinds, or of spans.

    Raises:
        DecodeError: The request has more envelopes than `MOST_ENVELOPES`.
    """
    return _EXPORTS[signal].count_items(message)
