"""What is compared: how each program is configured and started, and which of its processes count."""

from __future__ import annotations

import os
import signal as process_signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.sidecar import free_ports
from tests.interop import programs
from tests.interop.collector import HOST, listens

START_S = 60.0
STOP_S = 60.0
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Wire:
    """How requests travel, on both sides of a program.

    Attributes:
        transport: `grpc` or `http`.
        compression: `none` or `gzip`.
    """

    transport: str
    compression: str

    def __str__(self) -> str:
        return self.transport if self.compression == "none" else f"{self.transport} {self.compression}"


@dataclass(frozen=True)
class Start:
    """What a program is to be started with.

    Attributes:
        directory: For its configuration, data and log lines.
        wire: How it sends.
        sink_grpc_port: Where to over gRPC.
        sink_http_port: Where to over HTTP.
        grpc_port: Where it is to listen.
        http_port: The same.
    """

    directory: Path
    wire: Wire
    sink_grpc_port: int
    sink_http_port: int
    grpc_port: int
    http_port: int

    @property
    def exporter(self) -> dict[str, Any]:
        """The `exporters` section, which Driftlock and the Collector share."""
        if self.wire.transport == "grpc":
            endpoint = {"endpoint": f"{HOST}:{self.sink_grpc_port}"}
        else:
            endpoint = {"endpoint": f"http://{HOST}:{self.sink_http_port}"}
        settings = {**endpoint, "compression": self.wire.compression, "tls": {"insecure": True}}
        return {f"otlp_{self.wire.transport}": settings}

    @property
    def receiver(self) -> dict[str, Any]:
        """The `receivers` section, likewise."""
        protocols = {"grpc": self.grpc_port, "http": self.http_port}
        return {"otlp": {"protocols": {name: {"endpoint": f"{HOST}:{port}"} for name, port in protocols.items()}}}


@dataclass(frozen=True)
class Program:
    """One way to move records from senders to a destination.

    Attributes:
        name: As the tables call it.
        command: Writes its configuration and returns its command line.
        is_driftlock: Whether it is ours.
    """

    name: str
    command: Callable[[Start], list[str]]
    is_driftlock: bool = False


def driftlock(name: str, **settings: Any) -> Program:
    """Return Driftlock with these settings over the default ones."""

    def command(start: Start) -> list[str]:
        (api_port,) = free_ports(1)
        tree: dict[str, Any] = {
            "receivers": start.receiver,
            "exporters": start.exporter,
            "forward": {"exporters": list(start.exporter), **settings.get("forward", {})},
            "events": {"exporters": []},
            "queue": {"path": str(start.directory / "data"), **settings.get("queue", {})},
            "api": {"endpoint": f"{HOST}:{api_port}"},
        }
        return [sys.executable, "-m", "driftlock_otlp", "run", "--config", _write(start.directory, tree)]

    return Program(name, command, is_driftlock=True)


def collector(name: str, *, is_persistent: bool = False) -> Program:
    """Return an OpenTelemetry Collector that forwards."""

    def command(start: Start) -> list[str]:
        exporters = start.exporter
        tree: dict[str, Any] = {"receivers": start.receiver, "exporters": exporters}
        pipeline = {"receivers": ["otlp"], "exporters": list(exporters)}
        service: dict[str, Any] = {
            "pipelines": dict.fromkeys(("logs", "metrics", "traces"), pipeline),
            "telemetry": {"metrics": {"level": "none"}},
        }
        if is_persistent:
            (start.directory / "queue").mkdir()
            tree["extensions"] = {"file_storage": {"directory": str(start.directory / "queue"), "fsync": True}}
            service["extensions"] = ["file_storage"]
            for exporter in exporters.values():
                exporter["sending_queue"] = {"storage": "file_storage"}
        tree["service"] = service
        return [str(programs.COLLECTOR), "--config", _write(start.directory, tree)]

    return Program(name, command)


def rotel(name: str) -> Program:
    """Return rotel, which gzips what it sends over HTTP and gRPC alike unless told otherwise."""

    def command(start: Start) -> list[str]:
        is_grpc = start.wire.transport == "grpc"
        options = {
            "otlp-grpc-endpoint": f"{HOST}:{start.grpc_port}",
            "otlp-http-endpoint": f"{HOST}:{start.http_port}",
            "exporter": "otlp",
            "otlp-exporter-endpoint": f"http://{HOST}:{start.sink_grpc_port if is_grpc else start.sink_http_port}",
            "otlp-exporter-protocol": start.wire.transport,
            "otlp-exporter-compression": start.wire.compression,
        }
        return [str(programs.ROTEL), "start", *(f"--{option}={value}" for option, value in options.items())]

    return Program(name, command)


PROGRAMS = (
    driftlock("driftlock divert"),
    driftlock("driftlock tag", forward={"policy": "tag"}),
    driftlock("driftlock pass", forward={"policy": "pass"}),
    driftlock("driftlock divert, memory", queue={"durability": "memory"}),
    collector("collector"),
    collector("collector, persistent queue", is_persistent=True),
    rotel("rotel"),
)
"""Everything that is compared."""


class Running:
    """A program that runs, with all processes that it has started."""

    def __init__(self, program: Program, start: Start) -> None:
        self._log = (start.directory / "output.log").open("wb")
        self._start = start
        self._process = subprocess.Popen(
            program.command(start), cwd=start.directory, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        self._program = program
        self.peak_bytes = 0

    def wait_ready(self) -> None:
        """Return when it listens.

        Raises:
            RuntimeError: It has ended, or does not listen in time.
        """
        deadline_s = time.monotonic() + START_S
        while not (listens(self._start.grpc_port) and listens(self._start.http_port)):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                output = (self._start.directory / "output.log").read_text(errors="replace")
                raise RuntimeError(f"{self._program.name} does not listen:\n{output[-3000:]}")
            time.sleep(0.05)
        time.sleep(1.0)  # Detection workers come up after the receivers.

    def cpu_s(self) -> float:
        """Return the CPU time of all its processes so far, those that have ended included."""
        return sum(_times(pid) for pid in self._pids())

    def look_at_memory(self) -> None:
        """Note how much memory all its processes take, if it is more than ever."""
        self.peak_bytes = max(self.peak_bytes, sum(_resident_bytes(pid) for pid in self._pids()))

    def stop(self) -> None:
        """Ask it to stop; end it if it does not."""
        self._process.send_signal(process_signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _pids(self) -> list[int]:
        found, todo = [], [self._process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in _listed(f"/proc/{pid}/task"):
                todo += [int(child) for child in _read(f"/proc/{pid}/task/{task}/children").split()]
        return found


def _write(directory: Path, tree: dict[str, Any]) -> str:
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(path)


def _times(pid: int) -> float:
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * _TICK_S if fields else 0.0


def _resident_bytes(pid: int) -> int:
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
