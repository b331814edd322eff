"""The file formats: how one is recognised, and who reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum

import msgspec

from driftlock_otlp.config.root import Config
from driftlock_otlp.errors import ConfigError
from driftlock_otlp.model import Signal
from driftlock_otlp.replay import otlp_files, tables
from driftlock_otlp.replay.batches import Batch, batches
from driftlock_otlp.replay.fields import FieldOptions
from driftlock_otlp.replay.inputs import STANDARD_INPUT, InputFile


class Format(Enum):
    """What the bytes of a file mean; the value is its name on the command line."""

    OTLP_JSON = "otlp-json"
    OTLP_PROTO = "otlp-proto"
    CSV = "csv"
    TEXT = "text"
    JSONL = "jsonl"

    @property
    def is_otlp(self) -> bool:
        """Whether the file says itself which services its records are of."""
        return self in (Format.OTLP_JSON, Format.OTLP_PROTO)


_BY_SUFFIX = {
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".pb": Format.OTLP_PROTO,
    ".binpb": Format.OTLP_PROTO,
    ".otlp": Format.OTLP_PROTO,
    ".log": Format.TEXT,
    ".txt": Format.TEXT,
}
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_OTLP_START = re.compile(rb'\s*\{\s*"resource(?:Logs|Metrics|Spans)"\s*:')
_MOST_SPAN_NANO = 10**9
_SPANS_PER_AGE = 10


def detect(file: InputFile) -> Format:
    """Return the format of a file by its suffix, and for JSON by how it begins.

    Raises:
        ConfigError: Nothing tells it.
        InputError: The file cannot be read.
    """
    known = ", ".join(format_.value for format_ in Format)
    if file.name == STANDARD_INPUT:
        raise ConfigError(f"standard input has no suffix that tells its format: add --format with one of {known}")
    if file.suffix in _BY_SUFFIX:
        return _BY_SUFFIX[file.suffix]
    if file.suffix not in _JSON_SUFFIXES:
        raise ConfigError(f"{file.name}: the suffix does not tell the format: add --format with one of {known}")
    head = file.head()
    if _OTLP_START.match(head.removeprefix(b"\xef\xbb\xbf")) or head[:1] == b"\0":
        return Format.OTLP_JSON
    first = next((line for line in head.splitlines() if line.strip()), b"")
    try:
        return Format.OTLP_JSON if otlp_files.signals_of(first) else Format.JSONL
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Format.JSONL


def signals(format_: Format, options: FieldOptions) -> tuple[Signal, ...]:
    """Return the signals that a file of this format may hold.

    Raises:
        ConfigError: The options ask for another one, or do not go with the format.
    """
    if format_.is_otlp:
        for value, name in ((options.time_column, "--time-column"), (options.value_column, "--value-column")):
            if value is not None:
                raise ConfigError(f"{name} is for csv, text and jsonl; {format_.value} says itself what is what")
        if options.session_pattern() is not None:
            raise ConfigError("--session-key re:… searches lines of text; for OTLP name an attribute")
        return tuple(Signal) if options.signal is None else (options.signal,)
    default = Signal.METRICS if format_ is Format.CSV else Signal.LOGS
    signal = options.signal or default
    if signal is Signal.TRACES:
        raise ConfigError(
            f"--signal traces: {format_.value} files hold no spans; traces are read from otlp-json and otlp-proto"
        )
    if signal is Signal.METRICS and format_ is Format.TEXT:
        raise ConfigError("--signal metrics: lines of text hold no numbers to score; write them as csv or jsonl")
    if signal is Signal.METRICS and options.session_pattern() is not None:
        raise ConfigError("--session-key re:… searches log records' text; for metrics name a column")
    return (signal,)


def read(file: InputFile, format_: Format, options: FieldOptions, config: Config) -> Iterator[Batch]:
    """Yield the records of a file as OTLP requests, in the order in which they are to be scored.

    Raises:
        ConfigError: The options do not go with the file.
        InputError: The file cannot be read, or something in it is not what it should be.
    """
    span_nano = _span_nano(config)
    with file.open() as stream:
        if format_ is Format.OTLP_JSON:
            yield from otlp_files.json_batches(file, stream, options.signal, span_nano)
            return
        if format_ is Format.OTLP_PROTO:
            yield from otlp_files.protobuf_batches(file, stream, options.signal, span_nano)
            return
        (signal,) = signals(format_, options)
        metric = options.value_column or "value"
        if format_ is Format.CSV:
            rows, metric = tables.csv_rows(file, stream, options)
        elif format_ is Format.JSONL:
            rows = tables.json_rows(file, stream, options)
        else:
            rows = tables.text_rows(file, stream, options)
        yield from batches(rows, signal, file.stem, metric, span_nano)


def _span_nano(config: Config) -> int:
    """Return how far apart rows of one request may be, so that windows close close to their age."""
    youngest = min(config.window(kind).max_age for kind in type(config.windows).model_fields)
    return min(_MOST_SPAN_NANO, int(youngest * 1e9) // _SPANS_PER_AGE)
