"""Components start downstream first, stop in reverse, and cannot hold the process for ever."""

from __future__ import annotations

import asyncio
import time

import pytest

from driftlock_otlp.lifecycle import Lifecycle, Readiness


class Recorder:
    """A component that writes down what happens to it, and may misbehave."""

    def __init__(
        self,
        name: str,
        events: list[str],
        *,
        start_error: BaseException | None = None,
        stop_s: float = 0.0,
        stop_error: Exception | None = None,
    ) -> None:
        self.name = name
        self.grace_s = -1.0
        self._events = events
        self._start_error = start_error
        self._stop_s = stop_s
        self._stop_error = stop_error

    async def start(self) -> None:
        self._events.append(f"+{self.name}")
        if self._start_error is not None:
            raise self._start_error

    async def stop(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self._events.append(f"-{self.name}")
        await asyncio.sleep(self._stop_s)
        if self._stop_error is not None:
            raise self._stop_error


async def test_components_start_in_order_and_stop_in_reverse() -> None:
    events: list[str] = []
    lifecycle = Lifecycle([Recorder(name, events) for name in "abc"])
    await lifecycle.start()
    await lifecycle.stop(10.0)
    assert events == ["+a", "+b", "+c", "-c", "-b", "-a"]


async def test_stopping_twice_is_harmless() -> None:
    events: list[str] = []
    lifecycle = Lifecycle([Recorder("a", events)])
    await lifecycle.stop(1.0)
    await lifecycle.start()
    await lifecycle.stop(1.0)
    await lifecycle.stop(1.0)
    assert events == ["+a", "-a"]


@pytest.mark.parametrize("error", [ValueError("port taken"), asyncio.CancelledError()])
async def test_a_failed_start_stops_what_had_started_and_raises(error: BaseException) -> None:
    events: list[str] = []
    parts = [Recorder("a", events), Recorder("b", events, start_error=error), Recorder("c", events)]
    with pytest.raises(type(error)):
        await Lifecycle(parts).start()
    assert events == ["+a", "+b", "-a"]


async def test_a_component_that_fails_to_stop_does_not_keep_the_others() -> None:
    events: list[str] = []
    lifecycle = Lifecycle([Recorder("a", events), Recorder("b", events, stop_error=RuntimeError("no"))])
    await lifecycle.start()
    await lifecycle.stop(1.0)
    assert events == ["+a", "+b", "-b", "-a"]


async def test_the_grace_is_for_all_together_and_none_may_overrun_it() -> None:
    events: list[str] = []
    quick, slow = Recorder("quick", events), Recorder("slow", events, stop_s=60.0)
    lifecycle = Lifecycle([quick, slow])
    await lifecycle.start()
    started_s = time.monotonic()
    await lifecycle.stop(0.2)
    assert time.monotonic() - started_s < 5.0
    assert events[-1] == "-quick"
    # Whoever comes late still gets a moment.
    assert quick.grace_s == pytest.approx(0.5)


def test_readiness_names_the_conditions_that_do_not_hold() -> None:
    readiness = Readiness()
    assert readiness.missing() == []
    holds = {"b": False}
    readiness.add("a", lambda: True)
    readiness.add("b", lambda: holds["b"])
    assert readiness.missing() == ["b"]
    holds["b"] = True
    assert readiness.missing() == []
