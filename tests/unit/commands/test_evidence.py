"""`evidence export` and `evidence verify`."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from driftlock_otlp.__main__ import main
from driftlock_otlp.model import EvidenceBundle
from driftlock_otlp.storage import anomalies, evidence, history
from driftlock_otlp.windowing.bundle import read_bundle
from tests.unit.storage.test_anomalies import ANOMALY
from tests.unit.windowing.test_evidence import bundle_of, repacked


@pytest.fixture
def kept(connection: sqlite3.Connection, queue: str) -> str:
    """A database with an anomaly and its evidence; returns the setting that names it."""
    data = bundle_of("logs")
    with connection:
        anomalies.record(connection, ANOMALY, 1)
        anomalies.record(connection, replace(ANOMALY, id="0" * 32), 1)
        evidence.keep(connection, [EvidenceBundle(ANOMALY.id, "", read_bundle(data).root, data)], 1)
    return queue


def test_what_is_exported_is_confirmed(kept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "incident.zip"
    assert main(["evidence", "export", ANOMALY.id[:8], "--out", str(path), "--set", kept]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    assert main(["evidence", "verify", str(path), "--all"]) == 0
    out = capsys.readouterr().out
    assert "the verdict holds" in out
    assert "bits of template novelty" in out
    assert read_bundle(path.read_bytes()).root in out


def test_the_paper_about_an_anomaly_is_a_pdf_and_says_what_was_told(kept: str, tmp_path: Path) -> None:
    path = tmp_path / "incident.pdf"
    assert main(["evidence", "export", ANOMALY.id, "--pdf", "--out", str(path), "--set", kept]) == 0
    data = path.read_bytes()
    assert data.startswith(b"%PDF-")
    assert b"Evidence of anomaly" in data


def test_a_forged_verdict_is_not_confirmed_and_the_value_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "forged.zip"
    path.write_bytes(repacked(bundle_of("logs"), lambda tree: tree.update(bits=3.0)))
    assert main(["evidence", "verify", str(path)]) == 1
    out = capsys.readouterr().out
    assert "NOT CONFIRMED" in out
    assert "differs" in out


def test_what_is_no_bundle_is_said_to_be_none_and_the_next_one_is_still_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none, sound = tmp_path / "none.zip", tmp_path / "sound.zip"
    none.write_bytes(b"PK nothing")
    sound.write_bytes(bundle_of("metrics"))
    assert main(["evidence", "verify", str(none), str(sound)]) == 1
    out = capsys.readouterr().out
    assert "not a sound evidence bundle" in out
    assert "the verdict holds" in out


def test_an_anomaly_without_evidence_and_an_unknown_one_are_told_apart(
    kept: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evidence", "export", "0" * 32, "--set", kept]) == 1
    assert "no evidence is kept" in capsys.readouterr().err
    assert main(["evidence", "export", "ffff", "--set", kept]) == 1
    assert "no anomaly" in capsys.readouterr().err


def test_the_first_evidence_stays_and_its_root_is_in_the_history_once(connection: sqlite3.Connection) -> None:
    for data in (b"first", b"second"):
        evidence.keep(connection, [EvidenceBundle("a" * 32, "acme", "ff" * 32, data)], 5)
    assert evidence.get(connection, "a" * 32) == b"first"
    entries = history.entries(connection, tenant="acme", limit=10)
    assert [(entry.action, entry.subject) for entry in entries] == [("evidence_kept", "a" * 32)]


def test_the_oldest_evidence_goes_first(connection: sqlite3.Connection) -> None:
    for number in range(5):
        evidence.keep(connection, [EvidenceBundle(f"{number:032d}", "", "", bytes(100))], 5)
    assert evidence.expire(connection, 250) == 3
    assert [evidence.get(connection, f"{number:032d}") is not None for number in range(5)] == [False] * 3 + [True] * 2
    assert evidence.expire(connection, 0) == 2
