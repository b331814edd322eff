"""The figures as a page with a plot, and raw beside it."""

from __future__ import annotations

import json
import os
import platform
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from tests.benchmark.forwarding.load import SENDERS, Measured

_HEAD = """\
# Beside collectors that only forward

What Driftlock costs beside collectors that only forward, by `make bench`. Written by that command: each figure is the
median of {rounds} rounds in one run, programs taking turns within a round, on {machine}.
The spread in parentheses is the lowest and highest round. Read ratios, not seconds: such machines are shared.

{senders} senders, loopback only. Every record was counted at the destination. CPU is that of all processes of a
program, until everything had arrived and it had become idle; detection is on in `divert`, `tag` and `pass`, with
default settings and, unless `memory` is said, every request acknowledged from disk.

Not comparable: the Collector and rotel acknowledge from memory, except with a persistent queue (which does sync here),
and detect nothing. The Collector's isolation-forest processor is not in the table: no module proxy served it here.
rotel batches small requests together before it sends, the Collector and Driftlock send on what they got.

![CPU seconds per million records](forwarding.svg)
"""


def write(directory: Path, measured: Sequence[Measured]) -> None:
    """Write `forwarding.md`, with `forwarding.json` and `.svg` beside it.

    Args:
        directory: Made if it is not there.
        measured: All runs, in the order in which they were made.
    """
    directory.mkdir(exist_ok=True)
    groups: dict[str, dict[str, list[Measured]]] = defaultdict(lambda: defaultdict(list))
    for run in measured:
        groups[run.case][run.program].append(run)
    rounds = max(len(runs) for programs in groups.values() for runs in programs.values())
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    page = [_HEAD.format(rounds=rounds, machine=machine, senders=SENDERS)]
    for case, programs in groups.items():
        page.append(f"## {case[0].upper()}{case[1:]}\n")
        page.append("| | CPU-s per million | ratio | records/s | ack p50 ms | ack p99 ms | peak MiB | delivered |")
        page.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        reference = _cpu(programs["collector"]) if "collector" in programs else None
        for name, runs in programs.items():
            costs = [_per_million(run) for run in runs]
            ratio = f"{_cpu(runs) / reference:.2f}" if reference else ""
            page.append(
                f"| {name} | {median(costs):.2f} ({min(costs):.2f} to {max(costs):.2f}) | {ratio} |"
                f" {median(run.records / run.wall_s for run in runs):,.0f} | {median(run.p50_ms for run in runs):.1f} |"
                f" {median(run.p99_ms for run in runs):.1f} | {median(run.peak_bytes for run in runs) / 2**20:.0f} |"
                f" {min(run.delivered / run.records for run in runs):.2%} |"
            )
        page.append("")
    (directory / "forwarding.md").write_text("\n".join(page))
    raw = {"machine": machine, "rounds": rounds, "runs": [asdict(run) for run in measured]}
    (directory / "forwarding.json").write_text(json.dumps(raw, indent=1) + "\n")
    _plot(directory / "forwarding.svg", groups)


def _plot(path: Path, groups: dict[str, dict[str, list[Measured]]]) -> None:
    import matplotlib  # noqa: PLC0415 - of the extra `evaluation`

    matplotlib.use("svg")
    from matplotlib import pyplot  # noqa: PLC0415

    matplotlib.rcParams["svg.hashsalt"] = "driftlock"
    figure, axes = pyplot.subplots(
        len(groups), 1, figsize=(8, 1.9 * len(groups)), squeeze=False, constrained_layout=True
    )
    for axis, (case, programs) in zip(axes[:, 0], groups.items(), strict=True):
        names = list(programs)[::-1]
        axis.barh(names, [_cpu(programs[name]) for name in names], color=[_colour(name) for name in names])
        axis.set_title(case, fontsize=9, loc="left")
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("CPU seconds per million records", fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _colour(name: str) -> str:
    return "#b45309" if name.startswith("driftlock") else "#94a3b8"


def _cpu(runs: Sequence[Measured]) -> float:
    return median(_per_million(run) for run in runs)


def _per_million(run: Measured) -> float:
    return run.cpu_s / run.records * 1e6
