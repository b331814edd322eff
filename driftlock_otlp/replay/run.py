"""Drives the scoring engine over files, and keeps a score for each of their records.

Records of OTLP files belong together as the services in them say: all OTLP files of one run are
read side by side, by time. Every other file is a service of its own, and is scored alone. So a
file gets the same scores whichever files are given beside it.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import Compressor
from driftlock_otlp.errors import ConfigError
from driftlock_otlp.model import Anomaly, StreamKey
from driftlock_otlp.replay.batches import Batch
from driftlock_otlp.replay.fields import FieldOptions
from driftlock_otlp.replay.formats import Format, detect, read, signals
from driftlock_otlp.replay.inputs import STANDARD_INPUT, InputFile
from driftlock_otlp.replay.summary import Found, Summary
from driftlock_otlp.windowing.scoring import StreamScoring
from driftlock_otlp.windowing.verdicts import RecordScores, Verdicts

NO_STREAM = -1
"""Stream number of a record that belongs to no window."""


@dataclass(slots=True)
class FileScores:
    """The score of every record of one file, in its order.

    Attributes:
        times_unix_nano: Event times; 0 where there is none.
        streams: Number of each record's stream in `Replay.streams`; `NO_STREAM` for none.
        scores: [0, 1]; 0 for records that were not scored.
        p_values: Of each record's window; 1 for records that were not scored.
        anomalous: 1 where the window belongs to an anomaly.
    """

    times_unix_nano: array[int] = field(default_factory=lambda: array("Q"))
    streams: array[int] = field(default_factory=lambda: array("i"))
    scores: array[float] = field(default_factory=lambda: array("d"))
    p_values: array[float] = field(default_factory=lambda: array("d"))
    anomalous: bytearray = field(default_factory=bytearray)

    def add_rows(self, times_unix_nano: Sequence[int]) -> None:
        """Add records that have no score yet."""
        count = len(times_unix_nano)
        self.times_unix_nano.extend(times_unix_nano)
        self.streams.extend([NO_STREAM] * count)
        self.scores.extend([0.0] * count)
        self.p_values.extend([1.0] * count)
        self.anomalous.extend(bytes(count))


@dataclass(slots=True)
class Replay:
    """What a run found.

    Attributes:
        files: Scores, file by file in the order in which they were given.
        streams: Every stream, by its number.
        summary: Windows and anomalies per stream.
        unscored_items: Records that no window took, by reason.
    """

    files: list[FileScores] = field(default_factory=list)
    streams: list[StreamKey] = field(default_factory=list)
    summary: Summary = field(default_factory=Summary)
    unscored_items: dict[str, int] = field(default_factory=dict)

    def index(self, file: int, row: int) -> int:
        """Return the number of a record over all files, from 0, by its row in one of them."""
        return sum(len(scores.scores) for scores in self.files[:file]) + row

    @property
    def record_count(self) -> int:
        """Number of records in all files."""
        return sum(len(scores.scores) for scores in self.files)


def recognise(files: Sequence[InputFile], given: Format | None, options: FieldOptions) -> list[Format]:
    """Return the format of each file.

    Raises:
        ConfigError: A file's format is not to be told, or the options do not go with it.
        InputError: A file cannot be read.
    """
    if sum(file.name == STANDARD_INPUT for file in files) > 1:
        raise ConfigError("standard input (-) can be read only once")
    formats = [given or detect(file) for file in files]
    for format_ in formats:
        signals(format_, options)
    return formats


def replay(
    files: Sequence[InputFile],
    formats: Sequence[Format],
    options: FieldOptions,
    config: Config,
    compressor: Compressor,
    on_event: Callable[[Anomaly], None] = lambda _: None,
) -> Replay:
    """Score the records of files on the data's own time; the same input gives the same output.

    Args:
        files: What to read.
        formats: The format of each.
        options: How to read them.
        config: Windows and detection.
        compressor: Judges order and structure.
        on_event: Called with each anomaly when it begins, and again when it has ended.

    Raises:
        ConfigError: The options do not go with a file.
        InputError: A file cannot be read, or something in it is not what it should be.
    """
    result = Replay(files=[FileScores() for _ in files])
    for group in _groups(formats):
        readers = [(number, read(files[number], formats[number], options, config)) for number in group]
        _Run(result, StreamScoring(config, compressor, with_records=True), on_event).score(readers)
    return result


def _groups(formats: Sequence[Format]) -> list[list[int]]:
    """Return which files are scored together, by number."""
    groups: list[list[int]] = []
    otlp: list[int] | None = None
    for number, format_ in enumerate(formats):
        if format_.is_otlp and otlp is not None:
            otlp.append(number)
            continue
        groups.append([number])
        if format_.is_otlp:
            otlp = groups[-1]
    return groups


class _Run:
    """One pass of the engine over files that are scored together."""

    def __init__(self, result: Replay, scoring: StreamScoring, on_event: Callable[[Anomaly], None]) -> None:
        self._result = result
        self._scoring = scoring
        self._on_event = on_event
        self._stream_numbers: dict[StreamKey, int] = {}
        self._open: dict[str, Found] = {}
        # By position: the file, and where the rows of its items begin in _rows.
        self._file_of: array[int] = array("i")
        self._rows_from: array[int] = array("q")
        self._rows: array[int] = array("q")

    def score(self, readers: Sequence[tuple[int, Iterator[Batch]]]) -> None:
        """Score everything that the readers of these files yield."""
        clock = 0
        for number, batch in _by_time(readers):
            self._result.files[number].add_rows(batch.row_times_unix_nano)
            if not batch.payload:
                continue
            clock = max(clock, batch.clock_unix_nano)
            position = len(self._file_of)
            self._file_of.append(number)
            self._rows_from.append(len(self._rows))
            self._rows.extend(batch.item_rows)
            self._take(self._scoring.feed(batch.signal, batch.payload, position, clock))
        self._take(self._scoring.flush())

    def _take(self, verdicts: Verdicts) -> None:
        for records in verdicts.records:
            self._keep_scores(records)
        for facts in verdicts.facts:
            self._result.summary.add_window(facts)
        for anomaly in verdicts.opened:
            self._open[anomaly.id] = self._result.summary.add_anomaly(anomaly)
            self._on_event(anomaly)
        for position, ranges in verdicts.diverted.items():
            rows_from = self._rows_from[position]
            for items in ranges:
                last = rows_from + items.first + items.count - 1
                if items.anomaly_id in self._open:
                    self._open[items.anomaly_id].add_records(
                        self._file_of[position], self._rows[rows_from + items.first], self._rows[last]
                    )
        for anomaly_id, at_unix_nano, resolution in verdicts.resolved:
            found = self._open.pop(anomaly_id, None)
            if found is not None:
                found.resolve(at_unix_nano, resolution)
                self._on_event(found.anomaly)
        for reason, count in verdicts.unscored_items.items():
            self._result.unscored_items[reason] = self._result.unscored_items.get(reason, 0) + count

    def _keep_scores(self, records: RecordScores) -> None:
        stream = self._stream_numbers.get(records.stream)
        if stream is None:
            stream = self._stream_numbers[records.stream] = len(self._result.streams)
            self._result.streams.append(records.stream)
        for position, item, score in zip(records.positions, records.items, records.scores, strict=True):
            scores = self._result.files[self._file_of[position]]
            row = self._rows[self._rows_from[position] + item]
            scores.streams[row] = stream
            scores.scores[row] = score
            scores.p_values[row] = records.p_value
            scores.anomalous[row] = records.is_anomalous


def _by_time(readers: Sequence[tuple[int, Iterator[Batch]]]) -> Iterator[tuple[int, Batch]]:
    """Merge what several files yield by their clocks; of one time, in the order of the files."""

    def numbered(number: int, reader: Iterator[Batch]) -> Iterator[tuple[int, Batch]]:
        for batch in reader:
            yield number, batch

    return heapq.merge(*(numbered(*pair) for pair in readers), key=lambda pair: pair[1].clock_unix_nano)
