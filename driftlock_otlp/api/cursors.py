"""Where the next page of a list begins, as text that says nothing to those who pass it on."""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64encode
from typing import Annotated, TypeVar

import msgspec

from driftlock_otlp.errors import DecodeError

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
"""A number that the state database can compare with."""

_LONGEST = 8192


def opaque(value: object) -> str:
    """Return a plain value as text for URLs.

    >>> opaque(["logs", "checkout"])
    'WyJsb2dzIiwiY2hlY2tvdXQiXQ'
    """
    return urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")


def plain(text: str, decoder: msgspec.json.Decoder[T], what: str) -> T:
    """Return the value that `opaque` has written.

    Args:
        text: What it returned.
        decoder: Of the value's type.
        what: What it is called where it comes from.

    Raises:
        DecodeError: It has not.

    Example:
        >>> plain("WyJsb2dzIiwiY2hlY2tvdXQiXQ", msgspec.json.Decoder(tuple[str, str]), "stream")
        ('logs', 'checkout')
    """
    try:
        if len(text) > _LONGEST:
            raise ValueError
        encoded = text.encode("ascii")
        return decoder.decode(b64decode(encoded + b"=" * (-len(encoded) % 4), b"-_", validate=True))
    except (ValueError, msgspec.MsgspecError):
        raise DecodeError(f"{what}: not one that this API has given out") from None
