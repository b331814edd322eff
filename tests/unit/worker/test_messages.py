"""Messages between the service and its workers."""

from __future__ import annotations

import pytest

from driftlock_otlp.model import ItemRange, StreamKey, WindowFacts
from driftlock_otlp.observability.live import LiveStream
from driftlock_otlp.worker import messages

FACTS = WindowFacts(StreamKey("logs", "shop"), 1, (1 << 63) - 1, 50, "clean", 0.1, 1.0, 0.0, 0.5, 3.0, 3.1, 2.0, 2.1)

LIVE = LiveStream(
    StreamKey("gen_ai", "shop", "m", "t"), 50, 2, 13, 1.5, 9, 12, 600, 7, "clean", 0.1, 0.5, 1 << 62, "ab"
)


@pytest.mark.parametrize(
    "message",
    [
        messages.Start("{}", "/log", "/d.db", 0, 1, 7),
        messages.Advance(1 << 60),
        messages.Recorded(5),
        messages.Describe(100),
        messages.Stop(),
    ],
)
def test_orders_come_back_as_they_were(message: messages.ToWorker) -> None:
    data = messages.encode(message)
    assert messages.LENGTH.unpack(data[:4]) == (len(data) - 4,)
    assert messages.decode_for_worker(data[4:]) == message


@pytest.mark.parametrize(
    "message",
    [
        messages.Ready(5, learning_anew=["logs/shop"]),
        messages.Ready(5, [("logs", 2)], 1),
        messages.Streams([]),
        messages.Streams([LIVE]),
        messages.Progress(1, 2, 3),
        messages.Progress(
            1,
            2,
            3,
            resolved=[("ab", (1 << 64) - 1, "recovered")],
            diverted=[(9, [ItemRange(0, 3, "ab")])],
            windows=[("logs", "clean", 2)],
            facts=[FACTS],
            unscored_items=[("error", 1)],
            streams=[("logs", 1)],
        ),
    ],
)
def test_answers_come_back_as_they_were(message: messages.ToService) -> None:
    assert messages.decode_for_service(messages.encode(message)[4:]) == message
