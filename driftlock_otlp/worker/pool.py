"""Detection workers as the service sees them: started, fed, listened to, started again.

The pool makes verdicts durable before anyone may act on them: anomalies, events to send,
diverted ranges and the detect cursor go into the state database in one transaction, and only
then does the watermark move.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path

import structlog

from driftlock_otlp import fault_points
from driftlock_otlp.config.root import Config
from driftlock_otlp.errors import RetryableError
from driftlock_otlp.interfaces import Clock, TelemetryLog
from driftlock_otlp.model import NewEntry
from driftlock_otlp.observability.live import LiveStream, LiveWorker
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage.state import StateDatabase, cursor
from driftlock_otlp.worker import messages
from driftlock_otlp.worker.checkpoint import check_format, checkpoint_path
from driftlock_otlp.worker.partition import Partition
from driftlock_otlp.worker.recording import Announcer, Recorded, Recorder

_POLL_S = 0.02
_RESTART_DELAYS_S = (0.2, 1.0, 5.0, 15.0)
_STABLE_AFTER_S = 60.0
_QUIET_WRITE_S = 1.0
"""Without anomalies, facts and cursors are written this often only: they can be computed again."""
_FRESH_S = 1.0
"""Workers are asked no more often than this how their streams are."""
_ANSWER_S = 1.0
"""Longest wait for their answer; then the one before is shown."""
_MOST_LIVE_STREAMS = 1_000

_logger = structlog.get_logger(__name__)


class WorkerPool:
    """All detection workers; a `Component`.

    Args:
        config: All settings.
        log: The durable log, for its end and for clock ticks.
        log_directory: Where workers read it.
        state: Where verdicts are made durable.
        metrics: Where windows and anomalies are counted.
        clock: The wall clock.
        announcer: Tells the outside of anomalies and incidents.
    """

    name = "detection"

    def __init__(
        self,
        config: Config,
        log: TelemetryLog,
        log_directory: Path,
        state: StateDatabase,
        metrics: Metrics,
        clock: Clock,
        announcer: Announcer,
    ) -> None:
        self._config = config
        self._log = log
        self._log_directory = log_directory
        self._state = state
        self._metrics = metrics
        self._clock = clock
        self._recorder = Recorder(config, clock, announcer)
        count = config.detection.workers
        self._workers = [Partition(index, count) for index in range(count)]
        youngest_s = min(getattr(config.windows, kind).max_age for kind in type(config.windows).model_fields)
        # Fine enough to close windows in time, coarse enough to leave an idle disk alone.
        self._tick_s = min(max(youngest_s / 4, 0.05), 1.0)
        self._tasks: list[asyncio.Task[None]] = []
        self._has_news = asyncio.Event()
        self._stopping = asyncio.Event()
        self._written_s = 0.0
        self._seen_end, self._seen_s = 0, 0.0

    @property
    def is_ready(self) -> bool:
        """Whether every worker is up."""
        return all(worker.is_ready for worker in self._workers)

    @property
    def watermark(self) -> int:
        """Every record before this position has its verdict, and the verdict is durable."""
        return min(worker.watermark for worker in self._workers)

    @property
    def checkpoint(self) -> int:
        """The log is needed from this position on, in case a worker starts again."""
        return min(worker.checkpoint for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        """Processes that run."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    async def look(self) -> tuple[list[LiveWorker], list[LiveStream]]:
        """Return how the workers are and how their streams are, as far as they say so in time.

        What a worker that is busy or down said last is repeated.
        """
        now_s = time.monotonic()
        asked = [
            worker
            for worker in self._workers
            if worker.is_ready and (worker.described_s is None or now_s - worker.described_s >= _FRESH_S)
        ]
        for worker in asked:
            worker.described.clear()
            self._send(worker, messages.Describe(_MOST_LIVE_STREAMS // len(self._workers)))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                for worker in asked:
                    await worker.described.wait()
        return (
            [worker.live(self._clock(), self._log.end().position) for worker in self._workers],
            [stream for worker in self._workers for stream in worker.live_streams],
        )

    async def start(self) -> None:
        """Start the workers and return; they take over their streams in the background.

        Raises:
            StorageFormatError: A newer version wrote one of their checkpoints.
        """
        for worker in self._workers:
            check_format(self._checkpoint_path(worker))
        names = [worker.cursor_name for worker in self._workers]
        stored = await self._state.read(lambda c: [cursor(c, name) for name in names])
        for worker, position in zip(self._workers, stored, strict=True):
            worker.watermark = position or 0
        self._tasks = [asyncio.create_task(self._keep_running(worker)) for worker in self._workers]
        self._tasks += [asyncio.create_task(self._feed()), asyncio.create_task(self._write_verdicts())]

    async def stop(self, grace_s: float) -> None:
        """Let each worker write a checkpoint and end; nothing is scored that is not a whole window."""
        self._stopping.set()
        for worker in self._workers:
            self._send(worker, messages.Stop())
        runners, others = self._tasks[: len(self._workers)], self._tasks[len(self._workers) :]
        if runners:
            await asyncio.wait(runners, timeout=grace_s)
        for worker in self._workers:
            if worker.process is not None and worker.process.returncode is None:
                _logger.warning("worker_killed", worker=worker.index, reason="did not stop in time")
                worker.process.kill()
        for task in [*runners, *others]:
            task.cancel()
        await asyncio.gather(*runners, *others, return_exceptions=True)
        with contextlib.suppress(RetryableError):
            await self._write_pending()

    async def _keep_running(self, worker: Partition) -> None:
        failures = 0
        while not self._stopping.is_set():
            started_s = time.monotonic()
            try:
                await self._run(worker)
            except Exception:
                self._metrics.errors.labels("worker").inc()
                _logger.exception("worker_failed", worker=worker.index)
            worker.is_ready = False
            if self._stopping.is_set():
                return
            failures = 1 if time.monotonic() - started_s > _STABLE_AFTER_S else failures + 1
            delay_s = _RESTART_DELAYS_S[min(failures, len(_RESTART_DELAYS_S)) - 1]
            worker.restart_count += 1
            self._metrics.worker_restarts.inc()
            code = worker.process.returncode if worker.process is not None else None
            _logger.error("worker_ended", worker=worker.index, exit_code=code, restart_in_s=delay_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    async def _run(self, worker: Partition) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "driftlock_otlp.worker.process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=64 << 20,
        )
        worker.process = process
        worker.told_end = 0
        try:
            self._send(
                worker,
                messages.Start(
                    config_json=self._config.model_dump_json(
                        exclude={"exporters", "forward", "events", "webhooks", "supabase"}
                    ),
                    log_directory=str(self._log_directory),
                    checkpoint_path=str(self._checkpoint_path(worker)),
                    index=worker.index,
                    count=len(self._workers),
                    position=worker.watermark,
                ),
            )
            if self._stopping.is_set():
                self._send(worker, messages.Stop())
            assert process.stdout is not None  # noqa: S101 - opened as a pipe above
            while True:
                try:
                    (size,) = messages.LENGTH.unpack(await process.stdout.readexactly(messages.LENGTH.size))
                    message = messages.decode_for_service(await process.stdout.readexactly(size))
                except (asyncio.IncompleteReadError, ConnectionResetError):
                    break
                self._take(worker, message)
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _checkpoint_path(self, worker: Partition) -> Path:
        return checkpoint_path(self._config.queue.path, worker.index, len(self._workers))

    def _take(self, worker: Partition, message: messages.ToService) -> None:
        if isinstance(message, messages.Streams):
            worker.live_streams, worker.described_s = message.streams, time.monotonic()
            worker.described.set()
            return
        if isinstance(message, messages.Ready):
            worker.is_ready = True
            worker.checkpoint = message.position
            worker.read_position = message.position
            worker.streams, worker.warming_up = dict(message.streams), message.warming_up
            self._show_streams()
            _logger.info(
                "worker_ready",
                worker=worker.index,
                position=message.position,
                stream_count=sum(worker.streams.values()),
            )
            if message.learning_anew:
                _logger.warning(
                    "streams_learn_anew",
                    worker=worker.index,
                    count=len(message.learning_anew),
                    examples=message.learning_anew[:5],
                    reason="detection settings or the compressor changed since the last run",
                )
            return
        worker.read_position = message.read_position
        worker.pending.append(message)
        self._has_news.set()

    async def _feed(self) -> None:
        """Tell workers how far the log is durable; let time pass for them when nothing comes."""
        self._seen_s = time.monotonic()
        while True:
            try:
                await self._feed_once()
            except Exception:
                self._metrics.errors.labels("worker").inc()
                _logger.exception("workers_not_fed")
                await asyncio.sleep(1.0)
            await asyncio.sleep(_POLL_S)

    async def _feed_once(self) -> None:
        end, now_s = self._log.end().position, time.monotonic()
        if end != self._seen_end:
            self._seen_end, self._seen_s = end, now_s
        elif now_s - self._seen_s >= self._tick_s and self.watermark < end:
            self._seen_s = now_s
            with contextlib.suppress(RetryableError):
                await self._log.append(NewEntry(None, b"", 0, self._clock()))
        for worker in self._workers:
            if worker.is_ready and worker.told_end != end:
                worker.told_end = end
                self._send(worker, messages.Advance(end))
            self._metrics.detection_lag_seconds.labels(str(worker.index)).set(worker.lag_s(self._clock(), end))

    def _send(self, worker: Partition, message: messages.ToWorker) -> None:
        process = worker.process
        if process is None or process.stdin is None or process.returncode is not None or process.stdin.is_closing():
            return
        with contextlib.suppress(ConnectionError, RuntimeError):
            process.stdin.write(messages.encode(message))

    async def _write_verdicts(self) -> None:
        while True:
            # What was not urgent is written even if nothing further comes.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_news.wait(), _QUIET_WRITE_S)
            self._has_news.clear()
            try:
                await self._write_pending()
            except RetryableError as error:
                _logger.error("verdicts_not_written", error=str(error))
                self._metrics.errors.labels("worker").inc()
                self._has_news.set()
                await asyncio.sleep(1.0)
            except Exception:
                self._metrics.errors.labels("worker").inc()
                _logger.exception("verdicts_not_written")
                self._has_news.set()
                await asyncio.sleep(1.0)
            await asyncio.sleep(_POLL_S)

    async def _write_pending(self) -> None:
        """Make what the workers said durable, then let it count."""
        batches = [(worker, list(worker.pending)) for worker in self._workers if worker.pending]
        news = [message for _, batch in batches for message in batch]
        if not news:
            return
        is_urgent = any(
            message.opened or message.ongoing or message.resolved or message.diverted or message.has_checkpoint_waiting
            for message in news
        )
        now_s = time.monotonic()
        if is_urgent or now_s - self._written_s >= _QUIET_WRITE_S or self._stopping.is_set():
            fault_points.reach("verdicts.received")
            said = [(worker.cursor_name, batch) for worker, batch in batches]
            recorded = await self._state.write(lambda connection: self._recorder.record(connection, said))
            fault_points.reach("verdicts.recorded")
            if recorded.opened:
                fault_points.reach("verdicts.opened")
            self._written_s = now_s
            self._tell(recorded)
            facts_done = True
        else:
            facts_done = False
        for worker, batch in batches:
            last = batch[-1]
            worker.watermark = max(worker.watermark, last.watermark)
            worker.checkpoint = max(worker.checkpoint, last.checkpoint)
            worker.oldest_open_unix_nano = last.oldest_open_unix_nano
            worker.streams, worker.warming_up = dict(last.streams), last.warming_up
            worker.constant = last.constant
            if facts_done:
                del worker.pending[: len(batch)]
                self._count(batch)
                self._send(worker, messages.Recorded(last.read_position))
            else:
                # What is not urgent waits for the next write, merged into one message.
                merged = _merged(batch)
                worker.pending[: len(batch)] = [merged]
        self._show_streams()

    def _tell(self, recorded: Recorded) -> None:
        self._metrics.open_anomalies.set(recorded.open_anomalies)
        self._metrics.open_incidents.set(recorded.open_incidents)
        for reason, count in recorded.spared_items.items():
            self._metrics.spared_items.labels(reason).inc(count)
        loud = {anomaly.id for _, change, anomaly in recorded.incidents if change != "resolved"}
        for anomaly in recorded.opened:
            self._metrics.anomalies.labels(anomaly.stream.kind, anomaly.severity).inc()
            if anomaly.is_suppressed:
                self._metrics.suppressed_anomalies.labels(anomaly.stream.kind).inc()
            # One that joins what is known already is told of, but nobody needs to be called for it again.
            say = _logger.warning if anomaly.id in loud else _logger.info
            say(
                "anomaly_detected",
                id=anomaly.id,
                stream=str(anomaly.stream),
                level=anomaly.level,
                severity=anomaly.severity,
                incident=anomaly.incident_id,
                is_suppressed=anomaly.is_suppressed,
                explanation=anomaly.explanation,
            )
        for incident, change, anomaly in recorded.incidents:
            if change != "resolved":
                self._metrics.incidents.labels(incident.level, change).inc()
            say = _logger.info if change == "resolved" else _logger.warning
            say(f"incident_{change}", id=incident.id, level=incident.level, anomaly=anomaly.id, title=incident.title)
        for anomaly in recorded.resolved:
            _logger.info("anomaly_resolved", id=anomaly.id, resolution=anomaly.resolution)

    def _show_streams(self) -> None:
        for kind in type(self._config.windows).model_fields:
            count = sum(worker.streams.get(kind, 0) for worker in self._workers)
            self._metrics.detection_streams.labels(kind).set(count)
        self._metrics.detection_warming_up_streams.set(sum(worker.warming_up for worker in self._workers))
        self._metrics.detection_constant_streams.set(sum(worker.constant for worker in self._workers))

    def _count(self, batch: list[messages.Progress]) -> None:
        for message in batch:
            for kind, outcome, count in message.windows:
                self._metrics.detection_windows.labels(kind, outcome).inc(count)
            for reason, count in message.unscored_items:
                self._metrics.detection_unscored_items.labels(reason).inc(count)
            for outcome, count in message.orders:
                self._metrics.detection_orders.labels(outcome).inc(count)
            self._metrics.detection_evicted_streams.inc(message.evicted_streams)


def _merged(batch: list[messages.Progress]) -> messages.Progress:
    merged = batch[-1]
    if len(batch) > 1:
        merged.windows = [item for message in batch for item in message.windows]
        merged.facts = [item for message in batch for item in message.facts]
        merged.evidence = [item for message in batch for item in message.evidence]
        merged.unscored_items = [item for message in batch for item in message.unscored_items]
        merged.orders = [item for message in batch for item in message.orders]
        merged.evicted_streams = sum(message.evicted_streams for message in batch)
    return merged
