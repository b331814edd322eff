"""Orders of people to the detector of a stream, as they stand in the durable log.

An order takes effect at its place in the log, between the requests before it and those behind it. So a
worker that reads the log again after a crash, or a replay, obeys it at the same window. Its entry has
no signal and no items; routes pass over it as over a clock tick, whose payload is empty.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from driftlock_otlp.errors import DecodeError
from driftlock_otlp.model import StreamKey

FeedbackVerdict = Literal["false_alarm", "confirmed", "withdrawn"]
"""What people may say of an anomaly; `withdrawn` takes back what was said before."""


class Feedback(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """What people say of an anomaly.

    Attributes:
        stream: The anomaly's stream.
        anomaly_id: Which.
        verdict: `false_alarm`: the pattern is normal, and becomes part of the baseline. `confirmed`: it is
            bad, and is never learned. `withdrawn`: neither is said any more.
    """

    stream: StreamKey
    anomaly_id: str
    verdict: FeedbackVerdict


class Sensitivity(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """How sensitive the detector of one stream is to be.

    Attributes:
        stream: Which.
        significance: Takes the place of the configured one, (0, 0.5); None gives that its place back.
    """

    stream: StreamKey
    significance: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] | None


Order = Feedback | Sensitivity
"""What the detector can be told."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)


def encode(order: Order) -> bytes:
    """Return an order as the payload of its entry; never empty."""
    return _encoder.encode(order)


def decode(payload: bytes) -> Order:
    """Return the order that an entry holds.

    Raises:
        DecodeError: It is none that this version knows.

    Example:
        >>> decode(encode(Sensitivity(StreamKey("logs", "checkout"), 0.001))).significance
        0.001
    """
    try:
        return _decoder.decode(payload)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"not an order: {error}") from error
