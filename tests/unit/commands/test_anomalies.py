"""`anomalies list` and `anomalies show`."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from driftlock_otlp.__main__ import main
from driftlock_otlp.model import StreamKey
from driftlock_otlp.storage import anomalies
from tests.unit.storage.test_anomalies import ANOMALY

_RESOURCE = Resource()
_RESOURCE.attributes.add(key="service.name").value.string_value = "checkout"
_RESOURCE.attributes.add(key="host.name").value.string_value = "web-1"
FIRST = replace(ANOMALY, id="3f2a91c0" + "0" * 24, resource=_RESOURCE.SerializeToString())
SECOND = replace(
    FIRST,
    id="77aa0000" + "0" * 24,
    stream=StreamKey("metrics", "pay", "queue.depth"),
    state="resolved",
    resolution="recovered",
    severity="low",
    detected_unix_nano=FIRST.detected_unix_nano + 10**9,
    resolved_unix_nano=FIRST.detected_unix_nano + 60 * 10**9,
    explanation="median value is 5 \x1b[31mred",
)


@pytest.fixture
def found(connection: sqlite3.Connection, queue: str) -> str:
    with connection:
        anomalies.record(connection, FIRST, 1)
        anomalies.record(connection, SECOND, 1)
    return queue


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["anomalies", *arguments]) == 0
    return capsys.readouterr().out


def test_anomalies_are_listed_newest_first(found: str, capsys: pytest.CaptureFixture[str]) -> None:
    header, *lines = _run(capsys, "list", "--set", found).splitlines()
    rows = [line for line in lines if not line.startswith(" ")]
    assert header.split("  ")[0] == "TIME (UTC)"
    assert [row.split()[:3] for row in rows] == [
        ["2023-11-14", "22:13:21Z", "77aa0000"],
        ["2023-11-14", "22:13:20Z", "3f2a91c0"],
    ]
    assert "checkout" in rows[1]
    assert "Zahlung fehlgeschlagen" in rows[1]


def test_text_from_outside_cannot_command_the_terminal(found: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "\x1b" not in _run(capsys, "list", "--set", found)


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (["--kind", "logs"], ["3f2a91c0"]),
        (["--service", "pay"], ["77aa0000"]),
        (["--state", "open"], ["3f2a91c0"]),
        (["--limit", "1"], ["77aa0000"]),
        (["--since", "1h"], []),
    ],
)
def test_anomalies_are_filtered(
    found: str, filters: list[str], ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _run(capsys, "list", "--json", "--set", found, *filters).splitlines()
    assert [json.loads(line)["id"][:8] for line in lines] == ids


def test_since_counts_back_from_now(
    connection: sqlite3.Connection, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with connection:
        anomalies.record(connection, replace(FIRST, id="c" * 32, detected_unix_nano=time.time_ns() - 60 * 10**9), 1)
    assert "cccccccc" in _run(capsys, "list", "--since", "10m", "--set", found)


def test_nothing_found_is_said(queue: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(capsys, "list", "--set", queue) == "No anomalies.\n"


def test_everything_about_one_anomaly_is_shown(found: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _run(capsys, "show", "3f2a", "--set", found)
    for text in (
        FIRST.id,
        FIRST.explanation,
        "logs/checkout",
        "2023-11-14 22:13:10Z to 2023-11-14 22:13:20Z (10 s), 200 records",
        "0.930",
        "41.5 bits",
        "3.20 (baseline 9.10)",
        "payment <*> failed",
        FIRST.trace_id,
        FIRST.span_id,
        "host.name=web-1",
        "30.5",
        "template",
    ):
        assert text in shown


def test_one_anomaly_is_told_in_json(found: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(_run(capsys, "show", "77aa", "--json", "--set", found))
    assert document["id"] == SECOND.id
    assert document["stream"]["name"] == "queue.depth"
    assert document["evidence"][0]["bits"] == 30.5
    assert document["resource"] == {"service.name": "checkout", "host.name": "web-1"}


def test_an_unknown_id_fails_with_the_remedy(found: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["anomalies", "show", "dead", "--set", found]) == 1
    assert "no anomaly 'dead'; `anomalies list` shows their ids" in capsys.readouterr().err


def test_an_ambiguous_id_asks_for_more_digits(
    connection: sqlite3.Connection, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with connection:
        anomalies.record(connection, replace(FIRST, id="3f2b" + "0" * 28), 1)
    assert main(["anomalies", "show", "3f", "--set", found]) == 2
    assert "give more digits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--since", "soon"], "--since: 'soon' is not a duration"), (["--limit", "0"], "--limit 0")],
)
def test_wrong_filters_are_refused(
    found: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["anomalies", "list", "--set", found, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_sidecar_that_never_ran_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["anomalies", "list", "--set", f"queue.path={tmp_path}"]) == 2
    assert "has the sidecar run with this queue.path?" in capsys.readouterr().err


def test_status_is_set_and_shown_with_who_said_so(found: str, capsys: pytest.CaptureFixture[str]) -> None:
    note = ["--note", "deploy of 14:02"]
    assert _run(capsys, "status", "3f2a", "acknowledged", *note, "--set", found) == "3f2a91c0: new -> acknowledged\n"
    shown = _run(capsys, "show", "3f2a", "--set", found)
    assert "acknowledged" in shown
    assert "deploy of 14:02" in shown
    document = json.loads(_run(capsys, "show", "3f2a", "--json", "--set", found))
    assert (document["state"], document["status"], document["level"]) == ("open", "acknowledged", "notice")
    assert [entry["actor"] for entry in document["history"]] == ["local"]
    listed = _run(capsys, "list", "--status", "acknowledged", "--json", "--set", found)
    assert [json.loads(line)["id"] for line in listed.splitlines()] == [FIRST.id]
    assert main(["anomalies", "status", "ffff", "dismissed", "--set", found]) == 1
