"""What every OTLP client keeps, over gRPC and HTTP, against a destination on real sockets."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from driftlock_otlp.config.exporters import ExporterConfig, TlsConfig
from driftlock_otlp.config.values import DEFAULT_REQUEST_LIMIT_BYTES, DEFAULT_RESPONSE_LIMIT_BYTES
from driftlock_otlp.errors import (
    ConfigError,
    DownstreamRejectedError,
    DownstreamTooLargeError,
    DownstreamUnavailableError,
)
from driftlock_otlp.exporter.otlp_client import build_exporter
from driftlock_otlp.interfaces import Exporter, ExportResult
from driftlock_otlp.model import Signal
from tests.doubles.otlp_sink import Answer, OtlpSink, ServerTls

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

KINDS = ("otlp_grpc", "otlp_http")
each_kind = pytest.mark.parametrize("kind", KINDS)


def endpoint_of(sink: OtlpSink, kind: str) -> str:
    return sink.grpc_endpoint if kind == "otlp_grpc" else sink.http_endpoint


@asynccontextmanager
async def exporter_to(endpoint: str, kind: str, **settings: Any) -> AsyncIterator[Exporter]:
    exporter = build_exporter(kind, ExporterConfig(endpoint=endpoint, **settings))
    try:
        yield exporter
    finally:
        await exporter.close()


@asynccontextmanager
async def connected(kind: str, **settings: Any) -> AsyncIterator[tuple[OtlpSink, Exporter]]:
    async with OtlpSink() as sink, exporter_to(endpoint_of(sink, kind), kind, **settings) as exporter:
        yield sink, exporter


def logs(*bodies: str) -> bytes:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for body in bodies:
        scope.log_records.add().body.string_value = body
    return request.SerializeToString()


def payload_of(signal: Signal) -> bytes:
    if signal is Signal.LOGS:
        return logs("paid")
    if signal is Signal.METRICS:
        metrics = ExportMetricsServiceRequest()
        metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="queue.depth")
        metric.gauge.data_points.add(as_int=3)
        return metrics.SerializeToString()
    traces = ExportTraceServiceRequest()
    traces.resource_spans.add().scope_spans.add().spans.add(name="GET /", trace_id=b"t" * 16, span_id=b"s" * 8)
    return traces.SerializeToString()


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Return a self-signed certificate for localhost, and its key."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@each_kind
@pytest.mark.parametrize("signal", list(Signal))
async def test_payload_arrives_byte_for_byte(kind: str, signal: Signal) -> None:
    async with connected(kind) as (sink, exporter):
        result = await exporter.export(signal, payload_of(signal))
        assert result == ExportResult()
        assert sink.payloads(signal) == [payload_of(signal)]
        assert sink.item_count(signal) == 1


@each_kind
async def test_name_is_the_key_in_the_configuration(kind: str) -> None:
    exporter = build_exporter(f"{kind}/backup", ExporterConfig(endpoint="http://localhost:1"))
    assert exporter.name == f"{kind}/backup"


@each_kind
async def test_large_incompressible_requests_arrive(kind: str) -> None:
    # Random hexadecimal digits compress by a half, so that body and compressed body are both large.
    payload = logs(Random(5).randbytes(3 << 20).hex())
    async with connected(kind, timeout=30.0) as (sink, exporter):
        await exporter.export(Signal.LOGS, payload)
        assert sink.payloads(Signal.LOGS) == [payload]


@each_kind
async def test_headers_and_user_agent_are_sent(kind: str) -> None:
    """Conformance 58, 60."""
    async with connected(kind, headers={"X-Tenant": "acme, inc"}) as (sink, exporter):
        await exporter.export(Signal.LOGS, logs("paid"))
        headers = sink.received[0].headers
    assert headers["x-tenant"] == "acme, inc"
    assert headers["user-agent"].startswith("driftlock-otlp/")
    assert " OTel-OTLP-Exporter-Python/" in headers["user-agent"]


async def test_http_describes_its_body() -> None:
    """Conformance 84, 85, 86; the user's headers may not contradict them."""
    settings: dict[str, Any] = {"headers": {"content-type": "text/plain", "user-agent": "mine"}}
    async with connected("otlp_http", **settings) as (sink, exporter):
        await exporter.export(Signal.LOGS, logs("paid"))
        headers = sink.received[0].headers
    assert headers["content-type"] == "application/x-protobuf"
    assert headers["content-encoding"] == "gzip"
    assert "gzip" in headers["accept-encoding"]
    assert headers["user-agent"] == "mine"


RETRYABLE_GRPC = ("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS")
PERMANENT_GRPC = (
    "UNKNOWN", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "UNAUTHENTICATED",
    "FAILED_PRECONDITION", "UNIMPLEMENTED", "INTERNAL", "RESOURCE_EXHAUSTED",
)  # fmt: skip
RETRYABLE_HTTP = (429, 502, 503, 504)
PERMANENT_HTTP = (400, 401, 403, 404, 405, 408, 413, 415, 422, 500, 501, 505)


