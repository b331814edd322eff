"""How far an alarm is to be heard: notice, page or fleet, and how severe that makes it.

    notice  the stream's own alarm.
    page    the window lies two bits beyond the bar of an immediate alarm, or two of four windows lie beyond
            that bar, or several streams stand out together among all that were judged at about that time.
    fleet   several related streams at once, or evidence that lasts over four windows (`incidents`).

Each is rarer than the one before. Bars are those of the stream, so a page is two bits rarer than an
immediate alarm whatever the significance, the pace of the windows and the alarms of late.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable

import numpy as np

from driftlock_otlp.detection.incidents import discoveries
from driftlock_otlp.model import AnomalyLevel, AnomalySeverity

_PAGE_MARGIN_BITS = 2.0
_REPEAT_WINDOWS = 3
_FALSE_DISCOVERY_RATE = 0.1
_LEAST_DISCOVERIES = 2
"""One stream that stands out alone has its own bars; what is new here is that there are several."""
_TICK_NANO = 10 * 10**9
_MOST_STREAMS = 20_000

_LEAST_SEVERITY = {
    AnomalyLevel.NOTICE: AnomalySeverity.LOW,
    AnomalyLevel.PAGE: AnomalySeverity.MEDIUM,
    AnomalyLevel.FLEET: AnomalySeverity.HIGH,
}


def severity_at(level: AnomalyLevel, *found: AnomalySeverity) -> AnomalySeverity:
    """Return the severity of an anomaly: the worst of what was found, and what its level makes of it at least.

    >>> severity_at(AnomalyLevel.PAGE, AnomalySeverity.LOW).label
    'medium'
    """
    return max((*found, _LEAST_SEVERITY[level]), key=lambda severity: severity.severity_number)


class StreamLevel:
    """How far the windows of one stream are to be heard, for all that the stream itself can say."""

    def __init__(self, recent_margins: Iterable[float] = ()) -> None:
        self._recent: deque[float] = deque(recent_margins, maxlen=_REPEAT_WINDOWS)

    def take(self, margin_bits: float) -> AnomalyLevel:
        """Take each window of the stream, and return the level that an alarm has with this one.

        Args:
            margin_bits: Its bits beyond the bar of an immediate alarm; negative below it.
        """
        is_repeated = margin_bits >= 0 and any(past >= 0 for past in self._recent)
        self._recent.append(margin_bits if math.isfinite(margin_bits) else -math.inf)
        return AnomalyLevel.PAGE if margin_bits >= _PAGE_MARGIN_BITS or is_repeated else AnomalyLevel.NOTICE

    def state(self) -> list[float]:
        """Return everything remembered."""
        return list(self._recent)


class Tick:
    """What was judged at about one time, over all streams of one organisation; bounded, and of this process only."""

    def __init__(self) -> None:
        self._latest: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def take(self, stream: str, end_unix_nano: int, bits: float) -> None:
        """Take a window.

        Args:
            stream: Identifies its stream.
            end_unix_nano: Event time of its end.
            bits: Its calibrated surprise.
        """
        self._latest[stream] = (end_unix_nano, bits)
        self._latest.move_to_end(stream)
        if len(self._latest) > _MOST_STREAMS:
            self._latest.popitem(last=False)

    def stands_out(self, stream: str) -> bool:
        """Return whether the last window of a stream is one of several that stand out among all streams.

        The expected share of false ones among them is at most 0.1 (Benjamini & Hochberg 1995).
        """
        if stream not in self._latest:
            return False
        end = self._latest[stream][0]
        bits = {name: bits for name, (time, bits) in self._latest.items() if abs(time - end) <= _TICK_NANO}
        # Streams that had no window in this while have nothing to say, and are to be reckoned with all the same.
        values = np.zeros(len(self._latest))
        values[: len(bits)] = list(bits.values())
        found = discoveries(values.tolist(), _FALSE_DISCOVERY_RATE)
        return int(found.sum()) >= _LEAST_DISCOVERIES and bool(found[list(bits).index(stream)])
