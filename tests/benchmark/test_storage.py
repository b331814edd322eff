"""What the log costs beyond the disk; the figures are printed by `python -m tests.benchmark.storage`."""

from __future__ import annotations

from pathlib import Path

from tests.benchmark.storage import run


def test_log_keeps_up_with_plain_files_and_leaves_sqlite_behind(tmp_path: Path) -> None:
    turns = run(tmp_path, 256 << 10, seconds=0.5, rounds=3)
    for name, turn in turns.items():
        print(f"{name:32}{turn.requests_per_s:10,.0f} requests/s{turn.bytes_per_s / 1e6:10,.1f} MB/s")
    log = turns["our log, 64 senders"].bytes_per_s
    # Some 0.8 and 2 were measured; a tenth is a mistake, not a busy disk.
    assert log > 0.2 * turns["plain segment files, 8 a sync"].bytes_per_s
    assert log > 0.5 * turns["SQLite, 8 a transaction"].bytes_per_s
