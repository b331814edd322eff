"""The catalogue: every Prometheus metric the sidecar serves, declared once.

Labels take values from small, bounded sets only.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """All metrics, registered in one registry.

    Args:
        registry: Where to register; a new one by default, so that tests do not share counts.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"driftlock_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"driftlock_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"driftlock_{name}", text, labels, registry=self.registry, buckets=_SECONDS)

        self.receiver_requests = counter(
            "receiver_requests",
            "Export requests by outcome: accepted, duplicate (in the log already), refused (try again), rejected"
            " (bad input).",
            "signal",
            "transport",
            "outcome",
        )
        self.receiver_items = counter(
            "receiver_items",
            "Log records, data points and spans by outcome: accepted, duplicate, refused or rejected.",
            "signal",
            "transport",
            "outcome",
        )
        self.receiver_bytes = counter(
            "receiver_bytes", "Bytes of accepted requests, uncompressed.", "signal", "transport"
        )
        self.receiver_checks = counter(
            "receiver_checks",
            "Requests in protobuf by what has checked them: scanner (compiled), or protobuf, which is slower: for what"
            " the scanner is not sure of, and for all where it is not compiled.",
            "signal",
            "by",
        )
        self.receiver_ack_seconds = histogram(
            "receiver_ack_seconds", "Time from a whole request read to its acknowledgement.", "signal", "transport"
        )
        self.log_append_seconds = histogram("log_append_seconds", "Time of one group commit of the durable log.")
        self.log_bytes = gauge("log_bytes", "Bytes that the durable log holds.")
        self.log_max_bytes = gauge(
            "log_max_bytes", "Bytes that the durable log may hold; then senders are told to wait."
        )
        self.log_damaged_entries = counter(
            "log_damaged_entries", "Entries of the durable log that the disk has damaged; they are passed over."
        )
        self.log_damaged_bytes = counter("log_damaged_bytes", "Bytes of those entries.")
        self.queue_items = gauge("queue_items", "Items in the durable log that a cursor has yet to pass.", "cursor")
        self.queue_bytes = gauge("queue_bytes", "Bytes in the durable log that a cursor has yet to pass.", "cursor")
        self.queue_capacity = gauge(
            "queue_capacity",
            "Most that may wait for a destination: its sending_queue.queue_size, else queue.max_bytes.",
            "cursor",
            "unit",
        )
        self.queue_size = gauge(
            "queue_size",
            "What waits for a destination that has a sending_queue.queue_size, in its unit; not what awaits a verdict.",
            "cursor",
            "unit",
        )
        self.queue_overflow_items = counter(
            "queue_overflow_items",
            "Items refused since the sending_queue of a destination was full.",
            "exporter",
            "signal",
        )
        self.forward_items = counter(
            "forward_items",
            "Items by destination and final outcome: forwarded, diverted or dropped (with its reason).",
            "exporter",
            "signal",
            "outcome",
            "reason",
        )
        self.forward_unscored_items = counter(
            "forward_unscored_items", "Items forwarded without a verdict since detection lagged behind.", "signal"
        )
        self.exporter_in_flight_requests = gauge(
            "exporter_in_flight_requests",
            "Requests being sent, or waiting to be sent again, by destination.",
            "exporter",
        )
        self.exporter_retries = counter("exporter_retries", "Failed attempts that will be repeated.", "exporter")
        self.exporter_rejected_items = counter(
            "exporter_rejected_items",
            "Items a destination said it did not take (partial success).",
            "exporter",
            "signal",
        )
        self.quarantine_items = gauge("quarantine_items", "Items withheld in the quarantine.")
        self.quarantine_bytes = gauge("quarantine_bytes", "Bytes withheld in the quarantine.")
        self.quarantine_max_bytes = gauge(
            "quarantine_max_bytes", "Bytes that may be withheld; beyond them the oldest are dropped."
        )
        self.quarantine_expires_seconds = gauge(
            "quarantine_expires_seconds",
            "Seconds until the oldest withheld items are dropped for their age; the whole age if nothing is withheld.",
        )
        self.quarantine_dropped_items = counter(
            "quarantine_dropped_items",
            "Items dropped that had been withheld (diverted), by reason: max_age, max_bytes or damaged.",
            "signal",
            "reason",
        )
        self.state_bytes = gauge("state_bytes", "Size of the state database's file.")
        self.state_repairs = counter(
            "state_repairs", "How often the state database was damaged and made anew from what could be read of it."
        )
        self.detection_windows = counter(
            "detection_windows",
            "Windows by outcome: clean, flagged, anomalous, warming_up or unscored.",
            "kind",
            "outcome",
        )
        self.detection_unscored_items = counter(
            "detection_unscored_items", "Items that no window took, by reason.", "reason"
        )
        self.detection_streams = gauge("detection_streams", "Streams that are followed.", "kind")
        self.detection_warming_up_streams = gauge(
            "detection_warming_up_streams", "Streams that are followed and cannot alarm yet."
        )
        self.detection_constant_streams = gauge(
            "detection_constant_streams",
            "Streams whose scores do not vary: either they always say the same, or their detector sees nothing.",
        )
        self.detection_orders = counter(
            "detection_orders",
            "Orders of people to detectors: feedback on anomalies, sensitivity of streams; `unknown` if there is no"
            " such stream or anomaly.",
            "outcome",
        )
        self.detection_evicted_streams = counter(
            "detection_evicted_streams",
            "Streams that made room for others, the longest unused first; back again, they go on where they were.",
        )
        self.detection_lag_seconds = gauge(
            "detection_lag_seconds", "Age of the oldest item that awaits its verdict.", "worker"
        )
        self.anomalies = counter("anomalies", "Anomalies detected.", "kind", "severity")
        self.open_anomalies = gauge("open_anomalies", "Anomalies that are still going on.")
        self.suppressed_anomalies = counter(
            "suppressed_anomalies", "Anomalies that fell under a suppression or maintenance, and made no noise.", "kind"
        )
        self.incidents = counter(
            "incidents",
            "Incidents by the level that they began at, or were raised to: what somebody is told of.",
            "level",
            "change",
        )
        self.open_incidents = gauge("open_incidents", "Incidents that are still going on.")
        self.spared_items = counter(
            "spared_items",
            "Items of anomalous windows that went on as clean: below forward.divert_from (level), or suppressed.",
            "reason",
        )
        self.worker_restarts = counter("worker_restarts", "Detection processes that had to be started again.")
        self.events = counter(
            "events", "Anomaly events by destination and outcome: sent or dropped.", "exporter", "outcome"
        )
        self.memory_used_bytes = gauge(
            "memory_used_bytes", "Resident memory of the service and its detection workers, as the limiter sees it."
        )
        self.memory_limit_bytes = gauge("memory_limit_bytes", "Most memory they may use; absent or 0: no limit.")
        self.errors = counter("errors", "Unexpected errors that were survived, by component.", "component")
