"""`anomalies`: what was found, from the state database of a sidecar, running or not."""

from __future__ import annotations

import argparse
import sqlite3
import sys
import time
from typing import Any

import msgspec
from google.protobuf.message import DecodeError as ProtobufDecodeError
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from rich.console import Console
from rich.table import Table

from driftlock_otlp.commands.command import Command, add_config_arguments
from driftlock_otlp.commands.database import state_database
from driftlock_otlp.commands.terminal import (
    SHORT_ID_DIGITS,
    cell,
    evidence_table,
    plain_table,
    severity_cell,
    standard_output,
    state_text,
    time_text,
)
from driftlock_otlp.config.values import parse_duration_s
from driftlock_otlp.errors import ConfigError
from driftlock_otlp.model import Anomaly, AnomalyLevel, AnomalyState, AnomalyStatus, StreamKind
from driftlock_otlp.storage import anomalies, history
from driftlock_otlp.storage.history import HistoryEntry
from driftlock_otlp.windowing.extraction import python_value

_MOST_HISTORY = 200
"""Newest entries of its history that are shown with an anomaly."""

_DESCRIPTION = """\
Show the anomalies that a sidecar has found, and say what you do about them. It works while the
sidecar runs.

Name the sidecar's configuration with --config, or its data with --set queue.path=DIRECTORY.

examples:
  driftlock-otlp anomalies list --state open
  driftlock-otlp anomalies list --kind logs --since 1h --json
  driftlock-otlp anomalies show 3f2a91c0
  driftlock-otlp anomalies status 3f2a91c0 acknowledged"""

_LIST = """\
List anomalies, newest first. Times are in UTC.

examples:
  driftlock-otlp anomalies list --service checkout --limit 10
  driftlock-otlp anomalies list --json | jq .explanation"""

_STATUS = (
    """\
Say what you do about an anomaly. The history keeps who said so (local), when, and the note.
Its state, open, ongoing or resolved, is what the data do, and not for people to say.

example:
  driftlock-otlp anomalies status 3f2a91c0 acknowledged --note "deploy of 14:02, rolling back"""
    ""
)

