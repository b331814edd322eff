"""The client against the OTLP specification and that of OTLP exporters, over real sockets.

The number in a test's name is that of the clause in the project's list of OTLP clauses. What the
client makes of answers is in `test_exporter_answers.py`; queues, retries and the end of a delivery
are in `test_delivery.py`.
"""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from structlog.testing import capture_logs

from driftlock_otlp.config.exporters import SIGNALS, ExporterConfig, RetryConfig, TlsConfig, for_signal
from driftlock_otlp.errors import DownstreamRejectedError, DownstreamTooLargeError, DownstreamUnavailableError
from driftlock_otlp.exporter.delivery import Deliverer, Delivery
from driftlock_otlp.exporter.otlp_client import build_exporter
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import ItemRange, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.otlp import rewrite
from tests.conformance.certificates import Certificates
from tests.conformance.destinations import HttpDestination, RecordingRelay, http_answer
from tests.conformance.exporters import (
    LOGS,
    PAYLOADS,
    connected,
    each_kind,
    endpoint_of,
    exporter_of,
    exporter_to,
    loaded,
)
from tests.conformance.receivers import JSON, PROTOBUF, every_signal, request_of
from tests.doubles.otlp_sink import Answer, OtlpSink, ServerTls

pytestmark = pytest.mark.timeout(60)

# So that the default endpoints of OTLP are somebody else's.
ELSEWHERE = [
    "receivers.otlp.protocols.grpc.endpoint=127.0.0.1:0",
    "receivers.otlp.protocols.http.endpoint=127.0.0.1:0",
]


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


# Where data goes.


async def test_49_http_endpoint_has_scheme_host_port_and_path(certificates: Certificates) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificates.cert_file, certificates.key_file)
    for tls in (None, server):
        async with HttpDestination(tls=tls) as destination:
            trust = TlsConfig(ca_file=certificates.ca_file)
            async with exporter_to(f"{destination.endpoint}/some/path", tls=trust) as exporter:
                await exporter.export(Signal.LOGS, LOGS)
            (request,) = destination.received
            assert (request.method, request.target) == ("POST", "/some/path/v1/logs")
            assert request.headers["host"] == f"localhost:{destination.port}"


async def test_49_scheme_of_a_grpc_url_wins_over_insecure(certificates: Certificates) -> None:
    tls = {"ca_file": certificates.ca_file}
    async with OtlpSink() as plain, OtlpSink(tls=ServerTls(certificates.cert_file, certificates.key_file)) as secure:
        for endpoint, is_insecure, sink in (
            (f"http://localhost:{plain.grpc_port}", False, plain),
            (f"https://localhost:{secure.grpc_port}", True, secure),
            (f"localhost:{plain.grpc_port}", True, plain),
            (f"localhost:{secure.grpc_port}", False, secure),
        ):
            async with exporter_to(endpoint, "otlp_grpc", tls=TlsConfig(insecure=is_insecure, **tls)) as exporter:
                before = len(sink.received)
                await exporter.export(Signal.LOGS, LOGS)
                assert len(sink.received) == before + 1


@pytest.mark.parametrize(
    ("protocol", "endpoint"), [("http/protobuf", "http://localhost:4318"), ("grpc", "http://localhost:4317")]
)
async def test_49_default_endpoint_is_that_of_the_protocol(protocol: str, endpoint: str) -> None:
    config = loaded(ELSEWHERE, TRACES_ENDPOINT="http://elsewhere:1", PROTOCOL=protocol)
    (name,) = config.forward.exporters
    assert for_signal(name, config.exporters[name], "logs")[1].endpoint == endpoint


