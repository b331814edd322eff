"""`supabase` and `usage`: a Supabase project that also keeps anomalies and usage."""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import TYPE_CHECKING, TypeVar

from driftlock_otlp.commands.command import Command, add_config_arguments, load_config
from driftlock_otlp.commands.terminal import cell, counted, plain_table, standard_error, standard_output, time_text
from driftlock_otlp.config.exporters import RetryConfig
from driftlock_otlp.config.root import Config
from driftlock_otlp.config.supabase import SupabaseConfig
from driftlock_otlp.errors import ConfigError, RetryableError, StorageUnavailableError
from driftlock_otlp.retry import Backoff
from driftlock_otlp.storage import outbox, sync
from driftlock_otlp.storage.state import STATE_FILE, connect_shared

if TYPE_CHECKING:  # The client takes a while to load, and other commands do not need it.
    from driftlock_otlp.supabase.client import Project
    from driftlock_otlp.supabase.reconciliation import Reconciliation

T = TypeVar("T")

_DESCRIPTION = """\
A Supabase project that also keeps anomalies and usage, for dashboards and bills.

With supabase.url and supabase.secret_key set, `migrate` makes the tables and `run` sends what is
found from then on. What was found before is noted on this machine, and sent as well.

examples:
  driftlock-otlp supabase migrate --config sidecar.yaml
  driftlock-otlp supabase check --config sidecar.yaml
  driftlock-otlp supabase push --config sidecar.yaml"""

_MIGRATE = """\
Make the tables, or bring them up to date; what is done already stays as it is.

An API key cannot make tables. Name the connection string of the database in supabase.database_url
or the environment variable SUPABASE_DB_URL; the project shows it under Connect. Or take the SQL
from --print and run it in the project's SQL editor.

examples:
  SUPABASE_DB_URL=postgresql://postgres:…@db.abcd.supabase.co:5432/postgres driftlock-otlp supabase migrate
  driftlock-otlp supabase migrate --print > tables.sql"""

_PUSH = """\
Send everything that waits, without a running sidecar or beside one, and say what became of it.

The exit code is 0 if all has arrived, 1 if something is refused or the project cannot be reached."""

_CHECK = """\
Say whether the project can be reached, the key may write, the tables are there, and what waits.

The exit code is 0 if all is well, 1 if not; each failure names the remedy."""

_USAGE = """\
What organisations have sent, as it is billed.

example:
  driftlock-otlp usage reconcile --days 31"""

_RECONCILE = """\
Compare the items that were counted here, hour by hour, with those that the Supabase project knows
from this installation, and explain any difference.

The exit code is 0 if there is none, or all of it is explained; 1 if items are missing or too many.

example:
  driftlock-otlp usage reconcile --days 31"""

_PUSH_RETRY = RetryConfig(initial_interval=0.5, max_interval=10.0, max_elapsed_time=60.0)


