"""What the OpenTelemetry Collector answers to the same bytes where it is known to differ."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from driftlock_otlp.model import Signal
from tests.conformance.receivers import JSON, JSON_LOG, PROTOBUF, log_of_size, running
from tests.interop import collector

_LONGEST_WORDS = 90
_SECONDS = 60.0
_LIMITS = {"grpc": {"max_recv_msg_size_mib": 64}, "http": {"max_request_body_size": 64 << 20}}


def _with_a_wrong_id() -> bytes:
    request = ExportLogsServiceRequest()
    for trace_id in (bytes(range(16)), bytes(range(15)), b""):
        request.resource_logs.add().scope_logs.add().log_records.add(trace_id=trace_id, time_unix_nano=1)
    return request.SerializeToString()


@dataclass(frozen=True, slots=True)
class Probe:
    """One request that both are sent; over gRPC if it has no path."""

    item: int
    request: str
    body: bytes
    path: str = ""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": PROTOBUF})


_LOGS = "/v1/logs"
_ENUM_NAME = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":"SEVERITY_NUMBER_INFO"}]}]}]}'

PROBES: tuple[Probe, ...] = (
    Probe(3, "valid request of 21 MiB over HTTP", log_of_size(21 << 20), _LOGS),
    Probe(3, "valid request of 5 MiB over gRPC", log_of_size(5 << 20)),
    Probe(6, "valid request in JSON", JSON_LOG, _LOGS, headers={"Content-Type": JSON}),
    Probe(7, "three records over HTTP, one with a trace id of 15 bytes", _with_a_wrong_id(), _LOGS),
    Probe(7, "the same over gRPC", _with_a_wrong_id()),
    Probe(32, "65 MiB over HTTP", bytes(65 << 20), _LOGS),
    Probe(35, "GET", b"", _LOGS, "GET", {}),
    Probe(35, "a media type that is not OTLP's", b"x", _LOGS, headers={"Content-Type": "text/plain"}),
    Probe(35, "a content coding that does not exist", b"x", _LOGS,
          headers={"Content-Type": PROTOBUF, "Content-Encoding": "nonsense"}),
    Probe(35, "a path that does not exist", b"", "/v1/nothing"),
    Probe(37, "undecodable protobuf", b"\xff", _LOGS),
    Probe(45, "an enum by its name in JSON", _ENUM_NAME, _LOGS, headers={"Content-Type": JSON}),
)  # fmt: skip


async def compare() -> str:
    """Return a table of answers; empty where no Collector is built."""
    if collector.binary() is None:
        return ""
    config = {
        "receivers": {"otlp": collector.otlp()},
        "exporters": {"debug": None},
        "service": {"pipelines": {"logs": {"receivers": ["otlp"], "exporters": ["debug"]}}},
    }
    with tempfile.TemporaryDirectory() as directory:
        async with running(max_in_flight_bytes=256 << 20, **_LIMITS) as receivers:
            ours = [await _ask(probe, receivers.grpc.port, receivers.http.port) for probe in PROBES]
        running_collector = collector.running(config, Path(directory))
        other = await asyncio.to_thread(running_collector.__enter__)
        try:
            theirs = [await _ask(probe, *other.both_ports()) for probe in PROBES]
        finally:
            await asyncio.to_thread(running_collector.__exit__, None, None, None)
    lines = [
        f"The same bytes sent to both ({_version()}, its receiver with default settings).\n\n"
        "| item | request | this sidecar | Collector |\n| --- | --- | --- | --- |\n"
    ]
    lines += [
        f"| {probe.item} | {probe.request} | {our_answer} | {their_answer} |\n"
        for probe, our_answer, their_answer in zip(PROBES, ours, theirs, strict=True)
    ]
    return "".join(lines)


def _version() -> str:
    manifest = (Path(collector.__file__).parent / "collector" / "manifest.yaml").read_text(encoding="utf-8")
    version = next(line.rpartition(" ")[2] for line in manifest.splitlines() if "receiver/otlpreceiver" in line)
    return f"OpenTelemetry Collector {version}"


async def _ask(probe: Probe, grpc_port: int, http_port: int) -> str:
    answer = await (_ask_http(probe, http_port) if probe.path else _ask_grpc(probe, grpc_port))
    return answer.replace("|", "\\|")


async def _ask_grpc(probe: Probe, port: int) -> str:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_send_message_length", -1)]) as channel:
        try:
            body = await channel.unary_unary(Signal.LOGS.grpc_method)(probe.body, timeout=_SECONDS)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {_shorten(error.details() or '')}"
    return f"OK: {_of_response(body)}"


async def _ask_http(probe: Probe, port: int) -> str:
    url = f"http://127.0.0.1:{port}{probe.path}"
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    # A server may answer and hang up before it has read all: that answer counts.
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.request(
            probe.method, url, data=_in_parts(probe.body) if probe.body else None, headers=probe.headers,
            skip_auto_headers=["Content-Type"],
        ) as response,
    ):  # fmt: skip
        body = await response.read()
        media_type = response.headers.get("Content-Type", "no Content-Type")
    return f"{response.status}, {media_type}: {_words(response.status, media_type, body)}"


async def _in_parts(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 1 << 20):
        yield body[start : start + (1 << 20)]


def _words(status: int, media_type: str, body: bytes) -> str:
    try:
        if media_type == PROTOBUF:
            return _of_response(body) if status == 200 else _shorten(Status.FromString(body).message)
    except DecodeError:
        return "(no Status)"
    return _shorten(body.decode("utf-8", "replace"))


def _of_response(body: bytes) -> str:
    partial = ExportLogsServiceResponse.FromString(body).partial_success
    return f"{partial.rejected_log_records} of 3 rejected" if partial.rejected_log_records else "all accepted"


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_WORDS else line[: _LONGEST_WORDS - 1] + "…"
