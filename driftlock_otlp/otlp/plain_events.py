"""Events as plain JSON, for senders without OpenTelemetry, and the OTLP requests that they become.

    {"event_type": "log", "timestamp": "2026-11-24T10:00:00Z", "data": {…}, "metadata": {"service": "checkout"}}

The same events always become the very same bytes, so that what is sent again is known again. Of
`metadata`, what OpenTelemetry counts among a resource goes there, and the rest to the event itself.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.rfc3339 import unix_nano_of

MOST_EVENTS = 1_000
"""Events in one request; they are converted one by one, and nothing else is served meanwhile."""

_MOST_DEPTH = 24
_MOST_INTEGER = (1 << 63) - 1
_SCOPE = "driftlock.events"
_RESOURCE_NAMES = {
    "service": "service.name",
    "service_name": "service.name",
    "host": "host.name",
    "environment": "deployment.environment.name",
    "version": "service.version",
}
_RESOURCE_PREFIXES = ("service.", "host.", "deployment.", "k8s.", "container.", "cloud.", "process.", "os.")
_SEVERITIES = {
    **{name: f"SEVERITY_NUMBER_{name.upper()}" for name in ("trace", "debug", "info", "warn", "error", "fatal")},
    "warning": "SEVERITY_NUMBER_WARN",
    "notice": "SEVERITY_NUMBER_INFO2",
    "critical": "SEVERITY_NUMBER_FATAL",
}
_LLM_NAMES = {
    "model": "gen_ai.request.model",
    "provider": "gen_ai.provider.name",
    "operation": "gen_ai.operation.name",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "session_id": "gen_ai.conversation.id",
    "conversation_id": "gen_ai.conversation.id",
    "response_id": "gen_ai.response.id",
    "temperature": "gen_ai.request.temperature",
    "tool": "gen_ai.tool.name",
}
_LLM_MESSAGES = (("prompt", "gen_ai.input.messages", "user"), ("response", "gen_ai.output.messages", "assistant"))
_HEX_IDS = {16: re.compile(r"[0-9a-fA-F]{32}"), 8: re.compile(r"[0-9a-fA-F]{16}")}


class Event(msgspec.Struct, forbid_unknown_fields=True):
    """One event.

    Attributes:
        event_type: What it is; names a row of `_KINDS`.
        timestamp: When it happened, as RFC 3339; None for now.
        data: What happened.
        metadata: Where.
        organization_id: Whose it is; checked by the caller, and not used.
    """

    event_type: str
    data: Any
    timestamp: str | None = None
    metadata: dict[str, Any] = {}
    organization_id: str | None = None


@dataclass(slots=True)
class Converted:
    """What became of events.

    Attributes:
        requests: OTLP requests, at most one of each signal.
        item_count: Items in them.
        event_count: Events they were made of.
        mistakes: (index, what is wrong) of the other events.
    """

    requests: list[tuple[Signal, bytes]] = field(default_factory=list)
    item_count: int = 0
    event_count: int = 0
    mistakes: list[tuple[int, str]] = field(default_factory=list)


def convert(events: Sequence[object], now_unix_nano: int, organization: str) -> Converted:
    """Return the requests that events become; each event is taken whole or not at all.

    Args:
        events: As decoded from JSON.
        now_unix_nano: The time of events without one.
        organization: Whose they must be, if they say so; empty: anybody's.
    """
    done = Converted()
    batches = {signal: _Batch(signal) for signal in Signal}
    for index, raw in enumerate(events):
        try:
            event = msgspec.convert(raw, Event)
            if organization and event.organization_id not in {None, organization}:
                raise ValueError("organization_id: the key belongs to another organisation")
            if event.event_type not in _KINDS:
                raise ValueError(f"event_type: write one of {', '.join(_KINDS)}")
            time = now_unix_nano if event.timestamp is None else unix_nano_of(event.timestamp)
            resource, attributes = _split(event.metadata)
            signal, build = _KINDS[event.event_type]
            items = build(event.data, time, attributes)
        except (msgspec.ValidationError, ValueError) as error:
            done.mistakes.append((index, str(error)))
            continue
        batches[signal].add(resource, items)
        done.event_count += 1
        done.item_count += len(items)
    done.requests = [(signal, batch.encode()) for signal, batch in batches.items() if batch.count]
    return done


class _Batch:
    """A request of one signal, item by item."""

    def __init__(self, signal: Signal) -> None:
        self.count = 0
        self._request: Any = _REQUESTS[signal]()
        self._envelopes, self._scopes, self._items = _PATHS[signal]
        self._known: dict[bytes, Any] = {}

    def add(self, resource: list[KeyValue], items: Sequence[Any]) -> None:
        self.count += len(items)
        key = b"".join(item.SerializeToString(deterministic=True) for item in resource)
        scope = self._known.get(key)
        if scope is None:
            envelope = getattr(self._request, self._envelopes).add()
            envelope.resource.attributes.extend(resource)
            scope = self._known[key] = getattr(envelope, self._scopes).add()
            scope.scope.name = _SCOPE
        getattr(scope, self._items).extend(items)

    def encode(self) -> bytes:
        encoded: bytes = self._request.SerializeToString(deterministic=True)
        return encoded


_REQUESTS: dict[Signal, Callable[[], Any]] = {
    Signal.LOGS: ExportLogsServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.TRACES: ExportTraceServiceRequest,
}
_PATHS = {
    Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
    Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
}


def _log(data: Any, time: int, attributes: list[KeyValue]) -> list[Any]:
    """Return a log record: `message`, or all of it, is the body, `level` the severity, the rest attributes."""
    record = LogRecord(time_unix_nano=time, observed_time_unix_nano=time)
    rest = dict(data) if isinstance(data, Mapping) else {"message": data}
    name = next((name for name in ("message", "msg", "body") if rest.get(name) is not None), None)
    level = next((rest.pop(name) for name in ("level", "severity") if isinstance(rest.get(name), str)), "")
    record.severity_text = level
    severity = _SEVERITIES.get(level.lower())
    if severity is not None:
        record.severity_number = SeverityNumber.Value(severity)
    record.trace_id, record.span_id = _id(rest, "trace_id", 16), _id(rest, "span_id", 8)
    if name is not None:
        record.body.CopyFrom(_any(rest.pop(name)))
        record.attributes.extend(_attributes(rest))
    else:
        record.body.CopyFrom(_any(rest))
    record.attributes.extend(attributes)
    return [record]


def _metric(data: Any, time: int, attributes: list[KeyValue]) -> list[Any]:
    """Return metrics: `name` and `value`, or every number under its own name."""
    if not isinstance(data, Mapping):
        raise ValueError("data: write an object with name and value, or one number a name")
    rest = dict(data)
    values: dict[str, Any]
    if "value" in rest:
        values = {_text(rest, "name", required=True): rest.pop("value")}
    else:
        values = {name: rest.pop(name) for name, value in data.items() if _is_number(value)}
    if not values:
        raise ValueError("data: holds no number")
    unit, kind = _text(rest, "unit"), _text(rest, "type") or "gauge"
    if kind not in {"gauge", "counter"}:
        raise ValueError("data.type: write gauge or counter")
    metrics = []
    for name, value in values.items():
        if not _is_number(value):
            raise ValueError("data.value: write a number")
        metric = Metric(name=name, unit=unit)
        if kind == "counter":
            metric.sum.is_monotonic = True
            metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        point = (metric.sum if kind == "counter" else metric.gauge).data_points.add(time_unix_nano=time)
        if isinstance(value, int) and -_MOST_INTEGER <= value <= _MOST_INTEGER:
            point.as_int = value
        else:
            point.as_double = _float(value)
        point.attributes.extend([*_attributes(rest), *attributes])
        metrics.append(metric)
    return metrics


def _span(data: Any, time: int, attributes: list[KeyValue]) -> list[Any]:
    """Return a span that begins at the event's time and lasts `duration_ms`."""
    if not isinstance(data, Mapping):
        raise ValueError("data: write an object with name and duration_ms")
    rest = dict(data)
    return [_new_span(rest, _text(rest, "name", required=True), time, data, attributes)]


