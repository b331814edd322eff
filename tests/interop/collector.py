"""A real OpenTelemetry Collector as a process, with any configuration.

    with running({"receivers": {"otlp": otlp()}, ...}, tmp_path) as collector:
        ...  # send to 127.0.0.1:{collector.ports["otlp"]["grpc"]}
        collector.stop()  # what it holds is sent before it ends
        print(collector.output)

A receiver's endpoint with port 0 gets a free port: `running` writes it into the configuration and into `ports`.
"""

from __future__ import annotations

import contextlib
import copy
import os
import signal as process_signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.sidecar import free_ports
from tests.interop import programs

START_S = 20.0
STOP_S = 30.0
HOST = "127.0.0.1"


def binary() -> Path | None:
    """Return the path of the Collector that `make interop` has built; None where it has not."""
    return programs.COLLECTOR if programs.COLLECTOR.exists() else None


def otlp(grpc: Mapping[str, Any] | None = None, http: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of an `otlp` receiver with both protocols on free ports.

    Args:
        grpc: Settings of the protocol beside its address, as `tls`.
        http: The same of the other.
    """
    endpoint = f"{HOST}:0"
    return {
        "protocols": {"grpc": {"endpoint": endpoint, **(grpc or {})}, "http": {"endpoint": endpoint, **(http or {})}}
    }


class Collector:
    """A Collector that runs.

    Attributes:
        ports: By receiver, the port of each of its protocols.
        config: Its configuration, with the ports.
    """

    def __init__(self, config: Mapping[str, Any], directory: Path) -> None:
        self.config, self.ports = _with_ports(config)
        self._path = directory / "collector.yaml"
        self._output = directory / "collector.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        """Everything it has logged."""
        return self._output.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def both_ports(self, receiver: str = "otlp") -> tuple[int, int]:
        """Return a receiver's ports of gRPC and of HTTP."""
        return self.ports[receiver]["grpc"], self.ports[receiver]["http"]

    def grpc_endpoint(self, receiver: str = "otlp") -> str:
        """Return host and port of a receiver's gRPC."""
        return f"{HOST}:{self.ports[receiver]['grpc']}"

    def http_endpoint(self, receiver: str = "otlp", scheme: str = "http") -> str:
        """Return the base URL of a receiver's HTTP."""
        return f"{scheme}://{HOST}:{self.ports[receiver]['http']}"

    def start(self) -> None:
        """Start it; return when all its receivers listen.

        Raises:
            AssertionError: It ended, or does not listen in time.
        """
        program = programs.required(programs.COLLECTOR)
        self._path.write_text(yaml.safe_dump(self.config, sort_keys=False))
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [program, "--config", self._path], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        deadline_s = time.monotonic() + START_S
        waiting = [port for protocols in self.ports.values() for port in protocols.values()]
        while waiting:
            assert self.is_running, f"the Collector has ended ({self._process.returncode}):\n{self.output[-4000:]}"
            assert time.monotonic() < deadline_s, f"the Collector does not listen:\n{self.output[-4000:]}"
            waiting = [port for port in waiting if not listens(port)]
            time.sleep(0.02)
        # It prints this when everything has started, exporters too.
        while "Everything is ready" not in self.output:
            assert self.is_running and time.monotonic() < deadline_s, self.output[-4000:]
            time.sleep(0.02)

    def stop(self) -> None:
        """Ask it to stop; return when it has sent what it holds and has ended.

        Raises:
            AssertionError: It ended with an error.
        """
        if self._process is None:
            return
        if self.is_running:
            self._process.send_signal(process_signal.SIGTERM)
        code = self._process.wait(STOP_S)
        self._process = None
        assert code == 0, f"the Collector has ended with {code}:\n{self.output[-4000:]}"

    def close(self) -> None:
        """Make sure that nothing is left running."""
        if self._process is not None and self.is_running:
            self._process.kill()
            self._process.wait()
        self._process = None


@contextmanager
def running(config: Mapping[str, Any], directory: Path) -> Iterator[Collector]:
    """Run a Collector from when it listens; skip the test where none is built.

    Args:
        config: Its configuration. Its own metrics are off unless `service.telemetry` says otherwise.
        directory: Where its configuration and its log lines go; one for each Collector.
    """
    directory.mkdir(parents=True, exist_ok=True)
    collector = Collector(config, directory)
    try:
        collector.start()
        yield collector
        collector.stop()
    finally:
        collector.close()


def validate(config_path: Path, **environment: str) -> str:
    """Return what the Collector has against a configuration; empty if nothing.

    Args:
        config_path: YAML file.
        environment: Variables that the configuration refers to.
    """
    program = programs.required(programs.COLLECTOR)
    done = subprocess.run(
        [program, "validate", "--config", config_path], env={**os.environ, **environment}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=START_S, check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stdout or f"it ended with {done.returncode}"


def _with_ports(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
    tree = copy.deepcopy(dict(config))
    ports: dict[str, dict[str, int]] = {}
    for name, receiver in tree.get("receivers", {}).items():
        for protocol, settings in ((receiver or {}).get("protocols") or {}).items():
            host, _, port = str(settings.get("endpoint", "")).rpartition(":")
            if not port.isdigit():
                continue
            number = int(port) or free_ports(1)[0]
            settings["endpoint"] = f"{host}:{number}"
            ports.setdefault(name, {})[protocol] = number
    # Otherwise every Collector wants the same port for its own metrics.
    tree.setdefault("service", {}).setdefault("telemetry", {"metrics": {"level": "none"}})
    return tree, ports


def listens(port: int) -> bool:
    """Whether somebody listens on a port of 127.0.0.1."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
        return True
    return False
