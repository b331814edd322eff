"""Seeded streams of windows with known faults.

Normal traffic is meant to be unpleasant: autocorrelated template mixes, bursts, daily swing,
rare templates, heavy-tailed durations. Faults are drawn on the same hidden state as the clean
windows they replace. A seed gives the same windows everywhere.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from driftlock_otlp.detection.columns import Category, Columns, Floats, Number

WINDOW_S = 10.0
DAY_WINDOWS = 8640
HOUR_WINDOWS = 360

Fault = tuple[str, float]
"""What is wrong, and how much; the stream's class says which faults it knows."""


class Stream(Protocol):
    """Windows, one after the other."""

    in_burst: bool

    def window(self, fault: str = "", size: float = 0.0) -> tuple[Columns, float]:
        """Return the next window's columns and its duration in seconds."""
        ...


def _category(codes: np.ndarray, labels: list[str]) -> Category:
    return Category(codes.astype(np.int32), labels)


class LogStream:
    """Log records of one service: template, severity, duration and rate.

    Faults: `new_template` (share of records), `error_burst` (share), `template_gone`,
    `latency` (factor), `rate` (factor), `job` (share): a scheduled job that writes lines of its own.
    """

    def __init__(self, seed: int, records: int = 100) -> None:
        self.random = np.random.default_rng(seed)
        self.records = records
        r = self.random
        self.templates = int(r.integers(8, 30))
        self.logits = np.log(r.dirichlet(np.full(self.templates, 0.7)) + 1e-4)
        self.noise = np.zeros(self.templates)
        self.rho, self.sigma = r.uniform(0.5, 0.97), r.uniform(0.05, 0.3)
        self.season = r.uniform(0.1, 0.5) * r.standard_normal(self.templates)
        self.rare = int(r.integers(50, 400))
        self.rare_share = r.uniform(0.0005, 0.01)
        self.burst_left, self.burst_on, self.burst_gain = 0.0, 0, 0.0
        self.in_burst = False
        self.burst_every = r.uniform(150, 800)
        self.time = 0
        self.labels = [f"template {i} <*>" for i in range(self.templates)] + [f"rare {i}" for i in range(self.rare)]
        self.job = len(self.labels)
        self.labels += [f"nightly report: step {i} of <*>" for i in range(3)]
        self.labels += ["payment gateway timeout after <*> ms", "connection refused by <*>"]

    def window(self, fault: str = "", size: float = 0.0) -> tuple[Columns, float]:
        """Return the next window's columns and its duration in seconds."""
        r = self.random
        self.time += 1
        self.noise = self.rho * self.noise + np.sqrt(1 - self.rho**2) * self.sigma * 3 * r.standard_normal(
            self.templates
        )
        if self.burst_left <= 0 and r.random() < 1 / self.burst_every:
            self.burst_left = r.uniform(1.5, 6)
            self.burst_on, self.burst_gain = int(r.integers(self.templates)), min(r.pareto(2.0) + 0.3, 3.0)
        logits = self.logits + self.noise + self.season * np.sin(2 * np.pi * self.time / DAY_WINDOWS)
        slow = 1.0
        self.in_burst = self.burst_left > 0
        if self.in_burst:
            self.burst_left -= 1
            logits[self.burst_on] += self.burst_gain
            slow = 1.0 + 0.3 * self.burst_gain
        share = np.exp(logits - logits.max())
        share /= share.sum()
        n = self.records
        codes = r.choice(self.templates, size=n, p=share)
        rare = r.random(n) < self.rare_share
        codes[rare] = self.templates + np.minimum(r.zipf(1.3, rare.sum()) - 1, self.rare - 1)
        severity = np.where(codes % 7 == 3, 1, 0)
        duration = (np.exp(r.standard_normal(n) * 0.6) * (1 + codes % 5) * 20 * slow).astype(float)
        heavy = r.random(n) < 0.01
        duration[heavy] *= 1 + r.pareto(1.5, heavy.sum())
        rate = 1.0 + 0.2 * np.sin(2 * np.pi * self.time / DAY_WINDOWS)
        touched = r.random(n) < size
        if fault == "new_template":
            codes[touched] = len(self.labels) - 2
        elif fault == "job":
            codes[touched] = self.job + np.flatnonzero(touched) % 3
            rate *= 1.0 + size
        elif fault == "error_burst":
            severity[touched] = 2
        elif fault == "template_gone":
            main = int(np.argmax(self.logits))
            gone = codes == main
            codes[gone] = (main + 1 + r.integers(0, self.templates - 1, gone.sum())) % self.templates
        elif fault == "latency":
            main = int(np.argmax(np.bincount(codes, minlength=self.templates)[: self.templates]))
            duration[codes == main] *= size
        elif fault == "rate":
            rate *= size
        columns = Columns(n, np.zeros(n, dtype=np.int64))
        columns.categories = {
            "template": _category(codes, self.labels),
            "severity": _category(severity, ["INFO", "WARN", "ERROR"]),
        }
        columns.numbers = {"duration": Number(duration, given="template", is_positive_scale=True, unit="ms")}
        return columns, WINDOW_S / rate * float(np.exp(0.05 * r.standard_normal()))


