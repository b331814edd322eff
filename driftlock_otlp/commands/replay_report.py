"""What `replay` prints: streams, anomalies, and what to do when there is too little data."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from driftlock_otlp.commands.terminal import (
    SHORT_ID_DIGITS,
    cell,
    counted,
    evidence_table,
    plain_table,
    severity_cell,
    state_text,
    time_text,
)
from driftlock_otlp.config.root import Config
from driftlock_otlp.replay.run import Replay
from driftlock_otlp.replay.summary import Found, StreamSummary

MOST_STREAMS = 20
"""Streams in the table; the most anomalous ones."""

_NUMBERS = ("RECORDS", "WINDOWS", "WARM-UP", "FLAGGED", "ANOMALIES", "NCD", "RATIO", "LEAST P")


def print_report(console: Console, replay: Replay, config: Config) -> None:
    """Print what a replay found."""
    streams = replay.summary.streams()
    if not replay.record_count:
        console.print("No records were read: the input is empty.")
        return
    if not streams:
        console.print(f"{counted(replay.record_count, 'record')}, none of which can be scored.")
    else:
        _print_streams(console, streams)
    for reason, count in sorted(replay.unscored_items.items()):
        remedy = "; raise detection.max_streams" if reason == "max_streams" else ""
        console.print(f"{counted(count, 'record')} without a score ({reason}){remedy}.", style="yellow")
    if replay.summary.is_all_warming_up:
        _print_warming_up(console, streams, config)
        return
    console.print()
    if not replay.summary.found:
        console.print("No anomalies.")
        return
    console.print(f"{counted(len(replay.summary.found), 'anomaly')}:", style="bold")
    for found in replay.summary.found:
        console.print()
        console.print(_anomaly(found, replay))


def _print_streams(console: Console, streams: list[StreamSummary]) -> None:
    table = plain_table("STREAM", *_NUMBERS, right=_NUMBERS)
    for stream in streams[:MOST_STREAMS]:
        ncd, ratio = stream.mean_ncd, stream.mean_compression_ratio
        table.add_row(
            cell(str(stream.stream)),
            f"{stream.record_count:,}",
            f"{stream.window_count:,}",
            f"{stream.warming_up_count:,}",
            f"{stream.flagged_count:,}",
            Text(f"{stream.anomaly_count:,}", style="bold red" if stream.anomaly_count else ""),
            "-" if ncd is None else f"{ncd:.3f}",
            "-" if ratio is None else f"{ratio:.2f}",
            "-" if stream.warming_up_count == stream.window_count else f"{stream.least_p_value:.2g}",
        )
    console.print(table)
    rest = len(streams) - MOST_STREAMS
    if rest > 0:
        console.print(f"and {counted(rest, 'stream')} more, with fewer anomalies or larger p-values", style="dim")


def _print_warming_up(console: Console, streams: list[StreamSummary], config: Config) -> None:
    """Say that nothing could be found, and what would change that."""
    warm_up = config.detection.warm_up_windows
    console.print()
    console.print("Every stream was still warming up when its data ended: nothing could be flagged.", style="yellow")
    for kind in sorted({stream.stream.kind for stream in streams}):
        window = config.window(kind)
        longest = max((stream for stream in streams if stream.stream.kind == kind), key=lambda one: one.record_count)
        needed = window.baseline_windows + warm_up
        console.print(
            f"A stream of {kind} needs about {needed} windows before it can alarm: {window.baseline_windows} for its"
            f" baseline (more while they hold less than {window.baseline_records:,} records) and {warm_up} to calibrate"
            f" (detection.warm_up_windows). The longest one here has"
            f" {counted(longest.window_count, 'window')} of {counted(longest.record_count, 'record')} in all."
        )
        # Twice as many windows as needed, and as many again after the baseline has all its records.
        spare = longest.record_count - window.baseline_records
        size = min(longest.record_count // (2 * needed), spare // (2 * (needed - window.baseline_windows)))
        if size > 0:
            console.print(f"Use smaller windows: --set windows.{kind}.size={size}; or give more data.")
        else:
            console.print("That is too little data, whatever the windows: give more.")


def _anomaly(found: Found, replay: Replay) -> Group:
    anomaly = found.anomaly
    head = Text.assemble(
        (time_text(anomaly.detected_unix_nano), "bold"),
        "  ",
        severity_cell(anomaly.severity),
        "  ",
        cell(str(anomaly.stream)),
        f"  {anomaly.id[:SHORT_ID_DIGITS]}  {state_text(anomaly)}",
    )
    parts: list[RenderableType] = [cell(anomaly.explanation)]
    if found.records:
        file, first, last = found.records[0]
        more = ", and more" if len(found.records) > 1 else ""
        parts.append(Text(f"records {replay.index(file, first)} to {replay.index(file, last)}{more}", style="dim"))
    parts.append(evidence_table(anomaly.evidence))
    return Group(head, *(Padding(part, (0, 0, 0, 2), expand=False) for part in parts))
