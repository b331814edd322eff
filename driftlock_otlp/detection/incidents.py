"""Incidents: what several streams say at about the same time, joined, with where it came from.

A thousand streams have a thousand times the false alarms of one. So a window counts here if its
stream raised an alarm, if it stands out among all streams of its tick at a bounded rate of false
discoveries, or if its stream has been odd for four windows. What counts is joined with an open
incident when it comes soon after it and shares a service, a trace or a template with it, or is a
caller or callee of one of its services. Pure: no clock of its own, no I/O, bounded.

References:
    Benjamini & Hochberg 1995, "Controlling the false discovery rate: a practical and powerful
    approach to multiple testing".
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from driftlock_otlp.detection.columns import Floats

_FALSE_DISCOVERY_RATE = 0.1
_LASTING_WINDOWS = 4
_LASTING_BITS = 47.0
"""Bits that a stream's last four windows must add up to: about one such stretch in twenty stream-days."""
_JOIN_NANO = 120 * 10**9
"""An incident takes in what comes at most this long after its last finding; then it is over."""
_MOST_STREAMS = 20_000
_MOST_LINKS = 1_000
"""Traces, and templates, remembered per incident."""

Calls = Mapping[str, Collection[str]]
"""Services that each service calls."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one window of one stream says.

    Attributes:
        stream: Identifies the stream.
        service: The service it is of.
        time_unix_nano: Event time of the window's end.
        bits: The window's calibrated bits, or a record's if they are more.
        is_alarm: Whether the stream raised an alarm of its own.
        trace_ids: Traces that the oddest records belong to.
        template: The oddest log template; empty if none.
    """

    stream: str
    service: str
    time_unix_nano: int
    bits: float
    is_alarm: bool = False
    trace_ids: frozenset[str] = frozenset()
    template: str = ""


@dataclass(slots=True)
class Incident:
    """Findings that belong together.

    Attributes:
        number: Counts incidents, from 1.
        started_unix_nano: Time of the first finding.
        last_unix_nano: Time of the last one.
        bits: Most bits of each stream, by service and stream.
        onsets_unix_nano: First finding of each service.
        trace_ids: Traces of its findings, oldest first.
        templates: Templates of its findings, oldest first.
        is_lasting: Whether one of its streams has been odd for four windows.
        absorbed: Numbers of the incidents that it has taken in; not part of the state.
    """

    number: int
    started_unix_nano: int
    last_unix_nano: int
    bits: dict[str, dict[str, float]] = field(default_factory=dict)
    onsets_unix_nano: dict[str, int] = field(default_factory=dict)
    trace_ids: dict[str, None] = field(default_factory=dict)
    templates: dict[str, None] = field(default_factory=dict)
    is_lasting: bool = False
    absorbed: list[int] = field(default_factory=list)

    @property
    def stream_count(self) -> int:
        """Streams that it has findings of."""
        return sum(len(streams) for streams in self.bits.values())

    def origins(self, calls: Calls) -> list[tuple[str, float]]:
        """Return its services, the likeliest origin first, with the bits that no callee explains."""
        total = {service: sum(streams.values()) for service, streams in self.bits.items()}
        return rank_origins(total, calls, self.onsets_unix_nano)

    def add(self, finding: Finding) -> None:
        """Take in a finding."""
        streams = self.bits.setdefault(finding.service, {})
        streams[finding.stream] = max(streams.get(finding.stream, 0.0), finding.bits)
        onset = self.onsets_unix_nano.get(finding.service, finding.time_unix_nano)
        self.onsets_unix_nano[finding.service] = min(onset, finding.time_unix_nano)
        self.started_unix_nano = min(self.started_unix_nano, finding.time_unix_nano)
        self.last_unix_nano = max(self.last_unix_nano, finding.time_unix_nano)
        self._link(finding.trace_ids, [finding.template] if finding.template else [])

    def absorb(self, other: Incident) -> None:
        """Take in all of another incident."""
        for service, streams in other.bits.items():
            ours = self.bits.setdefault(service, {})
            for stream, bits in streams.items():
                ours[stream] = max(ours.get(stream, 0.0), bits)
        for service, onset in other.onsets_unix_nano.items():
            self.onsets_unix_nano[service] = min(self.onsets_unix_nano.get(service, onset), onset)
        self.started_unix_nano = min(self.started_unix_nano, other.started_unix_nano)
        self.last_unix_nano = max(self.last_unix_nano, other.last_unix_nano)
        self._link(other.trace_ids, other.templates)
        self.is_lasting |= other.is_lasting
        self.absorbed += [other.number, *other.absorbed]

    def _link(self, trace_ids: Collection[str], templates: Collection[str]) -> None:
        for kept, new in ((self.trace_ids, sorted(trace_ids)), (self.templates, templates)):
            kept.update(dict.fromkeys(new))
            for key in list(kept)[: max(len(kept) - _MOST_LINKS, 0)]:
                del kept[key]


def discoveries(bits: Sequence[float], rate: float) -> npt.NDArray[np.bool_]:
    """Return which of many stand out, when the expected share of false ones among them is bounded.

    Args:
        bits: (n,), minus log2 of p-values.
        rate: That share, (0, 1).

    >>> discoveries([12.0, 3.0, 1.0, 9.0], 0.1).tolist()
    [True, False, False, True]
    """
    values: Floats = np.asarray(bits, dtype=np.float64)
    falling = np.sort(values)[::-1]
    passed = np.flatnonzero(falling >= np.log2(len(values) / (rate * np.arange(1, len(values) + 1))))
    return values >= (falling[passed[-1]] if len(passed) else np.inf)


