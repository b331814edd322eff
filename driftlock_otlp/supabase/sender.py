"""Sends what is noted."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from driftlock_otlp.interfaces import Clock
from driftlock_otlp.storage import outbox, sync
from driftlock_otlp.supabase.batch import TABLES, Table, compose, load
from driftlock_otlp.supabase.client import Project, RowsRefusedError
from driftlock_otlp.supabase.organizations import Organizations
from driftlock_otlp.supabase.rows import Row

T = TypeVar("T")

BATCH = 1_000
"""Rows of the outbox that are sent at once."""


class State(Protocol):
    """The state database, as `StateDatabase` or for a command beside it."""

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on one snapshot."""
        ...

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction."""
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a batch.

    Attributes:
        sent: Rows of the outbox that Supabase has.
        refused: Reasons for those that it refuses, by what they are.
    """

    sent: int
    refused: dict[str, str]

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to send."""
        return not self.sent and not self.refused


class Sender:
    """Sends from the outbox to a project; every repeat is harmless.

    Args:
        project: Where to.
        organizations: Whose is whose there.
        state: The state database.
        clock: The wall clock.
    """

    def __init__(self, project: Project, organizations: Organizations, state: State, clock: Clock) -> None:
        self._project = project
        self._organizations = organizations
        self._state = state
        self._clock = clock

    async def note_usage(self) -> int:
        """Make events of the usage that is in none yet; return how many."""
        now = self._clock()
        return await self._state.write(lambda connection: sync.note_usage(connection, now))

    async def send_some(self) -> Sent:
        """Send one batch, oldest first.

        Raises:
            RetryableError: Nothing is marked as sent; try again later.
        """
        noted = await self._state.read(lambda connection: load(connection, BATCH))
        if not noted:
            return Sent(0, {})
        source = await self._state.write(sync.installation)
        tenants = {one.tenant for one in noted if one.thing is not None}
        organizations = {tenant: await self._organizations.id_of(tenant) for tenant in sorted(tenants)}
        batch = compose(noted, organizations, source)
        refused: dict[int, str] = {}
        for table in TABLES:
            # What belongs to a refused row would be refused for want of it.
            rows = [(row_id, row) for row_id, row in batch.rows[table.name] if row_id not in refused]
            if rows:
                refused |= await self._write(table, rows)
        sent = [one.id for one in noted if one.id not in refused]

        def finish(connection: sqlite3.Connection) -> None:
            outbox.mark_sent(connection, sent)
            sync.refuse(connection, refused)

        await self._state.write(finish)
        return Sent(len(sent), {one.key: refused[one.id] for one in noted if one.id in refused})

    async def _write(self, table: Table, rows: Sequence[tuple[int, Row]]) -> dict[int, str]:
        """Write rows; halve what is refused until the rows that are meant stand alone, and return why, by row."""
        try:
            await self._project.upsert(
                table.name, [row for _, row in rows], on_conflict=table.key, is_merged=table.is_merged
            )
        except RowsRefusedError as error:
            if len(rows) == 1:
                return {rows[0][0]: f"{table.name}: {error}"}
            middle = len(rows) // 2
            return await self._write(table, rows[:middle]) | await self._write(table, rows[middle:])
        return {}