@pytest.mark.parametrize(
    ("kind", "failure"),
    [("otlp_grpc", {"grpc_code": grpc.StatusCode[name]}) for name in RETRYABLE_GRPC]
    + [("otlp_http", {"http_status": status}) for status in RETRYABLE_HTTP],
    ids=str,
)
async def test_passing_failures_may_be_retried(kind: str, failure: dict[str, Any]) -> None:
    """Conformance 61, 66."""
    async with connected(kind) as (sink, exporter):
        sink.fail_next(message="come back later", **failure)
        with pytest.raises(DownstreamUnavailableError, match="come back later") as caught:
            await exporter.export(Signal.LOGS, logs("paid"))
        assert caught.value.retry_after_s is None
        assert len(sink.attempts) == 1
        await exporter.export(Signal.LOGS, logs("paid"))
        assert sink.bodies() == ["paid"]


@pytest.mark.parametrize(
    ("kind", "failure"),
    [("otlp_grpc", {"grpc_code": grpc.StatusCode[name]}) for name in PERMANENT_GRPC]
    + [("otlp_http", {"http_status": status}) for status in PERMANENT_HTTP],
    ids=str,
)
async def test_lasting_failures_may_not_be_retried(kind: str, failure: dict[str, Any]) -> None:
    """Conformance 63, 66, 69, and 62 without RetryInfo."""
    async with connected(kind) as (sink, exporter):
        sink.fail_next(message="never send this again", **failure)
        with pytest.raises(DownstreamRejectedError, match="never send this again"):
            await exporter.export(Signal.LOGS, logs("paid"))
        assert len(sink.attempts) == 1


@each_kind
async def test_destination_says_when_to_come_back(kind: str) -> None:
    """Conformance 62, 64, 65, 67."""
    async with connected(kind) as (sink, exporter):
        sink.fail_next(retry_after_s=7)
        sink.fail_next(retry_after_s=3, grpc_code=grpc.StatusCode.RESOURCE_EXHAUSTED, http_status=429)
        waits = []
        for _ in range(2):
            with pytest.raises(DownstreamUnavailableError) as caught:
                await exporter.export(Signal.LOGS, logs("paid"))
            waits.append(caught.value.retry_after_s)
        assert waits == [7.0, 3.0]


@each_kind
@pytest.mark.parametrize("signal", list(Signal))
async def test_partial_success_is_a_result(kind: str, signal: Signal) -> None:
    """Conformance 73, 74."""
    async with connected(kind) as (sink, exporter):
        sink.reject_items_next(2, "too old")
        sink.reject_items_next(0, "please upgrade")
        payload = payload_of(signal)
        assert await exporter.export(signal, payload) == ExportResult(2, "too old")
        assert await exporter.export(signal, payload) == ExportResult(0, "please upgrade")


@each_kind
async def test_unreadable_answer_to_a_success_is_a_success(kind: str) -> None:
    async with connected(kind) as (sink, exporter):
        sink.answer_next(Answer(grpc_body=b"\xff\xff", http_body=b"\xff\xff"))
        result = await exporter.export(Signal.LOGS, logs("paid"))
        assert result == ExportResult(0, "the answer is not an OTLP response")


async def test_http_answers_in_other_words_than_protobuf() -> None:
    plain, as_json = {"Content-Type": "text/plain"}, {"Content-Type": "application/json"}
    async with connected("otlp_http") as (sink, exporter):
        sink.answer_next(Answer(http_body=b"ok", http_headers=plain))
        assert await exporter.export(Signal.LOGS, logs("paid")) == ExportResult()
        sink.answer_next(Answer(http_status=400, http_body=b"<b>bad\r\n gateway</b>", http_headers=plain))
        with pytest.raises(DownstreamRejectedError, match="HTTP 400: <b>bad gateway</b>"):
            await exporter.export(Signal.LOGS, logs("paid"))
        sink.answer_next(Answer(http_status=400, http_body=b'{"code": 3, "message": "no body"}', http_headers=as_json))
        with pytest.raises(DownstreamRejectedError, match="HTTP 400: no body"):
            await exporter.export(Signal.LOGS, logs("paid"))
        sink.answer_next(Answer(http_status=503, http_body=b"{", http_headers=as_json))
        with pytest.raises(DownstreamUnavailableError, match="HTTP 503: Service Unavailable"):
            await exporter.export(Signal.LOGS, logs("paid"))