def rank_origins(
    bits: Mapping[str, float], calls: Calls, onsets: Mapping[str, float] | None = None
) -> list[tuple[str, float]]:
    """Return services, the likeliest origin first: those that are odd beyond what a callee of theirs explains.

    A caller waits for its callees and passes on their errors, so its oddness is set off against
    that of the oddest of them. Of equal ones the earlier one comes first.

    Args:
        bits: How odd each service is.
        calls: Services that each one calls; without it, the order is that of the bits.
        onsets: When each one became odd.

    >>> rank_origins({"shop": 30.0, "cart": 40.0, "mail": 3.0}, {"shop": ["cart", "mail"]})
    [('cart', 40.0), ('mail', 3.0), ('shop', -10.0)]
    """
    own = {
        service: found
        - max((bits.get(callee, 0.0) for callee in calls.get(service, ()) if callee != service), default=0.0)
        for service, found in bits.items()
    }
    when = onsets or {}
    return sorted(own.items(), key=lambda item: (-item[1], when.get(item[0], 0.0), item[0]))


class IncidentJoiner:
    """The open incidents over a set of streams.

    Args:
        false_discovery_rate: Share of false ones among the windows that count since they stand out of their
            tick, [0, 1); 0: none counts for that, and a tick may be any part of the windows.
    """

    def __init__(self, false_discovery_rate: float = _FALSE_DISCOVERY_RATE) -> None:
        self._rate = false_discovery_rate
        self._recent: OrderedDict[str, deque[float]] = OrderedDict()
        self._open: list[Incident] = []
        self._count = 0

    @property
    def open(self) -> list[Incident]:
        """The incidents that may still take something in, oldest first."""
        return list(self._open)

    def take(self, tick: Sequence[Finding], clock_unix_nano: int, calls: Calls | None = None) -> list[Incident]:
        """Take the windows that closed at about one time, one at most of each stream.

        Args:
            tick: Every window that was judged, also the calm ones: they are what is not a discovery.
            clock_unix_nano: Time by which incidents end.
            calls: Services that each service calls, as far as known.

        Returns:
            The incidents that began or went on, oldest first.
        """
        self._open = [incident for incident in self._open if clock_unix_nano - incident.last_unix_nano <= _JOIN_NANO]
        if not tick:
            return []
        bits = [finding.bits for finding in tick]
        stands_out = discoveries(bits, self._rate) if self._rate else np.zeros(len(tick), np.bool_)
        touched: dict[int, Incident] = {}
        for finding, is_discovery in zip(tick, stands_out.tolist(), strict=True):
            is_lasting = self._add_up(finding) >= _LASTING_BITS
            if finding.is_alarm or is_discovery or is_lasting:
                incident = self._join(finding, calls or {})
                incident.is_lasting |= is_lasting
                touched[incident.number] = incident
        still_open = {incident.number for incident in self._open}
        return [touched[number] for number in sorted(touched) if number in still_open]

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values."""
        return {
            "recent": [[stream, list(bits)] for stream, bits in self._recent.items()],
            "count": self._count,
            "open": [
                [
                    i.number,
                    i.started_unix_nano,
                    i.last_unix_nano,
                    i.bits,
                    i.onsets_unix_nano,
                    [*i.trace_ids],
                    [*i.templates],
                    i.is_lasting,
                ]
                for i in self._open
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the joiner that gave this state."""
        self._recent = OrderedDict((stream, deque(bits, _LASTING_WINDOWS)) for stream, bits in state["recent"])
        self._count = state["count"]
        self._open = [
            Incident(
                number, started, last, {service: dict(streams) for service, streams in bits.items()}, dict(onsets),
                dict.fromkeys(traces), dict.fromkeys(templates), is_lasting,
            )
            for number, started, last, bits, onsets, traces, templates, is_lasting in state["open"]
        ]  # fmt: skip

    def _add_up(self, finding: Finding) -> float:
        bits = self._recent.get(finding.stream)
        if bits is None:
            bits = self._recent[finding.stream] = deque(maxlen=_LASTING_WINDOWS)
            if len(self._recent) > _MOST_STREAMS:
                self._recent.popitem(last=False)
        self._recent.move_to_end(finding.stream)
        bits.append(finding.bits)
        return sum(bits)

    def _join(self, finding: Finding, calls: Calls) -> Incident:
        fitting = [incident for incident in self._open if _belongs(finding, incident, calls)]
        if not fitting:
            self._count += 1
            fitting = [Incident(self._count, finding.time_unix_nano, finding.time_unix_nano)]
            self._open.append(fitting[0])
        first, *others = fitting
        for other in others:  # the finding is what they have in common
            first.absorb(other)
            self._open.remove(other)
        first.add(finding)
        return first


def _belongs(finding: Finding, incident: Incident, calls: Calls) -> bool:
    if finding.time_unix_nano - incident.last_unix_nano > _JOIN_NANO:
        return False
    return (
        finding.service in incident.bits
        or (finding.template != "" and finding.template in incident.templates)
        or not finding.trace_ids.isdisjoint(incident.trace_ids)
        or not incident.bits.keys().isdisjoint(calls.get(finding.service, ()))
        or any(finding.service in calls.get(service, ()) for service in incident.bits)
    )
