"""How things are shown on a terminal: tables, times, severities, and text from outside."""

from __future__ import annotations

import re
import shutil
import sys
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from driftlock_otlp.model import Anomaly, Evidence

SHORT_ID_DIGITS = 8
"""Digits of an anomaly's id that are shown, and enough to name it."""

_SEVERITY_STYLES = {"low": "cyan", "medium": "yellow", "high": "red", "critical": "bold white on red"}
_FILE_WIDTH = 140
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND = 253_402_300_799
# Telemetry may hold escape sequences that would command the terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
_BYTE_UNITS = ("B", "KiB", "MiB", "GiB")


class _Output(Console):
    """Leaves a reader that went away to the caller, who knows that this is no failure."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - called while BrokenPipeError is handled


def standard_output() -> Console:
    """Return a console on standard output: as wide as the terminal, of fixed width into a file or pipe."""
    width = None if sys.stdout.isatty() else _FILE_WIDTH
    return _Output(file=sys.stdout, width=width, highlight=False, emoji=False, markup=False)


def standard_error() -> Console:
    """Return a console on standard error, for progress."""
    return Console(
        file=sys.stderr, width=shutil.get_terminal_size().columns, highlight=False, emoji=False, markup=False
    )


def plain(text: str) -> str:
    """Return text from outside without what could command a terminal; line breaks become blanks.

    >>> plain("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return _CONTROL.sub(lambda match: " " if match[0] in "\t\r\n" else match[0].encode("unicode_escape").decode(), text)


def cell(text: str, style: str = "") -> Text:
    """Return text from outside for a table or a line."""
    return Text(plain(text), style=style)


def severity_cell(severity: str) -> Text:
    """Return a severity in its colour."""
    return Text(severity, style=_SEVERITY_STYLES.get(severity, ""))


def time_text(unix_nano: int) -> str:
    """Return a time in UTC to the second, as people read it; `-` for 0.

    >>> time_text(1117838570500000000)
    '2005-06-03 22:42:50Z'
    """
    if not unix_nano:
        return "-"
    moment = _EPOCH + timedelta(seconds=min(unix_nano // 10**9, _LAST_SECOND))
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def bytes_text(size_bytes: int) -> str:
    """Return a size for people.

    >>> bytes_text(1536)
    '1.5 KiB'
    """
    size = float(size_bytes)
    for unit in _BYTE_UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_BYTE_UNITS[-1]}"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "item"), counted(1200, "item"), counted(2, "anomaly")
    ('1 item', '1,200 items', '2 anomalies')
    """
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {noun if count == 1 else plural}"


def plain_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return a table with little ink; columns in `right` are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        is_number = column in right
        table.add_column(column, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    return table


def evidence_table(evidence: tuple[Evidence, ...]) -> Table:
    """Return what each column of an anomalous window says, strongest first."""
    table = plain_table("BITS", "COLUMN", "KIND", "WHAT", "OBSERVED", "EXPECTED", right=("BITS",))
    for item in evidence:
        table.add_row(
            f"{item.bits:.1f}",
            cell(item.column),
            cell(item.kind),
            cell(item.text),
            cell(item.observed),
            cell(item.expected),
        )
    return table


def state_text(anomaly: Anomaly) -> str:
    """Return an anomaly's state, and how it ended if it has."""
    return f"{anomaly.state} ({anomaly.resolution})" if anomaly.resolution else anomaly.state
