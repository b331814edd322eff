"""Bodies that no sender should send: each is answered in words, and leaves nothing behind.

`docs/operations.md`, "Bad input", says the same in prose.
"""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import AsyncIterator
from typing import Any

import cramjam
import grpc
import pytest
import pytest_asyncio

from driftlock_otlp.model import Signal
from driftlock_otlp.otlp import decode
from driftlock_otlp.zstandard import zstd
from tests.conformance.receivers import JSON, JSON_LOG, LIMIT, PROTOBUF, Receivers, message_of, request_of, running

ONE_LOG = request_of(Signal.LOGS)


@pytest_asyncio.fixture
async def receivers() -> AsyncIterator[Receivers]:
    """Both receivers, which must be as good as new when the test is over."""
    async with running() as both:
        yield both
        await both.assert_still_serving()
        assert both.metrics.registry.get_sample_value("driftlock_errors_total", {"component": "receiver"}) in (None, 0)


def field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field of protobuf."""
    length, n_bytes = b"", len(content)
    while n_bytes > 127:
        length += bytes([n_bytes & 127 | 128])
        n_bytes >>= 7
    return bytes([number << 3 | 2]) + length + bytes([n_bytes]) + content


def log_record(content: bytes) -> bytes:
    """Return a request with one log record of these bytes."""
    return field(1, field(2, field(2, content)))


def nested_value(levels: int) -> bytes:
    """Return an AnyValue that holds an array that holds an AnyValue …"""
    value = b""
    for _ in range(levels):
        value = field(5, field(1, value))
    return value


MALFORMED = {
    "a cut request": ONE_LOG[:-1],
    "a length beyond the end": b"\x0a\x7f" + ONE_LOG,
    "a length of 2 GiB": b"\x0a\xff\xff\xff\xff\x07",
    "a negative length": b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    "a varint without end": b"\x08" + b"\xff" * 11,
    "a tag without end": b"\xff" * 6,
    "field number 0": b"\x02\x00",
    "wire type 6": b"\x0e\x00",
    "wire type 7": b"\x0f\x00",
    "an end of no group": b"\x0c",
    "a group without end": b"\x0b\x08\x01",
    "another group's end": b"\x0b\x14",
    "groups within groups": b"\x0b" * 100_000 + b"\x0c" * 100_000,
    "JSON": JSON_LOG,
    "text": b"hello, world",
    "gzip that nobody mentions": gzip.compress(ONE_LOG),
    "zeros": bytes(1000),
    "ones": b"\xff" * 1000,
    "51 levels": log_record(field(5, nested_value(51))),
    "500 levels": log_record(field(5, nested_value(500))),
    "20,000 levels": log_record(field(5, nested_value(20_000))),
    "a text that is not UTF-8": log_record(field(3, b"caf\xe9")),
    "a text with a lone surrogate": log_record(field(3, b"\xed\xa0\x80")),
    "a text with an overlong NUL": log_record(field(3, b"\xc0\x80")),
    "a text beyond Unicode": log_record(field(3, b"\xf4\x90\x80\x80")),
    "a key that is not UTF-8": log_record(field(6, field(1, b"\xff"))),
    "a value that is not UTF-8": log_record(field(5, field(1, b"\xfe"))),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_protobuf_is_refused_for_good_on_both_transports(receivers: Receivers, name: str) -> None:
    answer = await receivers.post(body=MALFORMED[name])
    assert answer.status == 400
    assert "ExportLogsServiceRequest" in answer.error.message
    assert (await receivers.failing_call(MALFORMED[name])).code() is grpc.StatusCode.INVALID_ARGUMENT
    assert receivers.log.entries == []


async def test_random_bytes_are_read_as_protobuf_reads_them_or_refused(receivers: Receivers) -> None:
    chance = random.Random(7)
    valid = message_of(Signal.LOGS, 20).SerializeToString()
    for _ in range(150):
        changed = bytearray(valid)
        for _ in range(chance.choice((1, 2, 8))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        body = bytes(changed[: chance.randrange(1, len(changed) + 1)])
        try:
            expected = decode.request_class(Signal.LOGS).FromString(body)
        except Exception:
            expected = None
        assert (await receivers.post(body=body)).status == (200 if expected is not None else 400)
        if expected is not None and decode.count_items(Signal.LOGS, expected):
            assert receivers.log.entries[-1].payload == body


def records(text: bytes) -> bytes:
    return b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + text + b"]}]}]}"


def body_of_arrays(levels: int) -> bytes:
    return records(b'{"body":' + b'{"arrayValue":{"values":[' * levels + b"{}" + b"]}}" * levels + b"}")


BAD_JSON = {
    "nothing": b"",
    "white space": b" \n ",
    "a cut document": JSON_LOG[:-2],
    "two documents": JSON_LOG + JSON_LOG,
    "a comma at the end": b'{"resourceLogs":[],}',
    "single quotes": b"{'resourceLogs':[]}",
    "a comment": b"{/**/}",
    "protobuf": ONE_LOG,
    "a list": b"[]",
    "a text": b'"x"',
    "null": b"null",
    "a byte order mark": b"\xef\xbb\xbf" + JSON_LOG,
    "UTF-16": JSON_LOG.decode().encode("utf-16"),
    "a text that is not UTF-8": records(b'{"severityText":"caf\xe9"}'),
    "a key that is not UTF-8": b'{"\xff":1}',
    "an encoded surrogate": records(b'{"severityText":"\xed\xa0\x80"}'),
    "a high surrogate alone": records(b'{"severityText":"\\ud800"}'),
    "a low surrogate alone": records(b'{"severityText":"\\udc00x"}'),
    "surrogates in the wrong order": records(b'{"severityText":"\\udc00\\ud800"}'),
    "a bare control character": records(b'{"severityText":"\x00"}'),
    "a bare line end": records(b'{"severityText":"a\nb"}'),
    "an unknown escape": records(b'{"severityText":"\\x41"}'),
    "a bare NaN": records(b'{"body":{"doubleValue":NaN}}'),
    "a bare infinity": records(b'{"body":{"doubleValue":-Infinity}}'),
    "a double out of range": records(b'{"body":{"doubleValue":1e400}}'),
    "a text of a double out of range": records(b'{"body":{"doubleValue":"1e400"}}'),
    "a double of 100,000 digits": records(b'{"body":{"doubleValue":' + b"9" * 100_000 + b"}}"),
    "an integer out of range": records(b'{"timeUnixNano":18446744073709551616}'),
    "an integer of 4,000 digits": records(b'{"timeUnixNano":' + b"9" * 4000 + b"}"),
    "an integer of 100,000 digits": records(b'{"timeUnixNano":' + b"9" * 100_000 + b"}"),
    "a text of an integer of 100,000 digits": records(b'{"timeUnixNano":"' + b"9" * 100_000 + b'"}'),
    "a negative time": records(b'{"timeUnixNano":-1}'),
    "a fraction for an integer": records(b'{"timeUnixNano":1.5}'),
    "a huge exponent for an integer": records(b'{"timeUnixNano":1e300}'),
    "an integer with underscores": records(b'{"timeUnixNano":"1_000"}'),
    "an integer in other digits": records('{"timeUnixNano":"١٢"}'.encode()),
    "a leading zero": records(b'{"timeUnixNano":01}'),
    "hexadecimal": records(b'{"timeUnixNano":0x10}'),
    "a truth for a text": records(b'{"severityText":true}'),
    "a number for a truth": records(b'{"body":{"boolValue":1}}'),
    "the name of an enum value": records(b'{"severityNumber":"SEVERITY_NUMBER_INFO"}'),
    "an object for a list": b'{"resourceLogs":{}}',
    "a list for an object": b'{"resourceLogs":[[]]}',
    "null in a list": b'{"resourceLogs":[null]}',
    "a short trace id": records(b'{"traceId":"00ff"}'),
    "a trace id with spaces": records(b'{"traceId":"' + b"0 " * 16 + b'"}'),
    "a trace id in base64": records(b'{"traceId":"W47/95gDgQPSabYzgT/GDA=="}'),
    "base64 that is none": records(b'{"body":{"bytesValue":"*"}}'),
    "two values of one": records(b'{"body":{"intValue":1,"stringValue":"a"}}'),
    "100 levels": body_of_arrays(100),
    "1,000 levels": body_of_arrays(1000),
    "30,000 levels": body_of_arrays(30_000),
    "100,000 lists": b"[" * 100_000,
    "100,000 lists in what is unknown": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("name", BAD_JSON)
async def test_bad_json_is_refused_for_good(receivers: Receivers, name: str) -> None:
    answer = await receivers.post(body=BAD_JSON[name], content_type=JSON)
    assert answer.status == 400
    assert answer.error.message
    assert len(answer.body) < 4096
    assert receivers.log.entries == []


ODD_JSON = {
    "the last of duplicate keys": (b'{"severityText":"a","severityText":"b"}', lambda log: log.severity_text == "b"),
    "an unknown key of 100,000 characters": (b'{"' + b"k" * 100_000 + b'":1}', lambda log: not log.ListFields()),
    "an escaped NUL": (b'{"severityText":"\\u0000"}', lambda log: log.severity_text == "\0"),
    "a pair of surrogates": (b'{"severityText":"\\ud83d\\ude00"}', lambda log: log.severity_text == "\U0001f600"),
    "NaN by name": (b'{"body":{"doubleValue":"NaN"}}', lambda log: str(log.body.double_value) == "nan"),
    "a double for an integer": (b'{"timeUnixNano":1e18}', lambda log: log.time_unix_nano == 10**18),
    "minus zero": (b'{"body":{"doubleValue":-0.0}}', lambda log: str(log.body.double_value) == "-0.0"),
    "an enum value of the future": (b'{"severityNumber":99}', lambda log: log.severity_number == 99),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_JSON)
async def test_odd_json_is_read_as_protobuf_reads_it(receivers: Receivers, name: str) -> None:
    text, is_right = ODD_JSON[name]
    assert (await receivers.post(body=records(text), content_type=JSON)).status == 200
    request: Any = decode.decode(Signal.LOGS, receivers.log.entries[-1].payload)
    assert is_right(request.resource_logs[0].scope_logs[0].log_records[0])


@pytest.mark.parametrize("levels", [1, 20, 47])
async def test_nesting_up_to_protobufs_own_bound_passes_in_both_encodings(receivers: Receivers, levels: int) -> None:
    body = log_record(field(5, nested_value(levels)))
    await receivers.call(body)
    assert (await receivers.post(body=body)).status == 200
    assert (await receivers.post(body=body_of_arrays(levels), content_type=JSON)).status == 200


async def test_a_hundred_thousand_attributes_are_taken() -> None:
    attributes = [{"key": f"k{index}", "value": {"intValue": index}} for index in range(100_000)]
    tree = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"attributes": attributes}]}]}]}
    async with running(http={"max_request_body_size": 16 << 20}, grpc={"max_recv_msg_size_mib": 16}) as receivers:
        assert (await receivers.post(body=json.dumps(tree).encode(), content_type=JSON)).status == 200
        payload = receivers.log.entries[-1].payload
        assert (await receivers.post(body=payload)).status == 200
        await receivers.call(payload)
        assert [len(entry.payload) for entry in receivers.log.entries] == [len(payload)] * 3
        await receivers.assert_still_serving()


def packed(coding: str, data: bytes) -> bytes:
    match coding:
        case "gzip":
            return gzip.compress(data)
        case "zstd":
            return zstd.compress(data)
        case "snappy":
            return bytes(cramjam.snappy.compress_raw(data))
        case "x-snappy-framed":
            return bytes(cramjam.snappy.compress(data))
        case _:
            return zlib.compress(data)


CODINGS = ("gzip", "deflate", "zlib", "zstd", "snappy", "x-snappy-framed")


@pytest.mark.parametrize("coding", CODINGS)
async def test_cut_changed_and_foreign_compression_is_refused_for_good(receivers: Receivers, coding: str) -> None:
    whole = packed(coding, message_of(Signal.LOGS, 50).SerializeToString())
    bodies = [whole[:length] for length in (1, 2, len(whole) // 2, len(whole) - 1)]
    bodies += [whole + b"more", b"", ONE_LOG, bytes(100), b"\xff" * 100]
    # Either snappy is read under either name.
    others = [other for other in CODINGS if not ("snappy" in coding and "snappy" in other)]
    bodies += [packed(other, ONE_LOG) for other in others if packed(other, ONE_LOG)[:2] != whole[:2]]
    for body in bodies:
        answer = await receivers.post(body=body, Content_Encoding=coding)
        assert answer.status == 400, body[:40]
    assert receivers.log.entries == []


@pytest.mark.parametrize("coding", CODINGS)
async def test_bomb_is_refused_at_the_limit(receivers: Receivers, coding: str) -> None:
    for bomb in (packed(coding, bytes(20 * LIMIT)), packed(coding, bytes(LIMIT + 1))):
        assert (await receivers.post(body=bomb, Content_Encoding=coding)).status == 413


DENSE = {
    "gzip in gzip": ("gzip", gzip.compress(gzip.compress(bytes(LIMIT * 50))), 400),
    "50,000 empty gzip members": ("gzip", gzip.compress(b"", mtime=0) * 50_000, 400),
    "2,000 gzip members of 1 KiB": ("gzip", gzip.compress(bytes(1024), mtime=0) * 2000, 400),
    "100 gzip members of 100 KiB": ("gzip", gzip.compress(bytes(100 << 10), mtime=0) * 100, 413),
    "100,000 empty zstd frames": ("zstd", zstd.compress(b"") * 100_000, 400),
    "100,000 skippable zstd frames": ("zstd", b"\x50\x2a\x4d\x18\0\0\0\0" * 100_000, 400),
    "a zstd window of 2 GiB": ("zstd", b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00", 400),
    "a zstd frame that says it has 2^60 bytes": (
        "zstd", b"\x28\xb5\x2f\xfd\xe0" + (1 << 60).to_bytes(8, "little") + b"\x09\x00\x00x", 400
    ),
    "200,000 empty snappy chunks": ("x-snappy-framed", b"\xff\x06\x00\x00sNaPpY" + b"\x80\0\0\0" * 200_000, 400),
    "a snappy block that says it has 4 GiB": ("snappy", b"\xff\xff\xff\xff\x0f" + bytes(100), 413),
    "a snappy chunk longer than the body": ("x-snappy-framed", b"\xff\x06\x00\x00sNaPpY\x00\xff\xff\xff\0", 400),
}  # fmt: skip


@pytest.mark.parametrize("name", DENSE)
async def test_little_that_claims_much_costs_little(receivers: Receivers, name: str) -> None:
    coding, body, status = DENSE[name]
    answer = await receivers.post(body=body, Content_Encoding=coding)
    assert answer.status == status
    assert receivers.log.entries == []


@pytest.mark.parametrize("coding", ["br", "compress", "gzip, gzip", "gzip,identity", "x-gzip", "GZIP;q=1", "*"])
async def test_coding_that_is_unknown_or_repeated_gets_415(receivers: Receivers, coding: str) -> None:
    assert (await receivers.post(body=gzip.compress(ONE_LOG), Content_Encoding=coding)).status == 415
    assert receivers.log.entries == []


@pytest.mark.parametrize(
    "content_type",
    [None, "", "/", ";", "text/json", "application/", "application/grpc", "application/x-protobuf,application/json",
     "multipart/form-data; boundary=x", "application/x-protobuf\xff"],
)  # fmt: skip
async def test_media_type_that_is_not_otlps_gets_415(receivers: Receivers, content_type: str | None) -> None:
    answer = await receivers.post(body=ONE_LOG, content_type=content_type)
    assert answer.status == 415
    assert PROTOBUF in answer.error.message
    assert receivers.log.entries == []
