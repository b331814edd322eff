"""One partition of the streams as the service sees it: its process, and how far it has come."""

from __future__ import annotations

import asyncio
import time

from driftlock_otlp.observability.live import LiveStream, LiveWorker
from driftlock_otlp.worker import messages


class Partition:
    """One partition; only `WorkerPool` changes it.

    Args:
        index: Which.
        count: How many there are.
    """

    def __init__(self, index: int, count: int) -> None:
        self.index = index
        self.cursor_name = f"detect:{index}-of-{count}"
        self.process: asyncio.subprocess.Process | None = None
        self.is_ready = False
        self.restart_count = 0
        self.watermark = 0
        self.checkpoint = 0
        self.read_position = 0
        self.told_end = 0
        self.oldest_open_unix_nano = 0
        self.pending: list[messages.Progress] = []
        self.streams: dict[str, int] = {}
        self.warming_up = 0
        self.constant = 0
        # What the worker said when it was last asked, when that was, and that it has answered.
        self.live_streams: list[LiveStream] = []
        self.described_s: float | None = None
        self.described = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process, if it runs."""
        return self.process.pid if self.process is not None and self.process.returncode is None else None

    def lag_s(self, now_unix_nano: int, end: int) -> float:
        """Return the age of the oldest record that awaits its verdict, in seconds.

        Args:
            now_unix_nano: The wall clock.
            end: The end of the log.
        """
        if not self.oldest_open_unix_nano or self.watermark >= end:
            return 0.0
        return max((now_unix_nano - self.oldest_open_unix_nano) / 1e9, 0.0)

    def live(self, now_unix_nano: int, end: int) -> LiveWorker:
        """Return how it is; arguments as for `lag_s`."""
        return LiveWorker(
            index=self.index,
            pid=self.pid,
            is_ready=self.is_ready,
            read_position=self.read_position,
            watermark=self.watermark,
            checkpoint=self.checkpoint,
            lag_s=self.lag_s(now_unix_nano, end),
            restart_count=self.restart_count,
            stream_count=sum(self.streams.values()),
            warming_up_count=self.warming_up,
            said_s_ago=None if self.described_s is None else time.monotonic() - self.described_s,
        )
