"""Downstreams as they are on bad days: nothing is lost that could be kept, the rest is counted with its reason."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import Counter
from functools import partial

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from driftlock_otlp.model import Signal
from tests.crash.senders import ROLES, Role, Sender, item_of, items_of
from tests.doubles.otlp_sink import Answer, OtlpSink, Received
from tests.e2e.conftest import NewSidecar
from tests.e2e.sidecar import Sidecar, delivered, exporter, free_ports
from tests.e2e.traffic import times

SEED = 20_260_505
REQUESTS = 60
PARTLY_REJECTED = 3
MOST_POINTS = 12
RETRY = {"initial_interval": "20ms", "max_interval": "100ms"}


class BadDay:
    """A destination that has everything: failures that pass, with and without a delay; slowness; answers that get
    lost; parts and whole requests that it never takes; and for data points a size limit.

    Attributes:
        taken: How often it has each item.
        refused: Items that it never takes.
        partly_rejected: Items that it took requests without.
    """

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.taken: Counter[int] = Counter()
        self.refused: set[int] = set()
        self.partly_rejected = 0
        self.answers: Counter[str] = Counter()

    def judge(self, request: Received) -> Answer:
        """Say how to answer a request."""
        name, answer = self._draw(request)
        self.answers[name] += 1
        return answer

    def _draw(self, request: Received) -> tuple[str, Answer]:
        items = [item_of(time) for time in times(request.signal, request.message)]
        busy, exhausted = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED
        draw = self._chance.random()
        if draw < 0.10:
            return "busy", Answer(grpc_code=busy, http_status=503)
        if draw < 0.14:
            return "busy for a while", Answer(grpc_code=busy, http_status=503, retry_after_s=0.2)
        if draw < 0.17:
            # Over HTTP, 429 may be tried again also without a delay.
            status = Answer(grpc_code=exhausted, http_status=429, retry_after_s=0.1)
            return "throttled", status
        if draw < 0.20:
            self.taken.update(items)
            return "answer lost", Answer(grpc_code=busy, http_status=502)
        if request.signal is Signal.METRICS and len(items) > MOST_POINTS:
            return "too large", Answer(grpc_code=exhausted, http_status=413, message="message larger than max")
        kind = zlib.crc32(request.payload) % 12
        if kind == 0:
            self.refused.update(items)
            return "refused", Answer(grpc_code=grpc.StatusCode.INVALID_ARGUMENT, http_status=400)
        self.taken.update(items)
        if kind == 1:
            self.partly_rejected += PARTLY_REJECTED
            return "partly rejected", Answer(rejected_item_count=PARTLY_REJECTED, message="of no interest")
        return ("slow", Answer(delay_s=0.1)) if draw > 0.95 else ("taken", Answer())


@pytest.mark.timeout(240)
async def test_what_can_be_kept_on_a_bad_day_is_kept_and_one_that_is_dead_holds_up_nobody(
    new_sidecar: NewSidecar,
) -> None:
    days = [BadDay(SEED), BadDay(SEED + 1)]
    (dead_port,) = free_ports(1)
    async with OtlpSink() as first, OtlpSink() as second:
        first.judge, second.judge = days[0].judge, days[1].judge
        dead = OtlpSink(grpc_port=dead_port)
        names = ["otlp_grpc", "otlp_http/second", "otlp_grpc/dead"]
        exporters = {
            names[0]: exporter(first, retry_on_failure=RETRY),
            names[1]: {"endpoint": second.http_endpoint, "retry_on_failure": RETRY},
            names[2]: exporter(dead),
        }
        forward = {"exporters": names, "policy": "pass"}
        sidecar = new_sidecar(first, {"exporters": exporters, "forward": forward, "events": {"exporters": []}})
        await sidecar.start()
        sent = await _send(sidecar)
        for name, day in zip(names[:2], days, strict=True):
            await sidecar.wait_until(partial(_has_passed, sidecar, name), f"{name} is held up")
            print(name, dict(day.answers))
            # An answer that got lost may be followed by a refusal: then the destination has it all the same.
            assert day.taken.keys() | day.refused == sent
            assert len(day.answers) >= 8, "the day was not bad enough"
            outcomes = await asyncio.to_thread(_outcomes, sidecar, name)
            assert outcomes == {
                ("forwarded", ""): len(sent) - len(day.refused) - day.partly_rejected,
                ("dropped", "rejected"): len(day.refused),
                ("dropped", "partial_success"): day.partly_rejected,
            }
        assert await asyncio.to_thread(sidecar.total, "driftlock_queue_items", cursor=f"forward:{names[2]}") == len(
            sent
        )
        assert await sidecar.stop() == 0
        async with dead:
            await sidecar.start()
            await sidecar.wait_until(partial(_has_passed, sidecar, names[2]), "what was kept does not come")
            assert Counter(map(item_of, (time for s in Signal for time in delivered(dead, s)))) == Counter(sent)


async def _send(sidecar: Sidecar) -> set[int]:
    """Return the items of what several senders have had acknowledged."""
    senders = [
        Sender(Role(role.signal, role.transport), number, SEED, lambda: (sidecar.grpc_port, sidecar.http_port),
               pause_s=0.0, fault_every=0)
        for number, role in enumerate(ROLES[:4])
    ]  # fmt: skip
    tasks = [asyncio.create_task(sender.run()) for sender in senders]
    await sidecar.wait_until(lambda: all(len(s.acknowledged) >= REQUESTS for s in senders), "is not acknowledged")
    for sender in senders:
        sender.finish()
    await asyncio.gather(*tasks)
    return {item for sender in senders for item in items_of(sender.number, len(sender.acknowledged))}


def _has_passed(sidecar: Sidecar, name: str) -> bool:
    return sidecar.total("driftlock_queue_items", cursor=f"forward:{name}") == 0


def _outcomes(sidecar: Sidecar, name: str) -> Counter[tuple[str, str]]:
    """Return the items by outcome and reason."""
    found: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(sidecar.get("/metrics").decode()):
        for sample in family.samples:
            if sample.name == "driftlock_forward_items_total" and sample.labels["exporter"] == name and sample.value:
                found[sample.labels["outcome"], sample.labels["reason"]] += int(sample.value)
    return found
