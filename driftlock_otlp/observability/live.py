"""What the parts of the sidecar say of themselves at this moment, for people and `/debug/pipelinez`.

Plain values only. Nothing here is counted or kept: metrics do the one, storage the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from driftlock_otlp.model import StreamKey


@dataclass(frozen=True, slots=True)
class LiveReceiver:
    """One OTLP protocol.

    Attributes:
        transport: `grpc` or `http`, as in the metrics.
        endpoint: Where it listens.
        has_tls: Whether it serves TLS.
        requests: Requests by signal and outcome, since the start.
        items: Items by signal and outcome.
    """

    transport: str
    endpoint: str
    has_tls: bool
    requests: dict[str, dict[str, int]]
    items: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class LiveLog:
    """The durable log.

    Attributes:
        path: Its directory.
        held_bytes: Bytes that somebody still needs.
        max_bytes: Most that it may hold.
        end: Position of the next entry.
        item_count: Items in all entries, over the whole life of the log.
        is_writable: Whether the disk takes data.
    """

    path: str
    held_bytes: int
    max_bytes: int
    end: int
    item_count: int
    is_writable: bool


@dataclass(frozen=True, slots=True)
class LiveQueue:
    """What waits for one destination, and how the destination does.

    Attributes:
        name: Of the cursor or sender, as `forward:otlp_grpc` or `events:otlp_http`.
        destination: The exporter, `quarantine` or `none`.
        position: Where the cursor stands; None for anomaly events, which wait in the outbox.
        waiting_items: Items, or anomaly events, that wait; None if that is not known now.
        waiting_bytes: Bytes of the log that the cursor has yet to pass; None for anomaly events.
        outcomes: Items, or anomaly events, by outcome, since the start.
        retry_count: Failed attempts that were or will be repeated, of all who send to the destination.
        is_failing: Whether the last attempt failed and will be repeated.
        last_error: What the destination last failed with; empty if it never did.
    """

    name: str
    destination: str
    position: int | None
    waiting_items: int | None
    waiting_bytes: int | None
    outcomes: dict[str, int]
    retry_count: int
    is_failing: bool
    last_error: str


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """One detection process.

    Attributes:
        index: Its partition.
        pid: Its process; None while there is none.
        is_ready: Whether it has taken over its streams.
        read_position: It has read the log up to here.
        watermark: Every record before it has its verdict.
        checkpoint: A restart would begin here.
        lag_s: Age of the oldest record that awaits its verdict, in seconds.
        restart_count: How often it had to be started again.
        stream_count: Streams that it follows.
        warming_up_count: Those of them that cannot alarm yet.
        said_s_ago: Age of what is known of its streams, in seconds; None if nothing is.
    """

    index: int
    pid: int | None
    is_ready: bool
    read_position: int
    watermark: int
    checkpoint: int
    lag_s: float
    restart_count: int
    stream_count: int
    warming_up_count: int
    said_s_ago: float | None


@dataclass(frozen=True, slots=True)
class LiveStream:
    """One stream and its windows.

    Attributes:
        key: The stream; long names are cut.
        window_size: Records at which a window closes.
        open_window_count: Open windows; more than one with session windows only.
        open_record_count: Records in them.
        oldest_open_s: Age of the oldest of them on the log's clock, in seconds.
        window_count: Windows closed since the worker started.
        baseline_window_count: Windows in the baseline.
        baseline_record_count: Records in it.
        windows_to_warm: Windows until it may alarm, at least; 0 once it may.
        last_outcome: Of the window closed last: `clean`, `flagged`, `anomalous`, `warming_up`; empty before.
        last_score: Its score, [0, 1].
        last_p_value: Its p-value, (0, 1].
        last_end_unix_nano: Event time of its last record; 0 before the first window.
        anomaly_id: The anomaly that is going on; empty if none is.
    """

    key: StreamKey
    window_size: int
    open_window_count: int
    open_record_count: int
    oldest_open_s: float
    window_count: int
    baseline_window_count: int
    baseline_record_count: int
    windows_to_warm: int
    last_outcome: str
    last_score: float
    last_p_value: float
    last_end_unix_nano: int
    anomaly_id: str


@dataclass(frozen=True, slots=True)
class LivePipeline:
    """The whole sidecar.

    Attributes:
        version: Of the sidecar.
        started_unix_nano: When it was started.
        now_unix_nano: When this was asked.
        waiting_for: What it is not ready for; empty when ready.
        policy: `forward.policy`.
        receivers: How telemetry comes in.
        log: Where it is kept.
        queues: Who follows the log, and the senders of anomaly events.
        quarantine_items: Items withheld; None if that is not known now.
        open_anomaly_count: Anomalies that are going on; None if that is not known now.
        workers: Who scores it.
        stream_count: Streams that are followed.
        streams: Some of them: with anomalies first, then by the time of their last window.
    """

    version: str
    started_unix_nano: int
    now_unix_nano: int
    waiting_for: list[str]
    policy: str
    receivers: list[LiveReceiver]
    log: LiveLog
    queues: list[LiveQueue]
    quarantine_items: int | None
    open_anomaly_count: int | None
    workers: list[LiveWorker]
    stream_count: int
    streams: list[LiveStream]
