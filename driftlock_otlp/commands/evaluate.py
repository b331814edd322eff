"""`evaluate`: judge detection on labelled data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from driftlock_otlp.commands.command import Command, add_config_arguments, load_config
from driftlock_otlp.commands.terminal import plain_table, standard_error, standard_output
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.report import write_report
from driftlock_otlp.evaluation.result import SuiteResult, figure_text
from driftlock_otlp.evaluation.suites import SUITES

_DESCRIPTION = """\
Judge detection on labelled data, through the code that scores live telemetry, and put it beside published
figures and simple baselines. The data are not part of this project: --data names a directory that holds one
folder for each set. The same data and settings give the same figures.

suites:
@SUITES@

examples:
  driftlock-otlp evaluate calibration
  driftlock-otlp evaluate nab --data ~/data
  driftlock-otlp evaluate nab --data ~/data --report results""".replace(
    "@SUITES@", "\n".join(f"  {name:12}  {suite.about}" for name, suite in SUITES.items())
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "suites", metavar="SUITE", nargs="+", choices=[*SUITES, "all"], help=f"what to run: {', '.join(SUITES)}, or all"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="directory that holds the sets; calibration does without"
    )
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="write figures (JSON), pages (Markdown) and plots there"
    )
    add_config_arguments(parser)


def _run(arguments: argparse.Namespace) -> int:
    config = load_config(arguments)
    console = standard_output()
    names = list(SUITES if "all" in arguments.suites else dict.fromkeys(arguments.suites))
    lacking = [name for name in names if SUITES[name].needs_data and arguments.data is None]
    if lacking:
        raise InputError(f"{', '.join(lacking)}: name the directory that holds the data sets with --data")
    for name in names:
        with _progress(name) as on_file:
            result = SUITES[name].run(arguments.data, config, on_file)
        _show(console, result)
        if arguments.report is not None:
            # Suite by suite: what has been found is kept if a later one fails.
            write_report(arguments.report, [result])
    return 0


def _show(console: Console, result: SuiteResult) -> None:
    console.print(f"{result.suite}: {result.data}", style="bold")
    console.print(f"{result.split}. Settings: {result.settings}. {result.cost}.", style="dim")
    for table in result.tables:
        console.print()
        console.print(table.title)
        shown = plain_table("DETECTOR", *(column.upper() for column in table.columns), "SOURCE", right=table.columns)
        for row in table.rows:
            shown.add_row(row.detector, *map(figure_text, row.figures), row.source or "this run")
        console.print(shown)
        if table.note:
            console.print(table.note, style="dim")
    console.print()


@contextmanager
def _progress(suite: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show on standard error what is being read: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield lambda name, number, count: print(f"{suite}: {number + 1} of {count}: {name}", file=sys.stderr)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=standard_error(), transient=True) as progress:
        task = progress.add_task(suite, total=None)

        def show(name: str, number: int, count: int) -> None:
            progress.update(task, total=count, completed=number, description=f"{suite}: {name}")

        yield show


COMMAND = Command("evaluate", "judge detection on labelled data", _DESCRIPTION, _add_arguments, _run)
