"""Which field of a row means what: its time, text, severity, trace, value and session."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from driftlock_otlp.errors import ConfigError, InputError
from driftlock_otlp.model import Signal
from driftlock_otlp.replay.batches import Row, Scalar
from driftlock_otlp.replay.times import parse_time

TIME_NAMES = ("timestamp", "time", "date", "ts", "@timestamp")
"""Columns taken for the time, first come first served; in any case."""

BODY_NAMES = ("body", "message", "msg", "log", "line", "content")
"""Columns taken for a log record's text."""

SEVERITY_NAMES = ("level", "severity", "severitytext", "severity_text")
"""Columns taken for a log record's severity."""

VALUE_NAME = "value"
"""Column taken for a metric's value."""

NO_TIME = "none"
"""`--time-column none`: the data have no time, whatever their columns are called."""

SESSION_ATTRIBUTE = "session"
"""Attribute that holds what a `re:` session key finds."""

_PATTERN_PREFIX = "re:"
_NO_VALUE = {"", "na", "n/a", "nan", "null", "none", "-"}
_IDENTIFIER_BYTES = {"traceid": 16, "spanid": 8}


@dataclass(frozen=True, slots=True)
class FieldOptions:
    """How the user says a file is to be read.

    Attributes:
        signal: What its rows are; None leaves it to the format.
        time_column: Column with the time, `none` for no time; None: guess by `TIME_NAMES`.
        value_column: Column with a metric's value or a log record's text; None: guess.
        session_key: Attribute that tells sessions apart, or `re:` and a regular expression that
            is searched in log records' text; None: no sessions.
    """

    signal: Signal | None = None
    time_column: str | None = None
    value_column: str | None = None
    session_key: str | None = None

    @property
    def session_attribute(self) -> str | None:
        """Name of the attribute that `windows.<kind>.session_key` is set to."""
        if self.session_key and self.session_key.startswith(_PATTERN_PREFIX):
            return SESSION_ATTRIBUTE
        return self.session_key

    def session_pattern(self) -> re.Pattern[str] | None:
        """Return the compiled regular expression of a `re:` session key.

        Raises:
            ConfigError: It is not a regular expression, or has more than one group.
        """
        if not self.session_key or not self.session_key.startswith(_PATTERN_PREFIX):
            return None
        text = self.session_key.removeprefix(_PATTERN_PREFIX)
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise ConfigError(f"--session-key: {text!r} is not a regular expression: {error}") from None
        if not text or pattern.groups > 1:
            raise ConfigError(
                r"--session-key: write one regular expression with at most one group, as 're:(blk_-?\d+)'"
            )
        return pattern


def find_column(names: Iterable[str], wanted: Iterable[str]) -> str | None:
    """Return the first of `wanted` that is among `names`, spelled as there; case does not matter."""
    by_lower: dict[str, str] = {}
    for name in names:
        by_lower.setdefault(name.lower(), name)
    return next((by_lower[name.lower()] for name in wanted if name.lower() in by_lower), None)


def read_time(text: str, place: str) -> int:
    """Return the time in Unix nanoseconds.

    Args:
        text: The time.
        place: File and line, for the message.

    Raises:
        InputError: It is not a time.
    """
    try:
        return parse_time(text)
    except ValueError as error:
        raise InputError(
            f"{place}: {text!r} is not a time: {error}. Name the column that holds the time with --time-column,"
            f" or ignore times with --time-column {NO_TIME}"
        ) from None


def read_value(value: Scalar | None, column: str, place: str) -> float | None:
    """Return a data point's value; None where it is missing or not finite.

    Raises:
        InputError: It is not a number.
    """
    if value is None:
        return None
    if isinstance(value, str) and value.strip().lower() in _NO_VALUE:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise InputError(
            f"{place}: {value!r} in column {column!r} is not a number; choose the column with --value-column"
        ) from None
    return number if math.isfinite(number) else None


def is_number(text: str) -> bool:
    """Return whether a text is a number, or stands for a missing one.

    >>> is_number("1e-3"), is_number("12a")
    (True, False)
    """
    try:
        float(text)
    except ValueError:
        return text.strip().lower() in _NO_VALUE
    return True


def set_identifier(row: Row, key: str, value: Scalar) -> bool:
    """Set the row's trace or span id if this field holds one; return whether it does."""
    size = _IDENTIFIER_BYTES.get(key.replace("_", "").lower())
    if size is None or not isinstance(value, str) or len(value) != 2 * size:
        return False
    try:
        identifier = bytes.fromhex(value)
    except ValueError:
        return False
    if len(identifier) != size:
        return False
    if size == _IDENTIFIER_BYTES["traceid"]:
        row.trace_id = identifier
    else:
        row.span_id = identifier
    return True


def set_session(row: Row, pattern: re.Pattern[str] | None) -> None:
    """Add what a `re:` session key finds in the row's text."""
    match = pattern.search(row.body) if pattern is not None and row.body else None
    if match is not None and pattern is not None:
        row.attributes[SESSION_ATTRIBUTE] = match[pattern.groups] or ""
