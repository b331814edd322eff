"""In which order a worker does what it is told."""

from __future__ import annotations

import queue
from typing import Any

from driftlock_otlp.worker import messages
from driftlock_otlp.worker.process import _work


class Recorder:
    """A worker that writes down what it is asked to do, and whose input ends with the first chunk."""

    def __init__(self, orders: Any) -> None:
        self.done: list[tuple[str, int]] = []
        self._orders = orders

    def checkpoint_wait_s(self) -> float:
        return 0.0

    def confirm(self, position: int) -> None:
        self.done.append(("confirm", position))

    def read_until(self, end: int) -> bool:
        self.done.append(("read", end))
        self._orders.put(None)
        return True


def test_confirmations_do_not_wait_for_chunks_to_be_scored() -> None:
    orders: Any = queue.SimpleQueue()
    for order in (messages.Advance(10), messages.Advance(20), messages.Recorded(5), messages.Advance(30)):
        orders.put(order)
    worker = Recorder(orders)
    _work(worker, orders)
    assert worker.done == [("confirm", 5), ("read", 30)]
