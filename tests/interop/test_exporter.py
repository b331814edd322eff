"""The exporters' clients before a real Collector: what it takes, and how it says that it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftlock_otlp.errors import DownstreamTooLargeError
from driftlock_otlp.interfaces import ExportResult
from driftlock_otlp.model import Signal
from tests.conformance.exporters import each_kind, exporter_to
from tests.conformance.receivers import every_signal, request_of
from tests.interop import programs
from tests.interop.collector import running
from tests.interop.ends import sink, written

COMPRESSIONS = ("gzip", "zstd", "zlib", "deflate", "snappy", "x-snappy-framed", "lz4")
HTTP = {"compression_algorithms": ["", *COMPRESSIONS]}


@every_signal
async def test_collector_takes_every_compression_in_both_encodings(signal: Signal, tmp_path: Path) -> None:
    programs.required(programs.COLLECTOR)
    payload = request_of(signal, 3)
    exports = 0
    with running(sink(tmp_path, received={"http": HTTP}), tmp_path / "sink") as collector:
        grpc_port, http_port = collector.both_ports("otlp/received")
        for compression in (*COMPRESSIONS, "none"):
            for encoding in ("proto", "json"):
                endpoint = f"http://127.0.0.1:{http_port}"
                async with exporter_to(endpoint, compression=compression, encoding=encoding) as exporter:
                    assert await exporter.export(signal, payload) == ExportResult()
                exports += 1
        for compression in ("gzip", "none"):
            endpoint = f"http://127.0.0.1:{grpc_port}"
            async with exporter_to(endpoint, "otlp_grpc", compression=compression) as exporter:
                assert await exporter.export(signal, payload) == ExportResult()
            exports += 1
    received = written(tmp_path, "received", signal)
    assert set(received.values()) == {exports}
    assert len(received) == 3


@each_kind
async def test_what_a_collector_finds_too_large_is_known_as_such(kind: str, tmp_path: Path) -> None:
    programs.required(programs.COLLECTOR)
    payload = request_of(Signal.LOGS, 100_000)  # 1.5 MB, which compresses well: it is too large once it is unpacked
    settings = {"grpc": {"max_recv_msg_size_mib": 1}, "http": {"max_request_body_size": 1 << 20}}
    with running(sink(tmp_path, received=settings), tmp_path / "sink") as collector:
        grpc_port, http_port = collector.both_ports("otlp/received")
        endpoint = f"http://127.0.0.1:{grpc_port if kind == 'otlp_grpc' else http_port}"
        for compression in ("gzip", "none"):
            async with exporter_to(endpoint, kind, compression=compression, timeout=30.0) as exporter:
                with pytest.raises(DownstreamTooLargeError):
                    await exporter.export(Signal.LOGS, payload)
