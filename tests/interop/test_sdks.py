"""The SDKs' exporters → sidecar → Collector, beside the same exporters → Collector."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from driftlock_otlp.model import Signal
from tests.conformance.certificates import Certificates
from tests.interop import programs, sdk
from tests.interop.collector import HOST, running
from tests.interop.conftest import Account, NewSidecar
from tests.interop.ends import MTLS, PLAIN, Hop, between, generate, sink, written

COUNT = 200
GRPC = "otlp_grpc"
Ports = tuple[int, int]


@asynccontextmanager
async def both_ways(
    directory: Path, certificates: Certificates, new_sidecar: NewSidecar, protocols: dict[str, Any] | None = None
) -> AsyncIterator[tuple[Ports, Ports]]:
    """Run a sidecar before a Collector; yield the ports of the one, and those of the other for what comes directly."""
    programs.required(programs.COLLECTOR)
    with running(sink(directory, received={}, direct={}), directory / "sink") as collector:
        client = Hop(GRPC, "gzip").client(*collector.both_ports("otlp/received"), certificates)
        sidecar = new_sidecar(between(client, protocols))
        await sidecar.start()
        yield (sidecar.grpc_port, sidecar.http_port), collector.both_ports("otlp/direct")
        await sidecar.settle()
        assert await sidecar.stop() == 0


@pytest.mark.parametrize(
    ("transport", "compressions"), [("grpc", ("none", "gzip")), ("http", ("none", "gzip", "deflate"))]
)
async def test_what_the_python_sdk_exports_arrives_as_if_sent_to_the_collector(
    transport: str, compressions: tuple[str, ...], tmp_path: Path, certificates: Certificates, new_sidecar: NewSidecar,
    account: Account,
) -> None:  # fmt: skip
    async with both_ways(tmp_path, certificates, new_sidecar) as ports:
        for compression in compressions:
            await asyncio.to_thread(sdk.export, transport, compression, ports, COUNT)
    _compare(account, f"Python SDK {transport} {'/'.join(compressions)} -> pass -> gRPC gzip", tmp_path)


async def test_what_the_node_sdk_exports_arrives_as_if_sent_to_the_collector(
    tmp_path: Path, certificates: Certificates, new_sidecar: NewSidecar, account: Account
) -> None:
    node = programs.required_node()
    async with both_ways(tmp_path, certificates, new_sidecar) as ports:
        for protocol, compression in (("grpc", "gzip"), ("proto", "gzip"), ("json", "none")):
            endpoints = [f"http://{HOST}:{pair[0 if protocol == 'grpc' else 1]}" for pair in ports]
            command = [node, str(programs.NODE_PROJECT / "send.mjs"), protocol, compression, str(COUNT), *endpoints]
            done = await asyncio.to_thread(
                subprocess.run, command, timeout=60.0, text=True, check=False, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout[-4000:]
    _compare(account, "Node SDK gRPC/proto/JSON -> pass -> gRPC gzip", tmp_path)


@pytest.mark.parametrize("security", [PLAIN, MTLS])
async def test_every_record_of_the_go_sdk_arrives_once(
    security: str, tmp_path: Path, certificates: Certificates, new_sidecar: NewSidecar, account: Account
) -> None:
    options = ["--otlp-insecure"]
    if security == MTLS:
        options = ["--mtls", "--ca-cert", str(certificates.ca_file)]
        options += ["--client-cert", str(certificates.client_cert_file)]
        options += ["--client-key", str(certificates.client_key_file)]
    server = Hop(GRPC, security=security).server(certificates)
    async with both_ways(tmp_path, certificates, new_sidecar, server) as ((grpc_port, http_port), _):
        # telemetrygen is made with it.
        await asyncio.to_thread(generate, f"{HOST}:{grpc_port}", COUNT, *options)
        await asyncio.to_thread(generate, f"{HOST}:{http_port}", COUNT, "--otlp-http", *options)
    route = " ".join(["telemetrygen gRPC/HTTP", security]).strip() + " -> pass -> gRPC gzip"
    for signal in Signal:
        account.count(route, signal, 2 * COUNT, written(tmp_path, "received", signal))


def _compare(account: Account, route: str, directory: Path) -> None:
    for signal in Signal:
        direct = written(directory, "direct", signal)
        assert direct.total() >= COUNT
        account.compare(route, signal, direct, written(directory, "received", signal))
