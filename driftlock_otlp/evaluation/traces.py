"""Requests with delayed calls (DeLag): every request is a trace, replayed scenario by scenario.

Data: `delag/<application>/<scenario>.csv.xz` below the data directory: the milliseconds that a
request and its remote calls took, and in the last column which of two injected anomalies it has.
"""

from __future__ import annotations

import lzma
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.detection.scores import ALARM_SCORE
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.measures import best_f1, f1_at, flag_everything_f1, pr_auc, roc_auc
from driftlock_otlp.evaluation.result import Row, SuiteResult, Table
from driftlock_otlp.model import Signal
from driftlock_otlp.replay.fields import FieldOptions
from driftlock_otlp.replay.formats import Format
from driftlock_otlp.replay.inputs import InputFile
from driftlock_otlp.replay.run import replay

Floats = npt.NDArray[np.float64]

_APPLICATIONS = {"trainticket": "TrainTicket", "eshopper": "E-Shopper"}
_SERVICE = "gateway"
_START_UNIX_NANO = 1_700_000_000_000_000_000
_REQUEST_EVERY_NANO = 100_000_000
_REQUESTS_PER_EXPORT = 16
_CULPRIT_AUC = 0.95
"""A call is to blame for an anomaly when its duration tells requests that have it from usual ones this well."""
_RANDOM_SEED = 1


@dataclass(frozen=True, slots=True)
class Scenario:
    """Requests of one scenario, in their order.

    Attributes:
        calls: Names of the remote calls; the request itself is not among them.
        durations_ms: float64, (n, 1 + calls): of the request as a whole, and of each call.
        anomalies: int64, (n,): 0, or the number of the injected anomaly.
    """

    calls: list[str]
    durations_ms: Floats
    anomalies: npt.NDArray[np.int64]

    def culprits(self, anomaly: int) -> set[int]:
        """Return the columns of `durations_ms` that are to blame for an anomaly; at least one."""
        usual = self.anomalies == 0
        rows = usual | (self.anomalies == anomaly)
        found = [roc_auc(self.durations_ms[rows, column], ~usual[rows]) for column in range(1, 1 + len(self.calls))]
        return {1 + call for call, auc in enumerate(found) if auc >= min(_CULPRIT_AUC, max(found))}


