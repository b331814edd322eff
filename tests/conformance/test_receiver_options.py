"""The receivers' options, as the Collector names them, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
import structlog.testing
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from driftlock_otlp.config.values import Endpoint
from driftlock_otlp.errors import ConfigError
from driftlock_otlp.model import Signal
from tests.conformance.certificates import Certificates
from tests.conformance.receivers import PROTOBUF, Receivers, request_of, running

PAYLOAD = request_of(Signal.LOGS)
HEADERS = {"Content-Type": PROTOBUF}
SECONDS = 20.0


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


async def post(receivers: Receivers, tls: ssl.SSLContext) -> int:
    """Send over a connection of its own; return the status."""
    url = f"https://localhost:{receivers.http.port}/v1/logs"
    async with aiohttp.ClientSession() as session, session.post(url, data=PAYLOAD, headers=HEADERS, ssl=tls) as answer:
        return answer.status


async def call(receivers: Receivers, credentials: grpc.ChannelCredentials) -> bytes:
    """Send over a connection of its own; return the response."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(f"localhost:{receivers.grpc.port}", credentials, options) as channel:
        answer: bytes = await channel.unary_unary(Signal.LOGS.grpc_method)(PAYLOAD, timeout=SECONDS)
        return answer


# TLS.


async def test_both_protocols_serve_tls(certificates: Certificates) -> None:
    tls = {"tls": certificates.server_section()}
    async with running(grpc=tls, http=tls) as receivers:
        assert await call(receivers, certificates.credentials()) == b""
        assert await post(receivers, certificates.context()) == 200
        assert len(receivers.log.entries) == 2


async def test_senders_without_a_certificate_are_refused_where_one_is_asked_for(certificates: Certificates) -> None:
    tls = {"tls": certificates.server_section(is_mutual=True)}
    async with running(grpc=tls, http=tls) as receivers:
        assert await call(receivers, certificates.credentials(with_certificate=True)) == b""
        assert await post(receivers, certificates.context(with_certificate=True)) == 200
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(receivers, certificates.credentials())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(aiohttp.ClientError):
            await post(receivers, certificates.context())
        assert len(receivers.log.entries) == 2


