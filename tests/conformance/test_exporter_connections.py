"""The exporters' connections: sockets, keep-alive, proxies, TLS; over real sockets."""

from __future__ import annotations

import asyncio
import base64
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog.testing

from driftlock_otlp.config.exporters import ClientKeepaliveConfig, ExporterConfig, TlsConfig
from driftlock_otlp.errors import ConfigError, DownstreamUnavailableError
from driftlock_otlp.exporter.otlp_client import build_exporter
from driftlock_otlp.interfaces import Exporter
from driftlock_otlp.model import Signal
from tests.conformance.certificates import Certificates
from tests.conformance.destinations import HttpDestination, RecordingRelay
from tests.conformance.exporters import LOGS, each_kind, exporter_to
from tests.doubles.otlp_sink import Answer, OtlpSink, ServerTls

pytestmark = pytest.mark.timeout(60)

SECONDS = 20.0
PING = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00"
"""The header of a PING frame that is no answer (RFC 9113, 6.7)."""


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def server_context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.cert_file, certificates.key_file)
    return context


# Sockets and keep-alive.


async def test_grpc_goes_through_unix_sockets(tmp_path: Path) -> None:
    received: list[bytes] = []

    async def take(payload: bytes, _: Any) -> bytes:
        received.append(payload)
        return b""

    path = tmp_path / "otlp.sock"
    server = grpc.aio.server()
    handlers = {"Export": grpc.unary_unary_rpc_method_handler(take)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(Signal.LOGS.grpc_service, handlers),))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    for endpoint in (f"unix:{path}", f"unix://{path}"):
        async with exporter_to(endpoint, "otlp_grpc", tls=TlsConfig(insecure=True)) as exporter:
            await exporter.export(Signal.LOGS, LOGS)
    await server.stop(0)
    assert received == [LOGS, LOGS]


async def test_grpc_keepalive_finds_a_peer_that_vanished() -> None:
    async with OtlpSink() as sink, RecordingRelay(sink.grpc_port) as relay:
        keepalive = ClientKeepaliveConfig(time=0.2, timeout=0.3)
        settings: dict[str, Any] = {"timeout": 50.0, "keepalive": keepalive}
        async with exporter_to(f"http://localhost:{relay.port}", "otlp_grpc", **settings) as exporter:
            sink.answer_next(Answer(delay_s=50.0))
            export = asyncio.create_task(exporter.export(Signal.LOGS, LOGS))
            while not sink.attempts:
                await asyncio.sleep(0.01)
            relay.is_stalled = True
            with pytest.raises(DownstreamUnavailableError):
                await asyncio.wait_for(export, SECONDS)


async def test_grpc_keepalive_pings_idle_connections_only_if_permitted() -> None:
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(OtlpSink())
        relays = {}
        for is_permitted in (True, False):
            relay = relays[is_permitted] = await stack.enter_async_context(RecordingRelay(sink.grpc_port))
            keepalive = ClientKeepaliveConfig(time=0.1, timeout=5.0, permit_without_stream=is_permitted)
            endpoint = f"http://localhost:{relay.port}"
            exporter = await stack.enter_async_context(exporter_to(endpoint, "otlp_grpc", keepalive=keepalive))
            await exporter.export(Signal.LOGS, LOGS)
        pinged, quiet = relays[True].sent.count(PING), relays[False].sent.count(PING)
        async with asyncio.timeout(SECONDS):
            while relays[True].sent.count(PING) < pinged + 3:
                await asyncio.sleep(0.01)
        # One, since after data the library measures the line.
        assert relays[False].sent.count(PING) <= quiet + 1


async def test_timeout_of_zero_is_no_limit() -> None:
    async with HttpDestination() as destination, exporter_to(destination.endpoint, timeout=0.0) as exporter:
        await exporter.export(Signal.LOGS, LOGS)
    async with OtlpSink() as sink, exporter_to(sink.grpc_endpoint, "otlp_grpc", timeout=0.0) as exporter:
        await exporter.export(Signal.LOGS, LOGS)


# Proxies.


@pytest.mark.parametrize("user", ["", "me:hunter%402@"])
async def test_http_goes_through_the_proxy(user: str) -> None:
    async with HttpDestination() as proxy:
        proxy_url = f"http://{user}localhost:{proxy.port}"
        async with exporter_to("http://collector.invalid:4318/base", proxy_url=proxy_url) as exporter:
            await exporter.export(Signal.LOGS, LOGS)
        (request,) = proxy.received
    assert request.target == "http://collector.invalid:4318/base/v1/logs"
    assert request.headers["host"] == "collector.invalid:4318"
    expected = "Basic " + base64.b64encode(b"me:hunter@2").decode() if user else None
    assert request.headers.get("proxy-authorization") == expected


