"""The OTLP receivers, clause by clause over real sockets.

The number in a test's name is the item of the project's conformance checklist, which follows the
OTLP specification 1.11.0: 1-15 both transports, 16-25 gRPC, 26-43 HTTP, 44-48 JSON.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from driftlock_otlp.config.receivers import GrpcReceiverConfig, HttpReceiverConfig
from driftlock_otlp.config.root import Config
from driftlock_otlp.config.values import Endpoint
from driftlock_otlp.errors import ConfigError, OverloadedError, StorageUnavailableError
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp import decode
from driftlock_otlp.receiver.grpc_server import GrpcReceiver
from driftlock_otlp.receiver.http_server import HttpReceiver
from driftlock_otlp.receiver.ingest import Ingest
from driftlock_otlp.receiver.resends import RecentRequests
from tests.conformance.receivers import (
    JSON,
    JSON_LOG,
    LIMIT,
    PROTOBUF,
    RESPONSES,
    STUBS,
    Receivers,
    details_of,
    every_signal,
    log_of_size,
    message_of,
    request_of,
    running,
)

# Both transports.


@pytest.mark.parametrize("compression", list(grpc.Compression), ids=lambda compression: compression.name)
async def test_01_grpc_takes_plain_and_compressed_requests(receivers: Receivers, compression: grpc.Compression) -> None:
    payload = log_of_size(5000)
    await receivers.call(payload, compression=compression)
    assert [entry.payload for entry in receivers.log.entries] == [payload]


@pytest.mark.parametrize(
    ("coding", "compress"), [("identity", bytes), ("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_01_31_http_takes_plain_and_compressed_requests(receivers: Receivers, coding: str, compress: Any) -> None:
    payload = log_of_size(5000)
    answer = await receivers.post(body=compress(payload), Content_Encoding=coding)
    assert answer.status == 200
    assert [entry.payload for entry in receivers.log.entries] == [payload]


async def test_02_18_grpc_request_at_the_limit_passes_and_one_beyond_is_refused_for_good(receivers: Receivers) -> None:
    await receivers.call(log_of_size(LIMIT))
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        error = await receivers.failing_call(log_of_size(LIMIT + 1), compression=compression)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details_of(error) is None
    await receivers.assert_still_serving()


async def test_02_32_http_body_at_the_limit_passes_and_one_beyond_gets_413(receivers: Receivers) -> None:
    assert (await receivers.post(body=log_of_size(LIMIT))).status == 200
    for body, coding in ((log_of_size(LIMIT + 1), "identity"), (gzip.compress(log_of_size(LIMIT + 1)), "gzip")):
        answer = await receivers.post(body=body, Content_Encoding=coding)
        assert answer.status == 413
        assert str(LIMIT) in answer.error.message
    await receivers.assert_still_serving()


async def test_02_32_body_of_unknown_length_gets_413_as_soon_as_it_passes_the_limit(receivers: Receivers) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield bytes(LIMIT // 10)

    assert (await receivers.post(body=parts())).status == 413
    await receivers.assert_still_serving()


async def test_02_gzip_bomb_is_refused_on_both_transports(receivers: Receivers) -> None:
    bomb = bytes(200 << 20)
    answer = await receivers.post(body=gzip.compress(bomb, 6), Content_Encoding="gzip")
    assert answer.status == 413
    error = await receivers.failing_call(bomb, compression=grpc.Compression.Gzip)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await receivers.assert_still_serving()


def test_03_default_limit_is_64_mib() -> None:
    protocols = Config().receivers.otlp.protocols
    assert protocols.grpc is not None
    assert protocols.http is not None
    assert protocols.grpc.max_recv_msg_size_mib == 64
    assert protocols.http.max_request_body_size == 64 << 20


async def test_04_responses_stay_small_however_long_the_complaint(receivers: Receivers) -> None:
    nested: dict[str, Any] = {}
    for _ in range(49):
        nested = {"kvlistValue": {"values": [{"key": "k" * 100, "value": nested}]}}
    tree = {"resourceLogs": [{"resource": {"attributes": [{"value": nested}]}}]}
    answer = await receivers.post(body=json.dumps(tree).encode(), content_type=JSON)
    assert answer.status == 400
    assert len(answer.body) < 8 << 10


@every_signal
async def test_05_empty_request_succeeds(receivers: Receivers, signal: Signal) -> None:
    assert await receivers.call(b"", signal) == b""
    assert (await receivers.post(signal.http_path, b"")).status == 200
    assert (await receivers.post(signal.http_path, b"{}", JSON)).status == 200
    assert receivers.log.entries == []


@pytest.mark.parametrize("envelope", ["resourceLogs", "scopeLogs"])
async def test_05_envelopes_without_records_are_ignored(receivers: Receivers, envelope: str) -> None:
    tree = {"resourceLogs": [{"scopeLogs": [{}]} if envelope == "scopeLogs" else {}]}
    assert (await receivers.post(body=json.dumps(tree).encode(), content_type=JSON)).status == 200
    assert receivers.log.entries == []


@every_signal
async def test_06_33_success_is_the_signals_response_with_partial_success_unset(
    receivers: Receivers, signal: Signal
) -> None:
    response: Any = await STUBS[signal](receivers.channel).Export(message_of(signal, 3))
    assert type(response) is RESPONSES[signal]
    assert not response.HasField("partial_success")
    answer = await receivers.post(signal.http_path, request_of(signal, 3))
    assert answer.status == 200
    read: Any = RESPONSES[signal].FromString(answer.body)
    assert not read.HasField("partial_success")
    assert [(entry.signal, entry.item_count) for entry in receivers.log.entries] == [(signal, 3)] * 2


@every_signal
async def test_07_08_34_items_that_cannot_be_taken_are_counted_and_explained_and_the_others_kept(
    receivers: Receivers, signal: Signal
) -> None:
    payload = with_a_wrong_id(signal)
    answer = await receivers.post(signal.http_path, payload)
    assert answer.status == 200
    for body in (await receivers.call(payload, signal), answer.body):
        read: Any = RESPONSES[signal].FromString(body)
        assert getattr(read.partial_success, f"rejected_{signal.item_noun}") == 1
        assert "must have 16 bytes" in read.partial_success.error_message
        assert "correct the instrumentation" in read.partial_success.error_message
    assert [entry.item_count for entry in receivers.log.entries] == [2, 2]
    for entry in receivers.log.entries:
        assert decode.count_items(signal, decode.decode(signal, entry.payload)) == 2


def with_a_wrong_id(signal: Signal) -> bytes:
    """Return a request of three items, the second with a trace id of 15 bytes."""
    message: Any = message_of(signal, 3)
    if signal is Signal.LOGS:
        message.resource_logs[1].scope_logs[0].log_records[0].trace_id = bytes(15)
    elif signal is Signal.TRACES:
        message.resource_spans[1].scope_spans[0].spans[0].links.add(trace_id=bytes(15))
    else:
        point = message.resource_metrics[1].scope_metrics[0].metrics[0].sum.data_points[0]
        point.exemplars.add(trace_id=bytes(15))
    payload: bytes = message.SerializeToString()
    return payload


async def test_10_20_38_passing_failure_of_the_log_may_be_retried(receivers: Receivers) -> None:
    receivers.log.failure = StorageUnavailableError("the disk is full", retry_after_s=3.0)
    error = await receivers.failing_call(request_of(Signal.LOGS))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    answer = await receivers.post(body=request_of(Signal.LOGS))
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "3"
    receivers.log.failure = None
    await receivers.assert_still_serving()
    assert receivers.requests("grpc", "refused") == receivers.requests("http", "refused") == 1


async def test_10_38_unexpected_error_is_internal_and_survived(receivers: Receivers) -> None:
    receivers.log.failure = ZeroDivisionError("secret")
    error = await receivers.failing_call(request_of(Signal.LOGS))
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    answer = await receivers.post(body=request_of(Signal.LOGS))
    assert (answer.status, answer.error.message) == (500, "internal error")
    receivers.log.failure = None
    await receivers.assert_still_serving()
    assert receivers.metrics.registry.get_sample_value("driftlock_errors_total", {"component": "receiver"}) == 2


async def test_11_21_39_overload_is_refused_with_a_delay_before_decoding() -> None:
    async with running(max_in_flight_bytes=4000) as receivers:
        with receivers.gate.admit(receivers.gate.authenticate(None, None), 3900):
            malformed = b"\xff" * 200
            error = await receivers.failing_call(malformed)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            status, info = details_of(error), RetryInfo()
            assert status is not None
            assert status.details[0].Unpack(info)
            assert info.retry_delay.ToTimedelta().total_seconds() > 0
            answer = await receivers.post(body=malformed)
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) >= 1
        await receivers.assert_still_serving()


async def test_11_full_log_is_refused_with_a_delay(receivers: Receivers) -> None:
    receivers.log.failure = OverloadedError("full", retry_after_s=5.0)
    status = details_of(await receivers.failing_call(request_of(Signal.LOGS)))
    assert status is not None
    info = RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.retry_delay.seconds == 5


async def test_11_the_exporter_of_python_waits_as_it_is_told(receivers: Receivers) -> None:
    receivers.log.failure = OverloadedError("full", retry_after_s=20.0)
    exporter = OTLPLogExporter(endpoint=f"http://127.0.0.1:{receivers.grpc.port}", insecure=True, timeout=10)
    memory = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(memory))
    provider.get_logger("shop").emit(body="sold out")
    # Left to itself it would come again after a second; told to wait for longer than it may, it gives up at once.
    result = await asyncio.to_thread(exporter.export, memory.get_finished_logs())
    exporter.shutdown()
    assert result.name == "FAILURE"
    assert receivers.requests("grpc", "refused") == 1


async def test_12_unknown_fields_are_ignored_and_kept(receivers: Receivers) -> None:
    payload = request_of(Signal.LOGS) + b"\xca\x3e\x03new"
    await receivers.call(payload)
    assert (await receivers.post(body=payload)).status == 200
    assert [entry.payload for entry in receivers.log.entries] == [payload, payload]


async def test_13_every_kind_of_attribute_value_is_taken(receivers: Receivers) -> None:
    kinds = [
        {}, {"bytesValue": "AA=="}, {"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "x"}, {}]}},
        {"kvlistValue": {"values": [{"key": "k", "value": {"doubleValue": "NaN"}}]}},
    ]  # fmt: skip
    attributes = [{"key": str(index), "value": value} for index, value in enumerate(kinds)]
    tree = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"attributes": attributes}]}]}]}
    assert (await receivers.post(body=json.dumps(tree).encode(), content_type=JSON)).status == 200
    await receivers.call(receivers.log.entries[0].payload)
    assert len(receivers.log.entries) == 2


async def test_14_concurrent_calls_on_one_and_on_many_connections(receivers: Receivers) -> None:
    payload = request_of(Signal.LOGS)
    channels = [receivers.new_channel() for _ in range(5)]
    try:
        await asyncio.gather(
            *(receivers.call(payload) for _ in range(50)),
            *(channel.unary_unary(Signal.LOGS.grpc_method)(payload) for channel in channels for _ in range(5)),
            *(receivers.post(body=payload) for _ in range(50)),
        )
    finally:
        for channel in channels:
            await channel.close()
    assert len(receivers.log.entries) == 125


async def test_15_a_request_sent_again_after_a_lost_connection_is_acknowledged_and_taken_once() -> None:
    payload = request_of(Signal.LOGS)
    async with running(recent=RecentRequests(300.0, lambda: 1)) as receivers:
        for _ in range(2):
            channel = receivers.new_channel()
            assert await channel.unary_unary(Signal.LOGS.grpc_method)(payload, timeout=20) == b""
            await channel.close()
        assert (await receivers.post(body=payload)).status == 200
        assert len(receivers.log.entries) == 1
        assert receivers.requests("grpc", "duplicate") == receivers.requests("http", "duplicate") == 1


# gRPC.


@every_signal
async def test_16_export_is_served_for_each_signal(receivers: Receivers, signal: Signal) -> None:
    await receivers.call(request_of(signal, 2), signal)
    assert [(entry.signal, entry.item_count) for entry in receivers.log.entries] == [(signal, 2)]


def test_17_26_default_ports_are_4317_and_4318() -> None:
    protocols = Config().receivers.otlp.protocols
    assert protocols.grpc is not None
    assert protocols.http is not None
    assert (protocols.grpc.endpoint.port, protocols.http.endpoint.port) == (4317, 4318)


async def test_22_delays_are_long_enough_to_help_and_short_enough_to_wait_for() -> None:
    async with running(max_in_flight_bytes=4000) as receivers:
        with receivers.gate.admit(receivers.gate.authenticate(None, None), 3900):
            refused = [await receivers.failing_call(bytes(200))]
        for failure in (OverloadedError("full", retry_after_s=5.0), StorageUnavailableError("disk", retry_after_s=5.0)):
            receivers.log.failure = failure
            refused.append(await receivers.failing_call(request_of(Signal.LOGS)))
        for error in refused:
            info, status = RetryInfo(), details_of(error)
            assert status is not None
            assert status.details[0].Unpack(info)
            assert 1 <= info.retry_delay.ToTimedelta().total_seconds() <= 30


@pytest.mark.parametrize("payload", [b"\xff\xff", b"\x0a\x05abc", b'{"resourceLogs":[]}'])
async def test_23_malformed_protobuf_is_an_invalid_argument_with_details(receivers: Receivers, payload: bytes) -> None:
    error = await receivers.failing_call(payload)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = details_of(error)
    assert status is not None
    assert status.details[0].Is(BadRequest.DESCRIPTOR)
    assert receivers.requests("grpc", "rejected") == 1
    await receivers.assert_still_serving()


async def test_24_method_that_is_not_served_is_unimplemented(receivers: Receivers) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        method = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
        await receivers.channel.unary_unary(method)(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_25_gzip_is_among_the_encodings_the_server_accepts(receivers: Receivers) -> None:
    call = receivers.channel.unary_unary(Signal.LOGS.grpc_method)(b"", compression=grpc.Compression.Gzip)
    assert await call == b""


# HTTP.


@every_signal
async def test_27_each_signal_has_its_path(receivers: Receivers, signal: Signal) -> None:
    assert (await receivers.post(signal.http_path, request_of(signal))).status == 200
    assert [entry.signal for entry in receivers.log.entries] == [signal]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("content_type", [PROTOBUF, JSON])
async def test_27_35_41_only_post_is_allowed(receivers: Receivers, method: str, content_type: str) -> None:
    answer = await receivers.post(body=None, content_type=content_type, method=method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "POST"
    assert answer.headers["Content-Type"] == content_type
    assert answer.error.message


@pytest.mark.parametrize("content_type", [PROTOBUF, JSON])
@pytest.mark.parametrize("path", ["/", "/v1/log", "/v1/logs/", "/v1development/profiles"])
async def test_35_41_unknown_path_gets_404(receivers: Receivers, path: str, content_type: str) -> None:
    answer = await receivers.post(path, b"{}", content_type)
    assert answer.status == 404
    assert answer.headers["Content-Type"] == content_type
    assert "/v1/logs" in answer.error.message


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/protobuf", "application/jsonx", "nonsense"])
async def test_35_41_wrong_media_type_gets_415(receivers: Receivers, content_type: str | None) -> None:
    answer = await receivers.post(body=JSON_LOG, content_type=content_type)
    assert answer.status == 415
    assert PROTOBUF in answer.error.message
    assert receivers.requests("http", "rejected") == 1
    await receivers.assert_still_serving()


async def test_35_41_unknown_content_coding_gets_415(receivers: Receivers) -> None:
    answer = await receivers.post(body=b"x", Content_Encoding="br")
    assert answer.status == 415
    assert "gzip" in answer.error.message
    await receivers.assert_still_serving()


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (PROTOBUF, PROTOBUF),
        (JSON, JSON),
        ("application/json; charset=utf-8", JSON),
        ("APPLICATION/JSON ;charset=UTF-8", JSON),
        ("application/x-protobuf; messageType=x", PROTOBUF),
    ],
)
async def test_29_30_both_encodings_on_one_port_and_parameters_are_tolerated(
    receivers: Receivers, sent: str, expected: str
) -> None:
    body = JSON_LOG if expected == JSON else request_of(Signal.LOGS)
    answer = await receivers.post(body=body, content_type=sent)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == expected
    assert answer.body == (b"{}" if expected == JSON else b"")
    assert receivers.log.entries[0].item_count == 1


@pytest.mark.parametrize(
    ("body", "content_type", "coding"),
    [
        (b"\xff\xff", PROTOBUF, "identity"),
        (JSON_LOG, PROTOBUF, "identity"),
        (request_of(Signal.LOGS), JSON, "identity"),
        (b"", JSON, "identity"),
        (b"[" * 100_000, JSON, "identity"),
        (gzip.compress(request_of(Signal.LOGS), mtime=0)[:-4], PROTOBUF, "gzip"),
        (gzip.compress(JSON_LOG, mtime=0)[:10], JSON, "gzip"),
        (request_of(Signal.LOGS), PROTOBUF, "gzip"),
        (b"", PROTOBUF, "gzip"),
    ],
)
async def test_35_36_37_undecodable_body_gets_400_with_a_status(
    receivers: Receivers, body: bytes, content_type: str, coding: str
) -> None:
    answer = await receivers.post(body=body, content_type=content_type, Content_Encoding=coding)
    assert answer.status == 400
    assert answer.headers["Content-Type"] == content_type
    assert answer.error.message
    assert b"google.rpc.BadRequest" in answer.body
    assert receivers.requests("http", "rejected") == 1
    await receivers.assert_still_serving()


async def test_35_what_is_not_http_gets_400_with_a_status(receivers: Receivers) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", receivers.http.port)
    writer.write(b"this is not HTTP\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert Status.FromString(body).message
    await receivers.assert_still_serving()


async def test_35_endless_head_is_cut_off(receivers: Receivers) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", receivers.http.port)
    writer.write(b"POST /v1/logs HTTP/1.1\r\nx: ")
    with pytest.raises(ConnectionError):
        for _ in range(1000):
            writer.write(b"a" * 16_384)
            await writer.drain()
    writer.close()
    await receivers.assert_still_serving()


async def test_half_sent_request_is_survived_and_not_counted(receivers: Receivers) -> None:
    for coding in (b"", b"Content-Encoding: gzip\r\n"):
        _, writer = await asyncio.open_connection("127.0.0.1", receivers.http.port)
        head = b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 1000\r\n"
        writer.write(head + coding + b"\r\n" + gzip.compress(bytes(10)))
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    await receivers.assert_still_serving()
    assert receivers.requests("http", "rejected") == receivers.requests("http", "refused") == 0


async def test_28_42_connection_is_kept_alive_after_success_and_after_refusal(receivers: Receivers) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", receivers.http.port)
    head = b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Type: "
    for media_type, expected in (("application/json", b"200"), ("text/plain", b"415"), ("application/json", b"200")):
        writer.write(head + media_type.encode() + b"\r\n\r\n{}")
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.split()[1] == expected
        length = next(line.split(b":")[1] for line in answer.splitlines() if line.startswith(b"content-length"))
        await reader.readexactly(int(length))
    writer.close()
    await writer.wait_closed()


# JSON.


async def stored_after(receivers: Receivers, record: dict[str, Any]) -> Any:
    tree = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    answer = await receivers.post(body=json.dumps(tree).encode(), content_type=JSON)
    assert answer.status == 200, answer.body
    request: Any = decode.decode(Signal.LOGS, receivers.log.entries[-1].payload)
    return request.resource_logs[0].scope_logs[0].log_records[0]


async def refusal_of(receivers: Receivers, record: dict[str, Any]) -> str:
    tree = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    answer = await receivers.post(body=json.dumps(tree).encode(), content_type=JSON)
    assert answer.status == 400
    return str(answer.error.message)


async def test_44_ids_are_hexadecimal_and_other_bytes_base64(receivers: Receivers) -> None:
    ids = {"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "eee19b7ec3c1b174"}
    stored = await stored_after(receivers, {**ids, "body": {"bytesValue": "+/8="}})
    assert stored.trace_id.hex() == "5b8efff798038103d269b633813fc60c"
    assert stored.span_id.hex() == "eee19b7ec3c1b174"
    assert stored.body.bytes_value == b"\xfb\xff"
    assert "traceId" in await refusal_of(receivers, {"traceId": "W47/95gDgQPSabYzgT/GDA=="})


async def test_45_enums_are_integers_and_names_are_refused(receivers: Receivers) -> None:
    assert (await stored_after(receivers, {"severityNumber": 9})).severity_number == 9
    assert "names" in await refusal_of(receivers, {"severityNumber": "SEVERITY_NUMBER_INFO"})


async def test_46_unknown_fields_are_ignored(receivers: Receivers) -> None:
    stored = await stored_after(receivers, {"severityText": "INFO", "inventedLater": {"deep": [{}]}})
    assert stored.severity_text == "INFO"


async def test_47_snake_case_names_are_unknown_fields(receivers: Receivers) -> None:
    stored = await stored_after(receivers, {"severity_text": "INFO", "trace_id": 5})
    assert stored.severity_text == ""


async def test_48_64_bit_integers_special_doubles_and_empty_ids(receivers: Receivers) -> None:
    values = [{"intValue": "-9223372036854775808"}, {"intValue": 5}, {"doubleValue": "-Infinity"}]
    record = {"timeUnixNano": "18446744073709551615", "traceId": "", "body": {"arrayValue": {"values": values}}}
    stored = await stored_after(receivers, record)
    assert stored.time_unix_nano == 2**64 - 1
    assert stored.trace_id == b""
    read = stored.body.array_value.values
    assert (read[0].int_value, read[1].int_value, read[2].double_value) == (-(2**63), 5, float("-inf"))


async def test_48_deeply_nested_value_is_refused(receivers: Receivers) -> None:
    for levels in (60, 300, 3000):
        nested = b'{"arrayValue":{"values":[' * levels + b"{}" + b"]}}" * levels
        body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":' + nested + b"}]}]}]}"
        assert (await receivers.post(body=body, content_type=JSON)).status == 400
    await receivers.assert_still_serving()


# Life cycle.


async def test_taken_port_is_a_configuration_error_naming_key_and_address(receivers: Receivers) -> None:
    taken = GrpcReceiverConfig(endpoint=Endpoint(host="127.0.0.1", port=receivers.grpc.port))
    ingest = Ingest(receivers.log, receivers.metrics, lambda: 1)
    with pytest.raises(ConfigError, match=rf"protocols\.grpc\.endpoint.*127\.0\.0\.1:{receivers.grpc.port}"):
        await GrpcReceiver(taken, ingest, receivers.gate, receivers.metrics).start()
    also_taken = HttpReceiverConfig(endpoint=Endpoint(host="127.0.0.1", port=receivers.http.port))
    with pytest.raises(ConfigError, match=rf"protocols\.http\.endpoint.*127\.0\.0\.1:{receivers.http.port}"):
        await HttpReceiver(also_taken, ingest, receivers.gate, receivers.metrics).start()


async def test_stopping_lets_requests_in_flight_finish(receivers: Receivers) -> None:
    receivers.log.gate.clear()
    in_flight = [
        asyncio.ensure_future(receivers.call(request_of(Signal.LOGS))),
        asyncio.ensure_future(receivers.post(body=request_of(Signal.LOGS))),
    ]
    while receivers.gate.in_flight_bytes < 2 * len(request_of(Signal.LOGS)):
        await asyncio.sleep(0.01)
    stopping = [asyncio.ensure_future(receivers.grpc.stop(20.0)), asyncio.ensure_future(receivers.http.stop(20.0))]
    await asyncio.sleep(0.3)
    receivers.log.gate.set()
    await asyncio.gather(*in_flight, *stopping)
    assert in_flight[1].result().status == 200  # type: ignore[union-attr]
    assert len(receivers.log.entries) == 2
    with pytest.raises(aiohttp.ClientConnectionError):
        await receivers.post(body=b"")


async def test_request_that_overruns_the_grace_is_told_to_try_again(receivers: Receivers) -> None:
    receivers.log.gate.clear()
    payload = request_of(Signal.LOGS)
    http_request = asyncio.ensure_future(receivers.post(body=payload))
    grpc_request = asyncio.ensure_future(receivers.failing_call(payload))
    while receivers.gate.in_flight_bytes < 2 * len(payload):
        await asyncio.sleep(0.01)
    await asyncio.gather(receivers.http.stop(0.0), receivers.grpc.stop(0.0))
    assert (await http_request).status == 503
    assert (await grpc_request).code() is grpc.StatusCode.UNAVAILABLE
    receivers.log.gate.set()


async def test_stopping_twice_and_without_a_start_is_harmless(receivers: Receivers) -> None:
    for receiver in (receivers.grpc, receivers.http, Receivers().grpc, Receivers().http):
        await receiver.stop(1.0)
        await receiver.stop(1.0)
