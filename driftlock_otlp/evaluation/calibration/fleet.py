"""A thousand streams at once, made of pieces of measured ones: how many of the discoveries are false.

Streams are drawn from those measured while clean, each from an offset of its own, so that extremes
come again; faults are runs of windows measured with a fault put in. What decides is
`detection.incidents`, as over live streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from driftlock_otlp.detection.incidents import Finding, IncidentJoiner, discoveries
from driftlock_otlp.evaluation.calibration.streams import HOUR_WINDOWS, WINDOW_S
from driftlock_otlp.evaluation.calibration.watch import FAULT_WINDOWS, Power, Quiet

_RATE = 0.1
_STREAMS_OF_A_SERVICE = 4
_PAGE_BITS, _REPEATED_PAGE_BITS = 13.0, 11.0
_REPEAT_WINDOWS = 3
_AFTER_WINDOWS = 12
"""An incident that began so soon after a fault did is that fault."""


@dataclass(slots=True)
class Tick:
    """What was found in single ticks.

    Attributes:
        ticks: Ticks that were looked at.
        shares: Sum of the share of false ones among each tick's discoveries, 0 where there are none.
        found: Faults found.
        faults: Faults in all.
    """

    ticks: int = 0
    shares: float = 0.0
    found: int = 0
    faults: int = 0


@dataclass(slots=True)
class Incidents:
    """What was found over hours.

    Attributes:
        right: Incidents that hold a stream with a fault.
        wrong: All others.
        found: Faults that an incident holds.
        faults: Faults in all.
    """

    right: int = 0
    wrong: int = 0
    found: int = 0
    faults: int = 0

    @property
    def false_share(self) -> float:
        """Share of the incidents that are false."""
        return self.wrong / max(self.right + self.wrong, 1)


class Fleet:
    """Streams and faults to draw from.

    Args:
        quiet: Clean streams.
        powers: Faults that were put in.
        seed: Of the draws.
    """

    def __init__(self, quiet: Sequence[Quiet], powers: Sequence[Power], seed: int) -> None:
        self._bits = [np.array(stream.bits) for stream in quiet]
        self._alarmed = [np.array(stream.alarmed) for stream in quiet]
        self._runs = [(np.array(b), at) for p in powers for b, at in zip(p.bits, p.alarmed_at, strict=True)]
        self._random = np.random.default_rng(seed)

    def ticks(self, streams: int, faulty: int, count: int) -> Tick:
        """Look at single ticks in which some of the streams have the first window of a fault."""
        found = Tick()
        for _ in range(count):
            bits = np.array([self._random.choice(self._bits[i]) for i in self._choose(streams)])
            runs = self._random.integers(len(self._runs), size=faulty)
            bits[:faulty] = [self._runs[run][0][0] for run in runs]
            stands_out = discoveries(bits.tolist(), _RATE)
            found.ticks += 1
            found.shares += float(stands_out[faulty:].sum()) / max(int(stands_out.sum()), 1)
            found.found += int(stands_out[:faulty].sum())
            found.faults += faulty
        return found

    def hours(self, streams: int, hours: int, faults_an_hour: int) -> dict[str, Incidents]:
        """Let streams run for hours, four of each service, and join what they say.

        A fault touches two to four streams of its service.

        Returns:
            By what it takes to be told: any incident, one that pages, or one of several streams.
        """
        ticks = hours * HOUR_WINDOWS
        bits, alarmed = self._clean(streams, ticks)
        services = streams // _STREAMS_OF_A_SERVICE
        starts: list[tuple[int, int]] = []  # (service, tick) of each fault
        for _ in range(hours * faults_an_hour):
            service = int(self._random.integers(services))
            start = int(self._random.integers(_AFTER_WINDOWS, ticks - _AFTER_WINDOWS))
            starts.append((service, start))
            touched = self._random.permutation(_STREAMS_OF_A_SERVICE)[: self._random.integers(2, 5)]
            for stream in service * _STREAMS_OF_A_SERVICE + touched:
                run, alarmed_at = self._runs[int(self._random.integers(len(self._runs)))]
                bits[stream, start : start + FAULT_WINDOWS] = run
                alarmed[stream, start : start + FAULT_WINDOWS] = False
                if alarmed_at >= 0:
                    alarmed[stream, start + alarmed_at] = True
        paged = _pages(bits)
        return {
            "any incident": self._joined(bits, alarmed, starts, least_streams=1),
            "that pages": self._joined(bits, paged, starts, least_streams=1),
            "of several streams": self._joined(bits, alarmed, starts, least_streams=2),
        }

    def _choose(self, streams: int) -> list[int]:
        chosen: list[int] = self._random.integers(len(self._bits), size=streams).tolist()
        return chosen

    def _clean(self, streams: int, ticks: int) -> tuple[np.ndarray, np.ndarray]:
        bits, alarmed = np.zeros((streams, ticks)), np.zeros((streams, ticks), dtype=bool)
        for row, chosen in enumerate(self._choose(streams)):
            at = int(self._random.integers(len(self._bits[chosen])))
            bits[row] = np.resize(np.roll(self._bits[chosen], -at), ticks)
            alarmed[row] = np.resize(np.roll(self._alarmed[chosen], -at), ticks)
        return bits, alarmed

    def _joined(
        self, bits: np.ndarray, alarmed: np.ndarray, starts: list[tuple[int, int]], least_streams: int
    ) -> Incidents:
        joiner = IncidentJoiner()
        names = [(f"{row}", f"{row // _STREAMS_OF_A_SERVICE}") for row in range(len(bits))]
        told: dict[int, tuple[int, int]] = {}  # incident: (service, tick at which it was told)
        for tick in range(bits.shape[1]):
            clock = int(tick * WINDOW_S * 1e9)
            findings = [
                Finding(stream, service, clock, b, a)
                for (stream, service), b, a in zip(
                    names, bits[:, tick].tolist(), alarmed[:, tick].tolist(), strict=True
                )
            ]
            for incident in joiner.take(findings, clock):
                # No callers are known here and no traces are shared: an incident is one service's.
                (service,) = incident.bits
                if incident.number not in told and len(incident.bits[service]) >= least_streams:
                    told[incident.number] = int(service), tick
        found = Incidents(faults=len(starts))
        for told_of, tick in told.values():
            is_right = any(s == told_of and 0 <= tick - start <= _AFTER_WINDOWS for s, start in starts)
            found.right += is_right
            found.wrong += not is_right
        found.found = sum(
            any(s == service and 0 <= tick - start <= _AFTER_WINDOWS for s, tick in told.values())
            for service, start in starts
        )
        return found


def _pages(bits: np.ndarray) -> np.ndarray:
    """Return the windows that begin a page: 13 bits, or 11 twice within four windows."""
    high = bits >= _REPEATED_PAGE_BITS
    before = np.zeros_like(high)
    for back in range(1, _REPEAT_WINDOWS + 1):
        before[:, back:] |= high[:, :-back]
    result: np.ndarray = (bits >= _PAGE_BITS) | (high & before)
    return result
