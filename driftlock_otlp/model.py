"""The facts every part of the project shares: signals, streams, log entries, verdicts.

Plain values only: no I/O, no wire format, no settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Signal(Enum):
    """The three OTLP signals, each with the facts in which they differ on the wire.

    Attributes:
        code: Stable number written into the durable log.
        plural: OTLP's name, as in `windows.logs` and in metric labels.
        http_path: Path of the OTLP/HTTP endpoint (OTLP specification, "OTLP/HTTP Request").
        grpc_method: Full name of the unary Export method.
        item_noun: What one item is called in OTLP (`rejected_<noun>`).
    """

    LOGS = (1, "logs", "/v1/logs", "logs.v1.LogsService", "log_records")
    METRICS = (2, "metrics", "/v1/metrics", "metrics.v1.MetricsService", "data_points")
    TRACES = (3, "traces", "/v1/traces", "trace.v1.TraceService", "spans")

    def __init__(self, code: int, plural: str, path: str, service: str, noun: str) -> None:
        self.code = code
        self.plural = plural
        self.http_path = path
        self.grpc_service = f"opentelemetry.proto.collector.{service}"
        self.grpc_method = f"/{self.grpc_service}/Export"
        self.item_noun = noun

    @classmethod
    def of_code(cls, code: int) -> Signal:
        """Return the signal with this number in the log.

        Raises:
            KeyError: No signal has that number.
        """
        return _SIGNAL_OF_CODE[code]


_SIGNAL_OF_CODE = {signal.code: signal for signal in Signal}


class StreamKind(Enum):
    """What a window holds; each kind has windows and settings of its own (`windows.<kind>`)."""

    LOGS = "logs"
    METRICS = "metrics"
    TRACES = "traces"
    GEN_AI = "gen_ai"


@dataclass(frozen=True, slots=True, order=True)
class StreamKey:
    """Identity of a stream: records that are compared with one another.

    Attributes:
        kind: Value of the `StreamKind`.
        service: Resource attribute `service.name`, or `unknown_service`.
        name: What tells streams of one service apart: the metric's name, the model of an
            LLM operation; empty for logs and traces.
        tenant: Organisation the records belong to; empty without authentication.
    """

    kind: str
    service: str
    name: str = ""
    tenant: str = ""

    def __str__(self) -> str:
        """Return `kind/service[/name]`, as shown to people.

        >>> str(StreamKey("metrics", "checkout", "queue.depth"))
        'metrics/checkout/queue.depth'
        """
        return "/".join(part for part in (self.tenant, self.kind, self.service, self.name) if part)


@dataclass(frozen=True, slots=True)
class NewEntry:
    """One OTLP request on its way into the durable log.

    Attributes:
        signal: The request's signal; None for a clock tick, which has an empty payload and
            only tells readers that time has passed, and for an order to a detector (`orders.py`).
        payload: The request as OTLP protobuf, uncompressed; or the order.
        item_count: Log records, data points or spans in it.
        received_unix_nano: Wall clock when it was received.
        tenant: Organisation it belongs to.
    """

    signal: Signal | None
    payload: bytes
    item_count: int
    received_unix_nano: int
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One OTLP request as read back from the durable log.

    Attributes:
        position: Byte offset of the entry, counted over the whole life of the log.
        next_position: Offset of the entry after it; a cursor that has finished this entry
            stands here.
        items_before: Items in all entries before this one, over the whole life of the log.
        entry: What was appended.
        is_damaged: Whether the disk has lost what stood here. Then `entry` holds what is still known:
            how many items it had, their signal or None, and no payload.
    """

    position: int
    next_position: int
    items_before: int
    entry: NewEntry
    is_damaged: bool = False


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where the next entry will go.

    Attributes:
        position: Its byte offset.
        item_count: Items in all entries before it.
    """

    position: int
    item_count: int


class AnomalySeverity(Enum):
    """How bad an anomaly is, with its OpenTelemetry SeverityNumber (logs data model)."""

    LOW = ("low", 9, "INFO")
    MEDIUM = ("medium", 13, "WARN")
    HIGH = ("high", 17, "ERROR")
    CRITICAL = ("critical", 21, "FATAL")

    def __init__(self, label: str, number: int, text: str) -> None:
        self.label = label
        self.severity_number = number
        self.severity_text = text


class AnomalyState(Enum):
    """What the data do: where an anomaly is in its life; the detector alone says so."""

    OPEN = "open"
    ONGOING = "ongoing"
    RESOLVED = "resolved"


class AnomalyStatus(Enum):
    """What people do about an anomaly."""

    NEW = "new"
    ACKNOWLEDGED = "acknowledged"
    INVESTIGATING = "investigating"
    DISMISSED = "dismissed"


class AnomalyLevel(Enum):
    """How far an anomaly is to be heard, each level above the one before."""

    NOTICE = "notice"
    PAGE = "page"
    FLEET = "fleet"

    @property
    def rank(self) -> int:
        """Its place among the levels, from 0."""
        return _LEVEL_RANKS[self]


_LEVEL_RANKS = {level: rank for rank, level in enumerate(AnomalyLevel)}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one column of an anomalous window says.

    Attributes:
        column: Name of the column, as `template` or `attributes.http.route`.
        kind: `pattern` (which symbols), `volume` (how many), `value` (how large), `drift` (slowly) or `sequence`
            (in what order).
        bits: Surprise of the column: -log2 of the tail probability of its evidence.
        text: One sentence for people.
        observed: What the window held, short.
        expected: What the baseline predicts, short.
    """

    column: str
    kind: str
    bits: float
    text: str
    observed: str = ""
    expected: str = ""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One anomaly of one stream: what was seen, why it is odd, and how odd.

    Attributes:
        id: 32 hex digits, computed from stream, window start and detector fingerprint, so that
            the same anomaly has the same id however often it is found.
        stream: Where.
        state: Value of an `AnomalyState`.
        severity: Label of an `AnomalySeverity`.
        detected_unix_nano: Event time at which the window ended whose verdict raised it.
        window_start_unix_nano: Event time of that window's first record.
        window_end_unix_nano: Event time of its last record.
        record_count: Records in that window.
        score: [0, 1]; 0.5 is the bar of an immediate alarm.
        p_value: Conformal p-value of the window, (0, 1].
        bits: Calibrated surprise of the window, in bits.
        ncd: Normalised compression distance of window and baseline (Cilibrasi & Vitányi 2005).
        compression_ratio: Raw bytes over compressed bytes of the window's columns.
        baseline_compression_ratio: The same of the baseline.
        entropy_bits: Empirical entropy of the window's symbols, bits a record.
        baseline_entropy_bits: The same of the baseline.
        baseline_windows: Windows in the baseline.
        baseline_records: Records in it.
        explanation: One sentence that says what changed.
        evidence: Columns, strongest first.
        trace_id: Trace of the strongest contributing record, 32 hex digits or empty.
        span_id: Its span, 16 hex digits or empty.
        related_trace_ids: Traces of further contributing records.
        template: Log template with the strongest evidence, empty if none.
        resource: OTLP Resource of the strongest record's source, as protobuf bytes.
        resource_schema_url: Its schema URL.
        fingerprint: Identity of the detector: compressor, format version, settings.
        compressor: Name and version of the compressor.
        resolved_unix_nano: Event time of its end; 0 while open.
        resolution: How it ended: `recovered`, `adopted` or `dismissed`; empty while open.
        status: Value of an `AnomalyStatus`.
        level: Value of an `AnomalyLevel`.
        incident_id: The incident it belongs to; empty if none.
        is_suppressed: Whether it fell under a suppression or a maintenance window: recorded, and nothing more.
        window_count: Windows that belong to it so far, at least 1.
        last_unix_nano: Event time of the end of the last of them; 0 if that is the first.
    """

    id: str
    stream: StreamKey
    state: str
    severity: str
    detected_unix_nano: int
    window_start_unix_nano: int
    window_end_unix_nano: int
    record_count: int
    score: float
    p_value: float
    bits: float
    ncd: float
    compression_ratio: float
    baseline_compression_ratio: float
    entropy_bits: float
    baseline_entropy_bits: float
    baseline_windows: int
    baseline_records: int
    explanation: str
    evidence: tuple[Evidence, ...]
    trace_id: str
    span_id: str
    related_trace_ids: tuple[str, ...]
    template: str
    resource: bytes
    resource_schema_url: str
    fingerprint: str
    compressor: str
    resolved_unix_nano: int = 0
    resolution: str = ""
    status: str = AnomalyStatus.NEW.value
    level: str = AnomalyLevel.NOTICE.value
    incident_id: str = ""
    is_suppressed: bool = False
    window_count: int = 1
    last_unix_nano: int = 0


@dataclass(frozen=True, slots=True)
class AnomalyWindow:
    """A further window of an anomaly that goes on.

    Attributes:
        anomaly_id: The anomaly.
        end_unix_nano: Event time of the window's last record.
        window_count: Windows that belong to the anomaly with this one, at least 2.
        bits: Calibrated surprise of the window.
        is_odd: Whether it would raise an alarm by itself.
        level: Value of the `AnomalyLevel` that the stream alone gives it.
        severity: Label of the `AnomalySeverity` that it would have by itself.
    """

    anomaly_id: str
    end_unix_nano: int
    window_count: int
    bits: float
    is_odd: bool
    level: str
    severity: str


@dataclass(frozen=True, slots=True)
class ItemRange:
    """A run of neighbouring items of one request that belong to an anomaly.

    Attributes:
        first: Index of the first item, in the request's own order.
        count: How many.
        anomaly_id: The anomaly.
        window: Of which of the anomaly's windows, from 1.
    """

    first: int
    count: int
    anomaly_id: str
    window: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class EvidenceBundle:
    """The evidence of one anomaly.

    Attributes:
        anomaly_id: Which.
        tenant: Organisation of its stream.
        root: Last link of the bundle's hash chain, 64 hex digits.
        data: The bundle.
    """

    anomaly_id: str
    tenant: str
    root: str
    data: bytes


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """What is kept of every scored window, for auditors.

    Attributes:
        stream: Where.
        start_unix_nano: Event time of its first record.
        end_unix_nano: Event time of its last record.
        record_count: Records in it.
        outcome: `clean`, `flagged`, `anomalous` or `warming_up`.
        score: [0, 1].
        p_value: Conformal p-value, (0, 1]; 1 while warming up.
        bits: Calibrated surprise, bits.
        ncd: Normalised compression distance to the baseline.
        compression_ratio: Raw bytes over compressed bytes of the window's columns.
        baseline_compression_ratio: The same of the baseline.
        entropy_bits: Empirical entropy of the window's symbols, bits a record.
        baseline_entropy_bits: The same of the baseline.
    """

    stream: StreamKey
    start_unix_nano: int
    end_unix_nano: int
    record_count: int
    outcome: str
    score: float
    p_value: float
    bits: float
    ncd: float
    compression_ratio: float
    baseline_compression_ratio: float
    entropy_bits: float
    baseline_entropy_bits: float
