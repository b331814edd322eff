"""The command line: `python -m tests.soak --minutes 10`, or `make soak MINUTES=10`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import MEMORY_LIMIT_BYTES, soak


def main() -> int:
    """Run it; the status says whether everything is as promised."""
    parser = argparse.ArgumentParser(description="Ask twice its capacity of the sidecar.")
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()

    def say(line: str) -> None:
        print(line, flush=True)

    with tempfile.TemporaryDirectory(prefix="driftlock-soak-") as directory:
        verdict = asyncio.run(soak(Path(directory), options.minutes * 60.0, say))
    print(f"records acknowledged  {verdict.acknowledged:,} of the raw clients; batches of the SDK: {verdict.sdk}")
    print(f"highest memory        {verdict.highest_rss_bytes >> 20} of {MEMORY_LIMIT_BYTES >> 20} MiB")
    print(f"refusals              {dict(verdict.refusals)}, told to wait {dict(verdict.delays_s)} s")
    for fault in verdict.faults:
        print(f"NOT AS PROMISED: {fault}")
    if not verdict.faults:
        print("nothing is lost, memory is under its limit, every refusal says when to come back")
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
