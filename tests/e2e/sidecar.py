"""Drives a sidecar as a process: starts, feeds, watches, kills and starts it again."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import signal as process_signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from driftlock_otlp.model import Signal, StreamKind
from driftlock_otlp.storage.state import connect_shared
from tests.doubles.otlp_sink import OtlpSink
from tests.e2e.traffic import times

PATIENCE_S = 40.0
KINDS = [kind.value for kind in StreamKind]


def small_windows(size: int = 50, max_age: str = "500ms") -> dict[str, Any]:
    """Return settings with which a stream warms up within a few thousand records."""
    window = {"size": size, "max_age": max_age, "baseline_records": 4 * size}
    return {
        "windows": {kind: dict(window) for kind in KINDS},
        # Windows that follow each other within milliseconds raise the bar by several bits: here it starts lower.
        "detection": {"warm_up_windows": 20, "significance": 0.05},
    }


class Sidecar:
    """One sidecar on one data directory; it may be started again after it has ended.

    Args:
        directory: Where its configuration, its data and its log lines are.
        sink: The downstream; None for none.
        settings: Settings of its own, laid over those that a test needs.

    Attributes:
        environment: Variables of its own, from the next start on.
    """

    def __init__(self, directory: Path, sink: OtlpSink | None, settings: dict[str, Any] | None = None) -> None:
        self.data = directory / "data"
        self.grpc_port, self.http_port, self.api_port = free_ports(3)
        self._output = directory / "sidecar.log"
        self._config = directory / "sidecar.yaml"
        self._process: subprocess.Popen[bytes] | None = None
        self.channel: Any = None
        self.environment: dict[str, str] = {}
        tree: dict[str, Any] = {
            "receivers": {
                "otlp": {
                    "protocols": {
                        "grpc": {"endpoint": f"127.0.0.1:{self.grpc_port}"},
                        "http": {"endpoint": f"127.0.0.1:{self.http_port}"},
                    }
                }
            },
            "queue": {"path": str(self.data)},
            "api": {"endpoint": f"127.0.0.1:{self.api_port}"},
            "service": {"log_format": "json"},
            "windows": {kind: {"max_age": "500ms"} for kind in KINDS},
        }
        if sink is not None:
            tree["exporters"] = {"otlp_grpc": exporter(sink)}
            tree["forward"] = {"exporters": ["otlp_grpc"]}
        self.settings = laid_over(tree, settings or {})

    async def start(self, *, is_ready: bool = True) -> None:
        """Start the process; return when it is ready, or at once.

        Raises:
            AssertionError: It ended, or is not ready in time.
        """
        self.spawn()
        if is_ready:
            await self.wait_ready()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process and return it."""
        self._config.write_text(yaml.safe_dump(self.settings))
        command = [sys.executable, "-m", "driftlock_otlp", "run", "--config", str(self._config)]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, **self.environment}
            )
        return self._process

    async def wait_ready(self) -> None:
        """Return when it takes data and detection is up."""
        await self.wait_until(lambda: self.status("/readyz") == 200, "is not ready")

    async def wait_until(self, condition: Callable[[], bool], complaint: str, timeout_s: float = PATIENCE_S) -> None:
        """Return when a condition holds.

        Raises:
            AssertionError: It does not in time, or the process has ended.
        """
        deadline_s = time.monotonic() + timeout_s
        while not await asyncio.to_thread(condition):
            assert self.is_running, f"the sidecar has ended ({self.exit_code}):\n{self.output[-4000:]}"
            assert time.monotonic() < deadline_s, f"{complaint} after {timeout_s:g} s:\n{self.output[-4000:]}"
            await asyncio.sleep(0.05)

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the process has ended: negative for a signal; None while it runs."""
        return self._process.poll() if self._process is not None else None

    @property
    def pid(self) -> int:
        """Process id of the main process."""
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything it has logged."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        lines = []
        for text in self.output.splitlines():
            with contextlib.suppress(ValueError):
                # A library may have written something of its own before it, without an end of line.
                line = json.loads(text[text.find("{") :])
                if isinstance(line, dict) and line.get("event") == event:
                    lines.append(line)
        return lines

    def worker_pids(self) -> list[int]:
        """Return the process ids of its detection workers."""
        return [pid for pid in _children(self.pid) if "driftlock_otlp.worker.process" in _command(pid)]

    async def kill(self) -> None:
        """Kill the main process at once, as the kernel would without memory."""
        await self._close_channel()
        assert self._process is not None
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    def ask_to_stop(self) -> None:
        """Ask it to stop, and do not wait."""
        assert self._process is not None
        self._process.send_signal(process_signal.SIGTERM)

    async def stop(self, timeout_s: float = PATIENCE_S) -> int:
        """Ask it to stop and return its exit code."""
        await self._close_channel()
        self.ask_to_stop()
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, timeout_s)

    async def close(self) -> None:
        """Make sure that nothing is left running."""
        await self._close_channel()
        if self.is_running and self._process is not None:
            workers = self.worker_pids()
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, process_signal.SIGKILL)

    async def send(self, signal: Signal, payload: bytes, transport: str = "grpc") -> None:
        """Send one request; return when it is acknowledged.

        Raises:
            grpc.RpcError, OSError: It is not.
        """
        if transport == "grpc":
            if self.channel is None:
                self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}")
            await self.channel.unary_unary(signal.grpc_method)(payload, timeout=20.0)
        else:
            await asyncio.to_thread(self.post, signal.http_path, payload, "application/x-protobuf")

    def post(self, path: str, body: bytes, content_type: str, *, is_compressed: bool = False) -> bytes:
        """POST to the OTLP/HTTP port and return the answer."""
        headers = {"Content-Type": content_type}
        if is_compressed:
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=20.0) as response:
            answer: bytes = response.read()
        return answer

    def get(self, path: str) -> bytes:
        """GET from the management port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.api_port}{path}", timeout=10.0) as response:
            body: bytes = response.read()
        return body

    def status(self, path: str) -> int:
        """Return the status of a GET from the management port; 0 if nobody answers."""
        try:
            self.get(path)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0
        return 200

    def total(self, metric: str, **labels: str) -> float:
        """Return the sum over all series of a metric that have these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.get("/metrics").decode())
            for sample in family.samples
            if sample.name == metric and labels.items() <= sample.labels.items()
        )

    def is_settled(self) -> bool:
        """Whether every route has passed everything that was accepted."""
        if self.total("driftlock_queue_items"):
            return False
        # The gauge may be a moment old; more than was accepted is left from before a restart.
        counts = [self.outcomes(signal) for signal in Signal]
        return all(found["forwarded"] + found["diverted"] + found["dropped"] >= found["accepted"] for found in counts)

    async def settle(self) -> None:
        """Return when every route has passed everything that was accepted."""
        await self.wait_until(self.is_settled, "the queue is not empty")

    def outcomes(self, signal: Signal) -> Counter[str]:
        """Return how many items of a signal were accepted, and what became of them."""
        found: Counter[str] = Counter()
        for family in text_string_to_metric_families(self.get("/metrics").decode()):
            for sample in family.samples:
                if sample.labels.get("signal") != signal.plural:
                    continue
                if sample.name in ("driftlock_receiver_items_total", "driftlock_forward_items_total"):
                    found[sample.labels["outcome"]] += int(sample.value)
        return found

    def assert_balanced(self) -> None:
        """Check that what was accepted is forwarded, diverted or dropped once nothing is queued."""
        for signal in Signal:
            found = self.outcomes(signal)
            assert found["accepted"] == found["forwarded"] + found["diverted"] + found["dropped"], (signal, found)

    @contextmanager
    def state(self) -> Iterator[sqlite3.Connection]:
        """Open the state database beside the sidecar."""
        with contextlib.closing(connect_shared(self.data / "state.db")) as connection, connection:
            yield connection

    async def _close_channel(self) -> None:
        if self.channel is not None:
            await self.channel.close()
            self.channel = None


def exporter(sink: OtlpSink, **settings: Any) -> dict[str, Any]:
    """Return the settings of an `otlp_grpc` exporter to a sink that retries quickly."""
    retry = {"initial_interval": "100ms", "max_interval": "500ms"}
    return {"endpoint": sink.grpc_endpoint, "retry_on_failure": retry, **settings}


def delivered(sink: OtlpSink, signal: Signal) -> list[int]:
    """Return the times, which are the ids, of the items that a sink has accepted."""
    return [time for message in sink.requests(signal) for time in times(signal, message)]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in sockets]


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not merely unburied."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def wait_gone(pids: list[int], timeout_s: float = PATIENCE_S) -> None:
    """Return when none of these processes is left.

    Raises:
        AssertionError: Some are.
    """
    deadline_s = time.monotonic() + timeout_s
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline_s, f"still running: {left}"
        await asyncio.sleep(0.05)


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def laid_over(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return one tree of settings laid over another."""
    tree = dict(under)
    for key, value in over.items():
        below = tree.get(key)
        tree[key] = laid_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return tree
