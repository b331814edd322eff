"""The memory limiter."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from pathlib import Path

import pytest
import structlog.testing

from driftlock_otlp.errors import OverloadedError
from driftlock_otlp.observability.memory import container_limit_bytes, resident_bytes
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.receiver.admission import Admission
from driftlock_otlp.receiver.memory import MemoryLimiter
from tests.unit.receiver.senders import Organization

LIMIT = 1_000_000


class Memory:
    """What processes use."""

    def __init__(self) -> None:
        self.used_bytes = 0
        self.pids: Collection[int] = ()

    def __call__(self, pids: Collection[int]) -> int:
        self.pids = pids
        return self.used_bytes


def test_senders_wait_from_four_fifths_of_the_limit_on_and_no_longer() -> None:
    memory = Memory()
    limiter = MemoryLimiter(LIMIT, lambda: [7, 8], Metrics(), memory)
    with structlog.testing.capture_logs() as logs:
        for used_bytes, is_short in ((799_999, False), (800_000, True), (900_000, True), (799_999, False)):
            memory.used_bytes = used_bytes
            limiter.look(LIMIT)
            assert limiter.is_short is is_short
    assert memory.pids == [os.getpid(), 7, 8]
    assert [entry["event"] for entry in logs] == ["memory_short", "memory_recovered"]


async def test_it_measures_while_it_runs() -> None:
    memory = Memory()
    limiter = MemoryLimiter(LIMIT, list, Metrics(), memory)
    await limiter.start()
    memory.used_bytes = LIMIT
    async with asyncio.timeout(10.0):
        while not limiter.is_short:
            await asyncio.sleep(0.01)
    await limiter.stop(1.0)
    await limiter.stop(1.0)


def test_one_request_at_a_time_is_taken_while_memory_is_short() -> None:
    is_short = False
    admission, sender = Admission(100, is_memory_short=lambda: is_short), Organization()
    with admission.admit(0, sender):
        is_short = True
        with pytest.raises(OverloadedError, match=r"receiver\.memory_limit") as caught:
            admission.admit(0, sender)
        assert caught.value.retry_after_s == 1.0
    with admission.admit(0, sender), pytest.raises(OverloadedError):
        admission.admit(0, sender)
    with admission.admit(0, sender):
        pass


def test_resident_memory_is_that_of_the_processes_which_live() -> None:
    own = resident_bytes([os.getpid()])
    assert own > 10_000_000
    assert resident_bytes([os.getpid(), 2**22 + 1]) == pytest.approx(own, rel=0.2)
    held = bytearray(os.urandom(1 << 20)) * 64
    assert resident_bytes([os.getpid()]) > own + len(held) // 2


@pytest.mark.parametrize(
    ("text", "expected"), [("max\n", None), ("1073741824\n", 1 << 30), ("9223372036854771712\n", None)]
)
def test_limit_of_the_container_is_read(tmp_path: Path, text: str, expected: int | None) -> None:
    path = tmp_path / "memory.max"
    path.write_text(text)
    assert container_limit_bytes([tmp_path / "absent", path]) == expected
    assert container_limit_bytes([tmp_path / "absent"]) is None
