"""rotel → sidecar → Collector, and sidecar → rotel → Collector.

Not as JSON: the JSON reader of this release of rotel refuses requests with an empty value (`"value": {}`), takes every
integer data point (`"asInt": "6"`) for none, and rounds doubles in their last digit. A Collector reads the same bytes.
As a sender it compresses with gzip also when told not to.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from driftlock_otlp.model import Signal
from tests.conformance.certificates import Certificates
from tests.interop import programs, rotel
from tests.interop.collector import running
from tests.interop.conftest import Account, NewSidecar
from tests.interop.ends import TLS, Hop, between, send_protobuf, sink, written
from tests.interop.records import records_of
from tests.interop.telemetry import varied

GRPC, HTTP = "otlp_grpc", "otlp_http"


@pytest.mark.parametrize("hop", [Hop(GRPC, "gzip"), Hop(HTTP, "gzip"), Hop(GRPC, "gzip", security=TLS)], ids=str)
async def test_what_rotel_sends_arrives_once_and_equal(
    hop: Hop, tmp_path: Path, certificates: Certificates, new_sidecar: NewSidecar, account: Account
) -> None:
    programs.required(programs.COLLECTOR)
    programs.required(programs.ROTEL)
    with running(sink(tmp_path, received={}), tmp_path / "sink") as receiver:
        client = Hop(GRPC, "gzip").client(*receiver.both_ports("otlp/received"), certificates)
        sidecar = new_sidecar(between(client, hop.server(certificates)))
        await sidecar.start()
        with rotel.running(hop, sidecar.grpc_port, sidecar.http_port, tmp_path / "rotel") as sender:
            for signal in Signal:
                for request in varied(signal):
                    send_protobuf(sender.http_port, signal, request)
        await sidecar.settle()
        assert await sidecar.stop() == 0
    for signal in Signal:
        sent = records_of(signal, varied(signal))
        account.compare(f"rotel {hop} -> pass -> gRPC gzip", signal, sent, written(tmp_path, "received", signal))


@pytest.mark.parametrize("hop", [Hop(GRPC, "gzip"), Hop(HTTP, "gzip"), Hop(HTTP)], ids=str)
async def test_what_rotel_receives_has_arrived_once_and_equal(
    hop: Hop, tmp_path: Path, certificates: Certificates, new_sidecar: NewSidecar, account: Account
) -> None:
    programs.required(programs.COLLECTOR)
    programs.required(programs.ROTEL)
    with running(sink(tmp_path, received={}), tmp_path / "sink") as collector:
        onwards = Hop(GRPC, "gzip")
        with rotel.running(onwards, *collector.both_ports("otlp/received"), tmp_path / "rotel") as receiver:
            client = hop.client(receiver.grpc_port, receiver.http_port, certificates)
            sidecar = new_sidecar(between(client))
            await sidecar.start()
            for signal in Signal:
                for request in varied(signal):
                    send_protobuf(sidecar.http_port, signal, request)
            await sidecar.settle()
            assert await sidecar.stop() == 0
    for signal in Signal:
        sent = records_of(signal, varied(signal))
        account.compare(f"HTTP/proto -> pass -> rotel {hop}", signal, sent, written(tmp_path, "received", signal))
