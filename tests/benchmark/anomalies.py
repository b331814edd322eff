"""How fast a full store of anomalies is listed and filtered, on this machine.

python -m tests.benchmark.anomalies [--directory DIRECTORY] [--rows 1000000] [--turns 100]

Each kind of query is asked in turns over pages from the first on, on a connection that only reads, twice:
`first` is the longest wait of the first time, in which the disk has to be read; the percentiles are of
the second. A page that looks for what is rare may end before it is full: `pages` says how many it
takes until ten are found or the list has ended.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from driftlock_otlp.model import Anomaly, AnomalySeverity, StreamKey
from driftlock_otlp.storage import anomalies
from driftlock_otlp.storage.anomalies import AnomalyFilter
from driftlock_otlp.storage.state import StateDatabase, connect_readonly, connect_shared

_HOUR_NANO = 3600 * 10**9
_START = 1_700_000_000_000_000_000
_SPACING_NANO = 7_776 * 10**6
"""A million anomalies in ninety days."""
_LIMIT = 50
_SEVERITIES = [severity.label for severity in AnomalySeverity]

_TEMPLATE = Anomaly(
    id="",
    stream=StreamKey("logs", "shop"),
    state="resolved",
    severity="low",
    detected_unix_nano=0,
    window_start_unix_nano=0,
    window_end_unix_nano=0,
    record_count=200,
    score=0.6,
    p_value=0.002,
    bits=13.0,
    ncd=0.7,
    compression_ratio=3.0,
    baseline_compression_ratio=9.0,
    entropy_bits=5.0,
    baseline_entropy_bits=1.0,
    baseline_windows=12,
    baseline_records=2400,
    explanation="",
    evidence=(),
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    related_trace_ids=("1" * 32,) * 8,
    template="",
    resource=bytes(range(256)) * 4,
    resource_schema_url="https://opentelemetry.io/schemas/1.30.0",
    fingerprint="openzl/1/abc",
    compressor="openzl 0.3",
)


def queries(end: int) -> dict[str, AnomalyFilter]:
    """Return what is asked, by name; `end` is the event time of the newest."""
    return {
        "all": AnomalyFilter(),
        "one tenant of four": AnomalyFilter(tenant="t1"),
        "one service of a hundred": AnomalyFilter(service="service-7"),
        "open ones (0.01 %)": AnomalyFilter(state="open"),
        "critical, dismissed (0.5 %)": AnomalyFilter(severity="critical", status="dismissed"),
        "metrics of a service, score >= 0.95": AnomalyFilter(kind="metrics", service="service-3", min_score=0.95),
        "score >= 0.9999 (0.01 %, no index)": AnomalyFilter(min_score=0.9999),
        "one day, page level": AnomalyFilter(
            since_unix_nano=end - 48 * _HOUR_NANO, until_unix_nano=end - 24 * _HOUR_NANO, level="page"
        ),
        "text in 1 %": AnomalyFilter(text="timeout 7 "),
        "text in none": AnomalyFilter(text="no such thing"),
        "nothing fits": AnomalyFilter(tenant="t2", kind="gen_ai", service="service-9", status="investigating"),
    }


def fill(path: Path, rows: int) -> int:
    """Make a state database with so many anomalies; return the event time of the newest."""
    state = StateDatabase(path, durability="os")
    state.open()
    state.close()
    chance = random.Random(7)
    detected = _START
    with closing(connect_shared(path)) as connection:
        for number in range(rows):
            detected = _START + number * _SPACING_NANO + chance.randrange(_SPACING_NANO)
            service = f"service-{chance.randrange(100)}"
            key = StreamKey(chance.choice(("logs", "metrics", "traces", "gen_ai")), service, "", f"t{number % 4}")
            anomaly = replace(
                _TEMPLATE,
                id=f"{chance.getrandbits(128):032x}",
                stream=key,
                state="open" if chance.random() < 1e-4 else "resolved",
                status="dismissed" if chance.random() < 0.1 else "new",
                severity=chance.choices(_SEVERITIES, (60, 25, 10, 5))[0],
                level=chance.choices(("notice", "page", "fleet"), (90, 9, 1))[0],
                incident_id=f"{number // 5:032x}",
                score=chance.random(),
                p_value=chance.random(),
                detected_unix_nano=detected,
                explanation=f"{service}: new template “timeout {chance.randrange(100)} ms” in 41 of 50 lines (16 bits)",
                template="payment gateway timeout after <*> ms",
            )
            anomalies.record(connection, anomaly, detected)
            if number % 10_000 == 0:
                connection.commit()
        connection.commit()
    return detected


@dataclass(frozen=True)
class Answer:
    """How long one kind of query took.

    Attributes:
        seconds: Of each page, sorted.
        pages: Pages until ten were found, or the list had ended.
    """

    seconds: list[float]
    pages: int

    def at(self, share: float) -> float:
        """Return the time that this share of pages did not exceed."""
        return self.seconds[min(int(share * len(self.seconds)), len(self.seconds) - 1)]


def ask(path: Path, where: AnomalyFilter, turns: int) -> Answer:
    """Ask for page after page, from the first again when the list has ended."""
    seconds, pages, found, cursor = [], 0, 0, None
    with closing(connect_readonly(path)) as connection:
        for turn in range(1, turns + 1):
            start = time.perf_counter()
            page = anomalies.page(connection, where, _LIMIT, cursor)
            seconds.append(time.perf_counter() - start)
            cursor = page.next_cursor
            found += len(page.anomalies)
            if not pages and (found >= 10 or cursor is None):
                pages = turn
    return Answer(sorted(seconds), pages)


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        path = Path(directory) / "state.db"
        start = time.perf_counter()
        end = fill(path, arguments.rows)
        took_s = time.perf_counter() - start
        print(f"{arguments.rows:,} anomalies, {path.stat().st_size / 1e9:.2f} GB, {took_s:.0f} s to write")
        print(f"{'query':40}{'first ms':>9}{'p50 ms':>8}{'p99 ms':>8}{'pages':>7}")
        for name, where in queries(end).items():
            first, answer = ask(path, where, arguments.turns), ask(path, where, arguments.turns)
            row = [1000 * value for value in (first.at(1), statistics.median(answer.seconds), answer.at(0.99))]
            print(f"{name:40}{row[0]:9.2f}{row[1]:8.2f}{row[2]:8.2f}{answer.pages or '>' + str(arguments.turns):>7}")


if __name__ == "__main__":
    main()
