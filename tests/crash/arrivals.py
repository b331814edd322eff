"""What has arrived downstream, and in which order."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from driftlock_otlp.model import Signal
from tests.crash.senders import item_of, request_of, sender_of
from tests.doubles.otlp_sink import OtlpSink, Received
from tests.e2e.traffic import times

MOST_REPEATED = 64
"""Requests that one destination may see again after a restart, as `docs/operations.md` says."""


@dataclass(slots=True)
class Arrivals:
    """What a destination has taken, by item, and in the order in which it came.

    Attributes:
        items: How often each item came.
        events: Every delivery of every anomaly event, as (uid, bytes of the log record).
        life: Which life of the sidecar it is; whoever starts it again counts on.
        cuts: How often the destination's connections were cut: a request that it had taken then, and not yet
            answered, comes once more.
    """

    items: Counter[int] = field(default_factory=Counter)
    events: list[tuple[str, bytes]] = field(default_factory=list)
    life: int = 0
    cuts: int = 0
    # Of each sender: (life, first item) of each arrival.
    _order: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def take(self, request: Received, sink: OtlpSink) -> None:
        """Take what a sink has accepted, and let the sink forget it."""
        sink.attempts.clear()
        sink.received.clear()
        if request.signal is Signal.LOGS:
            own = [
                record
                for resource in request.message.resource_logs
                for scope in resource.scope_logs
                for record in scope.log_records
                if record.event_name
            ]
            for record in own:
                uid = next(a.value.string_value for a in record.attributes if a.key == "log.record.uid")
                self.events.append((uid, record.SerializeToString(deterministic=True)))
            if own:
                return
        items = [item_of(time) for time in times(request.signal, request.message)]
        self.items.update(items)
        if items:
            self._order[sender_of(items[0])].append((self.life, min(items)))

    def out_of_order(self, apart: set[int]) -> list[str]:
        """Return where a sender's requests came in another order than they were sent.

        Within one life of the sidecar the requests of a sender arrive in the order in which they
        were sent, each once. A new life may begin with some of the last requests of the ones
        before, as long as they are few.

        Args:
            apart: Items that went another way, through the quarantine.
        """
        found = []
        repeated: Counter[int] = Counter()
        for sender, arrivals in self._order.items():
            seen: set[int] = set()
            last_life, last_request = -1, -1
            cuts = self.cuts
            for life, item in arrivals:
                if item in apart:
                    continue
                request = request_of(item)
                if life != last_life:
                    last_life, last_request = life, -1
                if request == last_request and cuts:
                    cuts -= 1
                elif request <= last_request:
                    found.append(f"sender {sender}, life {life}: request {request} came after {last_request}")
                last_request = request
                repeated[life] += request in seen
                seen.add(request)
        found += [
            f"life {life}: {count} requests were sent again"
            for life, count in repeated.items()
            if count > MOST_REPEATED
        ]
        return found