def _llm(data: Any, time: int, attributes: list[KeyValue]) -> list[Any]:
    """Return a span of a generative AI operation, by the semantic conventions."""
    if not isinstance(data, Mapping):
        raise ValueError("data: write an object with model, input_tokens, output_tokens, duration_ms …")
    rest: dict[str, Any] = {_LLM_NAMES.get(str(name), str(name)): value for name, value in data.items()}
    rest.setdefault("gen_ai.operation.name", "chat")
    for given, name, role in (
        ("prompt", "gen_ai.input.messages", "user"),
        ("response", "gen_ai.output.messages", "assistant"),
    ):
        if given in rest:
            text = rest.pop(given)
            content = text if isinstance(text, str) else msgspec.json.encode(text).decode()
            message = {"role": role, "parts": [{"type": "text", "content": content}]}
            rest[name] = msgspec.json.encode([message]).decode()
    if isinstance(rest.get("finish_reason"), str):
        rest["gen_ai.response.finish_reasons"] = [rest.pop("finish_reason")]
    name = f"{rest['gen_ai.operation.name']} {rest.get('gen_ai.request.model', '')}".strip()
    return [_new_span(rest, _text(rest, "name") or name, time, data, attributes)]


def _new_span(rest: dict[str, Any], name: str, time: int, data: Any, attributes: list[KeyValue]) -> Span:
    duration_ms = rest.pop("duration_ms", rest.pop("latency_ms", 0))
    if not _is_number(duration_ms) or not 0 <= _float(duration_ms) < 1e12:
        raise ValueError("data.duration_ms: write milliseconds")
    seed = hashlib.blake2b(msgspec.json.encode([name, time, data], order="deterministic"), digest_size=24).digest()
    span = Span(
        name=_sound(name),
        start_time_unix_nano=time,
        end_time_unix_nano=time + int(_float(duration_ms) * 1e6),
        trace_id=_id(rest, "trace_id", 16) or seed[:16],
        span_id=_id(rest, "span_id", 8) or seed[16:],
        parent_span_id=_id(rest, "parent_span_id", 8),
    )
    status = _text(rest, "status").lower()
    error = rest.get("error")
    if status in {"error", "failed"} or (error is not None and error is not False and error != ""):
        span.status.code = Status.StatusCode.STATUS_CODE_ERROR
    elif status:
        span.status.code = Status.StatusCode.STATUS_CODE_OK
    span.attributes.extend([*_attributes(rest), *attributes])
    return span


