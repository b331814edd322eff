"""The management API says the same over HTTP and over gRPC, and lets the same people in."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from driftlock_otlp.api.access import Access
from driftlock_otlp.api.management_grpc import SERVICE, ManagementGrpc
from driftlock_otlp.api.management_v1 import management_pb2 as pb
from driftlock_otlp.api.management_v1.management_pb2_grpc import ManagementStub
from driftlock_otlp.auth.roles import Role
from driftlock_otlp.config.values import Endpoint
from driftlock_otlp.storage.state import StateDatabase
from tests.unit.api.v1.api import Api, new_api
from tests.unit.api.v1.found import ANOMALY, BILLING, INCIDENT_ID, NOW, fill, happen, numbered, record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDatabase]:
    database = StateDatabase(tmp_path / "state.db", durability="memory")
    database.open()
    yield database
    database.close()


@asynccontextmanager
async def serving(api: Api, **access: Any) -> AsyncIterator[Any]:
    """Serve an API over gRPC; yield a client."""
    access = {"keys": api.ring, "requests_per_second": 1e6, **access}
    server = ManagementGrpc(Endpoint(host="127.0.0.1", port=0), api.backend, Access(**access), api.metrics)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield ManagementStub(channel)
    finally:
        await server.stop(1.0)


def as_json(message: Any) -> Any:
    """Return a message as the answers over HTTP are, without what is null there."""
    return without_null(
        MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    )


def without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_null(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_null(item) for item in value]
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 20 else value


async def test_a_list_is_the_same_whatever_is_asked_for(state: StateDatabase) -> None:
    api = new_api(state)
    await record(
        api,
        numbered(1, is_suppressed=True),
        numbered(2, state="resolved", level="page", explanation="timed out", resolved_unix_nano=NOW, resolution="x"),
        numbered(3, stream=BILLING, p_value=0.0005, status="dismissed"),
        numbered(4, score=0.99, severity="low", incident_id=INCIDENT_ID),
    )
    since = Timestamp()
    since.FromJsonString("2027-01-15T08:00:03Z")
    asked = [
        (pb.ListAnomaliesRequest(), ""),
        (pb.ListAnomaliesRequest(signal="metrics"), "signal=metrics"),
        (pb.ListAnomaliesRequest(state="resolved", level="page"), "state=resolved&level=page"),
        (pb.ListAnomaliesRequest(min_score=0.95), "min_score=0.95"),
        (pb.ListAnomaliesRequest(max_p_value=0.0), "max_p_value=0"),
        (pb.ListAnomaliesRequest(is_suppressed=False), "is_suppressed=false"),
        (pb.ListAnomaliesRequest(text="TIMED"), "text=TIMED"),
        (pb.ListAnomaliesRequest(incident_id=INCIDENT_ID), f"incident_id={INCIDENT_ID}"),
        (pb.ListAnomaliesRequest(since=since), "since=2027-01-15T08:00:03Z"),
        (pb.ListAnomaliesRequest(limit=2), "limit=2"),
    ]
    async with serving(api) as client:
        for request, query in asked:
            over_grpc = as_json(await client.ListAnomalies(request))
            over_http = without_null((await api.get(f"/v1/anomalies?{query}")).json)
            assert over_grpc.pop("next_cursor") == over_http.pop("next_cursor", "")
            assert over_grpc == over_http, query
        first = await client.ListAnomalies(pb.ListAnomaliesRequest(limit=3))
        rest = await client.ListAnomalies(pb.ListAnomaliesRequest(limit=3, cursor=first.next_cursor))
        assert [int(item.id, 16) for item in (*first.anomalies, *rest.anomalies)] == [4, 3, 2, 1]


async def test_one_anomaly_is_the_same(state: StateDatabase) -> None:
    api = new_api(state)
    await fill(api)
    await api.call("POST", f"/v1/anomalies/{ANOMALY.id}/feedback", {"verdict": "confirmed", "note": "é"})
    async with serving(api) as client:
        over_grpc = as_json(await client.GetAnomaly(pb.GetAnomalyRequest(id=ANOMALY.id)))
    over_http = without_null((await api.get(f"/v1/anomalies/{ANOMALY.id}")).json)
    over_grpc |= over_grpc.pop("anomaly")
    for name in ("windows", "records", "resource"):  # Over HTTP alone.
        over_http.pop(name)
    assert over_grpc == over_http


async def test_a_status_is_set_and_the_history_is_the_same(state: StateDatabase, tmp_path: Path) -> None:
    api = new_api(state, tmp_path / "keys.yaml")
    await record(api, ANOMALY)
    key = api.keys["acme", Role.OPERATOR]
    metadata = (("authorization", f"Bearer {key}"),)
    async with serving(api) as client:
        new = pb.SetStatusRequest(id=ANOMALY.id, status="acknowledged", note="on it")
        assert (await client.SetStatus(new, metadata=metadata)).status == "acknowledged"
    (entry,) = (await api.get(f"/v1/anomalies/{ANOMALY.id}", key=key)).json["history"]
    assert (entry["actor"], entry["detail"]["note"]) == (f"key:{key.split('_')[1]}", "on it")


async def test_what_happens_is_told_and_who_comes_back_misses_nothing(state: StateDatabase) -> None:
    api = new_api(state)
    await record(api, ANOMALY)
    first = await happen(api, ANOMALY, "anomaly_opened")
    async with serving(api) as client:
        call = client.WatchAnomalies(pb.WatchAnomaliesRequest())
        assert (await call.read()).seq == first
        await api.call("PATCH", f"/v1/anomalies/{ANOMALY.id}/status", {"status": "dismissed"})
        news = await call.read()
        assert (news.seq, news.entry.action, news.anomaly.status) == (first + 1, "status_changed", "dismissed")
        call.cancel()
        again = client.WatchAnomalies(pb.WatchAnomaliesRequest(after=0))
        assert [(await again.read()).seq for _ in range(3)] == [0, first, first + 1]
        again.cancel()
        async with asyncio.timeout(10.0):
            while api.backend.feed.client_count:
                await asyncio.sleep(0.01)


CALLS = {
    "ListAnomalies": (pb.ListAnomaliesRequest(), {Role.VIEWER, Role.OPERATOR, Role.ADMIN}),
    "GetAnomaly": (pb.GetAnomalyRequest(id=ANOMALY.id), {Role.VIEWER, Role.OPERATOR, Role.ADMIN}),
    "SetStatus": (pb.SetStatusRequest(id=ANOMALY.id, status="dismissed"), {Role.OPERATOR, Role.ADMIN}),
    "WatchAnomalies": (pb.WatchAnomaliesRequest(after=0), {Role.VIEWER, Role.OPERATOR, Role.ADMIN}),
}


def test_every_call_is_tried() -> None:
    assert set(CALLS) == {method.name for method in pb.DESCRIPTOR.services_by_name["Management"].methods}
    assert pb.DESCRIPTOR.services_by_name["Management"].full_name == SERVICE


async def answered(client: Any, name: str, key: str) -> Any:
    """Return the first message of an answer, or the status of a refusal."""
    call = getattr(client, name)(CALLS[name][0], metadata=(("x-api-key", key),) if key else ())
    try:
        if name != "WatchAnomalies":
            return await call
        return await call.read()
    except grpc.aio.AioRpcError as error:
        return error.code()


@pytest.mark.parametrize("name", CALLS)
async def test_calls_are_for_those_whose_key_permits_them(state: StateDatabase, tmp_path: Path, name: str) -> None:
    api = new_api(state, tmp_path / "keys.yaml")
    await fill(api)
    async with serving(api) as client:
        for key in ("", "nonsense"):
            assert await answered(client, name, key) is grpc.StatusCode.UNAUTHENTICATED
        for role in Role:
            answer = await answered(client, name, api.keys["acme", role])
            assert (answer is not grpc.StatusCode.PERMISSION_DENIED) == (role in CALLS[name][1])
        answer = await answered(client, name, api.keys["globex", Role.ADMIN])
        assert answer is grpc.StatusCode.NOT_FOUND or b"checkout" not in answer.SerializeToString()


@pytest.mark.parametrize(
    "request_",
    [
        pb.ListAnomaliesRequest(limit=1001),
        pb.ListAnomaliesRequest(limit=-1),
        pb.ListAnomaliesRequest(state="nonsense"),
        pb.ListAnomaliesRequest(cursor="oops"),
        pb.ListAnomaliesRequest(min_score=float("nan")),
        pb.ListAnomaliesRequest(since=Timestamp(seconds=1 << 60)),
    ],
)
async def test_what_cannot_be_asked_is_refused_and_not_an_internal_error(state: StateDatabase, request_: Any) -> None:
    api = new_api(state)
    async with serving(api) as client:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.ListAnomalies(request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_organisation_that_asks_too_often_is_told_so(state: StateDatabase, tmp_path: Path) -> None:
    api = new_api(state, tmp_path / "keys.yaml")
    async with serving(api, requests_per_second=0.1, clock_s=lambda: 1.0) as client:
        answers = [await answered(client, "ListAnomalies", api.keys["acme", Role.VIEWER]) for _ in range(2)]
    assert answers[1] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_generated_code_follows_from_the_definition(tmp_path: Path) -> None:
    package = "driftlock_otlp/api/management_v1"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{package}={ROOT}/proto/driftlock/management/v1"),
            *(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", f"--grpc_python_out={tmp_path}"),
            f"{package}/management.proto",
        ],
        check=True,
    )
    for made in (tmp_path / package).iterdir():
        assert made.read_bytes() == (ROOT / package / made.name).read_bytes(), "stale: run `make proto`"
