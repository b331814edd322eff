"""A detection worker: the whole of the child process.

It reads the durable log on its own, up to where the service says that entries are durable,
and answers with verdicts. Standard input carries orders, standard output answers, standard
error log lines. It ends when its input ends, so it never outlives the service.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import structlog

from driftlock_otlp.config import Config
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.errors import DecodeError
from driftlock_otlp.observability.logging import configure_logging
from driftlock_otlp.storage.log_reader import LogReader
from driftlock_otlp.windowing.scoring import StreamScoring, Verdicts
from driftlock_otlp.worker import messages
from driftlock_otlp.worker.checkpoint import Checkpoint

_CHUNK_BYTES = 2 << 20
_CHECKPOINT_INTERVAL_S = 10.0

_logger = structlog.get_logger(__name__)


class Worker:
    """Scores one partition of the streams.

    Args:
        start: The order to start.
        answers: Where messages to the service are written.
    """

    def __init__(self, start: messages.Start, answers: BinaryIO) -> None:
        config = Config.model_validate_json(start.config_json)
        self._answers = answers
        self._reader = LogReader(Path(start.log_directory))
        self._checkpoint = Checkpoint(Path(start.checkpoint_path))
        self._scoring = StreamScoring(config, new_compressor(config.detection.compressor), (start.index, start.count))
        place = self._checkpoint.place()
        self._position = place[0] if place else start.position
        self._checkpoint_position = self._position
        self._checkpoint_due_s = time.monotonic() + _CHECKPOINT_INTERVAL_S
        anew = self._scoring.restore(place[1], self._checkpoint.states()) if place else []
        self._send(messages.Ready(self._position, sum(self._scoring.stream_counts().values()), anew))

    def read_until(self, end: int) -> bool:
        """Score one chunk of the entries before `end`; return whether there is more."""
        entries = self._reader.read(self._position, _CHUNK_BYTES, end)
        verdicts: list[Verdicts] = []
        for entry in entries:
            new = entry.entry
            if new.signal is None:
                verdicts.append(self._scoring.advance(new.received_unix_nano))
            else:
                try:
                    verdicts.append(
                        self._scoring.feed(
                            new.signal, new.payload, entry.position, new.received_unix_nano, new.tenant
                        )
                    )
                except DecodeError as error:
                    # The receiver decodes before it appends, so this is a damaged record.
                    _logger.error("record_undecodable", position=entry.position, error=str(error))
                    verdicts.append(Verdicts())
                    verdicts[-1].unscored_items["undecodable"] += new.item_count
            self._position = entry.next_position
        if not entries:
            self._position = max(self._position, end)
        if time.monotonic() >= self._checkpoint_due_s:
            self.write_checkpoint()
        self._report(verdicts)
        return self._position < end

    def write_checkpoint(self) -> None:
        """Make everything learned so far durable."""
        self._checkpoint_due_s = time.monotonic() + _CHECKPOINT_INTERVAL_S
        if self._position == self._checkpoint_position:
            return
        changed = self._scoring.take_changed()
        self._checkpoint.write(
            self._position,
            self._scoring.clock_unix_nano,
            ((repr(key), self._scoring.stream_state(key)) for key in changed),
        )
        self._checkpoint_position = self._position

    def checkpoint_wait_s(self) -> float:
        """Return the seconds until the next checkpoint is due."""
        return max(self._checkpoint_due_s - time.monotonic(), 0.0)

    def stop(self) -> None:
        """Write a last checkpoint, tell of it, and let go."""
        self.write_checkpoint()
        self._report([])
        self._checkpoint.close()
        self._reader.close()

    def report_idle(self) -> None:
        """Write the checkpoint that fell due while nothing came."""
        before = self._checkpoint_position
        self.write_checkpoint()
        if self._checkpoint_position != before:
            self._report([])

    def _report(self, verdicts: list[Verdicts]) -> None:
        progress = messages.Progress(self._position, self._watermark(), self._checkpoint_position)
        for part in verdicts:
            progress.opened.extend(part.opened)
            progress.resolved.extend(part.resolved)
            progress.diverted.extend(part.diverted.items())
            progress.facts.extend(part.facts)
            progress.windows.extend((kind, outcome, n) for (kind, outcome), n in part.windows.items())
            progress.unscored_items.extend(part.unscored_items.items())
        progress.streams = list(self._scoring.stream_counts().items())
        progress.warming_up = self._scoring.warming_up_count()
        progress.oldest_open_unix_nano = self._scoring.oldest_opened_unix_nano() or 0
        self._send(progress)

    def _watermark(self) -> int:
        oldest = self._scoring.oldest_position()
        return self._position if oldest is None else oldest

    def _send(self, message: messages.Ready | messages.Progress) -> None:
        self._answers.write(messages.encode(message))
        self._answers.flush()


def main() -> None:
    """Run a worker until it is told to stop or its input ends."""
    # The terminal sends Ctrl-C to the whole group; when to stop is for the service to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print must not garble the answers
    orders: queue.SimpleQueue[messages.Start | messages.Advance | messages.Stop | None] = queue.SimpleQueue()
    # Unbuffered: a thread that waits in a buffered read would keep the process from ending.
    source = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    threading.Thread(target=_read_orders, args=(source, orders), daemon=True).start()
    start = orders.get()
    if not isinstance(start, messages.Start):
        return
    configure_logging(Config.model_validate_json(start.config_json).service)
    worker = Worker(start, answers)
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
                worker.stop()
                return
            if isinstance(order, messages.Advance):
                end = max(end, order.end)
                has_more = True
        if has_more:
            has_more = worker.read_until(end)


def _read_exactly(source: FileIO, size: int) -> bytes:
    """Return `size` bytes, fewer only at the end of the input."""
    data = b""
    while len(data) < size and (chunk := source.read(size - len(data))):
        data += chunk
    return data


def _read_orders(
    source: FileIO, orders: queue.SimpleQueue[messages.Start | messages.Advance | messages.Stop | None]
) -> None:
    while len(head := _read_exactly(source, messages.LENGTH.size)) == messages.LENGTH.size:
        (size,) = messages.LENGTH.unpack(head)
        orders.put(messages.decode_for_worker(_read_exactly(source, size)))
    orders.put(None)


if __name__ == "__main__":
    main()
