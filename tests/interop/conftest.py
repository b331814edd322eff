"""Ends of a route, and the account of what went through it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from driftlock_otlp.model import Signal
from tests.conformance.certificates import Certificates
from tests.e2e.sidecar import Sidecar
from tests.interop.records import shown

NewSidecar = Callable[[dict[str, Any]], Sidecar]

_EXAMPLES = 3


@dataclass
class Account:
    """What was sent and what arrived, by route and signal, in the order of the tests."""

    rows: dict[tuple[str, str], tuple[int, int, int, int]] = field(default_factory=dict)

    def compare(self, route: str, signal: Signal, sent: Counter[bytes], received: Counter[bytes]) -> None:
        """Enter a route and check that every record has arrived, equal, once.

        Args:
            route: What to call it in the table.
            signal: The records' signal.
            sent: See `records_of`.
            received: The same.

        Raises:
            AssertionError: Something was lost, changed or duplicated, or nothing was sent.
        """
        lost = sent - received
        more = received - sent
        repeated = Counter({record: count for record, count in more.items() if record in sent})
        self.rows[route, signal.plural] = (sent.total(), received.total(), lost.total(), repeated.total())
        assert sent, f"nothing was sent over {route}"
        assert not lost and not more, "\n".join(
            [
                f"{route}, {signal.plural}: {sent.total()} sent, {received.total()} received",
                *(f"not received: {shown(signal, record)}" for record in list(lost)[:_EXAMPLES]),
                *(f"not sent:     {shown(signal, record)}" for record in list(more)[:_EXAMPLES]),
            ]
        )

    def count(self, route: str, signal: Signal, sent_count: int, received: Counter[bytes]) -> None:
        """Enter a route whose sender says only how many records it has sent.

        Raises:
            AssertionError: Not so many have arrived.
        """
        missing = sent_count - received.total()
        self.rows[route, signal.plural] = (sent_count, received.total(), max(missing, 0), max(-missing, 0))
        assert not missing, f"{route}, {signal.plural}: {sent_count} sent, {received.total()} received"


_ACCOUNT = pytest.StashKey[Account]()


def pytest_configure(config: pytest.Config) -> None:
    """Open the account of this run."""
    config.stash[_ACCOUNT] = Account()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what went over each route."""
    rows = config.stash[_ACCOUNT].rows
    if not rows:
        return
    terminalreporter.section("records by route")
    width = max(len(route) for route, _ in rows)
    layout = f"{{:<{width}}}  {{:<8}} {{:>9}} {{:>9}} {{:>6}} {{:>10}}"
    terminalreporter.line(layout.format("route", "signal", "sent", "received", "lost", "duplicated"))
    for (route, signal), counts in rows.items():
        terminalreporter.line(layout.format(route, signal, *counts))
    totals = [sum(column) for column in zip(*rows.values(), strict=True)]
    terminalreporter.line(layout.format("all routes", "", *totals))


@pytest.fixture(scope="session")
def account(pytestconfig: pytest.Config) -> Account:
    """The account of this run."""
    return pytestconfig.stash[_ACCOUNT]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A CA, and what it has signed for a server and for a client."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def new_sidecar(tmp_path: Path) -> AsyncIterator[NewSidecar]:
    """Makes sidecars that end with their test."""
    made: list[Sidecar] = []

    def new(settings: dict[str, Any]) -> Sidecar:
        directory = tmp_path / f"sidecar-{len(made)}"
        directory.mkdir()
        made.append(Sidecar(directory, None, settings))
        return made[-1]

    yield new
    for sidecar in made:
        await sidecar.close()
