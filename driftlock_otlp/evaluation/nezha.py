"""Injected faults in a running shop (Nezha): logs and metrics replayed, joined into incidents.

Data: `nezha/<day>/logs.csv.xz`, `metrics.csv.xz` and `faults.csv` below the data directory. Metrics are continuous,
one value a minute; logs are blocks of a few minutes around each fault. Its spans tell
which service calls which, and are not judged: slow spans are at chance on this set.
"""

from __future__ import annotations

import contextlib
import csv
import json
import lzma
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.detection.incidents import Calls, Finding, Incident, IncidentJoiner
from driftlock_otlp.errors import InputError
from driftlock_otlp.model import Signal
from driftlock_otlp.replay.fields import FieldOptions
from driftlock_otlp.replay.formats import Format
from driftlock_otlp.replay.inputs import InputFile
from driftlock_otlp.replay.run import Replay, replay

Floats = npt.NDArray[np.float64]

METRICS = ("CpuUsageRate(%)", "PodServerLatencyP95(s)")
"""How busy and how slow a pod is; of the set's 19 metrics, those that every service has under any name."""

_MINUTE_NANO = 60 * 10**9
FAULT_S = 300.0
_NOT_NAMED = 1 << 30
_EXPORT_NANO = 2 * 10**9
_BAR_BITS = 11.0
"""What the bar of an immediate alarm is worth, so that margins become bits again."""
_POD_SUFFIX = re.compile(r"-[0-9a-f]+-[0-9a-z]+$")
_LINE_TIME = re.compile(r"^\d\d:\d\d:\d\d\.\d+ ")
_LINE_IDS = re.compile(r"TraceID: \S* SpanID: \S* ")
_SEVERITIES = {"DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17}


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """A fault: when, seconds since the epoch, in which service, and of which kind."""

    at_s: float
    service: str
    kind: str


@dataclass(frozen=True, slots=True)
class FoundFaults:
    """What incidents say of the faults.

    Attributes:
        ranks: Rank of the faulty service, from 0, in the strongest incident that began or went on while
            the fault was on; None where there was none.
        false_alarms: Incidents that began outside all faults.
        hours: Hours outside all faults, from the first record to the last.
        incidents: All incidents.
        record_count: Records replayed.
        minute_scores: float64, (minutes,): most bits of any stream.
        minute_labels: bool, (minutes,): whether a fault is on.
    """

    ranks: list[int | None]
    false_alarms: int
    hours: float
    incidents: int
    record_count: int
    minute_scores: Floats
    minute_labels: npt.NDArray[np.bool_]


def find_faults(folder: Path, config: Config) -> tuple[list[InjectedFault], FoundFaults]:
    """Replay one day, join what is found, and hold it against the faults.

    Raises:
        InputError: The data are not there, or not as they should be.
    """
    try:
        with (folder / "faults.csv").open(encoding="utf-8", newline="") as file:
            faults = [
                InjectedFault(float(row["inject_unix_s"]), service_of(row["pod"]), row["kind"])
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{folder}: cannot be read as a day with faults: {error}") from None
    if not faults:
        raise InputError(f"{folder}: has no faults")
    ticks: dict[int, list[Finding]] = defaultdict(list)
    times: list[int] = []
    count = 0
    for signal, frames in ((Signal.LOGS, _log_frames(folder)), (Signal.METRICS, _metric_frames(folder))):
        found = _replayed(signal, frames, config)
        count += found.record_count
        for minute, finding in findings(signal, found):
            ticks[minute].append(finding)
        times += [min(found.files[0].times_unix_nano, default=0), max(found.files[0].times_unix_nano, default=0)]
    return faults, judge(faults, ticks, _calls(folder), (max(times) - min(time for time in times if time)) / 1e9, count)


def findings(signal: Signal, found: Replay) -> Iterator[tuple[int, Finding]]:
    """Yield minute and finding of each stream and minute: the oddest record it has then."""
    scores = found.files[0]
    values = np.clip(np.array(scores.scores), 1e-9, 1.0 - 1e-9)
    bits = 2.0 * np.log2(values / (1.0 - values)) + _BAR_BITS
    streams = np.array(scores.streams)
    minutes = np.array(scores.times_unix_nano, dtype=np.int64) // _MINUTE_NANO
    best: dict[tuple[int, int], float] = {}
    windows: dict[tuple[int, int], set[float]] = defaultdict(set)
    for minute, stream, value, p_value in zip(
        minutes.tolist(), streams.tolist(), bits.tolist(), scores.p_values, strict=True
    ):
        if stream >= 0:
            best[minute, stream] = max(best.get((minute, stream), 0.0), value)
            windows[minute, stream].add(p_value)
    for (minute, stream), most in sorted(best.items()):
        # The best of several windows, of which each has a p-value of its own, is less rare than it looks.
        value = max(most - math.log2(len(windows[minute, stream])), 0.0)
        key = found.streams[stream]
        # Read at the end of the minute, when all of it is known.
        time = (minute + 1) * _MINUTE_NANO
        yield minute, Finding(f"{signal.plural} {key}", key.service, time, value, is_alarm=most >= _BAR_BITS)


def judge(
    faults: Sequence[InjectedFault],
    ticks: dict[int, list[Finding]],
    calls: Calls,
    span_s: float,
    record_count: int,
) -> FoundFaults:
    """Return what the incidents over these minutes say of the faults.

    Args:
        faults: In the order of time.
        ticks: Findings by minute.
        calls: Services that each one calls.
        span_s: From the first record to the last, seconds.
        record_count: Records replayed.
    """
    joiner = IncidentJoiner()
    strongest: dict[int, Incident] = {}
    numbers: set[int] = set()
    false_alarms = 0
    scores, labels = [], []
    for minute in sorted(ticks):
        # A minute's findings are known at its end.
        known_s = (minute + 1) * 60.0
        current = [i for i, fault in enumerate(faults) if fault.at_s <= known_s <= fault.at_s + FAULT_S]
        scores.append(max(finding.bits for finding in ticks[minute]))
        labels.append(bool(current))
        for incident in joiner.take(ticks[minute], (minute + 1) * _MINUTE_NANO, calls):
            is_new = incident.number not in numbers
            numbers.add(incident.number)
            if is_new and not current:
                false_alarms += 1
            for index in current:
                if index not in strongest or _bits(incident) > _bits(strongest[index]):
                    strongest[index] = incident
    ranks = [_rank(fault.service, strongest.get(index), calls) for index, fault in enumerate(faults)]
    hours = max(span_s - FAULT_S * len(faults), 1.0) / 3600.0
    return FoundFaults(
        ranks, false_alarms, hours, len(numbers), record_count, np.array(scores), np.array(labels, dtype=bool)
    )


def service_of(pod: str) -> str:
    """Return the service of a pod.

    >>> service_of("ts-food-service-f5756978c-k8vqf")
    'ts-food-service'
    """
    return _POD_SUFFIX.sub("", pod)


def _bits(incident: Incident) -> float:
    return sum(sum(streams.values()) for streams in incident.bits.values())


def _rank(service: str, incident: Incident | None, calls: Calls) -> int | None:
    if incident is None:
        return None
    names = [name for name, _ in incident.origins(calls)]
    return names.index(service) if service in names else _NOT_NAMED


def _replayed(signal: Signal, frames: Iterable[bytes], config: Config) -> Replay:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "requests.pb"
        with path.open("wb") as file:
            for frame in frames:
                file.write(len(frame).to_bytes(4, "big") + frame)
        compressor = new_compressor(config.detection.compressor)
        input_file = InputFile(str(path), lambda _: None)
        return replay([input_file], [Format.OTLP_PROTO], FieldOptions(signal=signal), config, compressor)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with lzma.open(path, "rt", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, lzma.LZMAError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def _log_frames(folder: Path) -> Iterator[bytes]:
    """Yield the log lines as export requests of two seconds at most, without what the container runtime adds."""
    rows = sorted(
        ((int(row["unix_nano"]), row) for row in _rows(folder / "logs.csv.xz") if row["unix_nano"].isdigit()),
        key=lambda pair: pair[0],
    )
    message, scopes, began = ExportLogsServiceRequest(), dict[str, object](), 0
    for time, row in rows:
        if time - began > _EXPORT_NANO and scopes:
            yield message.SerializeToString()
            message, scopes = ExportLogsServiceRequest(), {}
        began = time if not scopes else began
        service = service_of(row["pod"])
        if service not in scopes:
            resource = message.resource_logs.add()
            resource.resource.attributes.add(key="service.name").value.string_value = service
            scopes[service] = resource.scope_logs.add()
        body = row["body"]
        with contextlib.suppress(ValueError, KeyError, TypeError):  # not every line is wrapped by the runtime
            body = str(json.loads(body)["log"]).strip()
        body = _LINE_IDS.sub("", _LINE_TIME.sub("", body))
        word = body.split(" ", 1)[0]
        scopes[service].log_records.add(  # type: ignore[attr-defined]
            time_unix_nano=time,
            severity_text=word if word in _SEVERITIES else "",
            severity_number=_SEVERITIES.get(word, 0),
        ).body.string_value = body
    if scopes:
        yield message.SerializeToString()


def _metric_frames(folder: Path) -> Iterator[bytes]:
    """Yield the values of the chosen metrics, as export requests of a second each."""
    by_second: dict[int, list[dict[str, str]]] = defaultdict(list)
    for row in _rows(folder / "metrics.csv.xz"):
        by_second[int(float(row["unix_s"]))].append(row)
    for second in sorted(by_second):
        message = ExportMetricsServiceRequest()
        for row in by_second[second]:
            resource = message.resource_metrics.add()
            resource.resource.attributes.add(key="service.name").value.string_value = service_of(row["pod"])
            scope = resource.scope_metrics.add()
            for name in METRICS:
                if row.get(name):
                    point = scope.metrics.add(name=name).gauge.data_points.add()
                    point.time_unix_nano, point.as_double = second * 10**9, float(row[name])
        yield message.SerializeToString()


def _calls(folder: Path) -> dict[str, set[str]]:
    """Return the services that each service calls, as the spans have it."""
    rows = _rows(folder / "spans.csv.xz")
    owner = {row["span_id"]: service_of(row["pod"]) for row in rows}
    calls: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        caller, callee = owner.get(row["parent_id"]), service_of(row["pod"])
        if caller is not None and caller != callee:
            calls[caller].add(callee)
    return dict(calls)