async def test_certificate_of_another_ca_is_refused(certificates: Certificates, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Certificates(tmp_path / "other")
    tls = {"tls": certificates.server_section(is_mutual=True)}
    async with running(grpc=tls, http=tls) as receivers:
        foreign = certificates.context()
        foreign.load_cert_chain(other.client_cert_file, other.client_key_file)
        with pytest.raises(aiohttp.ClientError):
            await post(receivers, foreign)
        credentials = grpc.ssl_channel_credentials(
            certificates.ca_file.read_bytes(), other.client_key_file.read_bytes(), other.client_cert_file.read_bytes()
        )
        with pytest.raises(grpc.aio.AioRpcError):
            await call(receivers, credentials)
        assert receivers.log.entries == []


async def test_http_refuses_a_tls_version_below_the_least_one(certificates: Certificates) -> None:
    async with running(http={"tls": certificates.server_section(min_version="1.3")}) as receivers:
        old = certificates.context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(aiohttp.ClientError):
            await post(receivers, old)
        assert await post(receivers, certificates.context()) == 200


async def test_renewed_certificates_are_used_without_a_restart(certificates: Certificates) -> None:
    tls = {"tls": certificates.server_section(is_mutual=True)}
    async with running(grpc=tls, http=tls) as receivers:
        established = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
        url = f"https://localhost:{receivers.http.port}/v1/logs"
        before = certificates.context(with_certificate=True)
        async with established, established.post(url, data=PAYLOAD, headers=HEADERS, ssl=before) as answer:
            assert answer.status == 200
            await answer.read()
            certificates.renew()
            async with asyncio.timeout(SECONDS):
                while not await _is_served(receivers, certificates):
                    await asyncio.sleep(0.1)
            # A connection that stands goes on.
            async with established.post(url, data=PAYLOAD, headers=HEADERS, ssl=before) as again:
                assert again.status == 200
        with pytest.raises(aiohttp.ClientError):
            await post(receivers, before)


async def _is_served(receivers: Receivers, certificates: Certificates) -> bool:
    """Whether both receivers show, and ask for, the present certificates."""
    try:
        await post(receivers, certificates.context(with_certificate=True))
        await call(receivers, certificates.credentials(with_certificate=True))
    except (aiohttp.ClientError, grpc.aio.AioRpcError):
        return False
    return True


async def test_files_that_cannot_be_used_leave_the_present_ones_in_use(certificates: Certificates) -> None:
    tls = {"tls": certificates.server_section()}
    async with running(grpc=tls, http=tls) as receivers:
        trusted, credentials = certificates.context(), certificates.credentials()
        with structlog.testing.capture_logs() as logs:
            certificates.key_file.write_text("half a k")
            async with asyncio.timeout(SECONDS):
                while not any(entry["event"] == "certificates_unusable" for entry in logs):
                    await asyncio.sleep(0.05)
        assert await post(receivers, trusted) == 200
        assert await call(receivers, credentials) == b""


@pytest.mark.parametrize("missing", ["cert_file", "key_file", "client_ca_file"])
def test_file_that_is_missing_or_no_pem_stops_the_start_and_is_named(certificates: Certificates, missing: str) -> None:
    section = certificates.server_section(is_mutual=True)
    Path(str(section[missing])).write_text("nothing of use")
    with pytest.raises(ConfigError, match=rf"protocols\.grpc\.tls.*{Path(str(section[missing])).name}"):
        Receivers(grpc={"tls": section})
    Path(str(section[missing])).unlink()
    with pytest.raises(ConfigError, match=rf"protocols\.http\.tls\.{missing}: cannot read .*No such file"):
        Receivers(http={"tls": section})


async def test_plaintext_to_a_tls_port_gets_no_further(certificates: Certificates) -> None:
    tls = {"tls": certificates.server_section()}
    async with running(grpc=tls, http=tls) as receivers:
        with pytest.raises(aiohttp.ClientError):
            await receivers.post(body=PAYLOAD)
        assert (await receivers.failing_call(PAYLOAD)).code() is grpc.StatusCode.UNAVAILABLE
        assert await post(receivers, certificates.context()) == 200


# gRPC.


async def test_health_service_tells_readiness_of_the_server_and_of_each_signal(receivers: Receivers) -> None:
    stub = health_pb2_grpc.HealthStub(receivers.channel)
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", *(signal.grpc_service for signal in Signal)):
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status == serving
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watching = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watching.read()).status == serving
    receivers.is_ready = False
    async with asyncio.timeout(SECONDS):
        assert (await watching.read()).status == not_serving
    watching.cancel()


async def test_reflection_describes_what_is_served(receivers: Receivers) -> None:
    async def questions() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        for signal in Signal:
            yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=signal.grpc_service)

    answers = reflection_pb2_grpc.ServerReflectionStub(receivers.channel).ServerReflectionInfo(questions())
    listed, *described = [answer async for answer in answers]
    names = {service.name for service in listed.list_services_response.service}
    assert {signal.grpc_service for signal in Signal} | {"grpc.health.v1.Health"} <= names
    assert all(answer.file_descriptor_response.file_descriptor_proto for answer in described)


async def test_connection_is_closed_when_it_is_idle_or_old() -> None:
    for age in ("max_connection_idle", "max_connection_age"):
        keepalive = {"server_parameters": {age: 0.2, "max_connection_age_grace": 0.2}}
        async with running(grpc={"keepalive": keepalive}) as receivers:
            await receivers.call(PAYLOAD)
            async with asyncio.timeout(SECONDS):
                while receivers.channel.get_state() is grpc.ChannelConnectivity.READY:
                    await asyncio.sleep(0.05)
            await receivers.call(PAYLOAD)


