"""`quarantine`: what is withheld as anomalous, and letting it go or dropping it."""

from __future__ import annotations

import argparse
import sqlite3
import sys
import time

from driftlock_otlp.commands.command import Command, add_config_arguments, load_config
from driftlock_otlp.commands.database import state_database
from driftlock_otlp.commands.terminal import (
    SHORT_ID_DIGITS,
    bytes_text,
    cell,
    counted,
    plain_table,
    standard_output,
    time_text,
)
from driftlock_otlp.errors import ConfigError
from driftlock_otlp.storage import anomalies, history, quarantine

_DESCRIPTION = """\
The records of anomalous windows are withheld from the clean data (forward.policy: divert).
Look at what is withheld, release it downstream, or drop it for good.

Name the sidecar's configuration with --config, or its data with --set queue.path=DIRECTORY.

examples:
  driftlock-otlp quarantine list
  driftlock-otlp quarantine release 3f2a91c0
  driftlock-otlp quarantine drop --all --yes"""

_LIST = """\
List what is withheld, anomaly by anomaly. A request with records of several anomalies counts
for each of them."""

_RELEASE = """\
Send withheld records downstream after all. A running sidecar sends them within a second, else
they go at its next start."""

_DROP = """\
Delete withheld records for good. What has been released already is not touched."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    listing = actions.add_parser("list", help="list what is withheld", description=_LIST, formatter_class=raw)
    releasing = actions.add_parser("release", help="send downstream", description=_RELEASE, formatter_class=raw)
    dropping = actions.add_parser("drop", help="delete for good", description=_DROP, formatter_class=raw)
    for action in (releasing, dropping):
        which = action.add_mutually_exclusive_group(required=True)
        which.add_argument("id", metavar="ID", nargs="?", help="an anomaly's id, or the first digits of it")
        which.add_argument("--all", action="store_true", help="everything that is withheld")
    dropping.add_argument("--yes", action="store_true", help="do not ask")
    for action in (listing, releasing, dropping):
        add_config_arguments(action)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.action == "list":
        return _list(arguments)
    return _release(arguments) if arguments.action == "release" else _drop(arguments)


def _list(arguments: argparse.Namespace) -> int:
    limits = load_config(arguments).forward.quarantine
    with state_database(arguments) as connection:
        groups = quarantine.list_groups(connection)
        level = quarantine.level(connection)
    console = standard_output()
    if not groups:
        console.print("Nothing is withheld.")
        return 0
    table = plain_table(
        "ANOMALY", "STATE", "SIGNALS", "STREAM", "ITEMS", "SIZE", "SINCE (UTC)", right=("ITEMS", "SIZE")
    )
    for group in groups:
        table.add_row(
            group.anomaly_id[:SHORT_ID_DIGITS],
            "being sent" if group.state == "released" else group.state,
            ", ".join(signal.plural for signal in group.signals),
            cell(group.stream),
            f"{group.item_count:,}",
            bytes_text(group.payload_bytes),
            time_text(group.first_unix_nano),
        )
    console.print(table)
    console.print(f"{counted(level.item_count, 'item')} withheld, {bytes_text(level.payload_bytes)}.", style="dim")
    console.print(
        f"The oldest go for good beyond {bytes_text(limits.max_bytes)} (forward.quarantine.max_bytes)"
        + (
            f", or at {time_text(level.oldest_unix_nano + int(limits.max_age * 1e9))} UTC"
            if level.oldest_unix_nano
            else ""
        )
        + " (max_age).",
        style="dim",
    )
    return 0


def _release(arguments: argparse.Namespace) -> int:
    with state_database(arguments, may_write=True) as connection:
        count = _apply(connection, arguments, is_release=True)
    if not count:
        return _nothing(arguments)
    print(
        f"Released {counted(count, 'item')}. A running sidecar sends them within a second, otherwise they go at its"
        " next start."
    )
    return 0


def _drop(arguments: argparse.Namespace) -> int:
    if not arguments.yes:
        what = "everything that is withheld" if arguments.all else f"what is withheld of anomaly {arguments.id}"
        if not sys.stdin.isatty():
            raise ConfigError("quarantine drop deletes for good: add --yes where nobody can be asked")
        with state_database(arguments) as connection:
            held = counted(quarantine.withheld_items(connection), "item")
        print(f"Drop {what} for good? There are {held} withheld in all. [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            print("Nothing was dropped.")
            return 1
    with state_database(arguments, may_write=True) as connection:
        count = _apply(connection, arguments, is_release=False)
    if not count:
        return _nothing(arguments)
    print(f"Dropped {counted(count, 'item')}.")
    return 0


def _apply(connection: sqlite3.Connection, arguments: argparse.Namespace, *, is_release: bool) -> int:
    change = quarantine.release if is_release else quarantine.drop
    try:
        count = change(connection, None if arguments.all else arguments.id)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if count:
        anomaly = None if arguments.all else anomalies.get(connection, arguments.id)
        history.record(
            connection,
            at_unix_nano=time.time_ns(),
            tenant=anomaly.stream.tenant if anomaly else "",
            actor="local",
            action="records_released" if is_release else "records_dropped",
            subject="quarantine" if arguments.all else anomaly.id if anomaly else arguments.id.lower(),
            detail={"items": count},
        )
    return count


def _nothing(arguments: argparse.Namespace) -> int:
    if arguments.all:
        print("Nothing is withheld.")
        return 0
    print(
        f"driftlock-otlp: nothing is withheld of anomaly {arguments.id!r}; `quarantine list` shows what is",
        file=sys.stderr,
    )
    return 1


COMMAND = Command("quarantine", "see, release or drop what is withheld", _DESCRIPTION, _add_arguments, _run)
