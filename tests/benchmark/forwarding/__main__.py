"""The command line: `python -m tests.benchmark.forwarding`, or `make bench`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from driftlock_otlp.model import Signal
from tests.benchmark.forwarding import report
from tests.benchmark.forwarding.load import Case, Measured, Sink, measure
from tests.benchmark.forwarding.pool import requests
from tests.benchmark.forwarding.programs import PROGRAMS, Program, Wire
from tests.interop import programs

RECORDS = {1000: 200_000, 100: 40_000}
"""Records of one run, by those in a request."""
_DIRECTORY = Path(__file__).parents[3] / "docs" / "benchmarks"


def cases(*, is_quick: bool) -> list[Case]:
    """Return what is sent."""
    wires = [Wire(transport, compression) for transport in ("grpc", "http") for compression in ("none", "gzip")]
    if is_quick:
        return [Case(Signal.LOGS, 1000, Wire("grpc", "none"))]
    return [
        *(Case(Signal.LOGS, 1000, wire) for wire in wires),
        *(Case(Signal.LOGS, 100, Wire(transport, "none")) for transport in ("grpc", "http")),
        *(Case(signal, 1000, Wire("grpc", "none")) for signal in (Signal.METRICS, Signal.TRACES)),
    ]


def main() -> int:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description="Driftlock beside the collectors that only forward.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one case only; nothing is written")
    parser.add_argument("--only", default="", metavar="TEXT", help="only programs whose name has this in it")
    options = parser.parse_args()
    chosen = [program for program in PROGRAMS if options.only in program.name and _is_here(program)]
    measured = asyncio.run(_run(chosen, cases(is_quick=options.quick), options.rounds))
    if not options.quick and not options.only:
        report.write(_DIRECTORY, measured)
    return 0 if all(run.delivered == run.records for run in measured) else 1


async def _run(chosen: Sequence[Program], all_cases: Sequence[Case], rounds: int) -> list[Measured]:
    measured = []
    sink = Sink()
    try:
        for case in all_cases:
            payloads = list(requests(case.signal, RECORDS[case.per_request], case.per_request))
            size = sum(map(len, payloads)) / RECORDS[case.per_request]
            print(f"\n{case}: {RECORDS[case.per_request]:,} records of {size:.0f} B", flush=True)
            for number in range(rounds):
                # Whoever began one round begins none of the next ones soon.
                turn = [*chosen[number % len(chosen) :], *chosen[: number % len(chosen)]]
                for program in turn:
                    with tempfile.TemporaryDirectory(prefix="driftlock-bench-") as directory:
                        run = await measure(program, case, payloads, Path(directory), sink)
                    measured.append(run)
                    print(
                        f"  {number + 1}  {program.name:32} {run.cpu_s / run.records * 1e6:7.2f} CPU-s per million "
                        f"{run.records / run.wall_s:9,.0f}/s  ack {run.p50_ms:6.1f} / {run.p99_ms:7.1f} ms "
                        f"{run.peak_bytes >> 20:5} MiB  {run.delivered / run.records:.1%} delivered",
                        flush=True,
                    )
                    time.sleep(0.5)
    finally:
        sink.close()
    return measured


def _is_here(program: Program) -> bool:
    needed = {"collector": programs.COLLECTOR, "rotel": programs.ROTEL}.get(program.name.partition(",")[0])
    if needed is None or needed.exists():
        return True
    print(f"{program.name}: is not built here and is left out; `make interop-build` builds it", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(main())