@dataclass(slots=True)
class _Figures:
    """Figures of one detector on one application, scenario by scenario."""

    pr_auc: list[float] = field(default_factory=list)
    best_f1: list[float] = field(default_factory=list)
    blamed: list[float] = field(default_factory=list)

    def row(self, name: str, source: str = "") -> Row:
        worst = sorted(self.pr_auc)[: max(len(self.pr_auc) // 10, 1)]
        return Row(
            name,
            (
                float(np.mean(self.pr_auc)),
                float(np.mean(worst)),
                float(np.mean(self.best_f1)),
                float(np.mean(self.blamed)) if self.blamed else None,
            ),
            source,
        )


def run_traces(data: Path, config: Config, on_file: Callable[[str, int, int], None]) -> SuiteResult:
    """Replay every scenario, and score ours beside baselines.

    Args:
        data: Directory that holds `delag/`.
        config: Settings; one for all scenarios.
        on_file: Called before each scenario with its name, its number and how many there are.

    Raises:
        InputError: The data are not there, or not as they should be.
    """
    paths = {name: sorted((data / "delag" / name).glob("*.csv.xz")) for name in _APPLICATIONS}
    total = sum(map(len, paths.values()))
    if not all(paths.values()):
        raise InputError(f"{data / 'delag'}: is not there, or lacks scenarios of {' or '.join(_APPLICATIONS)}")
    chance = np.random.default_rng(_RANDOM_SEED)
    found: dict[str, dict[str, _Figures]] = {name: {} for name in _APPLICATIONS}
    flag_all: dict[str, list[float]] = {name: [] for name in _APPLICATIONS}
    alarmed: list[float] = []
    span_count, request_count, replay_s, number = 0, 0, 0.0, 0
    for application, files in paths.items():
        for path in files:
            on_file(f"{application}/{path.name}", number, total)
            number += 1
            scenario = read_scenario(path)
            started_s = time.process_time()
            ours = span_scores(scenario, config)
            replay_s += time.process_time() - started_s
            deviations = _robust_z(scenario.durations_ms)
            random = chance.random(scenario.durations_ms.shape)
            detectors: Mapping[str, Floats] = {
                "Driftlock": ours,
                "largest robust z over the calls": np.column_stack((np.full(len(ours), -np.inf), deviations[:, 1:])),
                "request duration": scenario.durations_ms[:, :1],
                "random": random,
            }
            labels = scenario.anomalies > 0
            for name, scores in detectors.items():
                figures = found[application].setdefault(name, _Figures())
                per_request = scores.max(axis=1)
                figures.pr_auc.append(pr_auc(per_request, labels))
                figures.best_f1.append(best_f1(per_request, labels).f1)
                if scores.shape[1] > 1:
                    figures.blamed += _blamed(scenario, scores)
            flag_all[application].append(flag_everything_f1(labels))
            alarmed.append(f1_at(ours.max(axis=1), labels, ALARM_SCORE).recall)
            span_count += ours.size
            request_count += len(ours)
    columns = ("PR-AUC", "PR-AUC worst tenth", "F1 (chosen)", "culprit at top 1")
    tables = []
    for application, title in _APPLICATIONS.items():
        rows = [figures.row(name) for name, figures in found[application].items()]
        rows.append(Row("every request", (None, None, float(np.mean(flag_all[application])), None)))
        tables.append(
            Table(
                f"{title}, {len(paths[application])} scenarios: anomalous requests",
                columns,
                tuple(rows),
                "The robust z is fitted to the whole scenario; ours learns as it goes. Culprit: the call that most"
                " anomalous requests of one kind have as their oddest span is one that was delayed.",
            )
        )
    compressor = new_compressor(config.detection.compressor)
    return SuiteResult(
        suite="traces",
        data=f"{total} scenarios of DeLag, {request_count:,} requests, one fifth anomalous",
        split="Streaming without labels: each request is judged by those before it, everything is learned, and the"
        " first windows count",
        settings=f"one for all scenarios, {compressor.fingerprint}; {float(np.mean(alarmed)):.1%} of anomalous requests"
        " alarm by themselves, for what happens to a tenth of requests from the start on is usual",
        tables=tuple(tables),
        record_count=span_count,
        cpu_s=replay_s,
    )


def read_scenario(path: Path) -> Scenario:
    """Return the requests of a file.

    Raises:
        InputError: It cannot be read, or is not as described.
    """
    try:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            names = file.readline().strip().split(",")
            table = np.loadtxt(file, delimiter=",", ndmin=2)
    except (OSError, lzma.LZMAError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as milliseconds per call: {error}") from None
    if len(names) < 3 or names[-1] != "anomaly" or table.shape[1] != len(names):
        raise InputError(f"{path}: needs a request's duration, its calls' durations and a last column anomaly")
    return Scenario(names[1:-1], table[:, :-1], table[:, -1].astype(np.int64))


def span_scores(scenario: Scenario, config: Config) -> Floats:
    """Return the scores of every span of a scenario, replayed as traces; float64, (n, 1 + calls)."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "requests.pb"
        path.write_bytes(b"".join(_exports(scenario)))
        file = InputFile(str(path), lambda _: None)
        compressor = new_compressor(config.detection.compressor)
        scored = replay([file], [Format.OTLP_PROTO], FieldOptions(signal=Signal.TRACES), config, compressor)
    return np.array(scored.files[0].scores).reshape(scenario.durations_ms.shape)


def _exports(scenario: Scenario) -> Sequence[bytes]:
    """Return the scenario as framed export requests of one span for the request and one for each of its calls."""
    spans_each = scenario.durations_ms.shape[1]
    names = ["request", *scenario.calls]
    starts = _START_UNIX_NANO + _REQUEST_EVERY_NANO * np.arange(len(scenario.anomalies))
    ends = starts[:, None] + (scenario.durations_ms * 1e6).astype(np.int64)
    frames = []
    for first in range(0, len(starts), _REQUESTS_PER_EXPORT):
        message = ExportTraceServiceRequest()
        resource = message.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = _SERVICE
        scope = resource.scope_spans.add()
        for request in range(first, min(first + _REQUESTS_PER_EXPORT, len(starts))):
            trace_id = (request + 1).to_bytes(16, "big")
            root_id = (request * spans_each + 1).to_bytes(8, "big")
            for call, name in enumerate(names):
                scope.spans.add(
                    trace_id=trace_id,
                    span_id=(request * spans_each + call + 1).to_bytes(8, "big"),
                    parent_span_id=root_id if call else b"",
                    name=name,
                    kind=3 if call else 2,
                    start_time_unix_nano=int(starts[request]),
                    end_time_unix_nano=int(ends[request, call]),
                )
        payload = message.SerializeToString()
        frames.append(len(payload).to_bytes(4, "big") + payload)
    return frames


def _robust_z(values: Floats) -> Floats:
    """Return how far values lie above their column's median, in 1.4826 median absolute deviations of at least .5."""
    middle = np.median(values, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(values - middle), axis=0), 0.5)
    result: Floats = (values - middle) / spread
    return result


def _blamed(scenario: Scenario, scores: Floats) -> list[float]:
    """Return 1 or 0 for each of the injected anomalies: whether the call most often named is to blame."""
    found = []
    for anomaly in np.unique(scenario.anomalies[scenario.anomalies > 0]):
        named = 1 + np.argmax(scores[scenario.anomalies == anomaly, 1:], axis=1)
        most = int(np.argmax(np.bincount(named)))
        found.append(float(most in scenario.culprits(int(anomaly))))
    return found
