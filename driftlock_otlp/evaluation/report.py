"""What suites found, as a folder of files: figures as JSON, pages of Markdown, plots.

Each suite has files of its own, so that suites may be run one at a time; the front page is made
of the figures that are in the folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.result import SuiteResult, Table, figure_text
from driftlock_otlp.replay.outputs import replaced

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OURS, _OTHERS = "#1f6f8b", "#c8ccd0"
_OUR_NAME = "Driftlock"
_ROW_INCHES, _COLUMN_INCHES = 0.3, 3.0


def write_report(directory: Path, results: Sequence[SuiteResult]) -> None:
    """Write what suites found into a directory, which is made if it is not there.

    Args:
        directory: Gets `<suite>.json`, `<suite>.md`, `<suite>-<table>.svg`, and `README.md` over
            all suites whose figures lie there.
        results: What was found.

    Raises:
        InputError: It cannot be written, or what draws the plots is not installed.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {directory}: {error.strerror or error}") from None
    for result in results:
        _write(directory / f"{result.suite}.json", json.dumps(asdict(result), indent=2, ensure_ascii=False) + "\n")
        _write(directory / f"{result.suite}.md", to_markdown(result))
        for number, table in enumerate(result.tables, start=1):
            _plot(directory / _plot_name(result.suite, number), table)
    _write(directory / "README.md", _front_page(directory))


def to_markdown(result: SuiteResult) -> str:
    """Return the page of one suite."""
    lines = [f"# {result.suite}", ""]
    lines += [f"Data: {result.data}.", "", f"Split: {result.split}.", "", f"Settings: {result.settings}.", ""]
    lines += [f"Cost: {result.cost}.", "", f"Again: `driftlock-otlp evaluate {result.suite} --data DIR`"]
    for number, table in enumerate(result.tables, start=1):
        lines += ["", f"## {table.title}", "", *_markdown_table(table)]
        if table.note:
            lines += ["", table.note]
        lines += ["", f"![{table.title}]({_plot_name(result.suite, number)})"]
    return "\n".join(lines) + "\n"


def _markdown_table(table: Table) -> list[str]:
    lines = ["| detector | " + " | ".join(table.columns) + " | source |"]
    lines.append("| --- |" + " ---: |" * len(table.columns) + " --- |")
    for row in table.rows:
        figures = " | ".join(figure_text(figure) for figure in row.figures)
        lines.append(f"| {row.detector} | {figures} | {row.source or 'this run'} |")
    return lines


def _front_page(directory: Path) -> str:
    lines = [
        "# Results on labelled data",
        "",
        "What `driftlock-otlp evaluate` found, suite by suite; each page says from which data, with which settings,",
        "and beside what. `make evaluate DATA=DIR` makes them all again.",
    ]
    for path in sorted(directory.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        first = found["tables"][0]
        lines += ["", f"## [{found['suite']}]({path.stem}.md)", "", f"{found['data']}.", "", f"{first['title']}:", ""]
        lines.append("| detector | " + " | ".join(first["columns"]) + " |")
        lines.append("| --- |" + " ---: |" * len(first["columns"]))
        for row in first["rows"]:
            lines.append(f"| {row['detector']} | " + " | ".join(map(figure_text, row["figures"])) + " |")
    return "\n".join(lines) + "\n"


def _plot_name(suite: str, number: int) -> str:
    return f"{suite}-{number}.svg"


def _plot(path: Path, table: Table) -> None:
    """Draw a table as bars: one panel per column, one bar per detector, ours in colour."""
    figure = _figure(len(table.columns) * _COLUMN_INCHES + 2.0, len(table.rows) * _ROW_INCHES + 1.0)
    names = [row.detector for row in table.rows]
    panels = figure.subplots(1, len(table.columns), sharey=True, squeeze=False)[0]
    for place, (column, panel) in enumerate(zip(table.columns, panels, strict=True)):
        figures = [row.figures[place] for row in table.rows]
        colours = [_OURS if name.startswith(_OUR_NAME) else _OTHERS for name in names]
        bars = panel.barh(range(len(names)), [figure or 0.0 for figure in figures], color=colours)
        panel.bar_label(bars, labels=list(map(figure_text, figures)), padding=3, fontsize=8)
        panel.set_yticks(range(len(names)), names, fontsize=8)
        panel.set_title(column, fontsize=9)
        panel.margins(x=0.2)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(axis="x", labelsize=7)
    panels[0].invert_yaxis()
    # Without a date and with a fixed salt the same figures give the same file.
    import matplotlib as mpl  # noqa: PLC0415

    try:
        with mpl.rc_context({"svg.hashsalt": "driftlock"}):
            figure.savefig(path, format="svg", metadata={"Date": None})
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def _figure(width_inches: float, height_inches: float) -> Figure:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - it takes a second to load, and a server has no use for it
    except ImportError:
        raise InputError(
            "plots are drawn with matplotlib, which is not installed: pip install 'driftlock-otlp[evaluation]'"
        ) from None
    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def _write(path: Path, text: str) -> None:
    with replaced(path) as stream:
        stream.write(text)
