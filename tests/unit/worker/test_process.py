"""A worker without its process: what it says, and what it keeps."""

from __future__ import annotations

import io
import math
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from driftlock_otlp.config.root import Config
from driftlock_otlp.model import NewEntry, Signal, StreamKey
from driftlock_otlp.orders import Feedback, Order, Sensitivity, encode
from driftlock_otlp.storage import segments
from driftlock_otlp.storage.log import SegmentLog
from driftlock_otlp.worker import messages
from driftlock_otlp.worker.checkpoint import Checkpoint
from driftlock_otlp.worker.process import Worker
from tests.e2e.traffic import Traffic
from tests.unit.worker.conftest import SIZE

SECOND = 1_000_000_000
CLOCK = 1_800_000_000 * SECOND


class Bench:
    """One worker after the other on the same log and checkpoint."""

    def __init__(self, config: Config, log: SegmentLog, directory: Path, position: int = 0) -> None:
        self.log = log
        self.checkpoint = directory / "detector.db"
        self._order = messages.Start(
            config.model_dump_json(), str(directory / "log"), str(self.checkpoint), 0, 1, position
        )
        self._traffic = Traffic()
        self._appended = 0

    def start(self, report_s: float = math.inf) -> Worker:
        """Return a new worker, as after a restart."""
        self._answers = io.BytesIO()
        return Worker(self._order, self._answers, report_s)

    def said(self) -> list[messages.ToService]:
        """Return what the worker has said since last asked."""
        data, found = self._answers.getvalue(), []
        while data:
            (size,) = messages.LENGTH.unpack(data[:4])
            found.append(messages.decode_for_service(data[4 : 4 + size]))
            data = data[4 + size :]
        self._answers.seek(0)
        self._answers.truncate()
        return found

    async def append(self, item_count: int, fault_share: float = 0.0) -> None:
        self._appended += 1
        clock = CLOCK + self._appended * SECOND // 100
        payload = self._traffic.logs(item_count, fault_share)
        await self.log.append(NewEntry(Signal.LOGS, payload, item_count, clock))

    def read_all(self, worker: Worker) -> None:
        while worker.read_until(self.log.end().position):
            pass


def test_a_worker_without_a_checkpoint_begins_where_it_is_told_and_remembers_where(
    config: Config, log: SegmentLog, tmp_path: Path
) -> None:
    bench = Bench(config, log, tmp_path, position=123)
    worker = bench.start()
    assert bench.said() == [messages.Ready(123)]
    worker.close()
    with closing(Checkpoint(bench.checkpoint)) as checkpoint:
        assert checkpoint.place() == (123, 0, 0)


async def test_progress_tells_windows_and_the_oldest_record_without_a_verdict(
    config: Config, log: SegmentLog, tmp_path: Path
) -> None:
    bench = Bench(config, log, tmp_path)
    worker = bench.start()
    await bench.append(SIZE)
    first_end = log.end().position
    await bench.append(SIZE + 3)
    bench.read_all(worker)
    progress = bench.said()[1]
    assert isinstance(progress, messages.Progress)
    assert progress.windows == [("logs", "warming_up", 1)] * 2
    assert progress.read_position == log.end().position
    assert progress.watermark == first_end
    assert progress.checkpoint == 0
    assert progress.streams == [("logs", 1)]
    assert progress.warming_up == 1
    assert progress.oldest_open_unix_nano == CLOCK + SECOND // 50
    # A clock tick is all it takes to close the rest.
    await log.append(NewEntry(None, b"", 0, CLOCK + 60 * SECOND))
    bench.read_all(worker)
    (after,) = bench.said()
    assert isinstance(after, messages.Progress)
    assert after.watermark == log.end().position
    assert after.oldest_open_unix_nano == 0
    worker.close()


