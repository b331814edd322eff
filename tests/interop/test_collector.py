"""Collector → sidecar → Collector: every record arrives once, and equal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import request_class
from tests.conformance.certificates import Certificates
from tests.e2e.sidecar import small_windows
from tests.e2e.traffic import Traffic
from tests.interop import programs
from tests.interop.collector import running
from tests.interop.conftest import Account, NewSidecar
from tests.interop.ends import MTLS, PLAIN, TLS, Hop, between, generate, send_json, sink, source, written
from tests.interop.records import records_of
from tests.interop.telemetry import varied

GENERATED = 400
WINDOW = 50

HTTP_COMPRESSIONS = ("none", "gzip", "zstd", "snappy", "x-snappy-framed", "deflate", "zlib")
GRPC, HTTP = "otlp_grpc", "otlp_http"


@dataclass(frozen=True)
class Route:
    """Into the sidecar, its `forward.policy`, and out of it."""

    incoming: Hop
    policy: str
    outgoing: Hop

    def __str__(self) -> str:
        return f"{self.incoming} -> {self.policy} -> {self.outgoing}"


def alike(compression: str, encoding: str = "proto", security: str = PLAIN, policy: str = "pass") -> Route:
    """Return a route with the same hop on both sides; without an encoding it is gRPC."""
    hop = Hop(HTTP if encoding else GRPC, compression, encoding or "proto", security)
    return Route(hop, policy, hop)


ROUTES = [
    alike("none", encoding=""),
    alike("gzip", encoding=""),
    *(alike(compression) for compression in HTTP_COMPRESSIONS),
    *(alike(compression, "json") for compression in ("none", "gzip", "zstd")),
    Route(Hop(HTTP, "zstd", "json"), "divert", Hop(GRPC, "gzip")),
    Route(Hop(GRPC, "gzip"), "tag", Hop(HTTP, "zstd")),
    alike("gzip", encoding="", security=TLS),
    alike("none", encoding="", security=MTLS, policy="divert"),
    alike("zstd", security=TLS, policy="divert"),
    alike("gzip", security=MTLS),
    alike("gzip", "json", security=MTLS),
]


@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_every_record_arrives_once_and_equal(
    route: Route, tmp_path: Path, certificates: Certificates, new_sidecar: NewSidecar, account: Account
) -> None:
    programs.required(programs.COLLECTOR)
    with running(sink(tmp_path, received=route.outgoing.server(certificates)), tmp_path / "sink") as receiver:
        client = route.outgoing.client(*receiver.both_ports("otlp/received"), certificates)
        sidecar = new_sidecar(between(client, route.incoming.server(certificates), route.policy))
        await sidecar.start()
        to_sidecar = route.incoming.client(sidecar.grpc_port, sidecar.http_port, certificates)
        with running(source(tmp_path, to_sidecar), tmp_path / "source") as sender:
            for signal in Signal:
                for request in varied(signal):
                    send_json(sender.http_endpoint(), signal, request)
            generate(sender.grpc_endpoint(), GENERATED)
        await sidecar.settle()
        sidecar.assert_balanced()
        assert await sidecar.stop() == 0
    for signal in Signal:
        sent = written(tmp_path, "sent", signal)
        # The file says what the sender has sent; this says that it was what it was told to send.
        assert not records_of(signal, varied(signal)) - sent
        assert sent.total() >= GENERATED
        account.compare(str(route), signal, sent, written(tmp_path, "received", signal))


async def test_records_of_a_fault_arrive_once_where_they_are_diverted_to(
    tmp_path: Path, certificates: Certificates, new_sidecar: NewSidecar, account: Account
) -> None:
    programs.required(programs.COLLECTOR)
    with running(sink(tmp_path, clean={}, odd={}), tmp_path / "sink") as receiver:
        exporters = {
            f"otlp_grpc/{name}": Hop(GRPC, "gzip").client(*receiver.both_ports(f"otlp/{name}"), certificates)[GRPC]
            for name in ("clean", "odd")
        }
        sidecar = new_sidecar(
            {
                "exporters": exporters,
                "forward": {
                    "exporters": ["otlp_grpc/clean"], "policy": "divert", "anomalous_exporters": ["otlp_grpc/odd"]
                },
                "events": {"exporters": []},
                **small_windows(WINDOW, max_age="5s"),
            }
        )  # fmt: skip
        await sidecar.start()
        to_sidecar = Hop(GRPC).client(sidecar.grpc_port, sidecar.http_port, certificates)
        with running(source(tmp_path, to_sidecar), tmp_path / "source") as sender:
            traffic = Traffic(seed=7)
            for windows, share in ((70, 0.0), (8, 1.0), (20, 0.0)):
                for _ in range(windows):
                    request = request_class(Signal.LOGS).FromString(traffic.logs(WINDOW, share))
                    send_json(sender.http_endpoint(), Signal.LOGS, request)
        await sidecar.settle()
        sidecar.assert_balanced()
        assert await sidecar.stop() == 0
    clean, odd = (written(tmp_path, name, Signal.LOGS) for name in ("clean", "odd"))
    assert odd.total() >= WINDOW
    sent = written(tmp_path, "sent", Signal.LOGS)
    account.compare("gRPC -> divert -> gRPC to two destinations", Signal.LOGS, sent, clean + odd)


async def test_zstd_over_grpc_is_refused_loudly_and_taken_over_http(
    tmp_path: Path, certificates: Certificates, new_sidecar: NewSidecar
) -> None:
    programs.required(programs.COLLECTOR)
    sidecar = new_sidecar({"events": {"exporters": []}})
    await sidecar.start()
    exporters = {
        **Hop(GRPC, "zstd").client(sidecar.grpc_port, sidecar.http_port, certificates),
        **Hop(HTTP, "zstd").client(sidecar.grpc_port, sidecar.http_port, certificates),
    }
    (request,) = varied(Signal.LOGS, rounds=1)
    count = records_of(Signal.LOGS, [request]).total()
    with running(source(tmp_path, exporters), tmp_path / "source") as sender:
        send_json(sender.http_endpoint(), Signal.LOGS, request)
    # gRPC's library answers before the sidecar hears of the call (it knows gzip and deflate); the Collector takes that
    # for final, says what it drops, and why.
    (complaint,) = [line for line in sender.output.splitlines() if "Dropping data" in line]
    assert f'"dropped_items": {count}' in complaint
    assert "code = Internal desc = Error parsing 'grpc-encoding' metadata" in complaint
    # Only what came over HTTP is here.
    assert sidecar.outcomes(Signal.LOGS)["accepted"] == count
