"""A Collector that retries sends more than the sidecar takes, and loses nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from driftlock_otlp.model import Signal
from driftlock_otlp.observability.memory import resident_bytes
from tests.e2e.sidecar import Sidecar
from tests.interop import programs
from tests.interop.collector import otlp, running
from tests.interop.conftest import NewSidecar
from tests.soak.clients import ITEMS, Client, Tally
from tests.soak.soak import Downstream

SECONDS = 8.0
MEMORY_LIMIT_BYTES = 384 << 20
QUEUE_BYTES = 4 << 20
RETRY = {"initial_interval": "200ms", "max_interval": "5s", "max_elapsed_time": "0s"}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["otlp_grpc", "otlp_http"])
async def test_a_collector_that_retries_loses_nothing_when_the_sidecar_is_overloaded(
    new_sidecar: NewSidecar, tmp_path: Path, kind: str
) -> None:
    programs.required(programs.COLLECTOR)
    downstream = Downstream()
    async with downstream.sink:
        window = {"size": 500}
        sidecar: Sidecar = new_sidecar(
            {
                "exporters": {"otlp_grpc": {"endpoint": downstream.sink.grpc_endpoint}},
                "forward": {"exporters": ["otlp_grpc"], "policy": "tag", "max_wait": "60s"},
                "events": {"exporters": []},
                "receiver": {"memory_limit": MEMORY_LIMIT_BYTES},
                "queue": {"max_bytes": QUEUE_BYTES, "segment_bytes": 1 << 20},
                "windows": {signal.plural: window for signal in Signal},
            }
        )
        await sidecar.start()
        is_grpc = kind == "otlp_grpc"
        endpoint = f"127.0.0.1:{sidecar.grpc_port}" if is_grpc else f"http://127.0.0.1:{sidecar.http_port}"
        queue = {"queue_size": 200, "num_consumers": 4, "block_on_overflow": False}
        config = {
            "receivers": {"otlp": otlp()},
            "exporters": {
                kind: {
                    "endpoint": endpoint, "tls": {"insecure": True}, "retry_on_failure": RETRY, "sending_queue": queue,
                    "timeout": "20s",
                }
            },
            "service": {
                "pipelines": {signal.plural: {"receivers": ["otlp"], "exporters": [kind]} for signal in Signal}
            },
        }  # fmt: skip
        tally = Tally()
        highest = 0
        with running(config, tmp_path / "collector") as collector:
            ports = collector.ports["otlp"]["grpc"], collector.ports["otlp"]["http"]
            loop = asyncio.get_running_loop()
            until_s = loop.time() + SECONDS
            clients = [Client(signal, "grpc", number, ports, tally) for number, signal in enumerate([*Signal] * 2)]
            running_clients = asyncio.gather(*(client.run(until_s, 0.0) for client in clients))
            while not running_clients.done():
                highest = max(highest, resident_bytes([sidecar.pid, *sidecar.worker_pids()]))
                await asyncio.sleep(0.2)
            await running_clients
            # A Collector that is stopped gives up what it cannot send: it has to be done before.
            await _until_all_came(downstream, tally, sidecar)
        refused = await asyncio.to_thread(sidecar.total, "driftlock_receiver_items_total", outcome="refused")
        print(f"{len(tally.acknowledged) * ITEMS:,} records, {refused:,.0f} refused, {highest >> 20} MiB at most")
        assert refused > 0, "the Collector was never told to wait: this was no overload"
        assert highest < MEMORY_LIMIT_BYTES
        assert tally.acknowledged <= downstream.requests
        assert await sidecar.stop() == 0


async def _until_all_came(downstream: Downstream, tally: Tally, sidecar: Sidecar) -> None:
    deadline_s = asyncio.get_running_loop().time() + 60.0
    while missing := tally.acknowledged - downstream.requests:
        assert asyncio.get_running_loop().time() < deadline_s, (
            f"{len(missing)} requests are lost:\n{sidecar.output[-2000:]}"
        )
        await asyncio.sleep(0.2)