async def test_50_every_option_can_be_overridden_for_each_signal(certificates: Certificates) -> None:
    mutual = ServerTls(certificates.cert_file, certificates.key_file, client_ca_file=certificates.ca_file)
    async with HttpDestination() as general, HttpDestination() as logs, OtlpSink(tls=mutual) as traces:
        variables = {
            "ENDPOINT": general.endpoint,
            "HEADERS": "x-key=general",
            "COMPRESSION": "gzip",
            "TIMEOUT": "30000",
            "LOGS_ENDPOINT": f"{logs.endpoint}/own",
            "LOGS_HEADERS": "x-key=own",
            "LOGS_COMPRESSION": "none",
            "LOGS_TIMEOUT": "300",
            "LOGS_PROTOCOL": "http/json",
            "TRACES_ENDPOINT": traces.grpc_endpoint,
            "TRACES_PROTOCOL": "grpc",
            "TRACES_CERTIFICATE": str(certificates.ca_file),
            "TRACES_CLIENT_CERTIFICATE": str(certificates.client_cert_file),
            "TRACES_CLIENT_KEY": str(certificates.client_key_file),
        }
        async with exporter_of(**variables) as exporter:
            for signal in Signal:
                await exporter.export(signal, PAYLOADS[signal])
            logs.answers.append(None)
            with pytest.raises(DownstreamUnavailableError, match="within 0.3 s"):
                await exporter.export(Signal.LOGS, LOGS)
        (metrics,) = general.received
        assert (metrics.target, metrics.headers["content-type"]) == ("/v1/metrics", PROTOBUF)
        assert (metrics.headers["x-key"], metrics.headers["content-encoding"]) == ("general", "gzip")
        own = logs.received[0]
        assert (own.target, own.headers["content-type"], own.headers["x-key"]) == ("/own", JSON, "own")
        assert "content-encoding" not in own.headers
        assert traces.payloads(Signal.TRACES) == [PAYLOADS[Signal.TRACES]]
        assert traces.received[0].headers["x-key"] == "general"


@pytest.mark.parametrize("signal", SIGNALS)
async def test_50_overrides_of_a_file_hold_for_their_signal_only(signal: str) -> None:
    own = {"headers": {"x-key": "own"}, "compression": "none", "max_request_size": 1 << 20}
    settings: dict[str, Any] = {"headers": {"x-key": "general"}, "signals": {signal: own}}
    async with HttpDestination() as destination, exporter_to(destination.endpoint, **settings) as exporter:
        for each in Signal:
            await exporter.export(each, PAYLOADS[each])
        for request in destination.received:
            is_own = request.target == f"/v1/{signal}"
            assert request.headers["x-key"] == ("own" if is_own else "general")
            assert ("content-encoding" in request.headers) is not is_own


@every_signal
@pytest.mark.parametrize("base", ["", "/", "/mycollector", "/mycollector/"])
async def test_51_general_endpoint_is_the_base_of_each_signals_url(signal: Signal, base: str) -> None:
    async with HttpDestination() as destination:
        async with exporter_of(ENDPOINT=destination.endpoint + base) as exporter:
            await exporter.export(signal, PAYLOADS[signal])
        assert destination.received[0].target == f"{base.rstrip('/')}/v1/{signal.plural}"


@every_signal
@pytest.mark.parametrize(
    ("written", "target"),
    [("", "/"), ("/", "/"), ("/own/path", "/own/path"), ("/v1/logs/", "/v1/logs/"), ("?key=a", "/?key=a")],
)
async def test_52_endpoint_of_a_signal_is_used_as_it_is(signal: Signal, written: str, target: str) -> None:
    async with HttpDestination() as destination:
        variables = {
            "ENDPOINT": "http://localhost:1",
            f"{signal.plural.upper()}_ENDPOINT": destination.endpoint + written,
        }
        async with exporter_of(**variables) as exporter:
            await exporter.export(signal, PAYLOADS[signal])
        assert destination.received[0].target == target


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("/a%2Fb/%7Euser", "/a%2Fb/%7Euser/v1/logs"),
        ("/a/../b/./c", "/a/../b/./c/v1/logs"),
        ("//double//", "//double//v1/logs"),
        ("/p?api_key=a%20b&x=1+1", "/p/v1/logs?api_key=a%20b&x=1+1"),
        ("/UPPER", "/UPPER/v1/logs"),
    ],
)
async def test_53_url_is_not_modified_otherwise(written: str, target: str) -> None:
    async with HttpDestination() as destination, exporter_to(destination.endpoint + written) as exporter:
        await exporter.export(Signal.LOGS, LOGS)
        assert destination.received[0].target == target


