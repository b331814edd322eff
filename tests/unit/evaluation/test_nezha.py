"""Faults held against incidents, on findings and records made for it; the real ones are not part of the project."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.incidents import Finding
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.nezha import METRICS, InjectedFault, find_faults, judge

MINUTE = 60 * 10**9
START = 28_000_000  # minutes since the epoch


def finding(minute: int, service: str, bits: float) -> Finding:
    return Finding(f"logs {service}", service, (minute + 1) * MINUTE, bits, is_alarm=bits >= 11.0)


def test_faults_are_found_while_they_are_on_and_everything_else_is_a_false_alarm() -> None:
    faults = [InjectedFault((START + at) * 60.0, "cart", "return") for at in (10, 40, 70)]
    ticks = {START + at: [finding(START + at, "cart", 0.0)] for at in range(100)}
    ticks[START + 12] = [finding(START + 12, "cart", 30.0), finding(START + 12, "shop", 35.0)]
    ticks[START + 42] = [finding(START + 42, "stock", 20.0)]
    ticks[START + 90] = [finding(START + 90, "shop", 20.0)]
    found = judge(faults, ticks, {"shop": {"cart"}}, 100 * 60.0, 5)
    assert found.ranks[0] == 0
    assert found.ranks[1] is not None and found.ranks[1] > 3
    assert found.ranks[2] is None
    assert (found.false_alarms, found.incidents) == (1, 3)
    assert found.hours == pytest.approx(85 / 60)
    assert found.minute_labels.sum() == 3 * 6


def test_logs_metrics_and_calls_of_a_day_are_read_and_replayed(tmp_path: Path) -> None:
    pods = ("ts-shop-service-5b8c9-abcde", "ts-cart-service-5b8c9-abcde")
    at_s = START * 60
    (tmp_path / "faults.csv").write_text(f"inject_unix_s,pod,kind\n{at_s + 60}.0,{pods[1]},return\n")
    logs = [
        f'{(at_s + second) * 10**9},{pods[0]},t,s,"{{""log"":""16:42:22.382 INFO a.B#1 cart {second} read\\n""}}"'
        for second in range(120)
    ]
    metrics = [f"{at_s + 60 * minute},{pod},1.5,0.25" for minute in range(4) for pod in pods]
    spans = [f"t,1,root,{pods[0]},/,0,1", f"t,2,1,{pods[1]},/cart,0,1"]
    for name, head, rows in (
        ("logs", "unix_nano,pod,trace_id,span_id,body", logs),
        ("metrics", ",".join(("unix_s", "pod", *METRICS)), metrics),
        ("spans", "trace_id,span_id,parent_id,pod,operation,start_unix_nano,end_unix_nano", spans),
    ):
        (tmp_path / f"{name}.csv.xz").write_bytes(lzma.compress("\n".join((head, *rows, "")).encode()))
    faults, found = find_faults(tmp_path, Config())
    assert faults == [InjectedFault(at_s + 60.0, "ts-cart-service", "return")]
    assert found.record_count == 120 + 2 * 4 * len(METRICS)
    assert (found.ranks, found.false_alarms) == ([None], 0)


def test_a_day_that_is_not_as_described_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        find_faults(tmp_path, Config())
    (tmp_path / "faults.csv").write_text("when\n1\n")
    with pytest.raises(InputError):
        find_faults(tmp_path, Config())
