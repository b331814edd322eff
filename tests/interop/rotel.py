"""rotel, an OpenTelemetry collector written in Rust, as a process."""

from __future__ import annotations

import os
import signal as process_signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.sidecar import free_ports
from tests.interop import programs
from tests.interop.collector import HOST, listens
from tests.interop.ends import PLAIN, Hop

START_S = 20.0
STOP_S = 20.0


@dataclass(frozen=True)
class Rotel:
    """A rotel that runs.

    Attributes:
        grpc_port: Where it takes OTLP/gRPC.
        http_port: Where it takes OTLP/HTTP.
    """

    grpc_port: int
    http_port: int


@contextmanager
def running(hop: Hop, grpc_port: int, http_port: int, directory: Path) -> Iterator[Rotel]:
    """Run a rotel that sends on what it gets; when left, it has sent what it held.

    Args:
        hop: How it sends; over TLS it does not verify the certificate.
        grpc_port: Where to, if the hop is gRPC.
        http_port: Where to, if not.
        directory: Where its log lines go.
    """
    program = programs.required(programs.ROTEL)
    rotel = Rotel(*free_ports(2))
    is_grpc = hop.exporter == "otlp_grpc"
    scheme = "http" if hop.security == PLAIN else "https"
    options = {
        "otlp-grpc-endpoint": f"{HOST}:{rotel.grpc_port}",
        "otlp-http-endpoint": f"{HOST}:{rotel.http_port}",
        "exporter": "otlp",
        "batch-timeout": "50ms",
        "otlp-exporter-endpoint": f"{scheme}://{HOST}:{grpc_port if is_grpc else http_port}",
        "otlp-exporter-protocol": "grpc" if is_grpc else "http",
        "otlp-exporter-compression": hop.compression,
        "otlp-exporter-retry-initial-backoff": "100ms",
    }
    command = [str(program), "start", *(f"--{name}={value}" for name, value in options.items())]
    if hop.security != PLAIN:
        # This release refuses every CA, certificate or key with "Either both or neither of cert and key must be
        # provided", also where both are.
        command.append("--otlp-exporter-tls-skip-verify")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROTEL_")}
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "rotel.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        deadline_s = time.monotonic() + START_S
        while not (listens(rotel.grpc_port) and listens(rotel.http_port)):
            assert process.poll() is None, f"rotel has ended ({process.returncode}):\n{log.read_text()[-4000:]}"
            assert time.monotonic() < deadline_s, f"rotel does not listen:\n{log.read_text()[-4000:]}"
            time.sleep(0.02)
        yield rotel
        process.send_signal(process_signal.SIGTERM)
        assert process.wait(STOP_S) == 0, log.read_text()[-4000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
