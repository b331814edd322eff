"""Collectors at both ends of a sidecar: configurations of them, and what they have written."""

from __future__ import annotations

import subprocess
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from driftlock_otlp.model import Signal
from tests.conformance.certificates import Certificates
from tests.interop import programs
from tests.interop.collector import otlp
from tests.interop.records import read_requests, records_of
from tests.interop.telemetry import as_json

PLAIN, TLS, MTLS = "", "TLS", "mTLS"
RETRY = {"initial_interval": "100ms", "max_interval": "500ms"}


@dataclass(frozen=True)
class Hop:
    """How requests get from one program to the next.

    Attributes:
        exporter: `otlp_grpc` or `otlp_http`, as both sides call it.
        compression: As both sides call it.
        encoding: `proto` or `json`.
        security: PLAIN, TLS or MTLS.
    """

    exporter: str
    compression: str = "none"
    encoding: str = "proto"
    security: str = PLAIN

    def __str__(self) -> str:
        transport = "gRPC" if self.exporter == "otlp_grpc" else f"HTTP/{self.encoding}"
        return " ".join(part for part in (transport, self.compression, self.security) if part)

    def client(self, grpc_port: int, http_port: int, certificates: Certificates) -> dict[str, Any]:
        """Return the `exporters` section of the sending side; sidecar and Collector share it."""
        settings: dict[str, Any] = {"compression": self.compression, "retry_on_failure": RETRY}
        if self.exporter == "otlp_grpc":
            settings["endpoint"] = f"127.0.0.1:{grpc_port}"
        else:
            settings["endpoint"] = f"http{'s' if self.security else ''}://127.0.0.1:{http_port}"
            settings["encoding"] = self.encoding
        settings["tls"] = self._client_tls(certificates)
        return {self.exporter: settings}

    def _client_tls(self, certificates: Certificates) -> dict[str, Any]:
        if self.security == PLAIN:
            return {"insecure": True}
        own = {"cert_file": str(certificates.client_cert_file), "key_file": str(certificates.client_key_file)}
        return {"ca_file": str(certificates.ca_file), **(own if self.security == MTLS else {})}

    def server(self, certificates: Certificates) -> dict[str, Any]:
        """Return the `protocols` section of the receiving side, but for addresses; sidecar and Collector share it.

        Over HTTP it takes this compression alone, so that nothing arrives which was compressed in another way.
        """
        tls: dict[str, Any] = {}
        if self.security != PLAIN:
            tls = {"cert_file": str(certificates.cert_file), "key_file": str(certificates.key_file)}
        if self.security == MTLS:
            tls["client_ca_file"] = str(certificates.ca_file)
        common = {"tls": tls} if tls else {}
        compression = "" if self.compression == "none" else self.compression
        return {"grpc": common, "http": {**common, "compression_algorithms": [compression]}}


def files(directory: Path, name: str) -> dict[str, Any]:
    """Return file exporters, one for each signal, that keep requests as protobuf."""
    return {
        f"file/{name}_{signal.plural}": {"path": str(_file(directory, name, signal)), "format": "proto"}
        for signal in Signal
    }


def written(directory: Path, name: str, signal: Signal) -> Counter[bytes]:
    """Return the records of a signal in those files."""
    return records_of(signal, read_requests(signal, _file(directory, name, signal)))


def _file(directory: Path, name: str, signal: Signal) -> Path:
    return directory / f"{name}-{signal.plural}.bin"


def between(exporters: dict[str, Any], protocols: dict[str, Any] | None = None, policy: str = "pass") -> dict[str, Any]:
    """Return the settings of a sidecar that sends what it gets on to all exporters.

    Args:
        exporters: Its `exporters`.
        protocols: What its receiver's protocols have beside their addresses.
        policy: Its `forward.policy`.
    """
    return {
        "receivers": {"otlp": {"protocols": protocols or {}}},
        "exporters": exporters,
        "forward": {"exporters": list(exporters), "policy": policy},
        "events": {"exporters": []},
    }


def source(directory: Path, exporters: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a Collector that sends what it gets, and writes the same to the files `sent`."""
    return {
        "receivers": {"otlp": otlp(http={"max_request_body_size": 64 << 20})},
        "processors": {"memory_limiter": {"check_interval": "1s", "limit_mib": 1024}, "batch": {"timeout": "50ms"}},
        "exporters": {**exporters, **files(directory, "sent")},
        "service": {
            "pipelines": {
                signal.plural: {
                    "receivers": ["otlp"],
                    "processors": ["memory_limiter", "batch"],
                    "exporters": [*exporters, f"file/sent_{signal.plural}"],
                }
                for signal in Signal
            }
        },
    }


def sink(directory: Path, **receivers: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a Collector that writes what it gets.

    Args:
        directory: Where.
        receivers: Settings for the protocols of the receivers, which write to the files of their name.
    """
    names = {name: f"otlp/{name}" for name in receivers}
    return {
        "receivers": {names[name]: otlp(**settings) for name, settings in receivers.items()},
        "exporters": {key: value for name in receivers for key, value in files(directory, name).items()},
        "service": {
            "pipelines": {
                f"{signal.plural}/{name}": {"receivers": [names[name]], "exporters": [f"file/{name}_{signal.plural}"]}
                for name in receivers
                for signal in Signal
            }
        },
    }


def send_json(endpoint: str, signal: Signal, request: Message) -> None:
    """POST a request as OTLP JSON.

    Raises:
        OSError: It was not taken.
    """
    posted = urllib.request.Request(
        f"{endpoint}{signal.http_path}", as_json(request), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(posted, timeout=20.0) as response:
        response.read()


def send_protobuf(http_port: int, signal: Signal, request: Message) -> None:
    """POST a request as protobuf.

    Raises:
        OSError: It was not taken.
    """
    url = f"http://127.0.0.1:{http_port}{signal.http_path}"
    posted = urllib.request.Request(url, request.SerializeToString(), {"Content-Type": "application/x-protobuf"})
    with urllib.request.urlopen(posted, timeout=20.0) as response:
        response.read()


def generate(endpoint: str, item_count: int, *options: str) -> None:
    """Send log records, spans, and data points of every kind of metric with the Collector's load generator.

    Args:
        endpoint: Host and port.
        item_count: How many of each signal; a multiple of 4.
        options: Of `telemetrygen`, beside these; without any it sends OTLP/gRPC in plaintext.
    """
    assert item_count % 4 == 0
    runs = [
        ["logs", "--logs", str(item_count), "--trace-id", "ae87dadd90e9935a4bc9660628efd569"],
        ["traces", "--traces", str(item_count // 2), "--span-links", "1", "--status-code", "Error"],
    ]
    runs += [
        ["metrics", "--metrics", str(item_count // 4), "--metric-type", kind]
        for kind in ("Gauge", "Sum", "Histogram", "ExponentialHistogram")
    ]
    for run in runs:
        # It takes `--rate 0` for no pause between records.
        command = [str(programs.required(programs.TELEMETRYGEN)), *run, "--rate", "0", "--otlp-endpoint", endpoint]
        done = subprocess.run(
            [*command, *(options or ["--otlp-insecure"])], text=True, timeout=60.0, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:]
