"""What the sidecar itself writes: its events, and the requests that it divides or marks.

The number in a test's name is the item of the project's conformance checklist: 91-98.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from driftlock_otlp.model import ItemRange, Signal
from driftlock_otlp.otlp import decode, rewrite
from tests.conformance.receivers import every_signal, message_of
from tests.unit.otlp.test_anomaly_event import ANOMALY, event_of

RANGES = [ItemRange(1, 1, "a1")]


def envelopes(signal: Signal, payload: bytes) -> list[tuple[Any, Any]]:
    """Return every scope of a request with its resource."""
    request: Any = decode.decode(signal, payload)
    noun = {Signal.LOGS: "logs", Signal.METRICS: "metrics", Signal.TRACES: "spans"}[signal]
    return [
        (resource, scope)
        for resource in getattr(request, f"resource_{noun}")
        for scope in getattr(resource, f"scope_{noun}")
    ]


def marked_request(signal: Signal) -> bytes:
    """Return a request of three items whose every level has a schema URL and dropped attributes."""
    request: Any = message_of(signal, 3)
    noun = {Signal.LOGS: "logs", Signal.METRICS: "metrics", Signal.TRACES: "spans"}[signal]
    for resource in getattr(request, f"resource_{noun}"):
        resource.schema_url, resource.resource.dropped_attributes_count = "https://example.com/resource", 3
        for scope in getattr(resource, f"scope_{noun}"):
            scope.schema_url, scope.scope.dropped_attributes_count = "https://example.com/scope", 4
            for record in getattr(scope, "log_records", ()) or getattr(scope, "spans", ()):
                record.dropped_attributes_count = 5
    return request.SerializeToString()  # type: ignore[no-any-return]


def rewritten(signal: Signal) -> list[bytes]:
    payload = marked_request(signal)
    clean, anomalous = rewrite.split(signal, payload, RANGES)
    return [clean, anomalous, rewrite.tag(signal, payload, RANGES)]


def test_91_92_event_has_the_time_of_the_anomaly_and_of_its_observation() -> None:
    event = event_of(ANOMALY)
    assert event.time_unix_nano == ANOMALY.detected_unix_nano == 1_000
    assert event.observed_time_unix_nano == 2_000


@pytest.mark.parametrize("signal", [Signal.LOGS, Signal.TRACES], ids=lambda signal: signal.plural)
def test_93_attribute_keys_are_unique_also_after_tagging_twice(signal: Signal) -> None:
    keys = [attribute.key for attribute in event_of(ANOMALY).attributes]
    assert len(set(keys)) == len(keys)
    twice = rewrite.tag(signal, rewrite.tag(signal, marked_request(signal), RANGES), [ItemRange(0, 3, "a2")])
    for _, scope in envelopes(signal, twice):
        for record in getattr(scope, "log_records", ()) or getattr(scope, "spans", ()):
            assert [(item.key, item.value.string_value) for item in record.attributes] == [
                (rewrite.ANOMALY_ID_ATTRIBUTE, "a2")
            ]


@pytest.mark.parametrize(
    ("trace_id", "span_id", "lengths"),
    [("0" * 32, "1" * 16, (0, 0)), ("1" * 32, "0" * 16, (16, 0)), ("", "1" * 16, (0, 0)), ("1" * 32, "2" * 16, (16, 8)),
     ("12", "1" * 16, (0, 0))],
)  # fmt: skip
def test_94_event_has_whole_ids_or_none_and_no_span_without_a_trace(
    trace_id: str, span_id: str, lengths: tuple[int, int]
) -> None:
    event = event_of(replace(ANOMALY, trace_id=trace_id, span_id=span_id))
    assert (len(event.trace_id), len(event.span_id)) == lengths


def test_95_event_uses_the_low_eight_flags_alone() -> None:
    assert event_of(ANOMALY).flags & ~0xFF == 0


def test_96_event_name_is_qualified_and_never_varies() -> None:
    names = {event_of(replace(ANOMALY, state=state, id=state * 8)).event_name for state in ("open", "resolved")}
    assert names == {"driftlock.anomaly.detected"}
    assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", names.pop())


@every_signal
def test_97_98_schema_urls_and_dropped_counts_are_kept_on_every_level(signal: Signal) -> None:
    for payload in rewritten(signal):
        for resource, scope in envelopes(signal, payload):
            assert (resource.schema_url, scope.schema_url) == (
                "https://example.com/resource", "https://example.com/scope",
            )  # fmt: skip
            assert (resource.resource.dropped_attributes_count, scope.scope.dropped_attributes_count) == (3, 4)
            for record in getattr(scope, "log_records", ()) or getattr(scope, "spans", ()):
                assert record.dropped_attributes_count == 5