async def test_a_checkpoint_waits_until_its_verdicts_are_durable(
    config: Config, log: SegmentLog, tmp_path: Path
) -> None:
    bench = Bench(config, log, tmp_path)
    worker = bench.start()
    await bench.append(SIZE)
    bench.read_all(worker)
    worker.prepare_stop()
    assert not worker.is_settled
    with closing(Checkpoint(bench.checkpoint)) as checkpoint:
        assert checkpoint.place() == (0, 0, 0)
    worker.confirm(log.end().position - 1)
    assert not worker.is_settled
    bench.said()
    worker.confirm(log.end().position)
    assert worker.is_settled
    (told,) = bench.said()
    assert isinstance(told, messages.Progress)
    assert told.checkpoint == log.end().position
    worker.close()
    assert bench.start()
    assert bench.said() == [messages.Ready(log.end().position, [("logs", 1)], 1)]


async def test_a_worker_that_dies_unconfirmed_says_everything_again(
    config: Config, log: SegmentLog, tmp_path: Path
) -> None:
    bench = Bench(config, log, tmp_path)
    worker = bench.start()
    for _ in range(40):
        await bench.append(SIZE)
    for _ in range(4):
        await bench.append(SIZE, fault_share=1.0)
    bench.read_all(worker)
    first = bench.said()[1:]
    worker.prepare_stop()
    worker.close()
    again = bench.start()
    bench.read_all(again)
    second = bench.said()[1:]
    for message in first + second:
        assert isinstance(message, messages.Progress)
        message.has_checkpoint_waiting = False  # The first one falls due after half a second, wherever it then is.
    assert second == first
    assert any(isinstance(message, messages.Progress) and message.facts for message in first)
    again.close()


