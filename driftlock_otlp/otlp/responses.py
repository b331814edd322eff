"""What goes back to a sender: the only place that turns errors into gRPC and HTTP codes.

A sender drops what it may not retry, so the codes decide whether data is lost: a passing
failure must be UNAVAILABLE or 503, never INTERNAL or 500 (OTLP specification, "Failures").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from driftlock_otlp.errors import (
    DecodeError,
    ForbiddenError,
    NotFoundError,
    PayloadTooLargeError,
    PermanentError,
    RateLimitedError,
    RetryableError,
    UnauthenticatedError,
)
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import response_class

_LONGEST_MESSAGE = 1000
"""Characters; gRPC carries the message in a trailer, and trailers are limited to 8 KiB."""


class Encoding(Enum):
    """The two encodings of OTLP/HTTP, by their media type."""

    PROTOBUF = "application/x-protobuf"
    JSON = "application/json"


@dataclass(frozen=True, slots=True)
class GrpcFailure:
    """How a failed call ends.

    Attributes:
        code: A `grpc.StatusCode`.
        message: For people, in English.
        trailing_metadata: Holds `grpc-status-details-bin`, a `google.rpc.Status`, if there are details, and
            `google.rpc.retryinfo-bin` if they say when to come back: some clients look there only.
    """

    code: grpc.StatusCode
    message: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole HTTP response.

    Attributes:
        status: HTTP status code.
        headers: Names in lower case and values, `content-type` and `content-length` included.
        body: The response message, or a `google.rpc.Status`, in the request's encoding.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Codes:
    grpc_code: grpc.StatusCode
    number: int
    http_status: int


_INTERNAL = _Codes(grpc.StatusCode.INTERNAL, code_pb2.INTERNAL, 500)

# The first class that fits wins.
_CODES: tuple[tuple[type[Exception], _Codes], ...] = (
    (PayloadTooLargeError, _Codes(grpc.StatusCode.RESOURCE_EXHAUSTED, code_pb2.RESOURCE_EXHAUSTED, 413)),
    (UnauthenticatedError, _Codes(grpc.StatusCode.UNAUTHENTICATED, code_pb2.UNAUTHENTICATED, 401)),
    (ForbiddenError, _Codes(grpc.StatusCode.PERMISSION_DENIED, code_pb2.PERMISSION_DENIED, 403)),
    (NotFoundError, _Codes(grpc.StatusCode.NOT_FOUND, code_pb2.NOT_FOUND, 404)),
    (RateLimitedError, _Codes(grpc.StatusCode.RESOURCE_EXHAUSTED, code_pb2.RESOURCE_EXHAUSTED, 429)),
    (PermanentError, _Codes(grpc.StatusCode.INVALID_ARGUMENT, code_pb2.INVALID_ARGUMENT, 400)),
    (RetryableError, _Codes(grpc.StatusCode.UNAVAILABLE, code_pb2.UNAVAILABLE, 503)),
)

_NUMBER_OF_HTTP_STATUS = {
    404: code_pb2.NOT_FOUND,
    408: code_pb2.DEADLINE_EXCEEDED,
    405: code_pb2.UNIMPLEMENTED,
    415: code_pb2.INVALID_ARGUMENT,
}


def grpc_success(signal: Signal, result: ExportResult) -> bytes:
    """Return the Export response; `partial_success` is unset if every item was accepted."""
    if not result.rejected_item_count:
        return b""  # The three messages are empty alike.
    encoded: bytes = _export_response(signal, result).SerializeToString()
    return encoded


def grpc_failure(error: Exception) -> GrpcFailure:
    """Return how a gRPC call ends after `error`.

    A `RetryableError` with a delay carries `RetryInfo`, a `DecodeError` carries `BadRequest`. Of
    an unexpected error the sender learns nothing but that it happened.
    """
    codes = _codes_of(error)
    status = _status(error, codes)
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    if status.details:
        metadata = (("grpc-status-details-bin", status.SerializeToString()),)
    retry_info = _retry_info(error)
    if retry_info is not None:
        # OpenTelemetry's exporter for Python waits as this says, and knows nothing of the status.
        metadata += (("google.rpc.retryinfo-bin", retry_info.SerializeToString()),)
    if isinstance(error, RateLimitedError):
        metadata += error.headers
    return GrpcFailure(codes.grpc_code, status.message, metadata)


def http_success(
    signal: Signal, result: ExportResult, encoding: Encoding, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> HttpResponse:
    """Return 200 with the Export response; `partial_success` is unset if every item was accepted."""
    if encoding is Encoding.PROTOBUF:
        return _response(200, encoding, grpc_success(signal, result), headers)
    body = json_format.MessageToJson(_export_response(signal, result), indent=None)
    return _response(200, encoding, body.encode(), headers)


def _export_response(signal: Signal, result: ExportResult) -> Any:
    response: Any = response_class(signal)()
    if result.rejected_item_count:
        setattr(response.partial_success, f"rejected_{signal.item_noun}", result.rejected_item_count)
        response.partial_success.error_message = _shorten(result.message)
    return response


def http_status(error: Exception) -> int:
    """Return the HTTP status of an error."""
    return _codes_of(error).http_status


def http_failure(error: Exception, encoding: Encoding) -> HttpResponse:
    """Return the HTTP response to `error`.

    Args:
        error: What went wrong; a `RetryableError` with a delay gets a Retry-After in whole
            seconds, rounded up.
        encoding: The request's.
    """
    codes = _codes_of(error)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, RetryableError) and error.retry_after_s is not None:
        headers = ((b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode()),)
    if isinstance(error, RateLimitedError):
        headers += tuple((name.encode(), value.encode()) for name, value in error.headers)
    if isinstance(error, UnauthenticatedError):
        headers += ((b"www-authenticate", b"Bearer"),)
    return _response(codes.http_status, encoding, _encode(_status(error, codes), encoding), headers)


def http_refusal(
    status: int, message: str, encoding: Encoding, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> HttpResponse:
    """Return a response to a request that is no Export request at all.

    Args:
        status: 400, 404, 405, 408 or 415.
        message: What is wrong and how to put it right.
        encoding: The request's, if it has one.
        headers: Further headers, such as Allow.
    """
    number = _NUMBER_OF_HTTP_STATUS.get(status, code_pb2.INVALID_ARGUMENT)
    body = _encode(Status(code=number, message=_shorten(message)), encoding)
    return _response(status, encoding, body, headers)


def _codes_of(error: Exception) -> _Codes:
    return next((codes for kind, codes in _CODES if isinstance(error, kind)), _INTERNAL)


def _status(error: Exception, codes: _Codes) -> Status:
    # An unexpected error may quote anything: its words belong in our log, not in an answer.
    message = "internal error" if codes is _INTERNAL else _shorten(str(error))
    status = Status(code=codes.number, message=message)
    detail = _detail(error, message)
    if detail is not None:
        status.details.add().Pack(detail)
    return status


def _detail(error: Exception, message: str) -> Message | None:
    if isinstance(error, DecodeError):
        bad_request: Message = BadRequest(field_violations=[BadRequest.FieldViolation(description=message)])
        return bad_request
    return _retry_info(error)


def _retry_info(error: Exception) -> Message | None:
    if not isinstance(error, RetryableError) or error.retry_after_s is None:
        return None
    delay = Duration()
    delay.FromNanoseconds(round(error.retry_after_s * 1e9))
    retry_info: Message = RetryInfo(retry_delay=delay)
    return retry_info


def _shorten(message: str) -> str:
    return message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 1] + "…"


def _encode(status: Status, encoding: Encoding) -> bytes:
    if encoding is Encoding.PROTOBUF:
        encoded: bytes = status.SerializeToString()
        return encoded
    return json_format.MessageToJson(status, indent=None).encode()


def _response(
    status: int, encoding: Encoding, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> HttpResponse:
    return HttpResponse(
        status,
        (
            (b"content-type", encoding.value.encode()),
            (b"content-length", str(len(body)).encode()),
            *headers,
        ),
        body,
    )