async def test_connection_of_a_client_that_does_not_answer_pings_is_closed() -> None:
    # Without a call gRPC's library pings only where clients may, too.
    policy = {"permit_without_stream": True}
    keepalive = {"server_parameters": {"time": 0.2, "timeout": 0.3}, "enforcement_policy": policy}
    async with running(grpc={"keepalive": keepalive}) as receivers:
        reader, writer = await asyncio.open_connection("127.0.0.1", receivers.grpc.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))  # an empty SETTINGS
        async with asyncio.timeout(SECONDS):
            assert await reader.read(-1)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_client_that_pings_too_often_is_disconnected_unless_the_policy_permits() -> None:
    def settings(min_time: float) -> dict[str, Any]:
        return {"keepalive": {"enforcement_policy": {"min_time": min_time, "permit_without_stream": True}}}

    pinging = [("grpc.keepalive_time_ms", 50), ("grpc.keepalive_permit_without_calls", 1),
               ("grpc.http2.max_pings_without_data", 0)]  # fmt: skip
    for min_time, is_closed in ((300.0, True), (0.001, False)):
        async with running(grpc=settings(min_time)) as receivers:
            target = f"127.0.0.1:{receivers.grpc.port}"
            async with grpc.aio.insecure_channel(target, pinging) as channel:
                await channel.unary_unary(Signal.LOGS.grpc_method)(PAYLOAD, timeout=SECONDS)
                # Whether the server has said "too many pings" shows as a lost connection.
                lost = asyncio.ensure_future(channel.wait_for_state_change(grpc.ChannelConnectivity.READY))
                done, _ = await asyncio.wait({lost}, timeout=SECONDS if is_closed else 1.0)
                assert bool(done) is is_closed
                lost.cancel()
                await asyncio.gather(lost, return_exceptions=True)


async def call_until_taken(receivers: Receivers) -> None:
    """Call as a sender does that obeys OTLP: a stream that the server refuses for now is tried again."""
    while True:
        try:
            await receivers.call(PAYLOAD)
        except grpc.aio.AioRpcError as error:
            # The server may still hold the stream of the call before, which the client knows to have ended.
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            await asyncio.sleep(0.01)
        else:
            return


async def test_calls_beyond_the_streams_of_a_connection_wait_for_one() -> None:
    async with running(grpc={"max_concurrent_streams": 2}) as receivers:
        await receivers.call(PAYLOAD)  # From now on the client knows the limit.
        receivers.log.gate.clear()
        calls = [asyncio.ensure_future(call_until_taken(receivers)) for _ in range(5)]
        async with asyncio.timeout(SECONDS):
            while receivers.gate.in_flight_bytes < 2 * len(PAYLOAD):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert receivers.gate.in_flight_bytes == 2 * len(PAYLOAD)
        receivers.log.gate.set()
        await asyncio.gather(*calls)
        assert len(receivers.log.entries) == 6


# Addresses.


async def test_both_protocols_serve_unix_sockets_and_replace_what_a_killed_process_left(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.sock" for name in ("grpc", "http")}
    for path in paths.values():
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(path))
        left.close()
    grpc_settings, http_settings = ({"endpoint": Endpoint(path=str(path))} for path in paths.values())
    receivers = Receivers(grpc=grpc_settings, http=http_settings)
    await receivers.grpc.start()
    await receivers.http.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{paths['grpc']}") as channel:
            assert await channel.unary_unary(Signal.LOGS.grpc_method)(PAYLOAD, timeout=SECONDS) == b""
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(paths["http"]))) as session,
            session.post("http://localhost/v1/logs", data=PAYLOAD, headers=HEADERS) as answer,
        ):
            assert answer.status == 200
        second = Receivers(grpc=grpc_settings, http=http_settings)
        with pytest.raises(ConfigError, match=r"protocols\.grpc\.endpoint.*grpc\.sock"):
            await second.grpc.start()
        with pytest.raises(ConfigError, match=r"protocols\.http\.endpoint.*http\.sock"):
            await second.http.start()
    finally:
        await receivers.grpc.stop(1.0)
        await receivers.http.stop(1.0)
    assert not any(path.exists() for path in paths.values())
    assert len(receivers.log.entries) == 2


