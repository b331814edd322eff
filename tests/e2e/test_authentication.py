"""Keys through the whole service: whose records they are stays with them to the bill."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import aiohttp
import grpc
import pytest

from driftlock_otlp.__main__ import main
from driftlock_otlp.model import Signal
from driftlock_otlp.storage.state import STATE_FILE, connect_shared
from tests.doubles.otlp_sink import OtlpSink
from tests.e2e.conftest import NewSidecar
from tests.e2e.traffic import Traffic

ITEMS = 20


def usage(data: Path) -> dict[str, int]:
    """Return the items that were metered, by organisation."""
    with closing(connect_shared(data / STATE_FILE)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT tenant, SUM(items) AS items FROM usage GROUP BY tenant")
        return {row["tenant"]: row["items"] for row in rows}


async def test_each_organisation_is_metered_and_a_noisy_one_does_not_hold_up_another(
    new_sidecar: NewSidecar, sink: OtlpSink, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys_file = tmp_path / "keys.yaml"
    keys = {}
    for name in ("noisy", "modest"):
        assert main(["keys", "create", "--file", str(keys_file), "--organization", name]) == 0
        keys[name] = capsys.readouterr().out.strip()
    limits = {"requests_per_second": 50, "burst": "1s"}
    sidecar = new_sidecar(sink, {"auth": {"keys_file": str(keys_file), "limits": limits}})
    await sidecar.start()
    url = f"http://127.0.0.1:{sidecar.http_port}/v1/logs"
    stopping = asyncio.Event()
    answers: dict[str, list[int]] = {"noisy": [], "modest": []}

    async def send(name: str, traffic: Traffic, session: aiohttp.ClientSession) -> float:
        payload = traffic.request(Signal.LOGS, ITEMS)
        headers = {"Content-Type": "application/x-protobuf", "X-Api-Key": keys[name]}
        started_s = asyncio.get_running_loop().time()
        async with session.post(url, data=payload, headers=headers) as answer:
            await answer.read()
        answers[name].append(answer.status)
        return asyncio.get_running_loop().time() - started_s

    async def flood(number: int, session: aiohttp.ClientSession) -> None:
        traffic = Traffic(number, first_item=number * 1_000_000)
        while not stopping.is_set():
            await send("noisy", traffic, session)

    async with aiohttp.ClientSession() as session:
        flooding = [asyncio.create_task(flood(number, session)) for number in range(1, 5)]
        modest = Traffic(99, first_item=99_000_000)
        latencies_s = []
        for _ in range(40):
            latencies_s.append(await send("modest", modest, session))
            await asyncio.sleep(0.05)
        stopping.set()
        await asyncio.gather(*flooding)
    assert set(answers["modest"]) == {200}
    assert answers["noisy"].count(429) > 0 < answers["noisy"].count(200)
    # Far below what any exporter waits (10 s), although four others send without pause.
    assert sorted(latencies_s)[len(latencies_s) // 2] < 1.0
    with pytest.raises(grpc.RpcError):
        await sidecar.send(Signal.LOGS, modest.request(Signal.LOGS, 1))
    accepted = {name: statuses.count(200) * ITEMS for name, statuses in answers.items()}
    await sidecar.wait_until(lambda: usage(sidecar.data) == accepted, "usage is not what was accepted")
    assert all(key not in sidecar.output for key in keys.values())
