"""The management API of a real sidecar: followed and acted on over HTTP and gRPC, closed to others, quick to stop."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest

from driftlock_otlp.api.management_v1 import management_pb2 as pb
from driftlock_otlp.api.management_v1.management_pb2_grpc import ManagementStub
from driftlock_otlp.auth.keys import KeyFile, Organization, new_key, write_key_file
from driftlock_otlp.auth.roles import Role
from driftlock_otlp.storage import anomalies
from tests.e2e.conftest import NewSidecar
from tests.e2e.sidecar import free_ports
from tests.unit.api.v1.found import ANOMALY, NOW

PATIENCE_S = 30.0


async def next_event(response: aiohttp.ClientResponse) -> dict[str, str]:
    """Return the fields of the next server-sent event."""
    fields: dict[str, str] = {}
    async with asyncio.timeout(PATIENCE_S):
        while line := (await response.content.readline()).decode().rstrip("\n") or (not fields and ":"):
            if not line.startswith(":"):
                name, _, fields[name] = line.partition(": ")  # type: ignore[index]
    return fields


async def test_two_protocols_tell_the_same_and_followers_do_not_hold_up_the_end(
    new_sidecar: NewSidecar, tmp_path: Path
) -> None:
    key = new_key("ann", datetime.now(UTC), None, Role.OPERATOR)
    write_key_file(tmp_path / "keys.yaml", KeyFile(organizations={"acme": Organization(keys=(key.stored,))}))
    (grpc_port,) = free_ports(1)
    settings = {
        "auth": {"keys_file": str(tmp_path / "keys.yaml")},
        "api": {"grpc_endpoint": f"127.0.0.1:{grpc_port}"},
    }
    sidecar = new_sidecar(None, settings)
    await sidecar.start()
    with sidecar.state() as connection:
        anomalies.record(connection, ANOMALY, NOW)
    headers = {"x-api-key": key.text}
    base = f"http://127.0.0.1:{sidecar.api_port}/v1"
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel,
        client.get(f"{base}/anomalies/stream") as stream,
    ):
        assert (await next_event(stream))["event"] == "connected"
        watching = ManagementStub(channel).WatchAnomalies(
            pb.WatchAnomaliesRequest(after=0), metadata=(("x-api-key", key.text),)
        )
        await watching.read()
        body: dict[str, Any] = {"status": "investigating", "note": "with the payments team"}
        async with client.patch(f"{base}/anomalies/{ANOMALY.id}/status", json=body) as answer:
            assert (answer.status, (await answer.json())["status"]) == (200, "investigating")
        event, news = await next_event(stream), await watching.read()
        assert (event["event"], event["id"]) == (news.entry.action, str(news.seq)) == ("status_changed", "1")
        assert json.loads(event["data"])["anomaly"]["status"] == news.anomaly.status == "investigating"
        started_s = time.monotonic()
        assert await sidecar.stop() == 0
        assert time.monotonic() - started_s < 20.0
    assert "request_failed" not in sidecar.output
    assert "Traceback" not in sidecar.output


async def test_without_keys_another_machine_is_refused_and_probes_and_metrics_are_not(new_sidecar: NewSidecar) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # Sends nothing, but says from which address it would.
        except OSError:
            pytest.skip("this machine has no address but loopback, so nobody else can be played")
        other = str(probe.getsockname()[0])
    sidecar = new_sidecar(None)
    sidecar.settings |= {
        "api": {"endpoint": f"0.0.0.0:{sidecar.api_port}"},
        "auth": {"allow_unauthenticated": True},
    }
    await sidecar.start()
    async with aiohttp.ClientSession() as client:
        statuses = {}
        for host in ("127.0.0.1", other):
            for path in ("/v1/version", "/v1/openapi.json", "/healthz", "/metrics"):
                async with client.get(f"http://{host}:{sidecar.api_port}{path}") as answer:
                    statuses[host == "127.0.0.1", path] = answer.status
    assert statuses == {
        (is_local, path): 200 if is_local or not path.startswith("/v1") else 403 for is_local, path in statuses
    }
