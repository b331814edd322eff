"""What the demo shows: one line of progress, and anomalies, faults and counters as they come."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from types import TracebackType

from downstream import AnomalyEvent
from rich.console import Console, Group
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.status import Status
from rich.table import Table
from rich.text import Text

from driftlock_otlp.model import Signal

_STYLES = {"low": "cyan", "medium": "yellow", "high": "red", "critical": "bold red"}
_PLAIN_EVERY_S = 5.0
"""Between two lines of progress where they cannot overwrite one another."""


class Screen:
    """The terminal, or whatever standard output is."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        if not self._console.is_terminal:
            # A pipe has no width; evidence should not be folded to 80 columns there.
            self._console = Console(highlight=False, width=140)
        self._status = Status("", console=self._console)
        self._started_s = time.monotonic()
        self._said_s = 0.0

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._status.stop()

    def say(self, text: str, style: str = "") -> None:
        """Print a line; the text is taken as it is."""
        self._console.print(Text(text, style=style))

    def headline(self, title: str, text: str) -> None:
        """Print the begin of a chapter."""
        self._console.print()
        self._console.rule(f"[bold]{escape(title)}[/bold]  {self._elapsed()}", align="left")
        self._console.print(Text(text))

    def progress(self, items: Counter[Signal], phase: str) -> None:
        """Show what has arrived downstream so far: always on a terminal, else now and then."""
        counts = " · ".join(f"{items[signal]:,} {signal.item_noun.replace('_', ' ')}" for signal in Signal)
        line = f"{self._elapsed()}  downstream: {counts}  ({phase})"
        if self._console.is_terminal:
            self._status.update(Text(line, style="dim"))
        elif time.monotonic() - self._said_s >= _PLAIN_EVERY_S:
            self._said_s = time.monotonic()
            self._console.print(line, markup=False)

    def anomaly(self, event: AnomalyEvent) -> None:
        """Print an anomaly event in full."""
        severity = str(event.fact("severity"))
        when = datetime.fromtimestamp(event.record.time_unix_nano / 1e9, UTC)
        about = Table.grid(padding=(0, 2))
        for name, value in (
            ("stream", event.stream),
            ("severity", f"{severity} ({event.record.severity_text})"),
            ("time", f"{when:%H:%M:%S.%f}"[:-3] + f" UTC, {event.fact('window.size')} records in the window"),
            ("id", event.id),
            ("trace", _trace(event)),
            ("template", str(event.attributes.get("log.record.template", ""))),
            ("facts", _facts(event)),
        ):
            if value:
                about.add_row(Text(name, style="dim"), Text(value))
        evidence = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        evidence.add_column("column")
        evidence.add_column("bits", justify="right")
        evidence.add_column("evidence", overflow="fold")
        for row in event.evidence():
            evidence.add_row(*map(Text, row))
        self._console.print(
            Panel(
                Group(Text(event.explanation, style="bold"), Padding(about, (1, 0)), evidence),
                title=f"[bold]{event.record.event_name}[/bold]",
                title_align="left",
                border_style=_STYLES.get(severity, ""),
            )
        )

    def table(self, title: str, rows: list[tuple[str, str]]) -> None:
        """Print names and numbers."""
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(justify="right")
        for row in rows:
            table.add_row(*map(Text, row))
        self._console.print()
        self._console.print(Text(title, style="bold"))
        self._console.print(Padding(table, (0, 2)))

    def _elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started_s), 60)
        return f"{minutes}:{seconds:02d}"


def _trace(event: AnomalyEvent) -> str:
    if not event.record.trace_id:
        return ""
    span = f", span {event.record.span_id.hex()}" if event.record.span_id else ""
    related = len(event.attributes.get("driftlock.anomaly.related_trace_ids", []))
    return f"{event.record.trace_id.hex()}{span}" + (f", {related} more" if related else "")


def _facts(event: AnomalyEvent) -> str:
    return (
        f"p ≤ {event.fact('p_value'):.2g} · {event.fact('bits'):.1f} bits · score {event.fact('score'):.2f} · "
        f"NCD {event.fact('ncd'):.2f} · compression {event.fact('compression_ratio'):.2f}× "
        f"(baseline {event.fact('baseline_compression_ratio'):.2f}×) · "
        f"entropy {event.fact('entropy_bits'):.2f} (baseline {event.fact('baseline_entropy_bits'):.2f}) bits a record"
    )
