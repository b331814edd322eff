"""A process dies at every named step between receiving and the last delivery, and nothing is lost.

Each test goes through the steps of one part on one data directory, so that the streams warm up once.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import driftlock_otlp
from driftlock_otlp.fault_points import FAULT_POINTS, POINT_VARIABLE
from tests.crash.report import table
from tests.crash.senders import ROLES
from tests.crash.trial import Trial

SEED = 20_260_202
SMALL_SEGMENT_BYTES = 64 << 10
WARM_REQUESTS = 85
"""Of 20 items each: from then on every stream may alarm."""

COUNTS = {"receive.decoded": 7, "receive.appended": 5, "receive.answered": 3, "log.written": 4, "log.synced": 4}
"""Steps that are reached often: the first time is not the only one."""

NEED_ANOMALIES = {
    "verdicts.opening", "verdicts.opened", "forward.withholding", "events.chosen", "events.delivered", "events.marked",
}  # fmt: skip
BREAKS_DOWN = {"verdicts": 0, "forward": 0, "events": 3}
"""Which sender: both send logs, and a stream is less surprised by its second fault."""
IN_WORKERS = {name for name in FAULT_POINTS if name.startswith("worker.")}
PARTS = {
    part: [name for name in FAULT_POINTS if name.startswith(beginnings)]
    for part, beginnings in {
        "receiving, starting and stopping": ("receive.", "service."),
        "log": ("log.", "requests."),
        "scoring": ("worker.", "verdicts."),
        "delivery": ("forward.", "events.", "quarantine."),
    }.items()
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.timeout(240)
async def test_dying_at_a_step_loses_nothing_and_repeats_nothing_in_effect(tmp_path: Path, part: str) -> None:
    settings = {"queue": {"segment_bytes": SMALL_SEGMENT_BYTES}} if part == "log" else {}
    roles = ROLES[:4]  # all signals, both transports, two organisations
    async with Trial(tmp_path, SEED, settings, roles, pause_s=0.01, fault_every=0) as trial:
        await trial.start()
        trial.send()
        await trial.acknowledge(WARM_REQUESTS)
        await trial.pause()
        trial.slow_down(0.05)
        broken = set()
        for name in PARTS[part]:
            await trial.kill()
            # One fault serves all steps of a kind: what a step has left undone is done again after it.
            kind = name.partition(".")[0]
            await _die_at(trial, name, faulty=BREAKS_DOWN[kind] if name in NEED_ANOMALIES - broken else None)
            broken |= {other for other in NEED_ANOMALIES if name in NEED_ANOMALIES and other.startswith(kind)}
        if not trial.sidecar.is_running:
            await trial.start()
        await trial.acknowledge(5)
        report = await trial.finish()
        print(table(report))
        assert not report.faults, f"seed {SEED}: " + "\n".join(report.faults)
        assert await trial.sidecar.stop() == 0


async def _die_at(trial: Trial, name: str, *, faulty: int | None) -> None:
    """Start the sidecar, and see it or its worker die at a step; it is left running only in the latter case.

    Args:
        trial: With the sidecar dead.
        name: The step.
        faulty: The sender that breaks down, so that the step is reached.
    """
    mark = await trial.start(point=f"{name}:{COUNTS.get(name, 1)}", is_ready=False)
    if faulty is not None:
        trial.senders[faulty].break_down()
    if name == "quarantine.delivered":
        await trial.until(lambda: trial.withheld() > 0, "nothing is withheld")
        trial.release_quarantine()
    if name == "service.stopping":
        await trial.sidecar.wait_ready()
        trial.sidecar.ask_to_stop()
    await trial.died_at(mark, is_worker=name in IN_WORKERS)
    if name in IN_WORKERS:
        await trial.sidecar.wait_ready()


def test_every_step_of_the_table_is_somewhere_in_the_code_and_the_reverse() -> None:
    reached = set()
    for path in Path(driftlock_otlp.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "fault_points.reach":
                (name,) = node.args
                assert isinstance(name, ast.Constant)
                reached.add(name.value)
    assert reached == set(FAULT_POINTS)
    assert {name for names in PARTS.values() for name in names} == set(FAULT_POINTS)


@pytest.mark.parametrize("value", ["log.writen", "log.written:0", "log.written:often"])
def test_a_step_that_does_not_exist_is_named(value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import driftlock_otlp.fault_points"],
        env={POINT_VARIABLE: value}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"{POINT_VARIABLE}={value}: expected NAME or NAME:COUNT" in done.stderr