@pytest.mark.parametrize("user", ["", "me:hunter2@"])
async def test_https_goes_through_a_tunnel_of_the_proxy(user: str, certificates: Certificates) -> None:
    tls = TlsConfig(ca_file=certificates.ca_file, server_name_override="localhost")
    async with (
        HttpDestination(tls=server_context(certificates)) as destination,
        HttpDestination(tunnel_to=destination.port) as proxy,
    ):
        settings: dict[str, Any] = {"proxy_url": f"http://{user}localhost:{proxy.port}", "tls": tls}
        settings["headers"] = {"authorization": "Bearer for-the-destination"}
        async with exporter_to("https://collector.invalid", **settings) as exporter:
            await exporter.export(Signal.LOGS, LOGS)
            await exporter.export(Signal.LOGS, LOGS)
        (tunnel,) = proxy.received
        assert (tunnel.method, tunnel.target) == ("CONNECT", "collector.invalid:443")
        assert ("proxy-authorization" in tunnel.headers) is bool(user)
        assert "authorization" not in tunnel.headers
        assert [request.target for request in destination.received] == ["/v1/logs"] * 2


async def test_refusing_proxy_is_a_passing_failure_that_shows_no_secrets(certificates: Certificates) -> None:
    async with HttpDestination() as proxy:
        settings: dict[str, Any] = {"proxy_url": f"http://me:hunter2@localhost:{proxy.port}"}
        async with exporter_to("https://you:hunter3@collector.invalid/?key=hunter4", **settings) as exporter:
            with pytest.raises(DownstreamUnavailableError, match="the proxy answered HTTP 407") as caught:
                await exporter.export(Signal.LOGS, LOGS)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
async def test_proxy_of_the_environment_is_used_for_other_machines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with HttpDestination() as proxy, HttpDestination() as destination:
        monkeypatch.setenv(name, f"localhost:{proxy.port}")
        async with exporter_to("http://collector.invalid") as exporter:
            await exporter.export(Signal.LOGS, LOGS)
        async with exporter_to(destination.endpoint) as exporter:
            await exporter.export(Signal.LOGS, LOGS)
        assert [request.target for request in proxy.received] == ["http://collector.invalid/v1/logs"]
        assert [request.target for request in destination.received] == ["/v1/logs"]


async def test_grpc_to_this_machine_goes_past_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with HttpDestination() as proxy, OtlpSink() as sink:
        monkeypatch.setenv("http_proxy", f"http://localhost:{proxy.port}")
        async with exporter_to(sink.grpc_endpoint, "otlp_grpc") as exporter:
            await exporter.export(Signal.LOGS, LOGS)
        assert proxy.received == []
        assert len(sink.received) == 1


# TLS.


@each_kind
async def test_name_in_the_certificate_may_be_another(kind: str, certificates: Certificates) -> None:
    issued = certificates.ca.issue_cert("collector.internal")
    issued.private_key_pem.write_to_path(certificates.key_file)
    certificates.cert_file.write_bytes(issued.cert_chain_pems[0].bytes())
    async with OtlpSink(tls=ServerTls(certificates.cert_file, certificates.key_file)) as sink:
        endpoint = sink.grpc_endpoint if kind == "otlp_grpc" else sink.http_endpoint
        tls = TlsConfig(ca_file=certificates.ca_file)
        async with exporter_to(endpoint, kind, tls=tls) as exporter:
            with pytest.raises(DownstreamUnavailableError):
                await exporter.export(Signal.LOGS, LOGS)
        tls = tls.model_copy(update={"server_name_override": "collector.internal"})
        async with exporter_to(endpoint, kind, tls=tls) as exporter:
            await exporter.export(Signal.LOGS, LOGS)
        assert len(sink.received) == 1


@pytest.mark.parametrize(("least", "is_taken"), [("1.2", True), ("1.3", False)])
async def test_http_min_version_is_kept(least: Any, is_taken: bool, certificates: Certificates) -> None:
    context = server_context(certificates)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    tls = TlsConfig(ca_file=certificates.ca_file, min_version=least)
    async with HttpDestination(tls=context) as destination, exporter_to(destination.endpoint, tls=tls) as exporter:
        if is_taken:
            await exporter.export(Signal.LOGS, LOGS)
        else:
            with pytest.raises(DownstreamUnavailableError):
                await exporter.export(Signal.LOGS, LOGS)


async def test_http_may_skip_verification(certificates: Certificates) -> None:
    tls = TlsConfig(insecure_skip_verify=True)
    async with HttpDestination(tls=server_context(certificates)) as destination:
        async with exporter_to(destination.endpoint, tls=tls) as exporter:
            await exporter.export(Signal.LOGS, LOGS)
        assert len(destination.received) == 1