# Options.


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf", "http/json"])
async def test_54_57_options_of_the_environment_reach_the_wire(protocol: str, certificates: Certificates) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca_file)
    tls.load_cert_chain(certificates.cert_file, certificates.key_file)
    tls.verify_mode = ssl.CERT_REQUIRED
    server = ServerTls(certificates.cert_file, certificates.key_file, client_ca_file=certificates.ca_file)
    async with OtlpSink(tls=server) as sink, HttpDestination(tls=tls) as http:
        variables = {
            "PROTOCOL": protocol,
            "ENDPOINT": sink.grpc_endpoint if protocol == "grpc" else http.endpoint,
            "CERTIFICATE": str(certificates.ca_file),
            "CLIENT_CERTIFICATE": str(certificates.client_cert_file),
            "CLIENT_KEY": str(certificates.client_key_file),
            "HEADERS": "x-tenant=acme",
        }
        async with exporter_of(**variables) as exporter:
            await exporter.export(Signal.LOGS, LOGS)
        del variables["CLIENT_CERTIFICATE"], variables["CLIENT_KEY"]
        async with exporter_of(**variables) as exporter:
            with pytest.raises(DownstreamUnavailableError):
                await exporter.export(Signal.LOGS, LOGS)
        if protocol == "grpc":
            (received,) = sink.received
            assert received.headers["x-tenant"] == "acme"
        else:
            (request,) = http.received
            assert request.headers["x-tenant"] == "acme"
            assert request.headers["content-type"] == (JSON if protocol == "http/json" else PROTOBUF)


@pytest.mark.parametrize("insecure", ["true", "false"])
async def test_54_insecure_is_for_grpc_endpoints_without_a_scheme(insecure: str) -> None:
    async with OtlpSink() as sink:
        variables = {"ENDPOINT": f"localhost:{sink.grpc_port}", "PROTOCOL": "grpc", "INSECURE": insecure}
        async with exporter_of(**variables) as exporter:
            if insecure == "true":
                await exporter.export(Signal.LOGS, LOGS)
            else:
                with pytest.raises(DownstreamUnavailableError):
                    await exporter.export(Signal.LOGS, LOGS)
        assert len(sink.received) == (insecure == "true")


@each_kind
@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_54_compression_is_none_or_gzip(kind: str, compression: str) -> None:
    payload = request_of(Signal.LOGS, 5000)
    async with OtlpSink() as sink:
        port = sink.grpc_port if kind == "otlp_grpc" else sink.http_port
        async with RecordingRelay(port) as relay:
            protocol = "grpc" if kind == "otlp_grpc" else "http/protobuf"
            variables = {"ENDPOINT": f"http://127.0.0.1:{relay.port}", "PROTOCOL": protocol}
            async with exporter_of(COMPRESSION=compression, **variables) as exporter:
                await exporter.export(Signal.LOGS, payload)
            assert (len(relay.sent) < len(payload) / 2) is (compression == "gzip")
        assert sink.payloads(Signal.LOGS) == [payload]


@each_kind
async def test_54_timeout_ends_an_export(kind: str) -> None:
    assert ExporterConfig(endpoint="x").timeout == 10.0
    async with connected(kind) as (sink, _):
        sink.answer_next(Answer(delay_s=30.0))
        protocol = "grpc" if kind == "otlp_grpc" else "http/protobuf"
        async with exporter_of(ENDPOINT=endpoint_of(sink, kind), PROTOCOL=protocol, TIMEOUT="300") as exporter:
            with pytest.raises(DownstreamUnavailableError):
                await exporter.export(Signal.LOGS, LOGS)


@each_kind
async def test_55_78_79_request_over_its_limit_is_not_sent(kind: str) -> None:
    assert ExporterConfig(endpoint="x").max_request_size == 67_108_864
    payload = request_of(Signal.LOGS, 100)
    # The limit holds before compression: the compressed request would be well below it.
    async with connected(kind, max_request_size=len(payload) - 1) as (sink, exporter):
        with pytest.raises(DownstreamTooLargeError, match=rf"{len(payload)} bytes, more than max_request_size allows"):
            await exporter.export(Signal.LOGS, payload)
        assert sink.attempts == []
        await exporter.export(Signal.LOGS, LOGS)
        assert len(sink.attempts) == 1


