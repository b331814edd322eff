from __future__ import annotations

import asyncio
import json

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from driftlock_otlp.errors import DecodeError, OverloadedError, StorageUnavailableError
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import NewEntry, Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.receiver.ingest import Ingest
from tests.doubles.memory_log import MemoryLog

NOW = 1_700_000_000_000_000_000


class Bench:
    """An Ingest on a log in memory, and what it has counted."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.metrics = Metrics()
        self.ingest = Ingest(self.log, self.metrics, lambda: NOW)

    def count(self, name: str, outcome: str) -> float:
        labels = {"signal": "logs", "transport": "grpc", "outcome": outcome}
        return self.metrics.registry.get_sample_value(f"driftlock_receiver_{name}_total", labels) or 0.0

    def requests(self) -> dict[str, float]:
        return {outcome: self.count("requests", outcome) for outcome in ("accepted", "refused", "rejected")}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def logs_request(n_records: int) -> bytes:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for index in range(n_records):
        scope.log_records.add(time_unix_nano=index + 1)
    return request.SerializeToString()


async def test_the_very_bytes_received_are_appended(bench: Bench) -> None:
    payload = logs_request(3) + b"\xd0\x3e\x07"  # an unknown field
    assert await bench.ingest.ingest_protobuf(Signal.LOGS, payload, "grpc") == ExportResult()
    assert bench.log.entries == [NewEntry(Signal.LOGS, payload, 3, NOW)]


async def test_accepted_request_is_counted_once(bench: Bench) -> None:
    payload = logs_request(3)
    await bench.ingest.ingest_protobuf(Signal.LOGS, payload, "grpc")
    assert bench.requests() == {"accepted": 1, "refused": 0, "rejected": 0}
    assert bench.count("items", "accepted") == 3
    labels = {"signal": "logs", "transport": "grpc"}
    sample = bench.metrics.registry.get_sample_value
    assert sample("driftlock_receiver_bytes_total", labels) == len(payload)
    assert sample("driftlock_receiver_ack_seconds_count", labels) == 1


async def test_records_with_ids_that_cannot_be_are_left_out_and_counted(bench: Bench) -> None:
    request = ExportLogsServiceRequest.FromString(logs_request(4))
    records = request.resource_logs[0].scope_logs[0].log_records
    records[1].trace_id = b"\x01" * 15
    records[3].span_id = b"\x01" * 16
    result = await bench.ingest.ingest_protobuf(Signal.LOGS, request.SerializeToString(), "grpc")
    assert result.rejected_item_count == 2
    assert "16 bytes" in result.message
    (entry,) = bench.log.entries
    kept = ExportLogsServiceRequest.FromString(entry.payload).resource_logs[0].scope_logs[0].log_records
    assert ([record.time_unix_nano for record in kept], entry.item_count) == ([1, 3], 2)
    assert bench.count("items", "accepted") == bench.count("items", "rejected") == 2
    assert bench.requests() == {"accepted": 1, "refused": 0, "rejected": 0}


async def test_request_of_nothing_but_such_records_is_answered_and_not_logged(bench: Bench) -> None:
    request = ExportLogsServiceRequest.FromString(logs_request(1))
    request.resource_logs[0].scope_logs[0].log_records[0].span_id = b"\x01"
    result = await bench.ingest.ingest_protobuf(Signal.LOGS, request.SerializeToString(), "grpc")
    assert result.rejected_item_count == 1
    assert bench.log.entries == []
    assert (bench.count("items", "accepted"), bench.count("items", "rejected")) == (0, 1)


async def test_json_is_appended_as_protobuf(bench: Bench) -> None:
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "1"}]}]}]}).encode()
    assert await bench.ingest.ingest_json(Signal.LOGS, body, "http") == ExportResult()
    assert bench.log.entries == [NewEntry(Signal.LOGS, logs_request(1), 1, NOW)]


async def test_empty_request_succeeds_without_touching_the_log(bench: Bench) -> None:
    bench.log.failure = StorageUnavailableError("disk")
    assert await bench.ingest.ingest_protobuf(Signal.LOGS, b"", "grpc") == ExportResult()
    assert await bench.ingest.ingest_protobuf(Signal.LOGS, logs_request(0), "grpc") == ExportResult()
    assert await bench.ingest.ingest_json(Signal.LOGS, b"{}", "grpc") == ExportResult()
    assert bench.requests() == {"accepted": 3, "refused": 0, "rejected": 0}


async def test_undecodable_request_is_rejected_and_not_appended(bench: Bench) -> None:
    with pytest.raises(DecodeError):
        await bench.ingest.ingest_protobuf(Signal.LOGS, b"\xff", "grpc")
    with pytest.raises(DecodeError):
        await bench.ingest.ingest_json(Signal.LOGS, b"{", "grpc")
    assert bench.log.entries == []
    assert bench.requests() == {"accepted": 0, "refused": 0, "rejected": 2}


@pytest.mark.parametrize("failure", [OverloadedError("full", 5.0), StorageUnavailableError("disk")])
async def test_request_the_log_does_not_take_is_refused_with_its_items(bench: Bench, failure: Exception) -> None:
    bench.log.failure = failure
    with pytest.raises(type(failure)):
        await bench.ingest.ingest_protobuf(Signal.LOGS, logs_request(4), "grpc")
    assert bench.requests() == {"accepted": 0, "refused": 1, "rejected": 0}
    assert bench.count("items", "refused") == 4
    assert bench.count("items", "accepted") == 0


async def test_nothing_is_acknowledged_before_the_append_has_returned(bench: Bench) -> None:
    bench.log.gate.clear()
    call = asyncio.ensure_future(bench.ingest.ingest_protobuf(Signal.LOGS, logs_request(1), "grpc"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not call.done()
    bench.log.gate.set()
    assert await call == ExportResult()


async def test_append_of_a_caller_who_went_away_is_still_counted(bench: Bench) -> None:
    bench.log.gate.clear()
    call = asyncio.ensure_future(bench.ingest.ingest_protobuf(Signal.LOGS, logs_request(2), "grpc"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    bench.log.gate.set()
    while not bench.log.entries:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bench.count("items", "accepted") == 2
    assert bench.requests() == {"accepted": 1, "refused": 0, "rejected": 0}


async def test_failures_before_the_ingest_are_counted_by_their_kind(bench: Bench) -> None:
    for error in (OverloadedError("full"), DecodeError("bad"), ZeroDivisionError()):
        with pytest.raises(type(error)), bench.ingest.counting_failures(Signal.LOGS, "grpc"):
            raise error
    assert bench.requests() == {"accepted": 0, "refused": 1, "rejected": 2}
