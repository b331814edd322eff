"""What the service and a detection worker say to each other, over the worker's standard streams.

Each message is msgpack behind its length (4 bytes, big-endian). Payloads never travel this
way: the worker reads the durable log itself.
"""

from __future__ import annotations

import struct

import msgspec

from driftlock_otlp.model import Anomaly, AnomalyWindow, EvidenceBundle, ItemRange, WindowFacts
from driftlock_otlp.observability.live import LiveStream

LENGTH = struct.Struct(">I")


class Start(msgspec.Struct, tag=True):
    """To the worker, first: what to do.

    Attributes:
        config_json: The configuration, secrets masked; a worker needs none.
        log_directory: The durable log.
        checkpoint_path: The worker's own database.
        index: Its partition.
        count: Number of partitions.
        position: Where to begin without a checkpoint.
    """

    config_json: str
    log_directory: str
    checkpoint_path: str
    index: int
    count: int
    position: int


class Advance(msgspec.Struct, tag=True):
    """To the worker: entries up to here are durable.

    Attributes:
        end: Position behind the last of them.
    """

    end: int


class Recorded(msgspec.Struct, tag=True):
    """To the worker: what it said is durable, so that a checkpoint need not repeat it.

    Attributes:
        position: The `read_position` of the last `Progress` that is.
    """

    position: int


class Describe(msgspec.Struct, tag=True):
    """To the worker: say how the streams are.

    Attributes:
        most: Streams to tell of at most.
    """

    most: int


class Stop(msgspec.Struct, tag=True):
    """To the worker: write a checkpoint and end."""


class Ready(msgspec.Struct, tag=True):
    """To the service: the worker has taken over its streams.

    Attributes:
        position: Where it goes on reading.
        streams: (kind, count) of the streams taken over from the checkpoint.
        warming_up: Those of them that cannot alarm yet.
        learning_anew: Those that warm up again since their detector changed.
    """

    position: int
    streams: list[tuple[str, int]] = []
    warming_up: int = 0
    learning_anew: list[str] = []


class Progress(msgspec.Struct, tag=True):
    """To the service: what a stretch of the log has brought.

    Attributes:
        read_position: Everything before it has been read.
        watermark: Every record before it has its verdict.
        checkpoint: A restart would begin here; the log is needed from here on.
        opened: Anomalies that began.
        ongoing: Further windows of anomalies.
        resolved: (id, event time, resolution) of anomalies that ended.
        diverted: (position, ranges) of anomalous items.
        windows: (kind, outcome, count).
        facts: Scored windows.
        evidence: Of anomalies that began.
        unscored_items: (reason, count).
        orders: (outcome, count).
        evicted_streams: Streams that made room for others.
        streams: (kind, count).
        warming_up: Streams that cannot alarm yet.
        constant: Streams whose scores do not vary.
        oldest_open_unix_nano: When the oldest open window opened; 0 without one.
        has_checkpoint_waiting: Whether a checkpoint waits to hear that this is durable.
    """

    read_position: int
    watermark: int
    checkpoint: int
    opened: list[Anomaly] = []
    ongoing: list[AnomalyWindow] = []
    resolved: list[tuple[str, int, str]] = []
    diverted: list[tuple[int, list[ItemRange]]] = []
    windows: list[tuple[str, str, int]] = []
    facts: list[WindowFacts] = []
    evidence: list[EvidenceBundle] = []
    unscored_items: list[tuple[str, int]] = []
    orders: list[tuple[str, int]] = []
    evicted_streams: int = 0
    streams: list[tuple[str, int]] = []
    warming_up: int = 0
    constant: int = 0
    oldest_open_unix_nano: int = 0
    has_checkpoint_waiting: bool = False


class Streams(msgspec.Struct, tag=True):
    """To the service: how the streams are, as was asked.

    Attributes:
        streams: Some or all of them.
    """

    streams: list[LiveStream]


ToWorker = Start | Advance | Recorded | Describe | Stop
"""What a worker is told."""
ToService = Ready | Progress | Streams
"""What a worker says."""

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_to_service: msgspec.msgpack.Decoder[ToService] = msgspec.msgpack.Decoder(ToService)


def encode(message: ToWorker | ToService) -> bytes:
    """Return the message with its length in front."""
    data = _encoder.encode(message)
    return LENGTH.pack(len(data)) + data


def decode_for_worker(data: bytes) -> ToWorker:
    """Return the message in `data`, without its length."""
    return _to_worker.decode(data)


def decode_for_service(data: bytes) -> ToService:
    """Return the message in `data`, without its length."""
    return _to_service.decode(data)
