"""`quarantine list`, `release` and `drop`."""

from __future__ import annotations

import io
import sqlite3

import pytest

from driftlock_otlp.__main__ import main
from driftlock_otlp.storage import history, quarantine
from tests.unit.storage.test_quarantine import withhold


@pytest.fixture
def withheld(connection: sqlite3.Connection, queue: str) -> str:
    with connection:
        withhold(connection, 10, ["aa" * 16])
        withhold(connection, 20, ["bb" * 16], items=1)
    return queue


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_is_withheld_is_listed(withheld: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quarantine", "list", "--set", withheld]) == 0
    output = capsys.readouterr().out
    assert "aaaaaaaa" in output
    assert "logs/checkout" in output
    assert "4 items withheld, 30 B." in output
    # And when that ends by itself.
    assert "beyond 1.0 GiB (forward.quarantine.max_bytes), or at 1970-01-0" in " ".join(output.split())


def test_an_empty_quarantine_is_called_so(queue: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quarantine", "list", "--set", queue]) == 0
    assert capsys.readouterr().out == "Nothing is withheld.\n"


def test_one_anomaly_is_released(
    connection: sqlite3.Connection, withheld: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quarantine", "release", "AAAA", "--set", withheld]) == 0
    output = capsys.readouterr().out
    assert output.startswith("Released 3 items. A running sidecar sends them within a second")
    assert [row.item_count for row in quarantine.released(connection, 10)] == [3]
    assert quarantine.withheld_items(connection) == 1
    main(["quarantine", "list", "--set", withheld])
    assert "being sent" in capsys.readouterr().out
    (entry,) = history.entries(connection, tenant=None, limit=9)
    assert (entry.actor, entry.action, entry.detail) == ("local", "records_released", {"items": 3})


def test_everything_is_released(
    connection: sqlite3.Connection, withheld: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quarantine", "release", "--all", "--set", withheld]) == 0
    assert quarantine.withheld_items(connection) == 0
    assert main(["quarantine", "release", "--all", "--set", withheld]) == 0
    assert capsys.readouterr().out.endswith("Nothing is withheld.\n")


def test_dropping_needs_a_yes(
    connection: sqlite3.Connection, withheld: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["quarantine", "drop", "bb", "--set", withheld]) == 2
    assert "add --yes" in capsys.readouterr().err

    monkeypatch.setattr("sys.stdin", _Terminal("\n"))
    assert main(["quarantine", "drop", "bb", "--set", withheld]) == 1
    assert "Drop what is withheld of anomaly bb for good?" in capsys.readouterr().out
    assert quarantine.withheld_items(connection) == 4

    monkeypatch.setattr("sys.stdin", _Terminal("y\n"))
    assert main(["quarantine", "drop", "bb", "--set", withheld]) == 0
    assert capsys.readouterr().out.endswith("Dropped 1 item.\n")
    assert quarantine.withheld_items(connection) == 3


def test_dropping_with_yes_does_not_ask(
    connection: sqlite3.Connection, withheld: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quarantine", "drop", "--all", "--yes", "--set", withheld]) == 0
    assert capsys.readouterr().out == "Dropped 4 items.\n"
    assert quarantine.withheld_items(connection) == 0


@pytest.mark.parametrize("action", [["release"], ["drop", "--yes"]])
def test_an_anomaly_without_withheld_records_fails(
    withheld: str, action: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quarantine", *action, "cc", "--set", withheld]) == 1
    assert "nothing is withheld of anomaly 'cc'" in capsys.readouterr().err


def test_either_an_id_or_all_must_be_given(withheld: str) -> None:
    for wrong in ([], ["aa", "--all"]):
        with pytest.raises(SystemExit) as error:
            main(["quarantine", "release", *wrong, "--set", withheld])
        assert error.value.code == 2
