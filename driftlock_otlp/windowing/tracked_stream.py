"""Everything that is remembered about one stream between its windows."""

from __future__ import annotations

from driftlock_otlp.detection.detector import StreamDetector
from driftlock_otlp.detection.levels import StreamLevel
from driftlock_otlp.model import StreamKey, WindowFacts
from driftlock_otlp.observability.live import LiveStream
from driftlock_otlp.windowing.batch import Shaper

SHOWN_NAME = 200
"""Longest part of a stream's name that is shown, in characters."""


class TrackedStream:
    """One stream.

    Args:
        key: Which.
        detector: Scores its windows.
        shaper: Shapes them.
        detector_fingerprint: Identity of detector and window settings.
    """

    __slots__ = (
        "anomaly_id",
        "anomaly_windows",
        "detector",
        "drift_id",
        "fingerprint",
        "key",
        "last_event_unix_nano",
        "last_window",
        "level",
        "shaper",
        "used",
        "window_count",
    )

    def __init__(self, key: StreamKey, detector: StreamDetector, shaper: Shaper, detector_fingerprint: str) -> None:
        self.key = key
        self.detector = detector
        self.shaper = shaper
        self.fingerprint = detector_fingerprint
        self.anomaly_id = ""
        self.drift_id = ""  # of the last drift that was told
        self.anomaly_windows = 0  # that belong to it
        self.level = StreamLevel()
        self.last_event_unix_nano = 0
        self.used = 0  # a count that grows with every request to any stream
        # Of this process only, for people who look; a checkpoint does not keep them.
        self.window_count = 0
        self.last_window: WindowFacts | None = None

    def live(self, window_size: int, open_windows: int, open_records: int, oldest_open_s: float) -> LiveStream:
        """Return how it is.

        Args:
            window_size: Records at which a window of it closes.
            open_windows: Its open windows.
            open_records: Records in them.
            oldest_open_s: Age of the oldest of them in seconds.
        """
        key, detector, last = self.key, self.detector, self.last_window
        return LiveStream(
            key=StreamKey(key.kind, key.service[:SHOWN_NAME], key.name[:SHOWN_NAME], key.tenant[:SHOWN_NAME]),
            window_size=window_size,
            open_window_count=open_windows,
            open_record_count=open_records,
            oldest_open_s=oldest_open_s,
            window_count=self.window_count,
            baseline_window_count=detector.baseline.window_count,
            baseline_record_count=detector.baseline.record_count,
            windows_to_warm=detector.windows_to_warm,
            last_outcome=last.outcome if last else "",
            last_score=last.score if last else 0.0,
            last_p_value=last.p_value if last else 1.0,
            last_end_unix_nano=last.end_unix_nano if last else 0,
            anomaly_id=self.anomaly_id if detector.has_open_anomaly else "",
        )
