"""The table of suites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from driftlock_otlp.config.root import Config
from driftlock_otlp.evaluation.calibration.suite import run_calibration
from driftlock_otlp.evaluation.genai import run_genai
from driftlock_otlp.evaluation.incidents import run_incidents
from driftlock_otlp.evaluation.loglines import run_loglines
from driftlock_otlp.evaluation.logsessions import run_logsessions
from driftlock_otlp.evaluation.metrics import run_metrics
from driftlock_otlp.evaluation.multivariate import run_multivariate
from driftlock_otlp.evaluation.nab import run_nab
from driftlock_otlp.evaluation.result import SuiteResult
from driftlock_otlp.evaluation.traces import run_traces


class Suite(NamedTuple):
    """One way to judge detection.

    Attributes:
        run: Takes the directory of the data, the settings, and what to call before each file with
            its name, its number and how many there are.
        about: The sets it needs and what it judges, in a line.
        needs_data: Whether there is nothing to judge without a directory.
    """

    run: Callable[[Any, Config, Callable[[str, int, int], None]], SuiteResult]
    about: str
    needs_data: bool = True


SUITES: dict[str, Suite] = {
    "nab": Suite(run_nab, "nab/: the Numenta Anomaly Benchmark, single metrics"),
    "metrics": Suite(run_metrics, "ms_cloud/: single service metrics with a label for every point"),
    "multivariate": Suite(run_multivariate, "asd/, smd/: servers with many metrics each"),
    "loglines": Suite(run_loglines, "loghub2k/: false alarms on lines of 16 systems"),
    "logsessions": Suite(run_logsessions, "hdfs_2pct/, bgl_sessions/: blocks and hours as sessions"),
    "traces": Suite(run_traces, "delag/: requests with delayed calls, as traces"),
    "incidents": Suite(run_incidents, "petshop/, nezha/: which injected faults are found, and where they came from"),
    "genai": Suite(run_genai, "who_and_when/: seeded faults in LLM traffic made of recorded agent runs"),
    "calibration": Suite(
        run_calibration,
        "no data needed: error rates and power on seeded streams; nab/, smd/, ms_cloud/ if they are there",
        needs_data=False,
    ),
}
"""Suites by name, in the order in which they are run and listed."""