async def test_55_78_limit_is_that_of_the_request_as_it_is_encoded() -> None:
    payload = request_of(Signal.LOGS, 100)
    async with HttpDestination() as destination:
        async with exporter_to(destination.endpoint, encoding="json", max_request_size=len(payload)) as exporter:
            with pytest.raises(DownstreamTooLargeError):
                await exporter.export(Signal.LOGS, payload)
        assert destination.received == []


@each_kind
async def test_79_discarded_record_is_counted_and_logged(kind: str) -> None:
    async with connected(kind, max_request_size=20) as (sink, exporter):
        deliverer = Deliverer(exporter, RetryConfig(), Metrics())
        with capture_logs() as lines:
            record = request_of(Signal.LOGS) + bytes([0xCA, 0x3E, 20, *bytes(20)])
            assert await deliverer.deliver(Signal.LOGS, record, 1) == Delivery({"too_large": 1})
        assert [line["log_level"] for line in lines] == ["error"]
        assert sink.attempts == []


@each_kind
async def test_56_80_answer_over_its_limit_is_not_retryable(kind: str) -> None:
    assert ExporterConfig(endpoint="x").max_response_size == 4_194_304
    async with connected(kind, max_response_size=1000) as (sink, exporter):
        sink.reject_items_next(0, "x" * 1001)
        with pytest.raises(DownstreamRejectedError) as caught:
            await exporter.export(Signal.LOGS, LOGS)
        # The destination has taken the data: to send it in parts would repeat it.
        assert not isinstance(caught.value, DownstreamTooLargeError)
        sink.reject_items_next(0, "x" * 900)
        assert await exporter.export(Signal.LOGS, LOGS) == ExportResult(0, "x" * 900)


async def test_56_80_answer_is_measured_uncompressed() -> None:
    async with HttpDestination() as destination, exporter_to(destination.endpoint, max_response_size=5000) as exporter:
        bomb = gzip.compress(bytes(1 << 20))
        destination.answers.append(http_answer(body=bomb, content_type=PROTOBUF, content_encoding="gzip"))
        with pytest.raises(DownstreamRejectedError, match="exceeds 5000 bytes"):
            await exporter.export(Signal.LOGS, LOGS)


async def test_57_default_protocol_is_http_protobuf() -> None:
    async with HttpDestination() as destination, exporter_of(ENDPOINT=destination.endpoint) as exporter:
        await exporter.export(Signal.LOGS, LOGS)
        (request,) = destination.received
        assert request.headers["content-type"] == PROTOBUF
        assert ExportLogsServiceRequest.FromString(gzip.decompress(request.body)).resource_logs


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_58_headers_are_written_as_w3c_baggage(protocol: str) -> None:
    headers = "api-key=a%20b%2C%3D, x-number = 42 ,x-padded=YWI=,,x-unicode=%2541"
    async with OtlpSink() as sink:
        endpoint = sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
        async with exporter_of(ENDPOINT=endpoint, PROTOCOL=protocol, HEADERS=headers) as exporter:
            await exporter.export(Signal.LOGS, LOGS)
        sent = sink.received[0].headers
    assert (sent["api-key"], sent["x-number"], sent["x-padded"], sent["x-unicode"]) == ("a b,=", "42", "YWI=", "%41")


@each_kind
async def test_60_user_agent_names_exporter_language_and_version(kind: str) -> None:
    async with connected(kind) as (sink, exporter):
        await exporter.export(Signal.LOGS, LOGS)
        agent = sink.received[0].headers["user-agent"]
    product, identity, *_ = agent.split(" ")
    assert product.startswith("driftlock-otlp/")
    name, _, version = identity.partition("/")
    assert name == "OTel-OTLP-Exporter-Python"
    assert version[0].isdigit()


# What a request looks like.