async def test_a_restart_from_a_checkpoint_says_what_an_undisturbed_worker_says(
    config: Config, log: SegmentLog, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    disturbed = Bench(config, log, tmp_path)
    undisturbed = Bench(config, log, tmp_path)
    undisturbed._order.checkpoint_path = str(tmp_path / "other" / "detector.db")
    worker, reference = disturbed.start(), undisturbed.start()
    for turn in range(60):
        await disturbed.append(SIZE - 1, fault_share=1.0 if turn >= 50 else 0.0)
        disturbed.read_all(worker)
        undisturbed.read_all(reference)
        if turn in (7, 30, 52):
            worker.prepare_stop()
            worker.confirm(log.end().position)
            worker.close()
            before = [m for m in disturbed.said() if isinstance(m, messages.Progress) and m.windows]
            worker = disturbed.start()
            disturbed.said()
            reference_said = [m for m in undisturbed.said() if isinstance(m, messages.Progress) and m.windows]
            assert [m.facts for m in before] == [m.facts for m in reference_said]
    tail = [m for m in disturbed.said() if isinstance(m, messages.Progress)]
    reference_tail = [m for m in undisturbed.said() if isinstance(m, messages.Progress)]
    assert [(m.facts, m.opened, m.diverted) for m in tail] == [(m.facts, m.opened, m.diverted) for m in reference_tail]
    worker.close()
    reference.close()


async def test_orders_take_effect_at_their_place_in_the_log_also_after_a_restart(
    config: Config, log: SegmentLog, tmp_path: Path
) -> None:
    stream = StreamKey("logs", Traffic().service)
    bench = Bench(config, log, tmp_path)

    async def order(given: Order) -> None:
        bench._appended += 1
        clock = CLOCK + bench._appended * SECOND // 100
        await log.append(NewEntry(None, encode(given), 0, clock))

    worker = bench.start()
    for turn in range(50):
        await bench.append(SIZE, fault_share=1.0 if turn >= 46 else 0.0)
    bench.read_all(worker)
    worker.prepare_stop()
    worker.confirm(log.end().position)
    worker.close()
    opened = [anomaly for m in bench.said() if isinstance(m, messages.Progress) for anomaly in m.opened]
    assert len(opened) == 1
    await order(Feedback(stream, opened[0].id, "false_alarm"))
    await bench.append(4 * SIZE, fault_share=1.0)
    await order(Feedback(stream, "another", "confirmed"))
    await order(Sensitivity(StreamKey("logs", "nobody"), 0.1))
    await order(Sensitivity(StreamKey("nothing", "x"), 0.1))
    await log.append(NewEntry(None, b"\xff", 0, CLOCK))
    told = []
    for _ in range(2):
        worker = bench.start()
        bench.said()
        bench.read_all(worker)
        worker.close()
        progress = [m for m in bench.said() if isinstance(m, messages.Progress)]
        told.append([(m.opened, m.resolved, m.diverted, m.facts, m.orders) for m in progress])
    assert told[0] == told[1]
    ((nothing_opened, resolved, diverted, facts, orders),) = told[0]
    assert (nothing_opened, diverted) == ([], [])
    assert [(anomaly_id, how) for anomaly_id, _, how in resolved] == [(opened[0].id, "dismissed")]
    assert {fact.outcome for fact in facts} == {"clean"}
    assert Counter(outcome for outcome, count in orders for _ in range(count)) == {
        "obeyed": 1,
        "unknown": 3,
        "undecodable": 1,
    }


async def test_what_the_disk_has_damaged_is_counted_and_passed_over(
    config: Config, log: SegmentLog, tmp_path: Path
) -> None:
    bench = Bench(config, log, tmp_path)
    worker = bench.start()
    await log.append(NewEntry(Signal.LOGS, b"\xff\xff", 4, CLOCK))
    await bench.append(SIZE)
    with segments.segment_path(tmp_path / "log", 0).open("r+b") as file:
        file.seek(segments.SEGMENT_HEADER_BYTES + segments.RECORD_HEADER_BYTES)
        file.write(b"\0")
    bench.read_all(worker)
    counts = [message for message in bench.said() if isinstance(message, messages.Progress)]
    assert [count for message in counts for count in message.unscored_items] == [("damaged", 4)]
    assert [count for message in counts for count in message.windows] == [("logs", "warming_up", 1)]
    assert counts[-1].watermark == log.end().position


async def test_a_request_that_cannot_be_scored_is_counted_and_passed_over(
    config: Config, log: SegmentLog, tmp_path: Path
) -> None:
    bench = Bench(config, log, tmp_path)
    worker = bench.start()
    await log.append(NewEntry(Signal.LOGS, b"\xff\xff damaged", 4, CLOCK))
    await bench.append(SIZE)
    bench.read_all(worker)
    progress = bench.said()[1]
    assert isinstance(progress, messages.Progress)
    assert progress.unscored_items == [("undecodable", 4)]
    assert progress.windows == [("logs", "warming_up", 1)]
    assert progress.watermark == log.end().position
    worker.close()


async def test_an_unexpected_error_costs_one_request_and_not_the_worker(
    config: Config, log: SegmentLog, tmp_path: Path
) -> None:
    bench = Bench(config, log, tmp_path)
    worker = bench.start()
    feed, failures = worker._scoring.feed, iter([ValueError("told to fail")])

    def failing(*arguments: object) -> object:
        for error in failures:
            raise error
        return feed(*arguments)

    worker._scoring.feed = failing  # type: ignore[method-assign]
    await bench.append(3)
    await bench.append(SIZE)
    bench.read_all(worker)
    progress = bench.said()[1]
    assert isinstance(progress, messages.Progress)
    assert progress.unscored_items == [("error", 3)]
    assert progress.windows == [("logs", "warming_up", 1)]
    worker.close()


async def test_what_takes_long_to_score_is_told_of_in_parts(config: Config, log: SegmentLog, tmp_path: Path) -> None:
    bench = Bench(config, log, tmp_path)
    worker = bench.start(report_s=0.0)
    for _ in range(3):
        await bench.append(SIZE)
    bench.read_all(worker)
    told = [message.read_position for message in bench.said() if isinstance(message, messages.Progress)]
    assert len(set(told)) == 3
    assert told[-1] == log.end().position
    worker.close()


async def test_an_idle_worker_writes_the_checkpoint_that_fell_due(
    config: Config, log: SegmentLog, tmp_path: Path
) -> None:
    bench = Bench(config, log, tmp_path)
    worker = bench.start()
    await bench.append(SIZE)
    bench.read_all(worker)
    worker.confirm(log.end().position)
    worker._checkpoint_due_s = time.monotonic() + 60.0
    worker.report_idle()
    assert worker.checkpoint_wait_s() > 30.0
    with closing(Checkpoint(bench.checkpoint)) as checkpoint:
        assert checkpoint.place() == (0, 0, 0)
    worker._checkpoint_due_s = 0.0
    bench.said()
    worker.report_idle()
    with closing(Checkpoint(bench.checkpoint)) as checkpoint:
        assert checkpoint.place() == (log.end().position, CLOCK + SECOND // 100, CLOCK + SECOND // 100)
    (told,) = bench.said()
    assert isinstance(told, messages.Progress)
    assert told.checkpoint == log.end().position
    worker.close()


async def test_a_checkpoint_falls_due_when_it_holds_much_of_the_log(
    config: Config, log: SegmentLog, tmp_path: Path
) -> None:
    await (bench := Bench(config, log, tmp_path)).append(SIZE)
    quarter = log.end().position
    small = config.model_copy(update={"queue": config.queue.model_copy(update={"max_bytes": 4 * quarter})})
    bench = Bench(small, log, tmp_path)
    worker = bench.start()
    worker._checkpoint_due_s = time.monotonic() + 60.0
    worker._kept_s -= 60.0  # The last one is a while ago.
    bench.read_all(worker)
    worker.confirm(log.end().position)
    with closing(Checkpoint(bench.checkpoint)) as checkpoint:
        assert (checkpoint.place() or (0,))[0] == quarter
    # The next one comes at a distance, also when the log is full and nothing further comes.
    await bench.append(SIZE)
    worker._checkpoint_due_s = time.monotonic() + 60.0
    bench.read_all(worker)
    assert 0.0 < worker.checkpoint_wait_s() <= 0.5
    worker._kept_s -= 0.5
    worker.report_idle()
    worker.confirm(log.end().position)
    with closing(Checkpoint(bench.checkpoint)) as checkpoint:
        assert (checkpoint.place() or (0,))[0] == log.end().position
    worker.close()


async def test_a_worker_says_how_its_streams_are_when_it_is_asked(
    config: Config, log: SegmentLog, tmp_path: Path
) -> None:
    bench = Bench(config, log, tmp_path)
    worker = bench.start()
    await bench.append(2 * SIZE + 3)
    bench.read_all(worker)
    bench.said()
    worker.describe(10)
    (answer,) = bench.said()
    assert isinstance(answer, messages.Streams)
    (stream,) = answer.streams
    assert (stream.key.kind, stream.window_size, stream.open_window_count, stream.open_record_count) == (
        "logs",
        SIZE,
        1,
        3,
    )
    assert (stream.window_count, stream.baseline_window_count, stream.last_outcome) == (2, 2, "warming_up")
    # 12 windows of baseline and 20 of calibration, of which two have come.
    assert stream.windows_to_warm == 12 + 20 - 2
    worker.describe(0)
    assert bench.said() == [messages.Streams([])]
    worker.close()


async def test_a_worker_that_starts_again_says_at_once_what_it_has_taken_over(
    config: Config, log: SegmentLog, tmp_path: Path
) -> None:
    bench = Bench(config, log, tmp_path)
    worker = bench.start()
    await bench.append(SIZE)
    bench.read_all(worker)
    worker.prepare_stop()
    worker.confirm(log.end().position)
    worker.close()
    again = bench.start()
    (ready,) = bench.said()
    assert isinstance(ready, messages.Ready)
    assert (ready.streams, ready.warming_up) == ([("logs", 1)], 1)
    again.close()
