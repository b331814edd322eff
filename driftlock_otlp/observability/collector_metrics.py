"""The Collector's names for what we count, so that dashboards and alerts made for it go on working.

Nothing is counted here: each value is read off the catalogue when Prometheus asks. The tables
say which of ours stands behind which name, and why some names are not served.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from driftlock_otlp.observability.memory import resident_bytes
from driftlock_otlp.observability.metrics import Metrics

NOUNS = {"logs": "log_records", "metrics": "metric_points", "traces": "spans"}
"""What a Collector's metrics call the items of a signal."""

_RECEIVER = {"receiver": "otlp", "transport": "{transport}"}
_PROCESSOR = {"processor": "driftlock", "otel_signal": "{signal}"}
_EXPORTER = {"exporter": "{exporter}"}
_NO_DESTINATION = frozenset({"none", "quarantine"})
_NOT_SENT = frozenset({"damaged", "no_exporter", "undecodable"})
"""Reasons for which items are dropped before any destination sees them."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric as a Collector serves it.

    Attributes:
        name: Without the `_total` of counters; `{noun}` stands for log_records, metric_points and spans.
        is_counter: Else it is a gauge.
        text: What it says here.
    """

    name: str
    is_counter: bool
    text: str


@dataclass(frozen=True, slots=True)
class Mirror:
    """What of ours adds to a family.

    Attributes:
        family: The family's name.
        source: Attribute of `Metrics`.
        labels: The family's labels, made of ours.
        only: Values that a label of ours must have.
        never: Values that it must not have.
        largest_of: A label of ours over which the largest value counts, not the sum.
        is_fallback: Only for labels that no row before has filled.
    """

    family: str
    source: str
    labels: Mapping[str, str]
    only: Mapping[str, Collection[str]] = field(default_factory=dict)
    never: Mapping[str, Collection[str]] = field(default_factory=dict)
    largest_of: str = ""
    is_fallback: bool = False


FAMILIES = (
    Family("otelcol_receiver_accepted_{noun}", True, "{nouns} acknowledged: they are in the durable log."),
    Family(
        "otelcol_receiver_refused_{noun}",
        True,
        "{nouns} that the durable log did not take. Requests refused before they are decoded have no known number.",
    ),
    Family(
        "otelcol_receiver_requests",
        True,
        "Export requests by outcome: success, refused (try again), failure (also what is not OTLP, or lacks a key).",
    ),
    Family("otelcol_processor_incoming_items", True, "Items acknowledged and handed to detection."),
    Family(
        "otelcol_processor_outgoing_items",
        True,
        "Items handed on to exporters; less than incoming by what is withheld in the quarantine or still queued.",
    ),
    Family("otelcol_exporter_sent_{noun}", True, "{nouns} that the destination took, anomaly events included."),
    Family("otelcol_exporter_send_failed_{noun}", True, "{nouns} dropped since the destination did not take them."),
    Family(
        "otelcol_exporter_enqueue_failed_{noun}",
        True,
        "{nouns} for which the sending queue had no room; their senders were told to try again.",
    ),
    Family(
        "otelcol_exporter_queue_size",
        False,
        "What waits for the destination, in the unit of sending_queue.sizer, or in bytes without a queue_size.",
    ),
    Family("otelcol_exporter_queue_capacity", False, "Most that may wait for the destination, in the same unit."),
    Family("otelcol_exporter_in_flight_requests", False, "Requests being sent, or waiting to be sent again."),
    Family("otelcol_process_uptime_seconds", True, "Time since the sidecar was started."),
    Family("otelcol_process_cpu_seconds", True, "CPU time of the service and its detection workers, user and system."),
    Family("otelcol_process_memory_rss_bytes", False, "Resident memory of the service and its detection workers."),
)

MIRRORS = (
    Mirror("otelcol_receiver_accepted_{noun}", "receiver_items", _RECEIVER, only={"outcome": ["accepted"]}),
    Mirror("otelcol_receiver_refused_{noun}", "receiver_items", _RECEIVER, only={"outcome": ["refused"]}),
    *(
        Mirror("otelcol_receiver_requests", "receiver_requests", {**_RECEIVER, "outcome": theirs}, {"outcome": [ours]})
        for ours, theirs in (
            ("accepted", "success"),
            ("duplicate", "success"),
            ("refused", "refused"),
            ("rejected", "failure"),
        )
    ),
    Mirror("otelcol_processor_incoming_items", "receiver_items", _PROCESSOR, only={"outcome": ["accepted"]}),
    # Every destination gets the same items: they were handed on once.
    Mirror(
        "otelcol_processor_outgoing_items",
        "forward_items",
        _PROCESSOR,
        only={"outcome": ["forwarded", "released", "dropped"]},
        never={"reason": _NOT_SENT},
        largest_of="exporter",
    ),
    Mirror(
        "otelcol_processor_outgoing_items",
        "forward_items",
        _PROCESSOR,
        only={"outcome": ["diverted"]},
        never={"exporter": _NO_DESTINATION},
        largest_of="exporter",
    ),
    Mirror(
        "otelcol_exporter_sent_{noun}",
        "forward_items",
        _EXPORTER,
        only={"outcome": ["forwarded", "diverted", "released"]},
        never={"exporter": _NO_DESTINATION},
    ),
    Mirror("otelcol_exporter_sent_log_records", "events", _EXPORTER, only={"outcome": ["sent"]}),
    Mirror(
        "otelcol_exporter_send_failed_{noun}",
        "forward_items",
        _EXPORTER,
        only={"outcome": ["dropped"]},
        never={"exporter": _NO_DESTINATION, "reason": _NOT_SENT},
    ),
    Mirror("otelcol_exporter_send_failed_log_records", "events", _EXPORTER, only={"outcome": ["dropped"]}),
    Mirror("otelcol_exporter_enqueue_failed_{noun}", "queue_overflow_items", _EXPORTER),
    Mirror("otelcol_exporter_queue_size", "queue_size", _EXPORTER, largest_of="cursor"),
    Mirror(
        "otelcol_exporter_queue_size",
        "queue_bytes",
        _EXPORTER,
        never={"exporter": _NO_DESTINATION},
        largest_of="cursor",
        is_fallback=True,
    ),
    Mirror("otelcol_exporter_queue_capacity", "queue_capacity", _EXPORTER, largest_of="cursor"),
    Mirror("otelcol_exporter_in_flight_requests", "exporter_in_flight_requests", _EXPORTER),
)