_KINDS: dict[str, tuple[Signal, Callable[[Any, int, list[KeyValue]], list[Any]]]] = {
    **dict.fromkeys(("log", "logs"), (Signal.LOGS, _log)),
    **dict.fromkeys(("metric", "metrics"), (Signal.METRICS, _metric)),
    **dict.fromkeys(("trace", "traces", "span"), (Signal.TRACES, _span)),
    "llm": (Signal.TRACES, _llm),
}
EVENT_TYPES = tuple(_KINDS)
"""What an event may be."""


def _split(metadata: Mapping[str, Any]) -> tuple[list[KeyValue], list[KeyValue]]:
    """Return the attributes of the resource, and those of the event itself."""
    named = {_RESOURCE_NAMES.get(name, name): value for name, value in metadata.items()}
    resource = {name: value for name, value in named.items() if name.startswith(_RESOURCE_PREFIXES)}
    rest = {name: value for name, value in named.items() if name not in resource}
    if "service.name" in resource and not isinstance(resource["service.name"], str):
        raise ValueError("metadata.service: write text")
    return _attributes(dict(sorted(resource.items()))), _attributes(rest)


def _attributes(values: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=_sound(name), value=_any(value)) for name, value in values.items() if value is not None]


def _any(value: Any, depth: int = _MOST_DEPTH) -> AnyValue:
    if depth == 0:
        raise ValueError(f"more than {_MOST_DEPTH} levels within each other")
    result = AnyValue()
    if isinstance(value, str):
        result.string_value = _sound(value)
    elif isinstance(value, bool):
        result.bool_value = value
    elif isinstance(value, int) and -_MOST_INTEGER <= value <= _MOST_INTEGER:
        result.int_value = value
    elif isinstance(value, int | float):
        result.double_value = _float(value)
    elif isinstance(value, Mapping):
        result.kvlist_value.SetInParent()
        for name, item in value.items():
            result.kvlist_value.values.add(key=_sound(name)).value.CopyFrom(_any(item, depth - 1))
    elif isinstance(value, list):
        result.array_value.SetInParent()
        for item in value:
            result.array_value.values.add().CopyFrom(_any(item, depth - 1))
    return result


def _sound(text: str) -> str:
    """Return text as UTF-8 can hold it."""
    return text.encode("utf-8", "replace").decode()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def _text(rest: dict[str, Any], name: str, *, required: bool = False) -> str:
    """Take a text out of an object."""
    value = rest.pop(name, None)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value):
        raise ValueError(f"data.{name}: write text")
    return _sound(value)


def _id(rest: dict[str, Any], name: str, n_bytes: int) -> bytes:
    """Take an id in hex digits out of an object; empty if there is none."""
    value = rest.pop(name, None)
    if value is None or value == "":
        return b""
    if not isinstance(value, str) or not _HEX_IDS[n_bytes].fullmatch(value):
        raise ValueError(f"data.{name}: write {2 * n_bytes} hex digits")
    return bytes.fromhex(value)
