"""Telemetry as plain JSON: what it becomes, and that it passes where OTLP does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from driftlock_otlp.auth.roles import Role
from driftlock_otlp.errors import OverloadedError
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp import decode
from driftlock_otlp.otlp.json_mapping import request_to_json
from driftlock_otlp.storage.state import StateDatabase
from tests.unit.api.v1.api import Api, new_api

LOG = {
    "event_type": "log",
    "timestamp": "2027-01-15T08:00:00.5Z",
    "data": {"level": "error", "message": "payment failed", "order": 4711},
    "metadata": {"service": "checkout", "region": "eu"},
}
METRIC = {"event_type": "metric", "data": {"name": "queue.depth", "value": 7, "unit": "1"}}
SPAN = {"event_type": "span", "data": {"name": "GET /", "duration_ms": 12.5}, "timestamp": "2027-01-15T08:00:00Z"}
LLM = {"event_type": "llm", "data": {"model": "m-1", "prompt_tokens": 9, "prompt": "hello", "latency_ms": 40}}


def entries(api: Api) -> list[tuple[str, str, Any]]:
    """Return tenant, signal and request of each entry of the log."""
    found = []
    for stored in api.log.read(0, 1 << 24):
        signal = stored.entry.signal
        assert signal is not None
        request = json.loads(request_to_json(signal, decode.decode(signal, stored.entry.payload)))
        found.append((stored.entry.tenant, signal.plural, request))
    return found


async def test_one_event_becomes_a_log_record_of_its_service(api: Api) -> None:
    answer = await api.call("POST", "/v1/events", LOG)
    assert (answer.status, answer.json) == (200, {"accepted": 1, "rejected": 0, "errors": []})
    ((_, _, request),) = entries(api)
    (resource,) = request["resourceLogs"]
    assert resource["resource"] == {"attributes": [{"key": "service.name", "value": {"stringValue": "checkout"}}]}
    (record,) = resource["scopeLogs"][0]["logRecords"]
    assert (record["timeUnixNano"], record["severityText"], record["severityNumber"]) == (
        "1800000000500000000",
        "error",
        17,
    )
    assert record["body"] == {"stringValue": "payment failed"}
    assert record["attributes"] == [
        {"key": "order", "value": {"intValue": "4711"}},
        {"key": "region", "value": {"stringValue": "eu"}},
    ]


async def test_a_batch_becomes_one_request_of_each_signal(api: Api) -> None:
    several = {"event_type": "metrics", "data": {"cpu": 0.5, "mem": 3, "host": "a"}}
    answer = await api.call("POST", "/v1/events", [LOG, METRIC, SPAN, LLM, LOG, several])
    assert answer.json["accepted"] == 6
    by_signal = {signal: request for _, signal, request in entries(api)}
    assert set(by_signal) == {"logs", "metrics", "traces"}
    metrics = by_signal["metrics"]["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    assert [metric["name"] for metric in metrics] == ["queue.depth", "cpu", "mem"]
    spans = by_signal["traces"]["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert [span["name"] for span in spans] == ["GET /", "chat m-1"]
    assert int(spans[0]["endTimeUnixNano"]) - int(spans[0]["startTimeUnixNano"]) == 12_500_000
    llm = {item["key"]: item["value"] for item in spans[1]["attributes"]}
    assert llm["gen_ai.request.model"] == {"stringValue": "m-1"}
    assert llm["gen_ai.usage.input_tokens"] == {"intValue": "9"}
    assert json.loads(llm["gen_ai.input.messages"]["stringValue"])[0]["parts"][0]["content"] == "hello"


async def test_the_same_events_become_the_same_bytes(api: Api) -> None:
    for _ in range(2):
        await api.call("POST", "/v1/events", [LOG, SPAN])
    payloads = [stored.entry.payload for stored in api.log.read(0, 1 << 24)]
    assert payloads[:2] == payloads[2:]


WRONG: list[Any] = [
    {"event_type": "log"},
    {"event_type": "nonsense", "data": 1},
    {"event_type": "log", "data": 1, "timestamp": "yesterday"},
    {"event_type": "log", "data": 1, "more": 1},
    {"event_type": "metric", "data": {"name": "a", "value": "7"}},
    {"event_type": "metric", "data": {}},
    {"event_type": "metric", "data": {"value": 1}},
    {"event_type": "span", "data": {"name": "a", "duration_ms": -1}},
    {"event_type": "span", "data": {"name": "a", "trace_id": "xyz"}},
    {"event_type": "span", "data": "text"},
    {"event_type": "llm", "data": 7},
    {"event_type": "log", "data": 1, "metadata": {"service": 7}},
    {"event_type": "log", "data": {"trace_id": 7}},
    "text",
    None,
    7,
    [],
]


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_event_is_named_by_its_index_and_the_others_are_taken(api: Api, wrong: Any) -> None:
    answer = await api.call("POST", "/v1/events", [LOG, wrong, LOG])
    assert (answer.status, answer.json["accepted"], answer.json["rejected"]) == (200, 2, 1)
    (error,) = answer.json["errors"]
    assert error["index"] == 1
    assert error["detail"]
    ((_, _, request),) = entries(api)
    assert len(request["resourceLogs"][0]["scopeLogs"][0]["logRecords"]) == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"", 400),
        (b"[" * 100_000, 400),
        (b'"\\ud800"', 400),
        (b"[]", 422),
        (b"7", 422),
        (b'[{"event_type":"log","data":' + b"[" * 50 + b"]" * 50 + b"}]", 422),
        (json.dumps([LOG] * 1001).encode(), 422),
        (b" " * ((4 << 20) + 1), 413),
    ],
)
async def test_a_request_of_which_nothing_can_be_taken_is_refused(api: Api, body: bytes, status: int) -> None:
    answer = await api.call("POST", "/v1/events", body)
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert entries(api) == []


async def test_another_media_type_or_a_coding_is_refused(api: Api) -> None:
    for headers in ({"content-type": "text/plain"}, {"content-type": "application/json", "content-encoding": "gzip"}):
        assert (await api.call("POST", "/v1/events", LOG, headers=headers)).status == 415


async def test_the_key_alone_says_whose_events_they_are(keyed: Api) -> None:
    key = keyed.keys["acme", Role.SENDER]
    mine, theirs = ({**LOG, "organization_id": name} for name in ("acme", "globex"))
    answer = await keyed.call("POST", "/v1/events", [LOG, mine, theirs], key=key)
    assert answer.json["errors"] == [{"index": 2, "detail": "organization_id: the key belongs to another organisation"}]
    assert [tenant for tenant, _, _ in entries(keyed)] == ["acme"]


async def test_events_are_limited_with_what_is_sent_as_otlp(keyed: Api) -> None:
    key = keyed.keys["acme", Role.SENDER]
    tenant = keyed.backend.gate.tenant("acme")
    tenant.spend(1)
    answer = await keyed.call("POST", "/v1/events", LOG, key=key)
    assert answer.status == 429
    assert int(answer.headers["retry-after"]) >= 1
    other = await keyed.call("POST", "/v1/events", LOG, key=keyed.keys["globex", Role.SENDER])
    assert other.status == 200
    assert '"requests";r=' in other.headers["ratelimit"]


async def test_what_is_sent_has_a_budget_of_its_own(state: StateDatabase, tmp_path: Path) -> None:
    api = new_api(state, tmp_path / "keys.yaml", requests_per_second=0.1, clock_s=lambda: 1.0)
    for name in ("acme", "globex"):  # Each has one request of either kind.
        key = api.keys[name, Role.ADMIN]
        assert (await api.get("/v1/version", key=key)).status == 200
        assert (await api.get("/v1/version", key=key)).status == 429
        assert (await api.call("POST", "/v1/events", LOG, key=key)).status == 200


async def test_what_the_log_does_not_take_is_to_be_sent_again(api: Api) -> None:
    async def full(entry: Any) -> int:
        raise OverloadedError("the log is full", 5.0)

    api.log.append = full  # type: ignore[method-assign]
    answer = await api.call("POST", "/v1/events", LOG)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    counted = api.metrics.receiver_items.labels(Signal.LOGS.plural, "events", "refused")
    assert counted._value.get() == 1
