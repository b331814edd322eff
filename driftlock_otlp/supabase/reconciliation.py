"""Whether the usage that the project knows is the usage that was counted here; and if not, why."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime

from driftlock_otlp.storage import sync
from driftlock_otlp.supabase.client import Project
from driftlock_otlp.supabase.sender import State

_PAGE = 1_000
_TRIES = 3

Hour = tuple[str, str, int]
"""Organisation, signal and the beginning of an hour."""


@dataclass(slots=True)
class Account:
    """Items of one hour: where they are.

    Attributes:
        counted: Counted here.
        there: In the project, from this installation.
        untold: In no event yet.
        waiting: In events that wait to be sent.
        refused: In events that the project refuses.
    """

    counted: int = 0
    there: int = 0
    untold: int = 0
    waiting: int = 0
    refused: int = 0

    @property
    def unexplained(self) -> int:
        """Items that are missing there, or too many if negative, for no reason known here."""
        return self.counted - self.there - self.untold - self.waiting - self.refused


@dataclass(slots=True)
class Reconciliation:
    """What a comparison has found.

    Attributes:
        hours: By organisation, signal and hour.
    """

    hours: dict[Hour, Account] = field(default_factory=dict)

    @property
    def total(self) -> Account:
        """All hours together."""
        accounts = self.hours.values()
        return Account(
            counted=sum(account.counted for account in accounts),
            there=sum(account.there for account in accounts),
            untold=sum(account.untold for account in accounts),
            waiting=sum(account.waiting for account in accounts),
            refused=sum(account.refused for account in accounts),
        )

    @property
    def unexplained(self) -> dict[Hour, Account]:
        """Hours that differ for no reason known here."""
        return {hour: account for hour, account in self.hours.items() if account.unexplained}


async def reconcile(
    state: State, project: Project, default: str, since_unix_s: int, until_unix_s: int
) -> Reconciliation:
    """Compare the usage of some hours.

    What is sent meanwhile looks like a difference; it is then looked at again.

    Args:
        state: The state database.
        project: The project.
        default: Organisation of what came without an API key.
        since_unix_s: First hour that counts.
        until_unix_s: First hour that does not.

    Raises:
        RetryableError: The project cannot be asked now.
    """
    for _ in range(_TRIES):
        found = await _compare(state, project, default, since_unix_s, until_unix_s)
        if not found.unexplained:
            break
    return found


async def _compare(
    state: State, project: Project, default: str, since_unix_s: int, until_unix_s: int
) -> Reconciliation:
    hours: dict[Hour, Account] = defaultdict(Account)
    local, waiting, refused, source = await state.write(
        lambda connection: (
            sync.usage_hours(connection, since_unix_s, until_unix_s),
            sync.usage_events(connection, "pending"),
            sync.usage_events(connection, "dropped"),
            sync.installation(connection),
        )
    )
    for hour in local:
        account = hours[hour.tenant or default, hour.signal, hour.hour_unix_s]
        account.counted += hour.items
        account.untold += hour.items - hour.told_items
    for events, place in ((waiting, "waiting"), (refused, "refused")):
        for event in events:
            if since_unix_s <= event.hour_unix_s < until_unix_s:
                account = hours[event.tenant or default, event.signal, event.hour_unix_s]
                setattr(account, place, getattr(account, place) + event.items)
    slugs: dict[str, str] = {}
    offset = 0
    while True:
        rows = await project.select(
            "usage_events",
            "id,organization_id,signal,hour,items",
            equal={"source": str(source)},
            from_={"hour": datetime.fromtimestamp(since_unix_s, UTC).isoformat()},
            below={"hour": datetime.fromtimestamp(until_unix_s, UTC).isoformat()},
            order="hour,id",
            limit=_PAGE,
            offset=offset,
        )
        for row in rows:
            organization = str(row["organization_id"])
            if organization not in slugs:
                named = await project.select("organizations", "slug", equal={"id": organization}, order="id", limit=1)
                slugs[organization] = str(named[0]["slug"])
            began = int(datetime.fromisoformat(row["hour"]).timestamp())
            hours[slugs[organization], row["signal"], began].there += row["items"]
        if len(rows) < _PAGE:
            return Reconciliation(dict(hours))
        offset += len(rows)