class _SharedState:
    """The state database beside a running sidecar, in the shape that the sender wants."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`."""
        return work(self._connection)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction."""
        with self._connection:
            return work(self._connection)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    migrating = actions.add_parser("migrate", help="make the tables", description=_MIGRATE, formatter_class=raw)
    migrating.add_argument("--print", action="store_true", dest="prints", help="write the SQL to standard output")
    pushing = actions.add_parser("push", help="send what waits", description=_PUSH, formatter_class=raw)
    pushing.add_argument("--again", action="store_true", help="also what was refused before")
    checking = actions.add_parser("check", help="say whether all is well", description=_CHECK, formatter_class=raw)
    for action in (migrating, pushing, checking):
        add_config_arguments(action)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.action == "migrate":
        return _migrate(arguments)
    config = load_config(arguments)
    if arguments.action == "push":
        return _with_state(config, lambda state: _push(config.supabase, state, tries_again=arguments.again))
    if not config.supabase.is_on or (config.queue.path / STATE_FILE).exists():
        return _with_state(config, lambda state: _check(config.supabase, state))
    return asyncio.run(_check(config.supabase, None))  # A project can be looked at from anywhere.


def _migrate(arguments: argparse.Namespace) -> int:
    from driftlock_otlp.supabase import migrations  # noqa: PLC0415

    if arguments.prints:
        print("\n".join(migration.text for migration in migrations.migrations()))
        return 0
    url = load_config(arguments).supabase.database_url or os.environ.get("SUPABASE_DB_URL", "")
    if not url:
        raise ConfigError(
            "no connection string: set supabase.database_url or the environment variable SUPABASE_DB_URL to that of the"
            " project's database, or run the output of `driftlock-otlp supabase migrate --print` in its SQL editor"
        )
    applied = migrations.apply(url)
    for migration in applied:
        print(f"applied {migration.version} {migration.name}")
    print(f"{counted(len(applied), 'migration')} applied; the tables are those of this version.")
    return 0


def _with_state(config: Config, work: Callable[[_SharedState], Awaitable[int]]) -> int:
    if not config.supabase.is_on:
        raise ConfigError("no Supabase project: set supabase.url and supabase.secret_key")
    path = config.queue.path / STATE_FILE
    with closing(connect_shared(path)) as connection:
        try:
            return asyncio.run(_awaited(work(_SharedState(connection))))
        except sqlite3.OperationalError as error:
            raise StorageUnavailableError(f"{path}: {error}; try again") from None


async def _awaited(work: Awaitable[int]) -> int:
    return await work


async def _push(config: SupabaseConfig, state: _SharedState, *, tries_again: bool) -> int:
    from driftlock_otlp.supabase.client import Project  # noqa: PLC0415
    from driftlock_otlp.supabase.organizations import Organizations  # noqa: PLC0415
    from driftlock_otlp.supabase.sender import Sender  # noqa: PLC0415

    project = Project(config)
    sender = Sender(project, Organizations(project, config.organization), state, time.time_ns)
    backoff, console = Backoff(_PUSH_RETRY, Random()), standard_error()  # noqa: S311 - jitter, no secret
    sent = refused = 0
    try:
        if tries_again:
            await state.write(sync.try_again)
        await sender.note_usage()
        while True:
            try:
                part = await sender.send_some()
            except RetryableError as error:
                delay_s = backoff.next_delay_s(error.retry_after_s)
                if backoff.is_exhausted(time.monotonic(), delay_s):
                    raise
                console.print(cell(f"{error}; trying again in {delay_s:.1f} s", style="yellow"))
                await asyncio.sleep(delay_s)
                continue
            if part.is_empty:
                break
            backoff.reset()
            sent, refused = sent + part.sent, refused + len(part.refused)
            for key, reason in part.refused.items():
                console.print(cell(f"{key} is refused: {reason}", style="red"))
    finally:
        await project.close()
    print(f"{sent:,} of what waited has arrived, {refused:,} refused.")
    return 1 if refused else 0


async def _check(config: SupabaseConfig, state: _SharedState | None) -> int:
    from driftlock_otlp.supabase.batch import TABLES  # noqa: PLC0415
    from driftlock_otlp.supabase.client import Project  # noqa: PLC0415

    project = Project(config)

    async def reads(table: str) -> str:
        await project.select(table, "organization_id", order="organization_id", limit=1)
        return ""

    async def keeps_house() -> str:
        await project.call("keep_house")
        return ""

    checks: list[tuple[str, Callable[[], Awaitable[str]]]] = [
        *((f"{table.name} is there, and the key may read it", partial(reads, table.name)) for table in TABLES),
        ("the service may keep house", keeps_house),
    ]
    table, is_well = plain_table("CHECK", "RESULT"), True
    try:
        for name, check in checks:
            try:
                await check()
                table.add_row(name, "ok")
            except RetryableError as error:
                is_well = False
                table.add_row(name, cell(str(error), style="red"))
    finally:
        await project.close()
    refused = 0
    if state is not None:
        waiting, refused = await state.read(_depths)
        table.add_row("waits to be sent", f"{waiting:,}")
        table.add_row("was refused", cell(f"{refused:,}", style="red" if refused else ""))
    standard_output().print(table)
    return 0 if is_well and not refused else 1


def _depths(connection: sqlite3.Connection) -> tuple[int, int]:
    (refused,) = connection.execute(
        "SELECT count(*) FROM outbox WHERE destination = ? AND state = 'dropped'", (sync.DESTINATION,)
    ).fetchone()
    return outbox.depth(connection, sync.DESTINATION), int(refused)


def _add_usage_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    reconciling = actions.add_parser(
        "reconcile",
        help="compare with the Supabase project",
        description=_RECONCILE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reconciling.add_argument("--days", type=int, default=31, metavar="N", help="days before now (default: 31)")
    add_config_arguments(reconciling)


def _run_usage(arguments: argparse.Namespace) -> int:
    config = load_config(arguments)
    if arguments.days < 1:
        raise ConfigError(f"--days {arguments.days}: write a number of days, 1 or more")
    since = datetime.now(UTC) - timedelta(days=arguments.days)
    return _with_state(config, lambda state: _reconcile(config.supabase, state, int(since.timestamp())))


async def _reconcile(config: SupabaseConfig, state: _SharedState, since_unix_s: int) -> int:
    from driftlock_otlp.supabase.client import Project  # noqa: PLC0415
    from driftlock_otlp.supabase.reconciliation import reconcile  # noqa: PLC0415

    project: Project = Project(config)
    try:
        # An hour ahead: senders' clocks play no part, but this one may have been set back.
        found = await reconcile(state, project, config.organization, since_unix_s, int(time.time()) + 3_600)
    finally:
        await project.close()
    return _show(found)


def _show(found: Reconciliation) -> int:
    console, total = standard_output(), found.total
    table = plain_table("ITEMS", "WHERE THEY ARE", right=("ITEMS",))
    for count, where in (
        (total.counted, "counted here"),
        (total.there, "in the project, from this installation"),
        (total.untold, "counted since the last event; told within supabase.usage_interval"),
        (total.waiting, "in events that wait to be sent; `supabase push` sends them now"),
        (total.refused, "in events that the project refuses; `supabase push --again` tries them once more"),
    ):
        if count or where == "counted here":
            table.add_row(f"{count:,}", where)
    console.print(table)
    if not found.unexplained:
        console.print("No difference that is not explained.", style="green")
        return 0
    table = plain_table("HOUR", "ORGANISATION", "SIGNAL", "COUNTED", "IN THE PROJECT", "MISSING", right=("MISSING",))
    for (organization, signal, hour), account in sorted(found.unexplained.items(), key=lambda item: item[0][2]):
        when = time_text(hour * 1_000_000_000)
        numbers = (f"{account.counted:,}", f"{account.there:,}", f"{account.unexplained:,}")
        table.add_row(when, cell(organization), signal, *numbers)
    console.print(table)
    print(
        "Missing for no reason known here: rows were removed there, or this state database was restored from a copy.",
        file=sys.stderr,
    )
    return 1


COMMAND = Command("supabase", "the Supabase project that also keeps it", _DESCRIPTION, _add_arguments, _run)
USAGE = Command("usage", "what organisations have sent", _USAGE, _add_usage_arguments, _run_usage)
