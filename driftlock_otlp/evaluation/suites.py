"""The table of suites."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from driftlock_otlp.config.root import Config
from driftlock_otlp.evaluation.genai import run_genai
from driftlock_otlp.evaluation.incidents import run_incidents
from driftlock_otlp.evaluation.loglines import run_loglines
from driftlock_otlp.evaluation.logsessions import run_logsessions
from driftlock_otlp.evaluation.metrics import run_metrics
from driftlock_otlp.evaluation.multivariate import run_multivariate
from driftlock_otlp.evaluation.nab import run_nab
from driftlock_otlp.evaluation.result import SuiteResult
from driftlock_otlp.evaluation.traces import run_traces

Suite = Callable[[Path, Config, Callable[[str, int, int], None]], SuiteResult]

SUITES: dict[str, Suite] = {
    "nab": run_nab,
    "metrics": run_metrics,
    "multivariate": run_multivariate,
    "loglines": run_loglines,
    "logsessions": run_logsessions,
    "traces": run_traces,
    "incidents": run_incidents,
    "genai": run_genai,
}
"""Suites by name, in the order in which they are run and listed."""
