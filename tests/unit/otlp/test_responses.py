from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from driftlock_otlp.errors import (
    ConfigError,
    DecodeError,
    DownstreamRejectedError,
    DriftlockError,
    OverloadedError,
    PayloadTooLargeError,
    StorageUnavailableError,
    UnauthenticatedError,
)
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp import decode, responses
from driftlock_otlp.otlp.responses import Encoding, HttpResponse

CODES = [
    (DecodeError("x"), grpc.StatusCode.INVALID_ARGUMENT, 400),
    (PayloadTooLargeError("x"), grpc.StatusCode.RESOURCE_EXHAUSTED, 413),
    (UnauthenticatedError("x"), grpc.StatusCode.UNAUTHENTICATED, 401),
    (DownstreamRejectedError("x"), grpc.StatusCode.INVALID_ARGUMENT, 400),
    (OverloadedError("x", 2.0), grpc.StatusCode.UNAVAILABLE, 503),
    (StorageUnavailableError("x"), grpc.StatusCode.UNAVAILABLE, 503),
    (ConfigError("x"), grpc.StatusCode.INTERNAL, 500),
    (DriftlockError("x"), grpc.StatusCode.INTERNAL, 500),
    (ZeroDivisionError("x"), grpc.StatusCode.INTERNAL, 500),
]


def grpc_details(error: Exception) -> Status | None:
    details = dict(responses.grpc_failure(error).trailing_metadata).get("grpc-status-details-bin")
    assert not isinstance(details, str)
    return None if details is None else Status.FromString(details)


def grpc_retry_info(error: Exception) -> RetryInfo | None:
    info = dict(responses.grpc_failure(error).trailing_metadata).get("google.rpc.retryinfo-bin")
    return None if info is None else RetryInfo.FromString(info)


def header(response: HttpResponse, name: bytes) -> bytes | None:
    return dict(response.headers).get(name)


@pytest.mark.parametrize(("error", "code", "http_status"), CODES)
def test_each_error_has_its_codes(error: Exception, code: grpc.StatusCode, http_status: int) -> None:
    assert responses.grpc_failure(error).code is code
    for encoding in Encoding:
        response = responses.http_failure(error, encoding)
        assert response.status == http_status
        assert header(response, b"content-type") == encoding.value.encode()
        assert header(response, b"content-length") == str(len(response.body)).encode()


@pytest.mark.parametrize(("error", "code", "http_status"), CODES)
def test_http_errors_are_a_status_in_the_requests_encoding(
    error: Exception, code: grpc.StatusCode, http_status: int
) -> None:
    number = code.value[0]
    status = Status.FromString(responses.http_failure(error, Encoding.PROTOBUF).body)
    tree = json.loads(responses.http_failure(error, Encoding.JSON).body)
    assert status.code == tree["code"] == number
    assert status.message == tree["message"]


def test_overload_says_when_to_return() -> None:
    error = OverloadedError("full", retry_after_s=1.25)
    details = grpc_details(error)
    assert details is not None
    info = RetryInfo()
    assert details.details[0].Unpack(info)
    assert (info.retry_delay.seconds, info.retry_delay.nanos) == (1, 250_000_000)
    assert grpc_retry_info(error) == info
    assert header(responses.http_failure(error, Encoding.PROTOBUF), b"retry-after") == b"2"


def test_failure_without_a_delay_leaves_it_to_the_sender() -> None:
    error = StorageUnavailableError("disk")
    assert grpc_details(error) is grpc_retry_info(error) is None
    assert header(responses.http_failure(error, Encoding.JSON), b"retry-after") is None


def test_too_large_request_has_no_retry_info() -> None:
    error = PayloadTooLargeError("too large")
    assert grpc_details(error) is grpc_retry_info(error) is None


def test_undecodable_request_gets_a_bad_request_detail() -> None:
    error = DecodeError("resourceLogs[0]: expected an object, got 5")
    details = grpc_details(error)
    assert details is not None
    bad_request = BadRequest()
    assert details.details[0].Unpack(bad_request)
    assert bad_request.field_violations[0].description == str(error)
    tree = json.loads(responses.http_failure(error, Encoding.JSON).body)
    assert tree["details"][0]["@type"] == "type.googleapis.com/google.rpc.BadRequest"


def test_unexpected_error_tells_the_sender_nothing_of_its_words() -> None:
    error = RuntimeError("password is hunter2")
    assert responses.grpc_failure(error).message == "internal error"
    assert b"hunter2" not in responses.http_failure(error, Encoding.JSON).body


def test_long_message_fits_a_grpc_trailer() -> None:
    failure = responses.grpc_failure(DecodeError("p" * 100_000))
    assert sum(len(value) for _, value in failure.trailing_metadata) + len(failure.message) < 8 << 10


def test_success_leaves_partial_success_unset() -> None:
    full = ExportResult()
    assert responses.grpc_success(Signal.LOGS, full) == b""
    assert responses.http_success(Signal.LOGS, full, Encoding.PROTOBUF).body == b""
    assert responses.http_success(Signal.LOGS, full, Encoding.JSON).body == b"{}"


@pytest.mark.parametrize(
    ("signal", "field"),
    [
        (Signal.LOGS, "rejectedLogRecords"),
        (Signal.METRICS, "rejectedDataPoints"),
        (Signal.TRACES, "rejectedSpans"),
    ],
)
def test_partial_success_tells_how_many_items_were_left_out_and_why(signal: Signal, field: str) -> None:
    result = ExportResult(3, "w" * 5000)
    read: Any = decode.response_class(signal).FromString(responses.grpc_success(signal, result))
    assert getattr(read.partial_success, f"rejected_{signal.item_noun}") == 3
    assert len(read.partial_success.error_message) == 1000
    response = responses.http_success(signal, result, Encoding.JSON)
    assert response.status == 200
    assert json.loads(response.body)["partialSuccess"][field] == "3"


def test_refusal_carries_its_headers() -> None:
    response = responses.http_refusal(405, "only POST", Encoding.JSON, ((b"allow", b"POST"),))
    assert header(response, b"allow") == b"POST"
    assert json.loads(response.body)["message"] == "only POST"
