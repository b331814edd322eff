"""What earlier versions wrote is read, what later ones write is refused with a remedy."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from driftlock_otlp.errors import ConfigError
from driftlock_otlp.model import ItemRange, NewEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import anomalies, outbox, quarantine, segments, usage, verdicts
from driftlock_otlp.storage.anomalies import AnomalyFilter
from driftlock_otlp.storage.log import SegmentLog
from driftlock_otlp.storage.schema import APPLICATION_ID, SCHEMA_VERSION
from driftlock_otlp.storage.state import StateDatabase, cursors

GOLDEN = Path(__file__).parents[2] / "golden" / "storage"
ANOMALY = "aa" * 16
OLD_STATES = range(1, SCHEMA_VERSION)


def write_state(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((GOLDEN / f"state-{version}.sql").read_text())
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


@pytest.mark.parametrize("version", OLD_STATES)
async def test_state_of_an_earlier_version_is_migrated_with_all_that_it_holds(tmp_path: Path, version: int) -> None:
    path = tmp_path / "state.db"
    write_state(path, version)
    state = StateDatabase(path, durability="fsync")
    state.open()
    assert await state.read(cursors) == {"divert:quarantine": 55, "forward:otlp_grpc": 77}
    assert await state.read(quarantine.level) == quarantine.Level(6, 16, 1010)
    assert await state.read(lambda c: verdicts.between(c, 0, 100)) == {90: [ItemRange(0, 2, ANOMALY)]}
    (total,) = await state.read(usage.totals)
    assert (total.tenant, total.item_count, total.payload_bytes, total.request_count) == ("acme", 5, 50, 1)
    assert [row.payload for row in await state.read(lambda c: outbox.pending(c, "otlp_grpc", 9))] == [b"event"]
    # Rows of then have no checksum; they are sent as they are.
    assert await state.write(lambda c: quarantine.release(c, None)) == 6
    assert [row.payload for row in await state.read(lambda c: quarantine.released(c, 9))] == [b"\n" * 8, b"\x14" * 8]
    state.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("version", OLD_STATES)
def test_migrated_state_has_the_tables_of_a_new_one(tmp_path: Path, version: int) -> None:
    write_state(tmp_path / "old.db", version)
    found = []
    for name in ("old.db", "new.db"):
        state = StateDatabase(tmp_path / name, durability="os")
        state.open()
        state.close()
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            columns = {
                table: connection.execute(f"PRAGMA table_xinfo({table})").fetchall()
                for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
            }
            indexes = connection.execute("SELECT name, tbl_name FROM sqlite_schema WHERE type = 'index'").fetchall()
            found.append((columns, sorted(indexes)))
    assert found[0] == found[1]


async def test_log_of_the_first_format_is_read_and_goes_on(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "log-1", tmp_path / "log")
    log = SegmentLog(tmp_path / "log", durability="fsync", segment_bytes=200, max_bytes=1 << 20, metrics=Metrics())
    log.open()
    entries = [*log.read(0, 1000), *log.read(142, 1000)]
    assert [entry.entry for entry in entries] == [
        NewEntry(Signal.LOGS, b"payload 0", 0, 1000),
        NewEntry(Signal.METRICS, b"payload 1", 1, 1001, "acme"),
        NewEntry(None, b"", 2, 1002),
        NewEntry(Signal.TRACES, b"payload 3", 3, 1003, "acme"),
    ]
    assert await log.append(NewEntry(Signal.LOGS, b"new", 1, 1004)) == entries[-1].next_position
    log.close()


def test_present_formats_are_those_that_the_golden_files_stand_for() -> None:
    # A new version: add its golden files, and a test that opens those of the one before.
    assert (segments.FORMAT_VERSION, SCHEMA_VERSION) == (1, 4)


@pytest.mark.parametrize("part", ["log", "state"])
def test_newer_data_is_refused_with_file_versions_and_remedy(tmp_path: Path, part: str) -> None:
    if part == "log":
        shutil.copytree(GOLDEN / "log-1", tmp_path / "log")
        path = segments.segment_path(tmp_path / "log", 0)
        header = bytearray(path.read_bytes()[:32])
        header[8] = 7
        header[12:16] = segments.crc32(header[16:], segments.crc32(header[:12])).to_bytes(4, "little")
        with path.open("r+b") as file:
            file.write(header)
        log = SegmentLog(tmp_path / "log", durability="fsync", segment_bytes=200, max_bytes=1 << 20, metrics=Metrics())
        opening, known = log.open, segments.FORMAT_VERSION
    else:
        path = tmp_path / "state.db"
        write_state(path, 1)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 7")
        opening, known = StateDatabase(path, durability="fsync").open, SCHEMA_VERSION
    with pytest.raises(ConfigError) as refusal:
        opening()
    message = str(refusal.value)
    assert str(path) in message
    assert " 7;" in message
    assert f"up to {known}" in message
    assert "run the version that wrote it" in message


async def test_anomalies_of_an_earlier_version_are_found_by_what_was_in_their_documents(tmp_path: Path) -> None:
    write_state(tmp_path / "state.db", 3)
    state = StateDatabase(tmp_path / "state.db", durability="os")
    state.open()
    # The third of them, which nobody could read, is not there.
    ended, goes_on = await state.read(anomalies.find)
    assert (goes_on.id, goes_on.state, goes_on.status, goes_on.level) == ("ab" * 16, "open", "new", "notice")
    assert (goes_on.window_count, goes_on.severity, goes_on.resource_schema_url[:5]) == (1, "high", "https")
    assert (ended.state, ended.resolution, ended.resolved_unix_nano) == ("resolved", "recovered", 1_700_000_100 * 10**9)
    strict = AnomalyFilter(min_score=0.9, max_p_value=0.01, text="ZAHLUNG", tenant="acme")
    assert len(await state.read(lambda c: anomalies.find(c, strict))) == 2
    assert await state.read(anomalies.open_count) == 1
    state.close()
