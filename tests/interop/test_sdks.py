"""The SDKs' exporters → sidecar → Collector, beside the same exporters → Collector."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from driftlock_otlp.model import Signal
from tests.conformance.certificates import Certificates
from tests.interop import programs, sdk
from tests.interop.collector import HOST, running
from tests.interop.conftest import Account, NewSidecar
from tests.interop.ends import Hop, between, sink, written

COUNT = 200
Ports = tuple[int, int]


@asynccontextmanager
async def both_ways(
    directory: Path, certificates: Certificates, new_sidecar: NewSidecar
) -> AsyncIterator[tuple[Ports, Ports]]:
    """Run a sidecar before a Collector; yield the ports of the one, and those of the other for what comes directly."""
    programs.required(programs.COLLECTOR)
    with running(sink(directory, received={}, direct={}), directory / "sink") as collector:
        client = Hop("otlp_grpc", "gzip").client(*collector.both_ports("otlp/received"), certificates)
        sidecar = new_sidecar(between(client))
        await sidecar.start()
        yield (sidecar.grpc_port, sidecar.http_port), collector.both_ports("otlp/direct")
        await sidecar.settle()
        assert await sidecar.stop() == 0


@pytest.mark.parametrize(
    ("transport", "compression"),
    [("grpc", "none"), ("grpc", "gzip"), ("http", "none"), ("http", "gzip"), ("http", "deflate")],
)
async def test_what_the_python_sdk_exports_arrives_as_if_sent_to_the_collector(
    transport: str, compression: str, tmp_path: Path, certificates: Certificates, new_sidecar: NewSidecar,
    account: Account,
) -> None:  # fmt: skip
    async with both_ways(tmp_path, certificates, new_sidecar) as ports:
        await asyncio.to_thread(sdk.export, transport, compression, ports, COUNT)
    _compare(account, f"Python SDK {transport} {compression} -> pass -> gRPC gzip", tmp_path)


@pytest.mark.parametrize(("protocol", "compression"), [("grpc", "gzip"), ("proto", "gzip"), ("json", "none")])
async def test_what_the_node_sdk_exports_arrives_as_if_sent_to_the_collector(
    protocol: str, compression: str, tmp_path: Path, certificates: Certificates, new_sidecar: NewSidecar,
    account: Account,
) -> None:  # fmt: skip
    node = programs.required_node()
    async with both_ways(tmp_path, certificates, new_sidecar) as ports:
        endpoints = [f"http://{HOST}:{pair[0 if protocol == 'grpc' else 1]}" for pair in ports]
        command = [node, str(programs.NODE_PROJECT / "send.mjs"), protocol, compression, str(COUNT), *endpoints]
        done = await asyncio.to_thread(
            subprocess.run, command, timeout=60.0, text=True, check=False, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:]
    _compare(account, f"Node SDK {protocol} {compression} -> pass -> gRPC gzip", tmp_path)


def _compare(account: Account, route: str, directory: Path) -> None:
    for signal in Signal:
        direct = written(directory, "direct", signal)
        assert direct.total() >= COUNT
        account.compare(route, signal, direct, written(directory, "received", signal))
