"""How fast this disk takes requests: our log beside what it could be made of, in turns within one run.

python -m tests.benchmark.storage [--directory DIRECTORY] [--seconds 2] [--rounds 5]

A disk is busier at one minute than at the next, so every contender has a turn in each round, and the
median of its turns counts. All make every group of requests durable before they go on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from driftlock_otlp.model import NewEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage.log import SegmentLog

_SEGMENT_BYTES = 64 << 20
_GROUP = 8


@dataclass(frozen=True)
class Turn:
    """What one contender did in one turn.

    Attributes:
        requests_per_s: Requests that became durable.
        bytes_per_s: Their bytes.
    """

    requests_per_s: float
    bytes_per_s: float


Contender = Callable[[Path, bytes, float], int]
"""Writes a payload again and again for some seconds below a directory; returns how often it became durable."""


def raw_sync(directory: Path, payload: bytes, seconds: float) -> int:
    """Write 4 KiB and sync, alone: the number of syncs that the disk does."""
    return _segments(directory, bytes(4096), seconds, group=1)


def plain_segments(directory: Path, payload: bytes, seconds: float) -> int:
    """Append groups of payloads to plain files, with one sync a group: no header, no checksum, nobody waits."""
    return _segments(directory, payload, seconds, group=_GROUP)


def sqlite(directory: Path, payload: bytes, seconds: float) -> int:
    """Insert groups of payloads, one transaction a group."""
    with closing(sqlite3.connect(directory / "log.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, payload BLOB)")
        count, end_s = 0, time.perf_counter() + seconds
        while time.perf_counter() < end_s:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO entries (payload) VALUES (?)", [(payload,)] * _GROUP)
            connection.execute("COMMIT")
            count += _GROUP
    return count


def our_log(directory: Path, payload: bytes, seconds: float, senders: int = _GROUP) -> int:
    """Append to the telemetry log from so many senders, each of whom waits for its acknowledgement."""
    log = SegmentLog(
        directory / "log", durability="fsync", segment_bytes=_SEGMENT_BYTES, max_bytes=1 << 40, metrics=Metrics()
    )
    log.open()
    count, end_s = 0, time.perf_counter() + seconds

    async def send() -> None:
        nonlocal count
        while time.perf_counter() < end_s:
            await log.append(NewEntry(Signal.LOGS, payload, 100, 1))
            count += 1

    async def send_all() -> None:
        await asyncio.gather(*(send() for _ in range(senders)))

    asyncio.run(send_all())
    log.close()
    return count


CONTENDERS: dict[str, Contender] = {
    "raw fdatasync, 4 KiB": raw_sync,
    "plain segment files, 8 a sync": plain_segments,
    "our log, 8 senders": our_log,
    "our log, 64 senders": partial(our_log, senders=64),
    "SQLite, 8 a transaction": sqlite,
}


def run(directory: Path, payload_bytes: int, seconds: float, rounds: int) -> dict[str, Turn]:
    """Return the median turn of each contender.

    Args:
        directory: On the disk in question.
        payload_bytes: Size of a request.
        seconds: Length of a turn.
        rounds: Turns of each.
    """
    payload = os.urandom(payload_bytes)
    turns: dict[str, list[Turn]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name, contend in CONTENDERS.items():
            place = Path(tempfile.mkdtemp(dir=directory))
            try:
                started_s = time.perf_counter()
                count = contend(place, payload, seconds)
                elapsed_s = time.perf_counter() - started_s
            finally:
                shutil.rmtree(place)
            size = 4096 if contend is raw_sync else payload_bytes
            turns[name].append(Turn(count / elapsed_s, count * size / elapsed_s))
    return {
        name: Turn(statistics.median(t.requests_per_s for t in taken), statistics.median(t.bytes_per_s for t in taken))
        for name, taken in turns.items()
    }


def _segments(directory: Path, payload: bytes, seconds: float, group: int) -> int:
    count, number, written = 0, 0, 0
    fd = os.open(directory / "0.log", os.O_RDWR | os.O_CREAT, 0o600)
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        if written > _SEGMENT_BYTES:
            os.close(fd)
            number, written = number + 1, 0
            fd = os.open(directory / f"{number}.log", os.O_RDWR | os.O_CREAT, 0o600)
        written += os.pwritev(fd, [payload] * group, written)
        os.fdatasync(fd)
        count += group
    os.close(fd)
    return count


def main() -> None:
    """Print a table for several sizes of requests."""
    parser = argparse.ArgumentParser(description="How fast this disk takes requests.")
    parser.add_argument("--directory", type=Path, default=Path("."), help="on the disk in question")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    arguments = parser.parse_args()
    for payload_bytes in (4 << 10, 32 << 10, 256 << 10):
        print(f"\nrequests of {payload_bytes >> 10} KiB, median of {arguments.rounds} turns of {arguments.seconds:g} s")
        for name, turn in run(arguments.directory, payload_bytes, arguments.seconds, arguments.rounds).items():
            print(f"  {name:32}{turn.requests_per_s:10,.0f} requests/s{turn.bytes_per_s / 1e6:10,.1f} MB/s")


if __name__ == "__main__":
    main()
