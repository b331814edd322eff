"""The path of `deploy/docker-compose.yaml`, run: its commands, variables and files, with loopback for a network.

Every service has an address of its own within one network namespace, and the name that the
compose file gives it. Only where a service listens and writes differs from the file.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from driftlock_otlp.model import StreamKind
from tests.docs.deployments import COMPOSE, DEPLOY, ROOT
from tests.e2e.container import has_namespaces
from tests.e2e.dockerfile import read_dockerfile
from tests.interop import programs

PATIENCE_S = 60.0
ADDRESSES = {"agent": "127.0.0.2", "downstream": "127.0.0.3", "driftlock": "127.0.0.4"}
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
IMAGE = read_dockerfile(ROOT / "Dockerfile")[-1]

pytestmark = pytest.mark.skipif(not has_namespaces(), reason="needs root on Linux, to make namespaces")


class Network:
    """A network of its own, with names, and the processes in it."""

    def __init__(self, directory: Path) -> None:
        hosts = directory / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{ADDRESSES[name]} {name}\n" for name in ADDRESSES))
        self._directory = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        script = f"mount --bind {shlex.quote(str(hosts))} /etc/hosts; ip link set lo up; echo up; exec sleep 600"
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-ec", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None and self._holder.stdout.readline() == b"up\n"
        self._enter = ["nsenter", f"--target={self._holder.pid}", "--mount", "--net"]

    def start(self, service: str, command: list[str], **environment: str) -> None:
        """Start a service with the variables of the compose file, and these in place of some."""
        with (self._directory / f"{service}.log").open("wb") as output:
            self._processes[service] = subprocess.Popen(
                [*self._enter, *command],
                env=os.environ | SERVICES[service].get("environment", {}) | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def stop(self, service: str) -> int:
        """Ask a service to end and return its exit code."""
        self._processes[service].terminate()
        return self._processes[service].wait(PATIENCE_S)

    def get(self, url: str) -> str:
        """Return a page, or nothing where nobody answers with 200."""
        ask = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"
        done = subprocess.run(
            [*self._enter, sys.executable, "-c", ask, url], check=False, text=True, capture_output=True
        )
        return done.stdout

    def wait_until(self, condition: Callable[[], object], complaint: str) -> None:
        """Return when a condition holds.

        Raises:
            AssertionError: It does not in time, or a service has ended.
        """
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            for name, process in self._processes.items():
                assert process.poll() is None, f"{name} has ended:\n{self.output(name)}"
            assert time.monotonic() < deadline_s, "\n".join([complaint, *map(self.output, self._processes)])
            time.sleep(0.1)

    def output(self, service: str) -> str:
        """Return the end of what a service has printed."""
        return (self._directory / f"{service}.log").read_text(errors="replace")[-2000:]

    def close(self) -> None:
        """End everything."""
        for process in (*self._processes.values(), self._holder):
            if process.poll() is None:
                process.kill()
            process.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    network = Network(tmp_path)
    yield network
    network.close()


def command_of(service: str) -> list[str]:
    """Return the service's arguments, with the files of this repository in place of where they are mounted."""
    words = [str(word) for word in SERVICES[service]["command"]]
    for mount in SERVICES[service].get("volumes", []):
        source, target, *_ = mount.split(":")
        words = [word.replace(target, str(DEPLOY / source)) for word in words]
    return words


def test_what_applications_send_comes_out_behind_the_sidecar(network: Network, tmp_path: Path) -> None:
    collector, telemetrygen = (programs.required(each) for each in (programs.COLLECTOR, programs.TELEMETRYGEN))
    received = tmp_path / "received.jsonl"
    network.start(
        "downstream",
        [str(collector), *command_of("downstream")],
        LISTEN=ADDRESSES["downstream"],
        RECEIVED=str(received),
    )
    arguments = [word.replace("/etc/driftlock", str(DEPLOY / "docker")) for word in IMAGE.command]
    soon = [f"--set=windows.{kind.value}.max_age=500ms" for kind in StreamKind]
    network.start(
        "driftlock",
        [sys.executable, "-m", "driftlock_otlp", *arguments, *soon],
        DRIFTLOCK_LISTEN=ADDRESSES["driftlock"],
        DRIFTLOCK_DATA=str(tmp_path / "data"),
    )
    network.wait_until(lambda: network.get("http://driftlock:8080/readyz"), "the sidecar is not ready")
    network.start("agent", [str(collector), *command_of("agent")], LISTEN=ADDRESSES["agent"])
    network.wait_until(lambda: network.get("http://agent:8888/metrics"), "the agent is not up")
    for service in (name for name in SERVICES if name.startswith("app-")):
        network.start(service, [str(telemetrygen), *command_of(service)])

    def has_arrived() -> bool:
        # Anomaly events and the agent's own telemetry would not be of this service.
        lines = received.read_text().splitlines() if received.exists() else []
        whole = [line for line in lines if line.endswith("}") and '"checkout"' in line]
        return {key for line in whole for key in json.loads(line)} >= {
            "resourceLogs",
            "resourceMetrics",
            "resourceSpans",
        }

    network.wait_until(has_arrived, "not every signal has arrived")
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8"))
    for job in prometheus["scrape_configs"]:
        for target in (target for static in job["static_configs"] for target in static["targets"]):
            page = network.get(f"http://{target}{job.get('metrics_path', '/metrics')}")
            assert "# TYPE " in page, target
    assert network.stop("driftlock") == 0, network.output("driftlock")