async def test_http_redirects_are_not_followed() -> None:
    async with connected("otlp_http") as (sink, exporter):
        sink.answer_next(Answer(http_status=307, http_headers={"Location": sink.http_endpoint + "/v1/logs"}))
        with pytest.raises(DownstreamRejectedError, match="redirects to http://localhost"):
            await exporter.export(Signal.LOGS, logs("paid"))
        assert len(sink.attempts) == 1


@each_kind
async def test_unreachable_destination_may_be_retried_and_found_again(kind: str) -> None:
    """Conformance 70, 71."""
    async with connected(kind) as (sink, exporter):
        await exporter.export(Signal.LOGS, logs("before"))
    async with exporter_to(endpoint_of(sink, kind), kind) as exporter:
        with pytest.raises(DownstreamUnavailableError):
            await exporter.export(Signal.LOGS, logs("lost"))
        async with OtlpSink(sink.grpc_port, sink.http_port) as again:
            for _ in range(100):
                try:
                    await exporter.export(Signal.LOGS, logs("after"))
                    break
                except DownstreamUnavailableError:
                    await asyncio.sleep(0.1)
            assert again.bodies() == ["after"]


@each_kind
async def test_destination_that_speaks_something_else_may_be_retried(kind: str) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"220 mail.example.com ESMTP\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with exporter_to(f"http://127.0.0.1:{port}", kind, timeout=5.0) as exporter:
            with pytest.raises(DownstreamUnavailableError):
                await exporter.export(Signal.LOGS, logs("paid"))


@each_kind
async def test_silence_beyond_the_timeout_may_be_retried(kind: str) -> None:
    async with connected(kind, timeout=0.3) as (sink, exporter):
        sink.answer_next(Answer(delay_s=20.0))
        with pytest.raises(DownstreamUnavailableError):
            await exporter.export(Signal.LOGS, logs("paid"))


@each_kind
async def test_oversized_answer_is_refused_for_good(kind: str) -> None:
    """Conformance 80."""
    async with connected(kind) as (sink, exporter):
        sink.answer_next(Answer(message="x" * (DEFAULT_RESPONSE_LIMIT_BYTES + 1)))
        with pytest.raises(DownstreamRejectedError) as caught:
            await exporter.export(Signal.LOGS, logs("paid"))
        # It was taken: to send it in parts would repeat it.
        assert not isinstance(caught.value, DownstreamTooLargeError)


@each_kind
async def test_request_the_destination_finds_too_large_may_be_split(kind: str) -> None:
    async with connected(kind) as (sink, exporter):
        sink.fail_next(grpc_code=grpc.StatusCode.RESOURCE_EXHAUSTED, http_status=413, message="one MiB, please")
        with pytest.raises(DownstreamTooLargeError, match="one MiB, please"):
            await exporter.export(Signal.LOGS, logs("paid"))
        assert len(sink.attempts) == 1


@each_kind
async def test_oversized_request_is_not_sent(kind: str) -> None:
    """Conformance 78, 79."""
    async with connected(kind) as (sink, exporter):
        with pytest.raises(DownstreamTooLargeError, match=r"max_request_size allows \(67108864\)"):
            await exporter.export(Signal.LOGS, bytes(DEFAULT_REQUEST_LIMIT_BYTES + 1))
        assert sink.attempts == []


@each_kind
async def test_many_exports_share_the_exporter(kind: str) -> None:
    """Conformance 81."""
    async with connected(kind) as (sink, exporter):
        bodies = [f"record {number}" for number in range(40)]
        await asyncio.gather(*(exporter.export(Signal.LOGS, logs(body)) for body in bodies))
        assert sorted(sink.bodies()) == sorted(bodies)


@each_kind
async def test_closed_exporter_fails_as_retryable(kind: str) -> None:
    async with connected(kind) as (sink, exporter):
        await exporter.export(Signal.LOGS, logs("paid"))
        await exporter.close()
        await exporter.close()
        with pytest.raises(DownstreamUnavailableError, match="closed"):
            await exporter.export(Signal.LOGS, logs("late"))
        assert sink.bodies() == ["paid"]


@each_kind
async def test_closing_ends_exports_in_flight_as_retryable(kind: str) -> None:
    async with connected(kind) as (sink, exporter):
        sink.answer_next(Answer(delay_s=20.0))
        export = asyncio.create_task(exporter.export(Signal.LOGS, logs("paid")))
        while not sink.attempts:
            await asyncio.sleep(0.01)
        await exporter.close()
        with pytest.raises(DownstreamUnavailableError):
            await export


@each_kind
async def test_cancelled_export_stays_cancelled(kind: str) -> None:
    async with connected(kind) as (sink, exporter):
        sink.answer_next(Answer(delay_s=20.0))
        export = asyncio.create_task(exporter.export(Signal.LOGS, logs("paid")))
        while not sink.attempts:
            await asyncio.sleep(0.01)
        export.cancel()
        with pytest.raises(asyncio.CancelledError):
            await export