# HTTP.


async def test_paths_can_be_chosen() -> None:
    http = {"logs_url_path": "/otlp/logs", "traces_url_path": "/spans"}
    async with running(http=http) as receivers:
        for path, signal, status in (
            ("/otlp/logs", Signal.LOGS, 200), ("/spans", Signal.TRACES, 200), ("/v1/metrics", Signal.METRICS, 200),
            ("/v1/logs", Signal.LOGS, 404), ("/v1/traces", Signal.TRACES, 404),
        ):  # fmt: skip
            assert (await receivers.post(path, request_of(signal))).status == status
        assert [entry.signal for entry in receivers.log.entries] == [Signal.LOGS, Signal.TRACES, Signal.METRICS]


async def test_response_headers_are_added_to_every_response() -> None:
    async with running(
        http={"response_headers": {"X-Via": "driftlock", "Strict-Transport-Security": "max-age=1"}}
    ) as r:
        for answer in (await r.post(body=PAYLOAD), await r.post(body=b"\xff"), await r.post("/nowhere")):
            assert (answer.headers["X-Via"], answer.headers["Strict-Transport-Security"]) == ("driftlock", "max-age=1")


@pytest.mark.parametrize(
    ("allowed", "origin", "is_allowed"),
    [
        (["https://app.example.com"], "https://app.example.com", True),
        (["https://app.example.com"], "https://evil.example", False),
        (["https://*.example.com"], "https://a.example.com", True),
        (["https://*.example.com"], "https://example.com.evil.example", False),
        (["https://app.example.com"], "https://appXexample.com", False),
        (["*"], "https://anything.example", True),
        ([], "https://app.example.com", False),
    ],
)
async def test_pages_of_allowed_origins_may_send(allowed: list[str], origin: str, is_allowed: bool) -> None:
    cors = {
        "allowed_origins": allowed,
        "allowed_headers": ["X-Mine"],
        "max_age": 99,
        "exposed_headers": ["Retry-After"],
    }
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-mine",
    }
    async with running(http={"cors": cors}) as receivers:
        preflight = await receivers.post(method="OPTIONS", content_type=None, **asked)
        assert (preflight.status == 200) is is_allowed
        assert preflight.headers.get("Access-Control-Allow-Origin") in ({origin, "*"} if is_allowed else {None})
        if is_allowed:
            assert preflight.headers["Access-Control-Max-Age"] == "99"
            assert "x-mine" in preflight.headers["Access-Control-Allow-Headers"].lower()
        answer = await receivers.post(body=PAYLOAD, Origin=origin)
        assert answer.status == 200
        assert ("Access-Control-Allow-Origin" in answer.headers) is is_allowed
        if is_allowed:
            assert answer.headers["Access-Control-Expose-Headers"] == "Retry-After"


async def test_only_listed_codings_are_taken() -> None:
    async with running(http={"compression_algorithms": ["zstd"]}) as receivers:
        answer = await receivers.post(body=PAYLOAD, Content_Encoding="gzip")
        assert answer.status == 415
        assert "use one of zstd" in answer.error.message
        assert (await receivers.post(body=PAYLOAD)).status == 415


async def test_connection_serves_one_request_where_keep_alive_is_off() -> None:
    async with running(http={"keep_alives_enabled": False}) as receivers:
        assert (await receivers.post(body=PAYLOAD)).headers["Connection"] == "close"


async def test_connection_without_requests_is_closed() -> None:
    async with running(http={"idle_timeout": 0.2}) as receivers:
        reader, writer = await asyncio.open_connection("127.0.0.1", receivers.http.port)
        writer.write(
            b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
        )
        async with asyncio.timeout(SECONDS):
            answer = await reader.read(-1)
        assert answer.startswith(b"HTTP/1.1 200")
        writer.close()
