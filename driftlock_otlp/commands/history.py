"""`history`: who did what, and whether the record of it is as it was written."""

from __future__ import annotations

import argparse
import sys

import msgspec

from driftlock_otlp.commands.command import Command, add_config_arguments
from driftlock_otlp.commands.database import state_database
from driftlock_otlp.commands.terminal import cell, counted, plain_table, standard_output, time_text
from driftlock_otlp.errors import ConfigError
from driftlock_otlp.storage import history

_DESCRIPTION = """\
The record of who did what: changes of status, feedback, what was released or dropped, suppressions,
and what the sidecar did by itself (driftlock). It is never changed, only added to. It only reads,
and works while the sidecar runs.

Name the sidecar's configuration with --config, or its data with --set queue.path=DIRECTORY.

examples:
  driftlock-otlp history list --subject 3f2a91c0...
  driftlock-otlp history verify"""

_LIST = """\
List entries, newest first. Times are in UTC.

example:
  driftlock-otlp history list --limit 100 --json | jq .action"""

_VERIFY = """\
Check that no entry was changed, or taken away from between others, since it was written: each holds
the hash of itself and of the one before. Prints the hash of the newest entry: keep it elsewhere, and a
later check shows whether that entry is still there. Ends with status 1 if the record is broken.

example:
  driftlock-otlp history verify"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    listing = actions.add_parser("list", help="list entries, newest first", description=_LIST, formatter_class=raw)
    listing.add_argument("--subject", metavar="ID", help="only about this, as an anomaly's whole id")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default: 50)")
    listing.add_argument("--json", action="store_true", help="one JSON object a line, for programs")
    verifying = actions.add_parser("verify", help="check the chain", description=_VERIFY, formatter_class=raw)
    for action in (listing, verifying):
        add_config_arguments(action)


def _run(arguments: argparse.Namespace) -> int:
    return _list(arguments) if arguments.action == "list" else _verify(arguments)


def _list(arguments: argparse.Namespace) -> int:
    if arguments.limit < 1:
        raise ConfigError(f"--limit {arguments.limit}: write a number of at least 1")
    with state_database(arguments) as connection:
        entries = history.entries(connection, tenant=None, subject=arguments.subject, limit=arguments.limit)
    if arguments.json:
        for entry in entries:
            print(msgspec.json.encode(entry).decode())
        return 0
    console = standard_output()
    if not entries:
        console.print("Nothing has happened.")
        return 0
    table = plain_table("TIME (UTC)", "WHO", "WHAT", "TO", "DETAIL")
    for entry in entries:
        detail = ", ".join(f"{key} {value}" for key, value in entry.detail.items() if value != "")
        table.add_row(
            time_text(entry.at_unix_nano), cell(entry.actor), cell(entry.action), cell(entry.subject), cell(detail)
        )
    console.print(table)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    with state_database(arguments) as connection:
        broken = history.verify(connection)
        newest = history.entries(connection, tenant=None, limit=1)
        first, last = history.ends(connection)
    if broken is not None:
        print(f"driftlock-otlp: the history is broken: entry {broken} is not as it was written", file=sys.stderr)
        return 1
    print(f"{counted(last - first, 'entry')}, each as it was written.")
    if newest:
        print(f"The newest is {newest[0].seq}: {newest[0].hash}")
    return 0


COMMAND = Command("history", "who did what, and whether the record is sound", _DESCRIPTION, _add_arguments, _run)
