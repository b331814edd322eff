"""A Collector before a sidecar with API keys and limits, and a Collector's files in a replay."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from driftlock_otlp.model import Signal
from tests.conformance.certificates import Certificates
from tests.interop import programs
from tests.interop.collector import otlp, running
from tests.interop.conftest import Account, NewSidecar
from tests.interop.ends import Hop, between, send_json, sink, source, written
from tests.interop.records import records_of
from tests.interop.telemetry import varied

GRPC, HTTP = Hop("otlp_grpc", "gzip"), Hop("otlp_http", "gzip")


def new_key(keys_file: Path) -> str:
    """Return a new API key of an organisation."""
    command = [sys.executable, "-m", "driftlock_otlp", "keys", "create", "--organization", "acme"]
    done = subprocess.run([*command, "--file", str(keys_file)], check=True, text=True, capture_output=True)
    return done.stdout.strip()


def with_key(exporters: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a Collector's exporters that show an API key."""
    return {name: {**settings, "headers": {"authorization": f"Bearer {key}"}} for name, settings in exporters.items()}


@pytest.mark.parametrize("hop", [GRPC, HTTP], ids=str)
async def test_collector_that_is_told_to_wait_loses_nothing(
    hop: Hop, tmp_path: Path, certificates: Certificates, new_sidecar: NewSidecar, account: Account
) -> None:
    programs.required(programs.COLLECTOR)
    keys_file = tmp_path / "keys.yaml"
    key = new_key(keys_file)
    # Three signals are three requests at least, almost at once; one passes, the others are told when to come back.
    limits = {"requests_per_second": 1, "burst": "1s"}
    with running(sink(tmp_path, received={}), tmp_path / "sink") as receiver:
        client = GRPC.client(*receiver.both_ports("otlp/received"), certificates)
        sidecar = new_sidecar({**between(client), "auth": {"keys_file": str(keys_file), "limits": limits}})
        await sidecar.start()
        exporters = with_key(hop.client(sidecar.grpc_port, sidecar.http_port, certificates), key)
        with running(source(tmp_path, exporters), tmp_path / "source") as sender:
            for signal in Signal:
                for request in varied(signal, rounds=2):
                    send_json(sender.http_endpoint(), signal, request)
            # A Collector that is stopped gives up what it would try again.
            await sidecar.wait_until(
                lambda: all(
                    sidecar.outcomes(signal)["accepted"] >= records_of(signal, varied(signal, rounds=2)).total()
                    for signal in Signal
                ),
                "the Collector does not come back",
            )
        assert sidecar.total("driftlock_receiver_requests_total", outcome="refused")
        await sidecar.settle()
        assert await sidecar.stop() == 0
    for signal in Signal:
        sent, received = written(tmp_path, "sent", signal), written(tmp_path, "received", signal)
        account.compare(f"{hop}, throttled -> pass -> {GRPC}", signal, sent, received)


@pytest.mark.parametrize("hop", [GRPC, HTTP], ids=str)
async def test_collector_with_a_wrong_key_is_told_so_and_nothing_is_taken(
    hop: Hop, tmp_path: Path, certificates: Certificates, new_sidecar: NewSidecar
) -> None:
    programs.required(programs.COLLECTOR)
    keys_file = tmp_path / "keys.yaml"
    key = new_key(keys_file)
    sidecar = new_sidecar({"auth": {"keys_file": str(keys_file)}, "events": {"exporters": []}})
    await sidecar.start()
    exporters = with_key(hop.client(sidecar.grpc_port, sidecar.http_port, certificates), f"{key[:-4]}AAAA")
    with running(source(tmp_path, exporters), tmp_path / "source") as sender:
        (request,) = varied(Signal.TRACES, rounds=1)
        send_json(sender.http_endpoint(), Signal.TRACES, request)
    (complaint,) = [line for line in sender.output.splitlines() if "Dropping data" in line]
    assert "Unauthenticated" in complaint or "401" in complaint
    assert sidecar.outcomes(Signal.TRACES)["accepted"] == 0


@pytest.mark.parametrize(("kind", "suffix"), [("json", ".jsonl"), ("proto", ".otlp")])
def test_replay_reads_every_record_of_the_file_exporters_files(kind: str, suffix: str, tmp_path: Path) -> None:
    programs.required(programs.COLLECTOR)
    path, scores = tmp_path / f"logs{suffix}", tmp_path / "scores.csv"
    config = {
        "receivers": {"otlp": otlp()},
        "exporters": {"file": {"path": str(path), "format": kind}},
        "service": {"pipelines": {"logs": {"receivers": ["otlp"], "exporters": ["file"]}}},
    }
    requests = varied(Signal.LOGS)
    with running(config, tmp_path / "collector") as collector:
        for request in requests:
            send_json(collector.http_endpoint(), Signal.LOGS, request)
    options = ["--signal", "logs"] if kind == "proto" else []
    command = [sys.executable, "-m", "driftlock_otlp", "replay", *options, "--scores", str(scores), str(path)]
    done = subprocess.run(command, text=True, timeout=60.0, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    with scores.open(newline="") as lines:
        assert sum(1 for _ in csv.DictReader(lines)) == records_of(Signal.LOGS, requests).total()