class MetricStream:
    """Three gauges with a few points a window each: autocorrelated, heavy-tailed, with daily swing and bursts.

    Faults: `level` (sigmas, on one gauge), `flat`, `variance` (factor).
    """

    def __init__(self, seed: int, points: int = 4) -> None:
        self.random = np.random.default_rng(seed)
        r = self.random
        self.points = points
        self.level = r.uniform(10, 1000, 3)
        self.sigma = self.level * r.uniform(0.01, 0.1, 3)
        self.rho = r.uniform(0.2, 0.9, 3)
        self.freedom = r.uniform(3, 30)
        self.swing = r.uniform(1, 8, 3)
        self.state = np.zeros(3)
        self.burst_left = 0.0
        self.in_burst = False
        self.time = 0

    def window(self, fault: str = "", size: float = 0.0) -> tuple[Columns, float]:
        """Return the next window's columns and its duration in seconds."""
        r = self.random
        values = np.empty((self.points, 3))
        times = np.empty(self.points, dtype=np.int64)
        if self.burst_left <= 0 and r.random() < 1 / 400:
            self.burst_left = r.uniform(1.5, 6)
        self.burst_left -= 1
        self.in_burst = self.burst_left > 0
        for i in range(self.points):
            noise = r.standard_t(self.freedom, 3) * np.sqrt(1 - self.rho**2)
            if self.burst_left > 0:
                noise *= 1.6
            self.state = self.rho * self.state + noise
            shown = self.state + (1.0 if self.burst_left > 0 else 0.0)
            if fault == "variance":
                shown = shown * size
            phase = 2 * np.pi * (self.time + i / self.points) / DAY_WINDOWS
            values[i] = self.level + self.sigma * (shown + self.swing * np.sin(phase))
            times[i] = int((self.time + i / self.points) * WINDOW_S * 1e9)
        if fault == "level":
            values[:, 0] += size * self.sigma[0]
        elif fault == "flat":
            values[:, 0] = values[0, 0]
        self.time += 1
        n = 3 * self.points
        columns = Columns(n, np.repeat(times, 3))
        columns.categories = {"series": _category(np.tile(np.arange(3), self.points), ["a", "b", "c"])}
        columns.numbers = {"value": Number(values.reshape(n).astype(float), given="series", is_point_series=True)}
        return columns, WINDOW_S


class TraceStream:
    """Spans of one service: operation, status, parent, duration given operation.

    Faults: `errors` (share), `new_operation` (share), `latency` (factor, one operation). It has no bursts.
    """

    in_burst = False

    def __init__(self, seed: int, traces: int = 25) -> None:
        self.random = np.random.default_rng(seed)
        r = self.random
        self.operations = int(r.integers(6, 20))
        self.traces = traces
        self.children: list[list[int]] = [list(r.integers(0, self.operations, r.integers(2, 6))) for _ in range(5)]
        self.weights = r.dirichlet(np.full(5, 2.0))
        self.base_ms = np.exp(r.uniform(0, 6, self.operations))
        self.error_rate = r.uniform(0.001, 0.02)
        self.slow = 0.0
        self.labels = [f"op{i}" for i in range(self.operations)] + ["op.new"]
        self.time = 0

    def window(self, fault: str = "", size: float = 0.0) -> tuple[Columns, float]:
        """Return the next window's columns and its duration in seconds."""
        r = self.random
        self.time += 1
        self.slow = 0.95 * self.slow + 0.03 * r.standard_normal()
        operations: list[int] = []
        parents: list[int] = []
        for kind in r.choice(5, size=self.traces, p=self.weights):
            spans = self.children[kind]
            operations.extend(spans)
            parents.extend([-1] + [spans[0]] * (len(spans) - 1))
        operation, parent = np.array(operations), np.array(parents)
        n = len(operation)
        duration: Floats = self.base_ms[operation] * np.exp(0.4 * r.standard_normal(n) + self.slow)
        heavy = r.random(n) < 0.01
        duration[heavy] *= 1 + r.pareto(1.5, heavy.sum())
        is_error = r.random(n) < self.error_rate
        touched = r.random(n) < size
        if fault == "errors":
            is_error |= touched
        elif fault == "new_operation":
            operation = np.where(touched, self.operations, operation)
        elif fault == "latency":
            duration[operation == operation[0]] *= size
        status = np.where(is_error, 1, 0)
        pairs = (parent + 1) * (self.operations + 1) + operation
        found, codes = np.unique(pairs, return_inverse=True)
        columns = Columns(n, np.zeros(n, dtype=np.int64))
        columns.categories = {
            "operation": _category(operation, self.labels),
            "status": _category(operation * 2 + status, [f"{o} {s}" for o in self.labels for s in ("ok", "error")]),
            "call": _category(codes, [f"call {pair}" for pair in found]),
        }
        columns.numbers = {"duration": Number(duration, given="operation", is_positive_scale=True, unit="ms")}
        return columns, WINDOW_S * float(np.exp(0.05 * r.standard_normal()))