@each_kind
async def test_systems_authorities_may_be_trusted_beside_others(
    kind: str, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Certificates(tmp_path_of(tmp_path, "other"))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca_file))  # how OpenSSL is told of the system's
    async with OtlpSink(tls=ServerTls(certificates.cert_file, certificates.key_file)) as sink:
        endpoint = sink.grpc_endpoint if kind == "otlp_grpc" else sink.http_endpoint
        for ca_file, include, is_trusted in (
            (None, False, True),
            (other.ca_file, False, False),
            (other.ca_file, True, True),
        ):
            tls = TlsConfig(ca_file=ca_file, include_system_ca_certs_pool=include)
            async with exporter_to(endpoint, kind, tls=tls) as exporter:
                if is_trusted:
                    await exporter.export(Signal.LOGS, LOGS)
                else:
                    with pytest.raises(DownstreamUnavailableError):
                        await exporter.export(Signal.LOGS, LOGS)


def tmp_path_of(directory: Path, name: str) -> Path:
    path = directory / name
    path.mkdir()
    return path


@each_kind
async def test_certificates_are_reloaded_without_a_restart(kind: str, certificates: Certificates) -> None:
    tls = TlsConfig(
        ca_file=certificates.ca_file,
        cert_file=certificates.client_cert_file,
        key_file=certificates.client_key_file,
        reload_interval=0.05,
    )
    server = ServerTls(certificates.cert_file, certificates.key_file, client_ca_file=certificates.ca_file)
    async with OtlpSink(tls=server) as sink:
        endpoint = sink.grpc_endpoint if kind == "otlp_grpc" else sink.http_endpoint
        exporter = build_exporter(kind, ExporterConfig(endpoint=endpoint, tls=tls))
        await exporter.export(Signal.LOGS, LOGS)
    certificates.renew()
    # What is on both sides now has nothing in common with what was there before.
    async with OtlpSink(sink.grpc_port, sink.http_port, tls=server) as sink:
        await succeeding(exporter)
        assert len(sink.received) == 1
        await exporter.close()


@each_kind
async def test_certificates_that_cannot_be_used_do_no_harm(kind: str, certificates: Certificates) -> None:
    tls = TlsConfig(ca_file=certificates.ca_file, reload_interval=0.05)
    async with OtlpSink(tls=ServerTls(certificates.cert_file, certificates.key_file)) as sink:
        endpoint = sink.grpc_endpoint if kind == "otlp_grpc" else sink.http_endpoint
        async with exporter_to(endpoint, kind, tls=tls) as exporter:
            certificates.ca_file.write_text("-----BEGIN CERTIFICATE-----\nhalf a", encoding="utf-8")
            with structlog.testing.capture_logs() as lines:
                async with asyncio.timeout(SECONDS):
                    while not lines:
                        await exporter.export(Signal.LOGS, LOGS)
            assert lines[0]["event"] == "certificates_unusable"
            assert f"exporters.{kind}.tls.ca_file" in lines[0]["error"]
            certificates.ca_file.unlink()
            await exporter.export(Signal.LOGS, LOGS)


@each_kind
@pytest.mark.parametrize("is_closed", [False, True])
async def test_calls_under_way_survive_a_reload_but_not_the_end(
    kind: str, is_closed: bool, certificates: Certificates
) -> None:
    tls = TlsConfig(ca_file=certificates.ca_file, reload_interval=0.05)
    async with OtlpSink(tls=ServerTls(certificates.cert_file, certificates.key_file)) as sink:
        endpoint = sink.grpc_endpoint if kind == "otlp_grpc" else sink.http_endpoint
        async with exporter_to(endpoint, kind, tls=tls, timeout=50.0) as exporter:
            sink.answer_next(Answer(delay_s=50.0 if is_closed else 1.0))
            under_way = asyncio.create_task(exporter.export(Signal.LOGS, LOGS))
            while not sink.attempts:
                await asyncio.sleep(0.01)
            with certificates.ca_file.open("ab") as file:
                file.write(b"\n# another look\n")
            with structlog.testing.capture_logs() as lines:
                async with asyncio.timeout(SECONDS):
                    while "certificates_reloaded" not in [line["event"] for line in lines]:
                        await exporter.export(Signal.LOGS, LOGS)
            if is_closed:
                await asyncio.wait_for(exporter.close(), SECONDS)
                with pytest.raises(DownstreamUnavailableError):
                    await under_way
            else:
                await under_way


async def succeeding(exporter: Exporter) -> None:
    """Export until it succeeds."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await exporter.export(Signal.LOGS, LOGS)
                return
            except DownstreamUnavailableError:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("key", "tls"),
    [
        ("ca_file", {"ca_file": "absent.pem"}),
        ("cert_file", {"cert_file": "absent.pem", "key_file": __file__}),
        ("key_file", {"cert_file": __file__, "key_file": "absent.pem"}),
    ],
)
@each_kind
async def test_absent_files_are_refused_by_name(kind: str, key: str, tls: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"exporters.{kind}.tls.{key}: cannot read absent.pem"):
        build_exporter(kind, ExporterConfig(endpoint="https://h", tls=TlsConfig.model_validate(tls)))
