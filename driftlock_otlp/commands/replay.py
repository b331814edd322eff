"""`replay`: score files instead of live telemetry."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from driftlock_otlp.commands.command import Command, add_config_arguments, load_config
from driftlock_otlp.commands.replay_report import print_report
from driftlock_otlp.commands.terminal import standard_error, standard_output
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.model import Anomaly, Signal, StreamKind
from driftlock_otlp.observability.version import version
from driftlock_otlp.replay.fields import FieldOptions
from driftlock_otlp.replay.formats import Format, signals
from driftlock_otlp.replay.inputs import InputFile
from driftlock_otlp.replay.outputs import event_line, replaced, write_scores
from driftlock_otlp.replay.run import recognise, replay

_DESCRIPTION = r"""Score files with the engine that scores live telemetry, on the data's own time. The same input
gives the same output. Nothing is kept but what --scores and --events write.

formats, told by the suffix (also with .gz, .zst or .xz after it) unless --format says:
  otlp-json   .json .jsonl .ndjson  OTLP/JSON requests, one a line, as the Collector's file
                                    exporter writes them, or one document
  otlp-proto  .pb .binpb .otlp      one OTLP request in protobuf, or many with a 4-byte length
                                    before each; needs --signal
  csv         .csv .tsv             a header, then one data point a row, of a metric that is named
                                    after the value's column; --signal logs: one log record a row
  text        .log .txt             one log record a line
  jsonl       .jsonl .ndjson        one JSON object a line: a log record and its attributes
A file that is not OTLP is a service of its own, named after the file.

examples:
  driftlock-otlp replay cpu.csv                          timestamp,value
  driftlock-otlp replay --value-column cpu --scores scores.csv host.csv
  driftlock-otlp replay --time-column 2 --set windows.logs.size=20 system.log
  driftlock-otlp replay --session-key 're:(blk_-?\d+)' hdfs.log
  driftlock-otlp replay logs.jsonl traces.jsonl metrics.jsonl
  zcat big.log.gz | driftlock-otlp replay --format text -

Exit code 0 whether or not there are anomalies; 1 if a file cannot be read, 2 if options are wrong."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", help="files to score; - is standard input")
    parser.add_argument(
        "--signal", choices=[signal.plural for signal in Signal], help="what the files hold, where they do not tell"
    )
    parser.add_argument("--format", choices=[format_.value for format_ in Format], help="format of all the files")
    parser.add_argument(
        "--time-column",
        metavar="C",
        help="column with the time (text: number of the field, from 1); none: the data have no time."
        " Default: timestamp, time, date, ts or @timestamp; text: none",
    )
    parser.add_argument(
        "--value-column",
        metavar="C",
        help="column with a metric's value (default: value, or the only column of numbers),"
        " or with a log record's text (default: body, message, msg, log, line or content)",
    )
    parser.add_argument(
        "--session-key",
        metavar="K",
        help="one window per value of this attribute or column; for log text also re:PATTERN, whose group, or match,"
        " is the value",
    )
    parser.add_argument(
        "--significance",
        type=float,
        metavar="P",
        help="what if windows were flagged at this p-value, in place of the configured ones: smaller is less sensitive",
    )
    parser.add_argument(
        "--scores", type=Path, metavar="FILE", help="write a CSV line per record: index, time, stream, score, p, 0 or 1"
    )
    parser.add_argument("--events", type=Path, metavar="FILE", help="write anomaly events as lines of OTLP/JSON")
    add_config_arguments(parser)


def _run(arguments: argparse.Namespace) -> int:
    options = FieldOptions(
        next((signal for signal in Signal if signal.plural == arguments.signal), None),
        arguments.time_column,
        arguments.value_column,
        arguments.session_key,
    )
    options.session_pattern()
    supposed = _significance(arguments.significance)
    config = load_config(arguments, supposed)
    compressor = new_compressor(config.detection.compressor)
    with _progress() as on_bytes, _events(arguments.events) as on_event:
        files = [InputFile(path, on_bytes.advance) for path in arguments.paths]
        formats = recognise(files, Format(arguments.format) if arguments.format else None, options)
        if options.session_attribute is not None:
            kinds = _kinds({signal for format_ in formats for signal in signals(format_, options)})
            key = json.dumps(options.session_attribute)  # quoted as YAML, too, takes it
            config = load_config(arguments, [*supposed, *(f"windows.{kind}.session_key={key}" for kind in kinds)])
        on_bytes.expect(sum(file.size_bytes for file in files))
        result = replay(files, formats, options, config, compressor, on_event)
    if arguments.scores is not None:
        with replaced(arguments.scores) as stream:
            write_scores(stream, result)
    print_report(standard_output(), result, config)
    return 0


def _significance(value: float | None) -> list[str]:
    """Return the settings of one significance for every kind of stream."""
    if value is None:
        return []
    return [f"detection.significance={value}", *(f"windows.{kind.value}.significance={value}" for kind in StreamKind)]


def _kinds(used: set[Signal]) -> list[str]:
    """Return the kinds of streams that the records of these signals go to."""
    kinds = [signal.plural for signal in Signal if signal in used]
    if used & {Signal.LOGS, Signal.TRACES}:
        kinds.append(StreamKind.GEN_AI.value)
    return kinds


class _Bytes:
    """The progress bar, by bytes; it stays away until something is expected."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._task = None if progress is None else progress.add_task("scoring", total=None, visible=False)

    def expect(self, size_bytes: int) -> None:
        """Show the bar; 0 bytes if their number is unknown."""
        if self._progress is not None and self._task is not None:
            self._progress.reset(self._task, total=size_bytes or None, visible=True)

    def advance(self, byte_count: int) -> None:
        """Say that so many bytes have been read."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, byte_count)


@contextmanager
def _progress() -> Iterator[_Bytes]:
    """Show a bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield _Bytes(None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Progress(*columns, console=standard_error(), transient=True) as progress:
        yield _Bytes(progress)


@contextmanager
def _events(path: Path | None) -> Iterator[Callable[[Anomaly], None]]:
    """Write the events of anomalies to a file, if there is to be one."""
    if path is None:
        yield lambda _: None
        return
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(replaced(path))

        def write(anomaly: Anomaly) -> None:
            stream.write(event_line(anomaly, version()))

        yield write


COMMAND = Command("replay", "score files instead of live telemetry", _DESCRIPTION, _add_arguments, _run)