_SHOW = """\
Show everything about one anomaly: what changed, by how much, and what says so.

example:
  driftlock-otlp anomalies show 3f2a91c0"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    listing = actions.add_parser("list", help="list anomalies, newest first", description=_LIST, formatter_class=raw)
    listing.add_argument("--kind", choices=[kind.value for kind in StreamKind], help="only of this kind of stream")
    listing.add_argument("--service", metavar="NAME", help="only of this service")
    listing.add_argument("--state", choices=[state.value for state in AnomalyState], help="only in this state")
    listing.add_argument("--status", choices=[status.value for status in AnomalyStatus], help="only with this status")
    listing.add_argument("--level", choices=[level.value for level in AnomalyLevel], help="only of this level")
    listing.add_argument("--incident", metavar="ID", help="only of this incident (its whole id)")
    listing.add_argument("--text", metavar="TEXT", help="only those that say so in explanation or template")
    listing.add_argument("--since", metavar="DURATION", help="only those of the last while, as 30m or 1h")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default: 50)")
    showing = actions.add_parser("show", help="show one anomaly", description=_SHOW, formatter_class=raw)
    showing.add_argument("id", metavar="ID", help="its id, or the first digits of it")
    changing = actions.add_parser("status", help="say what you do about one", description=_STATUS, formatter_class=raw)
    changing.add_argument("id", metavar="ID", help="its id, or the first digits of it")
    changing.add_argument("status", choices=[status.value for status in AnomalyStatus], help="what you do about it")
    changing.add_argument("--note", metavar="TEXT", default="", help="what the history is to say beside it")
    add_config_arguments(changing)
    for action in (listing, showing):
        action.add_argument("--json", action="store_true", help="one JSON object a line, for programs")
        add_config_arguments(action)


def _run(arguments: argparse.Namespace) -> int:
    return {"list": _list, "show": _show, "status": _set_status}[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    if arguments.limit < 1:
        raise ConfigError(f"--limit {arguments.limit}: write a number of at least 1")
    with state_database(arguments) as connection:
        where = anomalies.AnomalyFilter(
            kind=arguments.kind,
            service=arguments.service,
            state=arguments.state,
            status=arguments.status,
            level=arguments.level,
            incident=arguments.incident,
            text=arguments.text,
            since_unix_nano=_since_unix_nano(arguments.since),
        )
        found = anomalies.find(connection, where, arguments.limit)
    if arguments.json:
        for anomaly in found:
            print(_json(anomaly))
        return 0
    console = standard_output()
    if not found:
        console.print("No anomalies.")
        return 0
    table = plain_table("TIME (UTC)", "ID", "LEVEL", "SEVERITY", "KIND", "SERVICE", "STATE", "WHAT CHANGED")
    for column in range(len(table.columns) - 1):
        table.columns[column].no_wrap = column != 5  # services may have long names
    for anomaly in found:
        table.add_row(
            time_text(anomaly.detected_unix_nano),
            anomaly.id[:SHORT_ID_DIGITS],
            anomaly.level,
            severity_cell(anomaly.severity),
            anomaly.stream.kind,
            cell(anomaly.stream.service),
            _state_cell(anomaly),
            cell(anomaly.explanation),
        )
    console.print(table)
    if len(found) == arguments.limit:
        console.print(f"The newest {arguments.limit}; --limit shows more.", style="dim")
    return 0


def _state_cell(anomaly: Anomaly) -> str:
    """Return what the data do, and what people do about it if they do."""
    if anomaly.is_suppressed:
        return f"{anomaly.state}, suppressed"
    return anomaly.state if anomaly.status == AnomalyStatus.NEW.value else f"{anomaly.state}, {anomaly.status}"


def _show(arguments: argparse.Namespace) -> int:
    with state_database(arguments) as connection:
        anomaly = _named(connection, arguments.id)
        past = history.entries(connection, tenant=None, subject=anomaly.id, limit=_MOST_HISTORY) if anomaly else []
    if anomaly is None:
        return _unknown(arguments.id)
    if arguments.json:
        print(_json(anomaly, past))
    else:
        _print_anomaly(standard_output(), anomaly, past)
    return 0


def _set_status(arguments: argparse.Namespace) -> int:
    with state_database(arguments, may_write=True) as connection:
        anomaly = _named(connection, arguments.id)
        if anomaly is not None:
            anomalies.set_status(
                connection,
                anomaly.id,
                AnomalyStatus(arguments.status),
                actor="local",
                note=arguments.note,
                at_unix_nano=time.time_ns(),
            )
    if anomaly is None:
        return _unknown(arguments.id)
    print(f"{anomaly.id[:SHORT_ID_DIGITS]}: {anomaly.status} -> {arguments.status}")
    return 0


def _named(connection: sqlite3.Connection, id_or_prefix: str) -> Anomaly | None:
    try:
        return anomalies.get(connection, id_or_prefix)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _unknown(id_or_prefix: str) -> int:
    print(f"driftlock-otlp: no anomaly {id_or_prefix!r}; `anomalies list` shows their ids", file=sys.stderr)
    return 1


def _print_anomaly(console: Console, anomaly: Anomaly, past: list[HistoryEntry]) -> None:
    console.print(cell(anomaly.explanation, style="bold"))
    console.print()
    table = plain_table("", "")
    table.show_header = False
    attributes = _resource(anomaly)
    seconds = (anomaly.window_end_unix_nano - anomaly.window_start_unix_nano) / 1e9
    rows = (
        ("id", anomaly.id),
        ("severity", severity_cell(anomaly.severity)),
        ("level", anomaly.level + (" (suppressed)" if anomaly.is_suppressed else "")),
        ("state", state_text(anomaly)),
        ("status", anomaly.status),
        ("incident", anomaly.incident_id),
        ("detected", time_text(anomaly.detected_unix_nano)),
        ("windows", f"{anomaly.window_count:,}" if anomaly.window_count > 1 else ""),
        ("ended", time_text(anomaly.resolved_unix_nano) if anomaly.resolved_unix_nano else ""),
        ("stream", cell(str(anomaly.stream))),
        (
            "window",
            f"{time_text(anomaly.window_start_unix_nano)} to {time_text(anomaly.window_end_unix_nano)}"
            f" ({seconds:g} s), {anomaly.record_count:,} records",
        ),
        ("baseline", f"{anomaly.baseline_windows:,} windows, {anomaly.baseline_records:,} records"),
        ("score", f"{anomaly.score:.3f} (0.5 is the bar of an alarm)"),
        ("p-value", f"{anomaly.p_value:.3g}"),
        ("surprise", f"{anomaly.bits:.1f} bits"),
        ("NCD", f"{anomaly.ncd:.3f}"),
        ("compression", f"{anomaly.compression_ratio:.2f} (baseline {anomaly.baseline_compression_ratio:.2f})"),
        ("entropy", f"{anomaly.entropy_bits:.2f} bits a record (baseline {anomaly.baseline_entropy_bits:.2f})"),
        ("template", cell(anomaly.template)),
        ("trace", anomaly.trace_id + (f"  span {anomaly.span_id}" if anomaly.span_id else "")),
        ("related traces", " ".join(anomaly.related_trace_ids)),
        ("resource", cell(", ".join(f"{key}={value}" for key, value in attributes.items()))),
        ("detector", f"{anomaly.fingerprint} with {anomaly.compressor}"),
    )
    for name, value in rows:
        if str(value):
            table.add_row(cell(name, style="dim"), value)
    console.print(table)
    if anomaly.evidence:
        console.print()
        console.print(evidence_table(anomaly.evidence))
    if past:
        console.print()
        console.print(_history_table(past))


def _history_table(past: list[HistoryEntry]) -> Table:
    table = plain_table("TIME (UTC)", "WHO", "WHAT", "DETAIL")
    for entry in reversed(past):
        detail = ", ".join(f"{key} {value}" for key, value in entry.detail.items() if value != "")
        table.add_row(time_text(entry.at_unix_nano), cell(entry.actor), cell(entry.action), cell(detail))
    return table


def _json(anomaly: Anomaly, past: list[HistoryEntry] | None = None) -> str:
    document: dict[str, Any] = msgspec.to_builtins(anomaly)
    document["resource"] = _resource(anomaly)
    if past is not None:
        document["history"] = msgspec.to_builtins(past[::-1])
    return msgspec.json.encode(document).decode()


def _resource(anomaly: Anomaly) -> dict[str, Any]:
    """Return the attributes of the source's resource."""
    try:
        resource = Resource.FromString(anomaly.resource)
    except ProtobufDecodeError:
        return {}
    return {attribute.key: python_value(attribute.value) for attribute in resource.attributes}


def _since_unix_nano(duration: str | None) -> int | None:
    if duration is None:
        return None
    try:
        return max(time.time_ns() - int(parse_duration_s(duration) * 1e9), 0)
    except ValueError as error:
        raise ConfigError(f"--since: {error}") from None


COMMAND = Command("anomalies", "show what was found", _DESCRIPTION, _add_arguments, _run)
