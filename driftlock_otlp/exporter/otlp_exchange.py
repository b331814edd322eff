"""What both OTLP clients share: limits, the reading of a successful answer, checks of settings."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import DecodeError as ProtobufDecodeError

from driftlock_otlp.config.values import mask_user
from driftlock_otlp.errors import ConfigError, DownstreamTooLargeError, DownstreamUnavailableError
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import response_class

HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
"""What a header's value may be, in HTTP and gRPC."""

_QUOTE_CHARACTERS = 300


def check_size(name: str, n_bytes: int, max_bytes: int) -> None:
    """Refuse a request that may not be sent.

    Args:
        name: The exporter's.
        n_bytes: Size of the request as it is encoded, before compression.
        max_bytes: `max_request_size`.

    Raises:
        DownstreamTooLargeError: It has more than `max_bytes`.
    """
    if n_bytes > max_bytes:
        raise DownstreamTooLargeError(
            f"{name}: the request has {n_bytes} bytes, more than max_request_size allows ({max_bytes})"
        )


def closed_error(name: str) -> DownstreamUnavailableError:
    """Return what an export fails with once its exporter is closed."""
    return DownstreamUnavailableError(f"{name}: the exporter is closed")


def read_result(signal: Signal, answer: bytes, *, is_json: bool = False) -> ExportResult:
    """Return what the response to a successful export says.

    Args:
        signal: What was exported.
        answer: The response message. One that cannot be read is no failure, since the data was
            taken: the result's message says so.
        is_json: Whether it is JSON, not protobuf.
    """
    response: Any = response_class(signal)
    try:
        message = Parse(answer, response(), ignore_unknown_fields=True) if is_json else response.FromString(answer)
        partial = message.partial_success
    except (ProtobufDecodeError, ParseError, UnicodeDecodeError):
        return ExportResult(message="the answer is not an OTLP response")
    rejected: int = getattr(partial, f"rejected_{signal.item_noun}")
    return ExportResult(rejected_item_count=max(rejected, 0), message=partial.error_message)


def quote(text: str) -> str:
    """Return a destination's words on one line and not too long."""
    line = " ".join(text.split())
    return line if len(line) <= _QUOTE_CHARACTERS else line[: _QUOTE_CHARACTERS - 1] + "…"


def user_agent() -> str:
    """Return the `User-Agent` that the OTLP exporter specification asks for, after our own name."""
    try:
        version = metadata.version("driftlock-otlp")
    except metadata.PackageNotFoundError:
        version = "0"  # Run from a source tree.
    return f"driftlock-otlp/{version} OTel-OTLP-Exporter-Python/{version}"


def host_and_port(name: str, endpoint: str) -> tuple[str, int | None]:
    """Return the host, in brackets if it is an IPv6 address, and the port of a URL.

    Raises:
        ConfigError: It is not a URL.
    """
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"exporters.{name}.endpoint: {mask_user(endpoint)!r}: {error}") from None
    if not host or any(character.isspace() for character in endpoint):
        raise ConfigError(
            f"exporters.{name}.endpoint: {mask_user(endpoint)!r} is not a URL; write for example http://host:4318"
        )
    return (f"[{host}]" if ":" in host else host), port