NOT_SERVED = (
    (
        "`otelcol_receiver_failed_*`",
        "what fails within the sidecar fails as a request, before its items are known; see"
        ' `otelcol_receiver_requests_total{outcome="failure"}` and `driftlock_errors_total`',
    ),
    (
        "`otelcol_exporter_queue_batch_send_size*`, `otelcol_processor_batch_*`",
        "nothing is batched: requests go on as they came",
    ),
    ("`otelcol_processor_memory_limiter_*`", "what is refused for want of memory is a refused request like any other"),
    ("`otelcol_processor_internal_duration`", "detection runs beside the data, not in its way"),
    ("`otelcol_*_profile_samples`", "the profiles signal is not taken"),
    ("`otelcol_process_runtime_*`", "they describe the memory of a Go program"),
    ("`http_server_*`, `http_client_*`, `rpc_*`", "they describe the Collector's libraries"),
)


class CollectorMetrics(Collector):
    """Serves the Collector's names beside ours, from the same registry.

    Args:
        metrics: What is read.
        worker_pids: Returns the processes that count as ours beside this one.
    """

    def __init__(self, metrics: Metrics, worker_pids: Callable[[], Collection[int]] = tuple) -> None:
        self._metrics = metrics
        self._usage = _ProcessUsage(worker_pids)

    def register(self, registry: CollectorRegistry) -> None:
        """Serve them from a registry."""
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Return every family, also those without a value yet."""
        values = _read(self._metrics)
        values.update(self._usage.read())
        for family in FAMILIES:
            for noun in NOUNS.values() if "{noun}" in family.name else ("",):
                name = family.name.format(noun=noun)
                by_labels = values.get(name, {})
                text = family.text.format(nouns=noun.replace("_", " ").capitalize())
                label_names = [label for label, _ in next(iter(by_labels), ())]
                made = (CounterMetricFamily if family.is_counter else GaugeMetricFamily)(name, text, labels=label_names)
                for labels, value in by_labels.items():
                    made.add_metric([value for _, value in labels], value)
                yield made


_Labels = tuple[tuple[str, str], ...]


def _read(metrics: Metrics) -> dict[str, dict[_Labels, float]]:
    """Return the values of all mirrored families by their labels."""
    values: dict[str, dict[_Labels, float]] = defaultdict(dict)
    for mirror in MIRRORS:
        found: dict[tuple[str, _Labels], dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for ours, value in _samples(getattr(metrics, mirror.source)):
            if any(ours[label] not in wanted for label, wanted in mirror.only.items()):
                continue
            if any(ours[label] in unwanted for label, unwanted in mirror.never.items()):
                continue
            labels = tuple((name, template.format(**ours)) for name, template in mirror.labels.items())
            found[mirror.family.format(**ours), labels][ours.get(mirror.largest_of, "")] += value
        for (name, labels), parts in found.items():
            if mirror.is_fallback and labels in values[name]:
                continue
            values[name][labels] = values[name].get(labels, 0.0) + max(parts.values())
    return values


def _samples(metric: Collector) -> Iterator[tuple[dict[str, str], float]]:
    """Return the labels and values of one of our metrics, with what mirrors are made of besides."""
    for family in metric.collect():
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            labels = dict(sample.labels)
            if "signal" in labels:
                if labels["signal"] not in NOUNS:
                    continue  # damaged beyond knowing what it was; it was never sent
                labels["noun"] = NOUNS[labels["signal"]]
            if "cursor" in labels:
                labels["exporter"] = labels["cursor"].partition(":")[2]
            yield labels, sample.value


class _ProcessUsage:
    """What the kernel says of our processes; nothing where it does not say it as Linux does."""

    def __init__(self, worker_pids: Callable[[], Collection[int]]) -> None:
        self._worker_pids = worker_pids
        self._started_s = time.monotonic()
        self._cpu_s = 0.0

    def read(self) -> dict[str, dict[_Labels, float]]:
        values = {"otelcol_process_uptime_seconds": time.monotonic() - self._started_s}
        if Path("/proc/self/statm").exists():
            pids = self._worker_pids()
            # A worker's time is its own while it lives and becomes its parent's when it has ended; in
            # between it is in neither for a moment, and a counter must not fall.
            self._cpu_s = max(self._cpu_s, sum(os.times()[:4]) + sum(_cpu_s(pid) for pid in pids))
            values["otelcol_process_cpu_seconds"] = self._cpu_s
            values["otelcol_process_memory_rss_bytes"] = resident_bytes([os.getpid(), *pids])
        return {name: {(): value} for name, value in values.items()}


def _cpu_s(pid: int) -> float:
    try:
        # proc(5): the name in parentheses may hold anything; utime and stime are fields 14 and 15.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