@each_kind
async def test_tls_trusts_the_given_ca_and_nothing_else(kind: str, tmp_path: Path) -> None:
    """Conformance 54."""
    certificate, key = make_certificate(tmp_path, "localhost")
    async with OtlpSink(tls=ServerTls(certificate, key)) as sink:
        async with exporter_to(endpoint_of(sink, kind), kind, tls=TlsConfig(ca_file=certificate)) as exporter:
            await exporter.export(Signal.LOGS, logs("paid"))
        async with exporter_to(endpoint_of(sink, kind), kind) as exporter:
            with pytest.raises(DownstreamUnavailableError):
                await exporter.export(Signal.LOGS, logs("leaked"))
        assert sink.bodies() == ["paid"]


@each_kind
async def test_client_certificate_is_shown(kind: str, tmp_path: Path) -> None:
    """Conformance 54."""
    certificate, key = make_certificate(tmp_path, "localhost")
    client_certificate, client_key = make_certificate(tmp_path, "client")
    ours = TlsConfig(ca_file=certificate, cert_file=client_certificate, key_file=client_key)
    async with OtlpSink(tls=ServerTls(certificate, key, client_ca_file=client_certificate)) as sink:
        async with exporter_to(endpoint_of(sink, kind), kind, tls=ours) as exporter:
            await exporter.export(Signal.LOGS, logs("paid"))
        async with exporter_to(endpoint_of(sink, kind), kind, tls=TlsConfig(ca_file=certificate)) as exporter:
            with pytest.raises(DownstreamUnavailableError):
                await exporter.export(Signal.LOGS, logs("anonymous"))
        assert sink.bodies() == ["paid"]


async def test_grpc_scheme_wins_over_insecure_and_bare_addresses_follow_it() -> None:
    """Conformance 49."""
    async with OtlpSink() as sink:
        address = f"localhost:{sink.grpc_port}"
        plaintext = [(f"http://{address}", False), (address, True), (f"dns:///{address}", True)]
        for endpoint, is_insecure in plaintext:
            async with exporter_to(endpoint, "otlp_grpc", tls=TlsConfig(insecure=is_insecure)) as exporter:
                await exporter.export(Signal.LOGS, logs(endpoint))
        for endpoint, is_insecure in ((f"https://{address}", True), (address, False)):
            async with exporter_to(endpoint, "otlp_grpc", tls=TlsConfig(insecure=is_insecure)) as exporter:
                with pytest.raises(DownstreamUnavailableError):
                    await exporter.export(Signal.LOGS, logs("plaintext"))
        assert sink.bodies() == [endpoint for endpoint, _ in plaintext]


async def test_secrets_do_not_show_in_errors() -> None:
    endpoint = "http://user:hunter2@localhost:1/?token=hunter2"
    async with exporter_to(endpoint, "otlp_http", headers={"x-api-key": "hunter2"}) as exporter:
        with pytest.raises(DownstreamUnavailableError) as caught:
            await exporter.export(Signal.LOGS, logs("paid"))
    assert "localhost" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("otlp_http", {"endpoint": "localhost:4318"}, "endpoint.*needs a scheme"),
        ("otlp_http", {"endpoint": "http://"}, "endpoint.*is not a URL"),
        ("otlp_http", {"endpoint": "http://h:99999"}, "endpoint"),
        ("otlp_grpc", {"endpoint": ""}, "endpoint.*host:port"),
        ("otlp_grpc", {"endpoint": "http://"}, "endpoint.*is not a URL"),
        ("otlp_http", {"endpoint": "http://h", "headers": {"a": "b\r\nc: d"}}, "headers.a"),
        ("otlp_http", {"endpoint": "http://u:p@h", "headers": {"authorization": "c"}}, "credentials stand both"),
        ("otlp_grpc", {"endpoint": "http://h", "headers": {"a b": "c"}}, "headers.a b"),
        ("otlp_grpc", {"endpoint": "http://h", "headers": {"grpc-timeout": "c"}}, "headers.grpc-timeout"),
        ("otlp_http", {"endpoint": "https://h", "tls": {"ca_file": "absent.pem"}}, "tls"),
        ("otlp_grpc", {"endpoint": "https://h", "tls": {"ca_file": "absent.pem"}}, "tls.ca_file.*absent.pem"),
        ("otlp_http", {"endpoint": "https://h", "tls": {"ca_file": __file__}}, "tls.ca_file.*holds no certificates"),
        ("otlp_grpc", {"endpoint": "https://h", "tls": {"ca_file": __file__}}, "tls.ca_file.*holds no certificates"),
    ],
)
async def test_unusable_settings_are_refused_at_once(kind: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=rf"exporters\.{kind}/x[.:].*{words}"):
        build_exporter(f"{kind}/x", ExporterConfig.model_validate(settings))