@every_signal
@pytest.mark.parametrize(("encoding", "content_type"), [("proto", PROTOBUF), ("json", JSON)])
async def test_84_content_type_is_that_of_the_encoding(signal: Signal, encoding: str, content_type: str) -> None:
    settings: dict[str, Any] = {"encoding": encoding, "headers": {"content-type": "text/plain"}}
    async with HttpDestination() as destination, exporter_to(destination.endpoint, **settings) as exporter:
        await exporter.export(signal, PAYLOADS[signal])
        assert destination.received[0].headers["content-type"] == content_type


@pytest.mark.parametrize("encoding", ["proto", "json"])
async def test_85_content_encoding_says_gzip_when_the_body_is_gzip(encoding: str) -> None:
    settings: dict[str, Any] = {"encoding": encoding, "headers": {"content-encoding": "br"}}
    async with HttpDestination() as destination:
        async with exporter_to(destination.endpoint, compression="gzip", **settings) as exporter:
            await exporter.export(Signal.LOGS, LOGS)
        async with exporter_to(destination.endpoint, compression="none", **settings) as exporter:
            await exporter.export(Signal.LOGS, LOGS)
        zipped, plain = destination.received
        assert zipped.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert gzip.decompress(zipped.body) == plain.body


async def test_86_gzipped_answers_are_asked_for_and_read() -> None:
    partial = ExportLogsPartialSuccess(rejected_log_records=1, error_message="too old")
    body = gzip.compress(ExportLogsServiceResponse(partial_success=partial).SerializeToString())
    async with HttpDestination() as destination, exporter_to(destination.endpoint) as exporter:
        destination.answers.append(http_answer(body=body, content_type=PROTOBUF, content_encoding="gzip"))
        assert await exporter.export(Signal.LOGS, LOGS) == ExportResult(1, "too old")
        assert "gzip" in destination.received[0].headers["accept-encoding"]


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1"), ([], None)]
)
async def test_87_server_without_http_2_is_spoken_to_in_http_1_1(
    offered: list[str], chosen: str | None, certificates: Certificates
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates.cert_file, certificates.key_file)
    if offered:
        tls.set_alpn_protocols(offered)
    trust = TlsConfig(ca_file=certificates.ca_file)
    async with HttpDestination(tls=tls) as destination, exporter_to(destination.endpoint, tls=trust) as exporter:
        await exporter.export(Signal.LOGS, LOGS)
        assert destination.received[0].alpn == chosen


@each_kind
@every_signal
async def test_90_empty_envelopes_are_not_created(kind: str, signal: Signal) -> None:
    payload = request_of(signal, 4)  # each item in a resource and a scope of its own
    parts = [part for part in rewrite.split(signal, payload, [ItemRange(1, 3, "a")]) if part]
    parts += [part for part, _ in rewrite.divide(signal, payload, 3)]
    async with connected(kind) as (sink, exporter):
        for part in parts:
            await exporter.export(signal, part)
        assert sink.item_count(signal) == 8
        for request in sink.requests(signal):
            assert 0 not in envelope_sizes(signal, request)


def envelope_sizes(signal: Signal, request: Any) -> Iterator[int]:
    """Yield how much every envelope of a request has in it."""
    resources, scopes, leaves = ENVELOPES[signal]
    for resource in getattr(request, resources):
        yield len(getattr(resource, scopes))
        for scope in getattr(resource, scopes):
            yield len(getattr(scope, leaves))
            if signal is Signal.METRICS:
                yield from (len(getattr(metric, metric.WhichOneof("data")).data_points) for metric in scope.metrics)


ENVELOPES = {
    Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
    Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
}


async def test_exports_do_not_wait_for_one_another() -> None:
    async with HttpDestination() as destination:
        exporter = build_exporter("otlp_http", ExporterConfig(endpoint=destination.endpoint))
        destination.answers.append(None)
        stuck = asyncio.create_task(exporter.export(Signal.LOGS, LOGS))
        while not destination.received:
            await asyncio.sleep(0.01)
        assert await exporter.export(Signal.LOGS, LOGS) == ExportResult()
        assert not stuck.done()
        await exporter.close()
        with pytest.raises(DownstreamUnavailableError):
            await stuck
