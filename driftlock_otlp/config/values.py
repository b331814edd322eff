"""The kinds of values that settings have, and how each is written in a file."""

from __future__ import annotations

import difflib
import ipaddress
import re
from typing import Annotated, Any, ClassVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    model_validator,
)

_DURATION_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_BYTES_UNITS = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_BYTES = re.compile(r"(\d+)\s*(|kib|mib|gib|tib)", re.IGNORECASE)
_USER = re.compile(r"//[^/@]*@")

_LAST_PORT = 65535


DEFAULT_REQUEST_LIMIT_BYTES = 64 << 20
"""OTLP specification 1.11.0: a receiver should take requests of 64 MiB."""

DEFAULT_RESPONSE_LIMIT_BYTES = 4 << 20
"""OTLP exporter specification 1.60: a client should read responses of 4 MiB."""


def parse_duration_s(value: object) -> float:
    """Return seconds from a Go-style duration such as `1m30s` or `200ms`.

    >>> parse_duration_s("1m30s")
    90.0
    """
    if isinstance(value, bool):
        raise ValueError("expected a duration such as 10s, 200ms or 1m30s")
    if value in (0, "0"):
        return 0.0
    if isinstance(value, (int, float)):
        raise ValueError(f"a duration needs a unit: write {value}s for {value} seconds")
    if not isinstance(value, str):
        raise ValueError("expected a duration such as 10s, 200ms or 1m30s")
    text = value.strip()
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{value!r} is not a duration; write for example 10s, 200ms or 1m30s")
    return sum(float(number) * _DURATION_UNITS_S[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """Return the shortest Go-style duration for `seconds`.

    >>> format_duration(90.0), format_duration(0.2)
    ('90s', '200ms')
    """
    number, unit = (seconds, "s") if seconds >= 1 or seconds == 0 else (seconds * 1000, "ms")
    return f"{number:.6f}".rstrip("0").rstrip(".") + unit


def parse_bytes(value: object) -> int:
    """Return bytes from an integer or a size such as `64MiB`.

    >>> parse_bytes("64MiB")
    67108864
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _BYTES.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a size; write bytes, or for example 64MiB or 4GiB")
    return int(match[1]) * _BYTES_UNITS[match[2].lower()]


def parse_duration(value: object, info: ValidationInfo) -> float:
    """In code a duration is a float in seconds; in a file it must name its unit."""
    return value if isinstance(value, float) and not info.context else parse_duration_s(value)


Duration = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(format_duration), Field(ge=0)]
PositiveDuration = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(format_duration), Field(gt=0)]
Size = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
SizeOrNone = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)]
Secret = Annotated[
    str,
    BeforeValidator(lambda value: "" if value is None else value),
    PlainSerializer(lambda value: "***" if value else value),
]


def mask_user(url: str) -> str:
    """Hide the user and password of a URL."""
    return _USER.sub("//***@", url)


Url = Annotated[str, PlainSerializer(mask_user)]


class Endpoint(BaseModel):
    """Where to listen: a host and port, or a unix socket.

    Attributes:
        host: Name or address; empty for a unix socket.
        port: 0 for one that is free.
        path: Of the unix socket; empty for TCP.
    """

    model_config = ConfigDict(frozen=True)
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it: loopback, or a unix socket."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_endpoint(value: object) -> object:
    """Return the parts of an `Endpoint` from `host:port` or `unix:/path`.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(value, Endpoint):
        return value
    if isinstance(value, str) and value.startswith("unix:") and value.removeprefix("unix:").strip("/"):
        return {"path": value.removeprefix("unix:").removeprefix("//")}
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not host or not port.isdecimal() or int(port) > _LAST_PORT:
        raise ValueError(f"{value!r} is not an address to listen on; write host:port, for example 127.0.0.1:4317")
    return {"host": host.strip("[]"), "port": int(port)}


ListenEndpoint = Annotated[Endpoint, BeforeValidator(parse_endpoint), PlainSerializer(str)]


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys refused, a key without a value has its default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    refused: ClassVar[dict[str, str]] = {}
    """Keys that the Collector has here and this sidecar has not, with the reason and the remedy."""

    @model_validator(mode="before")
    @classmethod
    def _no_value_means_default(cls, value: object) -> object:
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if item is not None or key not in cls.model_fields}
        return value


def did_you_mean(word: str, known: Any) -> str:
    """Return `; did you mean …?` with the nearest known word, empty if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f"; did you mean {near[0]!r}?" if near else ""


def section_in(annotation: Any) -> type[Section] | None:
    """Return the section that an annotation such as `Section | None` or `dict[str, Section]` names."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in get_args(annotation):
        found = section_in(argument)
        if found is not None:
            return found
    return None


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, or every address of it."""
    if host in {"localhost", "0.0.0.0", "::"}:  # noqa: S104 - compared with, not bound to
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
