"""What a replay found, stream by stream."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from driftlock_otlp.model import Anomaly, AnomalyState, StreamKey, WindowFacts


@dataclass(slots=True)
class StreamSummary:
    """Windows and anomalies of one stream.

    Attributes:
        stream: Which.
        record_count: Records in windows.
        window_count: Windows.
        warming_up_count: Windows before the stream was calibrated.
        flagged_count: Windows with a p-value at or below the significance level, or in an anomaly.
        anomalous_count: Windows that belong to an anomaly.
        anomaly_count: Anomalies that began.
        least_p_value: Least p-value of any window; 1 while warming up.
    """

    stream: StreamKey
    record_count: int = 0
    window_count: int = 0
    warming_up_count: int = 0
    flagged_count: int = 0
    anomalous_count: int = 0
    anomaly_count: int = 0
    least_p_value: float = 1.0
    _compared_count: int = 0
    _ncd_sum: float = 0.0
    _ratio_sum: float = 0.0

    def add(self, facts: WindowFacts) -> None:
        """Take in one window."""
        self.record_count += facts.record_count
        self.window_count += 1
        self.warming_up_count += facts.outcome == "warming_up"
        self.flagged_count += facts.outcome in {"flagged", "anomalous"}
        self.anomalous_count += facts.outcome == "anomalous"
        self.least_p_value = min(self.least_p_value, facts.p_value)
        if facts.compression_ratio > 0:
            # Before the baseline is ready nothing is compressed.
            self._compared_count += 1
            self._ncd_sum += facts.ncd
            self._ratio_sum += facts.compression_ratio

    @property
    def mean_ncd(self) -> float | None:
        """Mean normalised compression distance of windows and baseline; None before there is one."""
        return self._ncd_sum / self._compared_count if self._compared_count else None

    @property
    def mean_compression_ratio(self) -> float | None:
        """Mean of raw over compressed bytes of the windows; None before there is a baseline."""
        return self._ratio_sum / self._compared_count if self._compared_count else None


@dataclass(slots=True)
class Found:
    """An anomaly as it is known now.

    Attributes:
        anomaly: Its latest state.
        records: Its records as (file, first row, last row), in the order they were found;
            neighbouring windows of one file are one entry.
    """

    anomaly: Anomaly
    records: list[tuple[int, int, int]] = field(default_factory=list)

    def add_records(self, file: int, first_row: int, last_row: int) -> None:
        """Take in records of its windows."""
        if self.records and self.records[-1][0] == file and first_row <= self.records[-1][2] + 1:
            _, first, last = self.records.pop()
            first_row, last_row = min(first, first_row), max(last, last_row)
        self.records.append((file, first_row, last_row))

    def resolve(self, at_unix_nano: int, resolution: str) -> None:
        """Say that it is over."""
        self.anomaly = replace(
            self.anomaly,
            state=AnomalyState.RESOLVED.value,
            resolved_unix_nano=at_unix_nano,
            resolution=resolution,
        )


@dataclass(slots=True)
class Summary:
    """All streams and anomalies of a replay.

    Attributes:
        found: Anomalies in the order in which they were found.
    """

    found: list[Found] = field(default_factory=list)
    _streams: dict[StreamKey, StreamSummary] = field(default_factory=dict)

    def add_window(self, facts: WindowFacts) -> None:
        """Take in one scored window."""
        self._of(facts.stream).add(facts)

    def add_anomaly(self, anomaly: Anomaly) -> Found:
        """Take in an anomaly that began."""
        self._of(anomaly.stream).anomaly_count += 1
        self.found.append(Found(anomaly))
        return self.found[-1]

    def streams(self) -> list[StreamSummary]:
        """Return the streams, those with the most anomalies and the least p-values first."""
        return sorted(
            self._streams.values(), key=lambda stream: (-stream.anomaly_count, stream.least_p_value, stream.stream)
        )

    @property
    def is_all_warming_up(self) -> bool:
        """Whether there were windows, but none that could have been flagged."""
        streams = self._streams.values()
        return bool(streams) and all(stream.warming_up_count == stream.window_count for stream in streams)

    def _of(self, key: StreamKey) -> StreamSummary:
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = StreamSummary(key)
        return stream
