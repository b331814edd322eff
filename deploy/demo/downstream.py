"""The demo's downstream: an OTLP receiver that counts what it gets and picks out anomaly events."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.anomaly_event import EVENT_NAME
from driftlock_otlp.otlp.decode import count_items
from tests.doubles.otlp_sink import OtlpSink, Received

_BITS = re.compile(r"^(.*) \((-?[\d.]+) bits\)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class AnomalyEvent:
    """One `driftlock.anomaly.detected` event, as it came over OTLP.

    Attributes:
        record: The log record.
        attributes: Its attributes, as plain values.
        resource: Attributes of its resource.
    """

    record: LogRecord
    attributes: dict[str, Any]
    resource: dict[str, Any]

    @property
    def id(self) -> str:
        """The anomaly's id."""
        return str(self.attributes["driftlock.anomaly.id"])

    @property
    def stream(self) -> str:
        """The stream, as `logs/checkout`."""
        return str(self.attributes["driftlock.stream"])

    @property
    def explanation(self) -> str:
        """One sentence that says what changed."""
        return self.record.body.string_value

    def fact(self, name: str) -> Any:
        """Return the attribute `driftlock.anomaly.<name>`."""
        return self.attributes[f"driftlock.anomaly.{name}"]

    @property
    def window_unix_nano(self) -> tuple[int, int]:
        """Event times of the window's first and last record."""
        return self.fact("window.start_time_unix_nano"), self.fact("window.end_time_unix_nano")

    def evidence(self) -> Iterator[tuple[str, str, str]]:
        """Yield column, bits and sentence of each piece of evidence, strongest first."""
        texts = self.attributes.get("driftlock.anomaly.explanations", [])
        columns = self.attributes.get("driftlock.anomaly.fields", [])
        if len(columns) != len(texts):
            # A column with evidence of two kinds is listed once.
            columns = [next((column for column in columns if column in text), "") for text in texts]
        for column, text in zip(columns, texts, strict=True):
            match = _BITS.match(text)
            yield (column, match[2], match[1]) if match else (column, "", text)


class Downstream:
    """Receives what the sidecar forwards.

    Args:
        on_event: Called with every anomaly event.
    """

    def __init__(self, on_event: Callable[[AnomalyEvent], None]) -> None:
        self.items: Counter[Signal] = Counter()
        self._on_event = on_event
        self._sink = OtlpSink(on_accepted=self._take)

    @property
    def endpoint(self) -> str:
        """URL for an `otlp_grpc` exporter."""
        return self._sink.grpc_endpoint

    async def __aenter__(self) -> Downstream:
        await self._sink.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await asyncio.shield(self._sink.__aexit__(*exception))

    def _take(self, request: Received) -> None:
        events = list(_events(request))
        for event in events:
            self._on_event(event)
        self.items[request.signal] += count_items(request.signal, request.message) - len(events)
        # The sink keeps all it was sent, for tests; a demo need not.
        self._sink.attempts.clear()
        self._sink.received.clear()


def _events(request: Received) -> Iterator[AnomalyEvent]:
    if request.signal is not Signal.LOGS:
        return
    for resource_logs in request.message.resource_logs:
        for scope_logs in resource_logs.scope_logs:
            for record in scope_logs.log_records:
                if record.event_name == EVENT_NAME:
                    yield AnomalyEvent(record, _plain(record.attributes), _plain(resource_logs.resource.attributes))


def _plain(attributes: Any) -> dict[str, Any]:
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
