"""The crash harness: `python -m tests.crash.run --kills 100 [--seed 7]`, or `make crash N=100`.

Runs the sidecar under load from six senders, kills it or its worker at random moments, and checks
afterwards that everything is as promised. The seed decides what is sent, who is killed and when.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.crash.report import Report, table
from tests.crash.trial import Trial

_WORKER_SHARE = 0.3
_STARTING_SHARE = 0.2
_WARM_REQUESTS = 90
_LAST_REQUESTS = 20
_PAUSE_S = 0.1
"""Small windows are expensive, and what a process had scored when it died is scored again: with this the workers keep
up between the kills."""


async def run(kills: int, seed: int, directory: Path, say: Callable[[str], None]) -> Report:
    """Kill a sidecar so often and return what became of everything.

    Args:
        kills: How often.
        seed: Of what is sent, and of who is killed when.
        directory: For its files; empty.
        say: Takes a line of progress after each kill.
    """
    chance = random.Random(seed)
    async with Trial(directory, seed, fault_every=120) as trial:
        await trial.start()
        trial.send()
        await trial.acknowledge(_WARM_REQUESTS)
        before = await trial.pause()
        trial.slow_down(_PAUSE_S)
        for number in range(kills):
            if chance.random() < _WORKER_SHARE:
                await asyncio.sleep(chance.uniform(0.0, 1.5))
                await trial.kill_worker()
                victim = "worker"
            else:
                await asyncio.sleep(chance.uniform(0.1, 2.5))
                await trial.kill()
                victim = "service"
                if chance.random() < _STARTING_SHARE:
                    await trial.start(is_ready=False)
                    await asyncio.sleep(chance.uniform(0.05, 1.5))
                    await trial.kill()
                    victim = "service, and while it started"
                await trial.start()
            acknowledged = sum(len(sender.acknowledged) for sender in trial.senders)
            say(f"kill {number + 1} of {kills}: {victim}; {acknowledged:,} requests acknowledged")
        await trial.sidecar.wait_ready()
        await trial.acknowledge(_LAST_REQUESTS)
        report = await trial.finish(before)
        assert await trial.sidecar.stop() == 0
        return report


def main() -> int:
    """Run from the command line; the status says whether everything is as promised."""
    parser = argparse.ArgumentParser(description="Kill the sidecar under load and see what is lost.")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    # In a process of its own, so that somebody is left to say how it ended, whatever ended it.
    pid = os.fork()
    if not pid:
        os._exit(_run(options.kills, seed))
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
    print(f"ended {how}", flush=True)
    return code if code >= 0 else 1


def _run(kills: int, seed: int) -> int:
    """Run it and print what became of it; whatever goes wrong is printed, too."""
    started_s = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started_s:6.1f} s  {line}", flush=True)

    try:
        with tempfile.TemporaryDirectory(prefix="driftlock-crash-") as directory:
            report = asyncio.run(run(kills, seed, Path(directory), say))
    except BaseException:
        say(f"NOT FINISHED (seed {seed}):\n{traceback.format_exc()}")
        return 1
    print(table(report))
    for fault in report.faults:
        print(f"NOT AS PROMISED (seed {seed}): {fault}")
    sys.stdout.flush()
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
