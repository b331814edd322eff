"""Orders come out of the log as they went in, or are refused."""

from __future__ import annotations

import msgspec
import pytest

from driftlock_otlp.errors import DecodeError
from driftlock_otlp.model import StreamKey
from driftlock_otlp.orders import Feedback, Order, Sensitivity, decode, encode

STREAM = StreamKey("metrics", "checkout", "queue.depth", "acme")


@pytest.mark.parametrize(
    "order",
    [
        Feedback(STREAM, "7af34428b7af57c01d274e98799919f7", "false_alarm"),
        Feedback(STREAM, "7af34428b7af57c01d274e98799919f7", "confirmed"),
        Feedback(STREAM, "7af34428b7af57c01d274e98799919f7", "withdrawn"),
        Sensitivity(STREAM, 0.001),
        Sensitivity(STREAM, None),
    ],
)
def test_an_order_comes_back_as_it_was_given_and_is_no_clock_tick(order: Order) -> None:
    payload = encode(order)
    assert payload
    assert decode(payload) == order


def changed(order: Order, **fields: object) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.decode(encode(order)) | fields)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xff",
        encode(Sensitivity(STREAM, 0.01))[:-1],
        changed(Sensitivity(STREAM, 0.01), significance=0.0),
        changed(Sensitivity(STREAM, 0.01), significance=0.5),
        changed(Feedback(STREAM, "a", "confirmed"), verdict="maybe"),
        changed(Feedback(STREAM, "a", "confirmed"), type="Shutdown"),
        changed(Feedback(STREAM, "a", "confirmed"), note="unknown"),
    ],
)
def test_what_is_no_order_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError, match="not an order"):
        decode(payload)
