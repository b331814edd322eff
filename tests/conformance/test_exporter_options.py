"""The exporters' options that shape a request, as the Collector names them, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import random
import re
import zlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import cramjam
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from driftlock_otlp.config.exporters import CompressionParams, ExporterConfig, TlsConfig
from driftlock_otlp.errors import (
    DownstreamRejectedError,
    DownstreamTooLargeError,
    DownstreamUnavailableError,
)
from driftlock_otlp.exporter.otlp_client import build_exporter
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import decode
from driftlock_otlp.otlp.json_mapping import request_from_json
from driftlock_otlp.zstandard import zstd
from tests.conformance.destinations import HttpDestination, RecordingRelay, http_answer
from tests.conformance.exporters import LOGS, PAYLOADS, connected, exporter_to
from tests.conformance.receivers import every_signal, request_of
from tests.doubles.otlp_sink import OtlpSink

pytestmark = pytest.mark.timeout(60)

SECONDS = 20.0


# Encoding.


@every_signal
async def test_json_has_hex_ids_integer_enums_and_64_bit_numbers_as_strings(signal: Signal) -> None:
    async with HttpDestination() as destination:
        async with exporter_to(destination.endpoint, encoding="json", compression="none") as exporter:
            await exporter.export(signal, PAYLOADS[signal])
        body = destination.received[0].body
        assert request_from_json(signal, body) == decode(signal, PAYLOADS[signal])


async def test_json_is_what_a_collector_reads() -> None:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(
        trace_id=bytes(range(16)), span_id=bytes(range(8)), parent_span_id=b"\xff" * 8, kind=2, name="GET /",
        start_time_unix_nano=1_795_385_740_571_633_408,
    )  # fmt: skip
    span.attributes.add(key="raw").value.bytes_value = b"\x00\xff"
    span.attributes.add(key="big").value.int_value = -(1 << 60)
    span.attributes.add(key="none").value.double_value = float("nan")
    async with HttpDestination() as destination:
        async with exporter_to(destination.endpoint, encoding="json") as exporter:
            await exporter.export(Signal.TRACES, request.SerializeToString())
        sent = json.loads(gzip.decompress(destination.received[0].body))
    assert sent["resourceSpans"][0]["scopeSpans"][0]["spans"] == [
        {
            "traceId": "000102030405060708090a0b0c0d0e0f",
            "spanId": "0001020304050607",
            "parentSpanId": "ffffffffffffffff",
            "kind": 2,
            "name": "GET /",
            "startTimeUnixNano": "1795385740571633408",
            "attributes": [
                {"key": "raw", "value": {"bytesValue": base64.b64encode(b"\x00\xff").decode()}},
                {"key": "big", "value": {"intValue": str(-(1 << 60))}},
                {"key": "none", "value": {"doubleValue": "NaN"}},
            ],
        }
    ]


async def test_damaged_request_is_not_sent_as_json() -> None:
    async with HttpDestination() as destination, exporter_to(destination.endpoint, encoding="json") as exporter:
        with pytest.raises(DownstreamRejectedError, match="cannot be written as JSON"):
            await exporter.export(Signal.LOGS, b"\xff\xff")
        assert destination.received == []


# Compression.

DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "zlib": zlib.decompress,
    "deflate": zlib.decompress,
    "zstd": zstd.decompress,
    "snappy": lambda body: bytes(cramjam.snappy.decompress_raw(body)),
    "x-snappy-framed": lambda body: bytes(cramjam.snappy.decompress(body)),
    "lz4": lambda body: bytes(cramjam.lz4.decompress(body)),
}


@pytest.mark.parametrize("encoding", ["proto", "json"])
@pytest.mark.parametrize("compression", DECOMPRESS)
async def test_http_bodies_are_compressed_as_they_say(compression: str, encoding: str) -> None:
    # The second is so large that it is compressed beside the event loop.
    payloads = [request_of(Signal.LOGS, 100), request_of(Signal.LOGS, 20_000 if encoding == "proto" else 1_000)]
    async with HttpDestination() as destination:
        for setting in (compression, "none"):
            async with exporter_to(destination.endpoint, compression=setting, encoding=encoding) as exporter:
                for payload in payloads:
                    await exporter.export(Signal.LOGS, payload)
        compressed, plain = destination.received[:2], destination.received[2:]
    for request, expected in zip(compressed, plain, strict=True):
        assert request.headers["content-encoding"] == compression
        assert DECOMPRESS[compression](request.body) == expected.body
        assert len(request.body) < len(expected.body)
    if encoding == "proto":
        assert [request.body for request in plain] == payloads


@pytest.mark.parametrize(("compression", "high"), [("gzip", 9), ("zlib", 9), ("deflate", 9), ("zstd", 22)])
async def test_http_compression_follows_its_level(compression: str, high: int) -> None:
    words = random.Random(3).choices([f"word{number}" for number in range(400)], k=30_000)
    request = decode(Signal.LOGS, LOGS)
    request.resource_logs[0].scope_logs[0].log_records[0].body.string_value = " ".join(words)  # type: ignore[attr-defined]
    payload = request.SerializeToString()
    async with HttpDestination() as destination:
        for level in (1, high, -1, 0, None):
            params = CompressionParams(level=level)
            settings: dict[str, Any] = {"compression": compression, "compression_params": params}
            async with exporter_to(destination.endpoint, **settings) as exporter:
                await exporter.export(Signal.LOGS, payload)
        low, best, *default = [request.body for request in destination.received]
    assert all(DECOMPRESS[compression](body) == payload for body in (low, best, *default))
    assert len(best) < len(low)
    assert len(set(default)) == 1


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
async def test_grpc_messages_are_compressed_as_they_say(compression: str) -> None:
    payload = request_of(Signal.LOGS, 5000)
    async with OtlpSink() as sink, RecordingRelay(sink.grpc_port) as relay:
        async with exporter_to(f"http://localhost:{relay.port}", "otlp_grpc", compression=compression) as exporter:
            await exporter.export(Signal.LOGS, payload)
        # The name of the header, and after its length the value.
        assert re.search(rb"\rgrpc-encoding." + compression.encode(), relay.sent, re.DOTALL)
        assert len(relay.sent) < len(payload) / 2
        assert sink.payloads(Signal.LOGS) == [payload]


# Headers.


async def test_headers_may_be_pairs_of_names_and_values_and_name_the_host() -> None:
    headers = [{"name": "X-Tenant", "value": "acme"}, {"name": "Host", "value": "collector.internal"}]
    async with HttpDestination() as destination:
        exporter = build_exporter(
            "otlp_http", ExporterConfig.model_validate({"endpoint": destination.endpoint, "headers": headers})
        )
        await exporter.export(Signal.LOGS, LOGS)
        await exporter.close()
        sent = destination.received[0].headers
    assert (sent["x-tenant"], sent["host"]) == ("acme", "collector.internal")


async def test_grpc_authority_may_be_another_name() -> None:
    async with OtlpSink() as sink, RecordingRelay(sink.grpc_port) as relay:
        settings = {"authority": "collector.internal"}
        async with exporter_to(f"http://localhost:{relay.port}", "otlp_grpc", **settings) as exporter:
            await exporter.export(Signal.LOGS, LOGS)
        assert b"collector.internal" in relay.sent


@pytest.mark.parametrize("balancer", ["round_robin", "pick_first"])
async def test_grpc_balancer_is_the_one_that_is_named(balancer: str) -> None:
    async with AsyncExitStack() as stack:
        sinks = [await stack.enter_async_context(OtlpSink()) for _ in range(2)]
        addresses = ",".join(f"127.0.0.1:{sink.grpc_port}" for sink in sinks)
        settings: dict[str, Any] = {"balancer_name": balancer, "tls": TlsConfig(insecure=True)}
        exporter = await stack.enter_async_context(exporter_to(f"ipv4:{addresses}", "otlp_grpc", **settings))
        async with asyncio.timeout(SECONDS):
            # Connections are made one after the other: at first there may be only one.
            while len(sinks[0].received) + len(sinks[1].received) < 20:
                await exporter.export(Signal.LOGS, LOGS)
                if balancer == "round_robin" and sinks[0].received and sinks[1].received:
                    break
        assert bool(sinks[0].received) + bool(sinks[1].received) == (2 if balancer == "round_robin" else 1)


# Sizes.


async def test_go_servers_say_too_large_with_400() -> None:
    async with HttpDestination() as destination, exporter_to(destination.endpoint) as exporter:
        destination.answers.append(http_answer(400, b"http: request body too large", content_type="text/plain"))
        with pytest.raises(DownstreamTooLargeError):
            await exporter.export(Signal.LOGS, LOGS)
        destination.answers.append(http_answer(400, b"no", content_type="text/plain"))
        with pytest.raises(DownstreamRejectedError) as caught:
            await exporter.export(Signal.LOGS, LOGS)
        assert not isinstance(caught.value, DownstreamTooLargeError)


async def test_too_large_may_be_said_before_the_body_is_read() -> None:
    over = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(http_answer(413, connection="close"))
            writer.write_eof()
            while await reader.read(1 << 16):
                pass
        writer.close()
        over.set()

    payload = request_of(Signal.LOGS) + b"\xca\x3e\x80\x80\x80\x04" + random.Random(5).randbytes(8 << 20)
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with exporter_to(f"http://127.0.0.1:{port}") as exporter:
            with pytest.raises(DownstreamTooLargeError):
                await exporter.export(Signal.LOGS, payload)
        await asyncio.wait_for(over.wait(), SECONDS)


async def test_signals_with_settings_of_their_own_close_together() -> None:
    async with connected("otlp_http", signals={"logs": {"timeout": 5.0}}) as (sink, exporter):
        for signal in Signal:
            await exporter.export(signal, PAYLOADS[signal])
        assert exporter.name == "otlp_http"
        await exporter.close()
        await exporter.close()
        for signal in Signal:
            with pytest.raises(DownstreamUnavailableError, match="closed"):
                await exporter.export(signal, PAYLOADS[signal])
        assert len(sink.received) == 3
