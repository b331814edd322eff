"""A detection worker: the whole of the child process.

It reads the durable log on its own, up to where the service says that entries are durable,
and answers with verdicts. Standard input carries orders, standard output answers, standard
error log lines. It ends when its input ends, so it never outlives the service.

A checkpoint is written only after the service has said that every verdict before it is durable:
a worker that starts again from it must not be the only one who knew of an anomaly.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sqlite3
import sys
import threading
import time
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import structlog

from driftlock_otlp import fault_points
from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.errors import DecodeError
from driftlock_otlp.model import LogEntry, StreamKey
from driftlock_otlp.observability.logging import configure_logging
from driftlock_otlp.orders import decode as decode_order
from driftlock_otlp.storage.log_reader import LogReader
from driftlock_otlp.windowing.clock import LogClock
from driftlock_otlp.windowing.scoring import StreamScoring
from driftlock_otlp.windowing.stream_table import StreamState
from driftlock_otlp.windowing.verdicts import Verdicts
from driftlock_otlp.worker import messages
from driftlock_otlp.worker.checkpoint import Checkpoint, Place, SavedStream, decode_state, encode_state

_CHUNK_BYTES = 2 << 20
_REPORT_S = 0.25
"""Forwarding waits for verdicts, and what has not been told is lost with the process."""
_CHECKPOINT_INTERVAL_S = 10.0
_FIRST_CHECKPOINT_S = 0.5
"""The first one comes soon, and each later one after twice as long: a process that dies every few
seconds would otherwise read more of the log after each start, and never get on."""
_CHECKPOINT_SHARE = 0.25
"""A checkpoint is due, too, when so much of `queue.max_bytes` has been read since the one before: until it is written
nothing of that can be released."""
_MOST_EVICTED_WAITING = 500
"""A checkpoint is due, too, when so many streams have made room for others: until then they take as much memory."""
_EVICTED_PER_STREAM = 10
"""Evicted streams that are kept for each that can be followed."""
_LEAST_CHECKPOINT_INTERVAL_S = 0.5
"""Checkpoints come no faster, however small the log."""
_LAST_CHECKPOINT_S = 5.0
"""How long a worker that stops waits to hear that its verdicts are durable."""

_Orders = queue.SimpleQueue[messages.ToWorker | None]

_logger = structlog.get_logger(__name__)


class Worker:
    """Scores one partition of the streams.

    Args:
        start: The order to start.
        answers: Where messages to the service are written.
        report_s: A chunk that takes longer to score than this is told of in parts.
    """

    def __init__(self, start: messages.Start, answers: BinaryIO, report_s: float = _REPORT_S) -> None:
        config = Config.model_validate_json(start.config_json)
        self._answers = answers
        self._report_s = report_s
        self._is_first = start.index == 0
        self._reader = LogReader(Path(start.log_directory))
        most_streams = config.detection.max_streams
        self._checkpoint = Checkpoint(Path(start.checkpoint_path), most_streams * _EVICTED_PER_STREAM)
        self._scoring = StreamScoring(
            config,
            new_compressor(config.detection.compressor),
            (start.index, start.count),
            with_evidence=config.anomalies.evidence_max_bytes > 0,
            load=self._load,
        )
        place = self._checkpoint.place()
        if place is None:
            # Whatever happens before the first real checkpoint, a restart begins here again.
            place = Place(start.position, 0, 0)
            self._checkpoint.write(place, ())
        self._clock = LogClock(place.clock_unix_nano, place.wall_unix_nano)
        self._position = place.position
        self._checkpoint_position = self._position
        self._recorded_position = 0
        self._kept_streams: dict[str, SavedStream] = {}
        self._kept_place = place
        self._reported_checkpoint = self._position
        self._checkpoint_interval_s = _FIRST_CHECKPOINT_S
        self._checkpoint_due_s = time.monotonic() + _FIRST_CHECKPOINT_S
        self._checkpoint_bytes = int(config.queue.max_bytes * _CHECKPOINT_SHARE)
        self._kept_s = time.monotonic()
        anew = self._scoring.restore(place.clock_unix_nano, self._checkpoint.states(most_streams))
        counts = self._scoring.stream_counts()
        self._send(messages.Ready(self._position, list(counts.items()), self._scoring.warming_up_count(), anew))

    def read_until(self, end: int) -> bool:
        """Score one chunk of the entries before `end`; return whether there is more."""
        entries = self._reader.read(self._position, _CHUNK_BYTES, end)
        verdicts: list[Verdicts] = []
        fault_points.reach("worker.read")
        report_due_s = time.monotonic() + self._report_s
        for entry in entries:
            verdicts.append(self._score(entry))
            self._position = entry.next_position
            if time.monotonic() >= report_due_s:
                break
        if not entries:
            self._position = max(self._position, end)
        if not self.checkpoint_wait_s() and self.is_settled:
            self._keep()
        fault_points.reach("worker.scored")
        self._report(verdicts)
        fault_points.reach("worker.reported")
        return self._position < end

    @property
    def is_settled(self) -> bool:
        """Whether no checkpoint waits to be written."""
        return self._kept_place.position == self._checkpoint_position

    def confirm(self, position: int) -> None:
        """Take notice that every verdict before `position` is durable; write the checkpoint that waits for it."""
        self._recorded_position = max(self._recorded_position, position)
        if self._write_kept():
            self._report([])

    def _score(self, entry: LogEntry) -> Verdicts:
        new = entry.entry
        verdicts = Verdicts()
        if entry.is_damaged:
            verdicts.unscored_items["damaged"] += new.item_count
            return verdicts
        clock = self._clock.advance(new.received_unix_nano)
        try:
            if new.signal is None:
                return self._obey(entry, clock) if new.payload else self._scoring.advance(clock)
            return self._scoring.feed(new.signal, new.payload, entry.position, clock, new.tenant)
        except DecodeError as error:
            # The receiver decodes before it appends, so this is a damaged record.
            _logger.error("record_undecodable", position=entry.position, error=str(error))
            verdicts.unscored_items["undecodable"] += new.item_count
        except Exception:
            # Else this one request would stop the worker again after each restart.
            _logger.exception("record_unscorable", position=entry.position)
            verdicts.unscored_items["error"] += new.item_count
        return verdicts

    def _obey(self, entry: LogEntry, clock_unix_nano: int) -> Verdicts:
        try:
            order = decode_order(entry.entry.payload)
        except DecodeError as error:
            verdicts = self._scoring.advance(clock_unix_nano)
            _logger.error("order_undecodable", position=entry.position, error=str(error))
            verdicts.orders["undecodable"] += int(self._is_first)  # all workers read it
            return verdicts
        verdicts = self._scoring.obey(order, clock_unix_nano)
        for outcome in verdicts.orders:
            _logger.info("order_taken", position=entry.position, stream=str(order.stream), outcome=outcome)
        return verdicts

    def _keep(self) -> None:
        """Keep the state of now, to be written once the verdicts that led to it are durable."""
        self._kept_s = time.monotonic()
        self._checkpoint_interval_s = min(self._checkpoint_interval_s * 2, _CHECKPOINT_INTERVAL_S)
        self._checkpoint_due_s = self._kept_s + self._checkpoint_interval_s
        if self._position == self._kept_place.position:
            return
        for change in self._scoring.take_changes():
            name = repr(change.key)
            self._kept_streams[name] = SavedStream(name, encode_state(change.state), change.used, change.is_resident)
        self._kept_place = Place(self._position, self._clock.now_unix_nano, self._clock.wall_unix_nano)
        self._write_kept()

    def _load(self, key: StreamKey) -> StreamState | None:
        """Return the state of a stream that was evicted before."""
        name = repr(key)
        kept = self._kept_streams.get(name)
        return self._checkpoint.state(name) if kept is None else decode_state(kept.state)

    def _write_kept(self) -> bool:
        """Write the checkpoint that waits, if it may be written; return whether it was."""
        if self.is_settled or self._kept_place.position > self._recorded_position:
            return False
        try:
            self._checkpoint.write(self._kept_place, self._kept_streams.values())
        except sqlite3.OperationalError as error:
            # A full disk is no reason to start again: the log is kept, and the next attempt comes soon.
            _logger.error("checkpoint_not_written", error=str(error))
            return False
        self._checkpoint_position = self._kept_place.position
        self._kept_streams = {}
        return True

    def checkpoint_wait_s(self) -> float:
        """Return the seconds until the next checkpoint is due."""
        due_s = self._checkpoint_due_s
        is_much = self._position - self._kept_place.position >= self._checkpoint_bytes
        if is_much or self._scoring.evicted_count >= _MOST_EVICTED_WAITING:
            due_s = min(due_s, self._kept_s + _LEAST_CHECKPOINT_INTERVAL_S)
        return max(due_s - time.monotonic(), 0.0)

    def prepare_stop(self) -> None:
        """Ask for the confirmation that the last checkpoint needs."""
        self._keep()
        self._report([])

    def close(self) -> None:
        """Let go of the files."""
        self._checkpoint.close()
        self._reader.close()

    def describe(self, most: int) -> None:
        """Say how at most `most` streams are."""
        self._send(messages.Streams(self._scoring.live_streams(most)))

    def report_idle(self) -> None:
        """Prepare the checkpoint that fell due while nothing came."""
        if self.checkpoint_wait_s() or not self.is_settled:
            return
        self._keep()
        if self._position != self._reported_checkpoint:
            self._report([])

    def _report(self, verdicts: list[Verdicts]) -> None:
        progress = messages.Progress(self._position, self._watermark(), self._checkpoint_position)
        for part in verdicts:
            progress.opened.extend(part.opened)
            progress.ongoing.extend(part.ongoing)
            progress.resolved.extend(part.resolved)
            progress.diverted.extend(part.diverted.items())
            progress.facts.extend(part.facts)
            progress.evidence.extend(part.evidence)
            progress.windows.extend((kind, outcome, n) for (kind, outcome), n in part.windows.items())
            progress.unscored_items.extend(part.unscored_items.items())
            progress.orders.extend(part.orders.items())
            progress.evicted_streams += part.evicted_streams
        progress.streams = list(self._scoring.stream_counts().items())
        progress.warming_up = self._scoring.warming_up_count()
        progress.constant = self._scoring.constant_count()
        progress.oldest_open_unix_nano = self._scoring.oldest_opened_unix_nano() or 0
        progress.has_checkpoint_waiting = not self.is_settled
        self._reported_checkpoint = self._checkpoint_position
        self._send(progress)

    def _watermark(self) -> int:
        oldest = self._scoring.oldest_position()
        return self._position if oldest is None else oldest

    def _send(self, message: messages.ToService) -> None:
        self._answers.write(messages.encode(message))
        self._answers.flush()


def main() -> None:
    """Run a worker until it is told to stop or its input ends."""
    # The terminal sends Ctrl-C to the whole group; when to stop is for the service to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print must not garble the answers
    orders: _Orders = queue.SimpleQueue()
    # Unbuffered: a thread that waits in a buffered read would keep the process from ending.
    source = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    threading.Thread(target=_read_orders, args=(source, orders), daemon=True).start()
    start = orders.get()
    if not isinstance(start, messages.Start):
        return
    configure_logging(Config.model_validate_json(start.config_json).service)
    # Without a service there is nobody to answer.
    with contextlib.suppress(BrokenPipeError):
        _work(Worker(start, answers), orders)


def _work(worker: Worker, orders: _Orders) -> None:
    """Do as ordered, until told to stop or orders end."""
    end = 0
    has_more = False
    while True:
        try:
            order = orders.get_nowait() if has_more else orders.get(timeout=worker.checkpoint_wait_s() + 0.1)
        except queue.Empty:
            if not has_more:
                worker.report_idle()
        else:
            if order is None:
                return
            if isinstance(order, messages.Stop):
                _stop(worker, orders)
                return
            if isinstance(order, messages.Recorded):
                worker.confirm(order.position)
            elif isinstance(order, messages.Describe):
                worker.describe(order.most)
            elif isinstance(order, messages.Advance):
                end = max(end, order.end)
                has_more = True
            if not orders.empty():
                # Orders come faster than chunks are scored: a confirmation must not wait behind all of them.
                continue
        if has_more:
            has_more = worker.read_until(end)


def _stop(worker: Worker, orders: _Orders) -> None:
    worker.prepare_stop()
    deadline_s = time.monotonic() + _LAST_CHECKPOINT_S
    while not worker.is_settled and (left_s := deadline_s - time.monotonic()) > 0:
        try:
            order = orders.get(timeout=left_s)
        except queue.Empty:
            break
        if order is None:
            break
        if isinstance(order, messages.Recorded):
            worker.confirm(order.position)
    worker.close()


def _read_exactly(source: FileIO, size: int) -> bytes:
    """Return `size` bytes, fewer only at the end of the input."""
    data = b""
    while len(data) < size and (chunk := source.read(size - len(data))):
        data += chunk
    return data


def _read_orders(source: FileIO, orders: _Orders) -> None:
    while len(head := _read_exactly(source, messages.LENGTH.size)) == messages.LENGTH.size:
        (size,) = messages.LENGTH.unpack(head)
        orders.put(messages.decode_for_worker(_read_exactly(source, size)))
    orders.put(None)


if __name__ == "__main__":
    main()
