"""Rows of files that are not OTLP: CSV with a header, lines of text, and lines of JSON objects."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec

from driftlock_otlp.errors import ConfigError, InputError
from driftlock_otlp.model import Signal
from driftlock_otlp.replay.batches import Row, Scalar
from driftlock_otlp.replay.fields import (
    BODY_NAMES,
    NO_TIME,
    SEVERITY_NAMES,
    TIME_NAMES,
    VALUE_NAME,
    FieldOptions,
    find_column,
    is_number,
    read_time,
    read_value,
    set_identifier,
    set_session,
)
from driftlock_otlp.replay.inputs import InputFile, lines

_DELIMITERS = ",;\t|"
_PROBE_ROWS = 50
_MAX_FIELD_CHARS = 16 << 20
_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,18})")  # not 007, which is a name
_DECIMAL = re.compile(r"-?\d+\.\d*(?:[eE][+-]?\d{1,3})?")
_WORDS_FOR_TRUTH = {"true": True, "false": False}


def text_rows(file: InputFile, stream: BinaryIO, options: FieldOptions) -> Iterator[Row]:
    """Yield one row per line, an empty one for a blank line.

    Raises:
        ConfigError: The options do not go with text.
        InputError: A line has no time where it should.
    """
    pattern = options.session_pattern()
    if options.session_key and pattern is None:
        raise ConfigError(
            f"--session-key {options.session_key}: lines of text have no fields; give a regular expression to search"
            r" in each line, as --session-key 're:(blk_-?\d+)'"
        )
    if options.value_column is not None:
        raise ConfigError("--value-column: lines of text have no columns; leave it out")
    time_field = _text_time_field(options.time_column)
    for number, line in lines(file, stream):
        text = line.decode("utf-8", "replace")
        row = Row()
        if text.strip():
            if time_field is not None:
                row.time_unix_nano, text = _cut_time(text, time_field, f"{file.shown}:{number}")
            row.body = text
            set_session(row, pattern)
        yield row


def _text_time_field(column: str | None) -> int | None:
    if column is None or column == NO_TIME:
        return None
    if not column.isdecimal() or int(column) < 1:
        raise ConfigError(
            f"--time-column {column}: lines of text have no named columns; give the number of the field that holds"
            " the time, counting fields between blanks from 1"
        )
    return int(column)


def _cut_time(text: str, field: int, place: str) -> tuple[int, str]:
    """Return the time in a field of a line, and the line without it: times make poor templates."""
    parts = text.split(None, field)
    if len(parts) < field:
        raise InputError(f"{place}: no field {field} (--time-column): the line has {len(parts)}")
    # What stands before the field, as it is written; blanks within a line may matter to nobody else.
    before = parts[: field - 1]
    return read_time(parts[field - 1], place), " ".join([*before, *parts[field:]])


def json_rows(file: InputFile, stream: BinaryIO, options: FieldOptions) -> Iterator[Row]:
    """Yield one row per line that holds a JSON object; blank lines are passed over.

    Raises:
        ConfigError: The options do not go with the lines.
        InputError: A line is not a JSON object, or its time or value is not one.
    """
    is_metric = options.signal is Signal.METRICS
    pattern = options.session_pattern()
    has_session = options.session_key is None or pattern is not None
    number = 0
    for number, line in lines(file, stream):
        if not line.strip():
            continue
        fields = _json_object(line, f"{file.shown}:{number}")
        has_session = has_session or options.session_key in fields
        place = f"{file.shown}:{number}"
        time_name = _time_column(fields, options)
        if options.time_column not in (None, NO_TIME) and fields.get(str(time_name)) is None:
            raise InputError(f"{place}: no field {options.time_column!r} (--time-column)")
        row = Row()
        if time_name is not None and fields[time_name] is not None:
            row.time_unix_nano = read_time(str(fields[time_name]), place)
        if is_metric:
            name = _value_column(list(fields), options, place)
            value = fields[name]
            row.value = read_value(value if _is_scalar(value) else str(value), name, place)
            if options.session_key is not None and _is_scalar(fields.get(options.session_key)):
                row.attributes[options.session_key] = fields[options.session_key]
        else:
            _set_log_fields(row, fields, _LogColumns.of(fields, time_name, options), options.session_key)
            set_session(row, pattern)
        yield row
    if not has_session and number:
        raise ConfigError(f"--session-key {options.session_key}: no line of {file.shown} has that field")


def _json_object(line: bytes, place: str) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{place}: not valid JSON: {error}; each line must hold one JSON object") from None
    if not isinstance(fields, dict):
        raise InputError(f'{place}: not a JSON object; each line must hold one, such as {{"message": "paid"}}')
    return fields


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float)


def _time_column(names: Iterable[str], options: FieldOptions) -> str | None:
    if options.time_column == NO_TIME:
        return None
    return find_column(names, TIME_NAMES if options.time_column is None else (options.time_column,))


def _value_column(names: list[str], options: FieldOptions, place: str) -> str:
    name = find_column(names, (options.value_column or VALUE_NAME,))
    if name is None:
        raise ConfigError(
            f"{place}: no field {options.value_column or VALUE_NAME!r}: name the metric's value with --value-column;"
            f" there are {', '.join(names) or 'none'}"
        )
    return name


@dataclass(frozen=True, slots=True)
class _LogColumns:
    """Names of the columns that are no attributes of a log record."""

    time: str | None
    body: str | None
    severity: str | None

    @classmethod
    def of(cls, names: Iterable[str], time: str | None, options: FieldOptions) -> _LogColumns:
        names = list(names)
        wanted = BODY_NAMES if options.value_column is None else (options.value_column,)
        return cls(time, find_column(names, wanted), find_column(names, SEVERITY_NAMES))


def _set_log_fields(row: Row, fields: Mapping[str, Any], columns: _LogColumns, session_key: str | None) -> None:
    """Fill a log record: its text, severity and ids; all other scalars are attributes."""
    for key, value in fields.items():
        if value is None or key == columns.time:
            continue
        if key == columns.body:
            row.body = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        elif key == columns.severity and _is_scalar(value):
            row.severity = str(value)
        elif _is_scalar(value) and (key == session_key or not set_identifier(row, key, value)):
            row.attributes[key] = value


def csv_rows(file: InputFile, stream: BinaryIO, options: FieldOptions) -> tuple[Iterator[Row], str]:
    """Return the rows of a CSV file, and the name of the column that holds the values of a metric.

    Raises:
        ConfigError: The options do not go with the columns.
        InputError: It has no header; later, a row does not fit it, or its time or value is not one.
    """
    reader, header = _csv_reader(file, stream)
    if options.session_key is not None and options.session_pattern() is None and options.session_key not in header:
        raise ConfigError(f"--session-key {options.session_key}: {file.shown} has the columns {', '.join(header)}")
    time_name = _time_column(header, options)
    if options.time_column not in (None, NO_TIME) and time_name is None:
        raise ConfigError(f"--time-column {options.time_column}: {file.shown} has the columns {', '.join(header)}")
    rows = _csv_records(file, reader, header)
    if options.signal is Signal.LOGS:
        columns = _LogColumns.of(header, time_name, options)
        if columns.body is None:
            raise ConfigError(
                f"{file.shown}: which column holds the text of the log records? Name it with --value-column; there"
                f" are {', '.join(header)}"
            )
        return _csv_log_rows(rows, columns, options), ""
    first = list(itertools.islice(rows, _PROBE_ROWS))
    value_name = _csv_value_column(file, header, time_name, [record for _, record in first], options)
    return _csv_metric_rows(itertools.chain(first, rows), time_name, value_name, options), value_name


_Records = Iterator[tuple[str, dict[str, str]]]


def _csv_reader(file: InputFile, stream: BinaryIO) -> tuple[Any, list[str]]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    first = text.readline()
    if not first.strip():
        raise InputError(f"{file.shown}: the first line is empty: a CSV file starts with a line of column names")
    delimiter = max(_DELIMITERS, key=first.count)
    header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter))]
    if all(is_number(name) for name in header):
        raise InputError(
            f"{file.shown}:1: {first.strip()!r} are numbers, not column names: add a header line such as"
            " timestamp,value"
        )
    if len(set(header)) < len(header):
        raise InputError(f"{file.shown}:1: two columns have the same name: {', '.join(header)}")
    return csv.reader(text, delimiter=delimiter), header


def _csv_records(file: InputFile, reader: Any, header: list[str]) -> _Records:
    """Yield place and fields of each row that is not blank."""
    try:
        for cells in reader:
            if not cells:
                continue
            place = f"{file.shown}:{reader.line_num + 1}"  # the header was read before
            if len(cells) != len(header):
                raise InputError(f"{place}: {len(cells)} cells, but the header has {len(header)} columns")
            yield place, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{file.shown}:{reader.line_num + 1}: not valid CSV: {error}") from None


def _csv_value_column(
    file: InputFile, header: list[str], time_name: str | None, first: list[dict[str, str]], options: FieldOptions
) -> str:
    name = find_column(header, (options.value_column or VALUE_NAME,))
    if name is not None:
        return name
    if options.value_column is not None:
        raise ConfigError(f"--value-column {options.value_column}: {file.shown} has the columns {', '.join(header)}")
    numeric = [
        name for name in header if name != time_name and first and all(is_number(record[name]) for record in first)
    ]
    if len(numeric) == 1:
        return numeric[0]
    raise ConfigError(
        f"{file.shown}: which column holds the metric? Name it with --value-column; there are {', '.join(header)}."
        " For log records write --signal logs"
    )


def _csv_metric_rows(records: _Records, time_name: str | None, value_name: str, options: FieldOptions) -> Iterator[Row]:
    session = options.session_key
    for place, record in records:
        time = read_time(record[time_name], place) if time_name is not None else 0
        attributes: dict[str, Scalar] = {} if session is None else {session: record[session]}
        yield Row(time, value=read_value(record[value_name], value_name, place), attributes=attributes)


def _csv_log_rows(records: _Records, columns: _LogColumns, options: FieldOptions) -> Iterator[Row]:
    pattern = options.session_pattern()
    for place, record in records:
        row = Row()
        if columns.time is not None:
            row.time_unix_nano = read_time(record[columns.time], place)
        cells = {key: cell for key, cell in record.items() if cell}
        _set_log_fields(row, cells, columns, options.session_key)
        row.attributes = {key: _csv_scalar(str(cell)) for key, cell in row.attributes.items()}
        set_session(row, pattern)
        yield row


def _csv_scalar(cell: str) -> Scalar:
    """Return the number or truth value that a cell holds, else the cell."""
    truth = _WORDS_FOR_TRUTH.get(cell.lower())
    if truth is not None:
        return truth
    if _INTEGER.fullmatch(cell):
        return int(cell)
    if _DECIMAL.fullmatch(cell):
        return float(cell)
    return cell
