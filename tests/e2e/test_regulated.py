"""The strict example, run as it is but for where it listens: who may send, and that it goes on encrypted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
import yaml

from driftlock_otlp.model import Signal
from tests.conformance.certificates import Certificates
from tests.conformance.receivers import request_of
from tests.doubles.otlp_sink import OtlpSink, ServerTls
from tests.e2e.conftest import NewSidecar

EXAMPLE = Path(__file__).resolve().parents[2] / "config" / "regulated.yaml"
EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
PROTOBUF = {"Content-Type": "application/x-protobuf"}


def lay_out(directory: Path) -> Certificates:
    """Write the certificates under the names that the example gives them."""
    directory.mkdir()
    certificates = Certificates(directory)
    for name, source in {
        "server.crt": certificates.cert_file,
        "server.key": certificates.key_file,
        "senders-ca.crt": certificates.ca_file,
        "downstream-ca.crt": certificates.ca_file,
        "client.crt": certificates.client_cert_file,
        "client.key": certificates.client_key_file,
    }.items():
        (directory / name).write_bytes(source.read_bytes())
    return certificates


async def test_regulated_example_takes_known_senders_alone_and_sends_on_encrypted(
    new_sidecar: NewSidecar, tmp_path: Path
) -> None:
    certificates = lay_out(tmp_path / "tls")
    keys_file = tmp_path / "keys.yaml"
    create = [sys.executable, "-m", "driftlock_otlp", "keys", "create", "--file", keys_file, "--organization", "acme"]
    key = subprocess.run(create, check=True, text=True, capture_output=True).stdout.strip()
    tls = ServerTls(certificates.cert_file, certificates.key_file, certificates.ca_file)
    async with OtlpSink(tls=tls) as downstream:
        text = EXAMPLE.read_text(encoding="utf-8")
        for variable, value in {
            "${env:DRIFTLOCK_TLS:-/etc/driftlock/tls}": str(tmp_path / "tls"),
            "${env:DRIFTLOCK_KEYS_FILE:-/etc/driftlock/keys.yaml}": str(keys_file),
            "${env:DOWNSTREAM:-collector.example.com:4317}": f"localhost:{downstream.grpc_port}",
            "${env:DRIFTLOCK_DATA:-/var/lib/driftlock}": str(tmp_path / "data"),
        }.items():
            assert variable in text
            text = text.replace(variable, value)
        sidecar = new_sidecar(None, yaml.safe_load(text))
        protocols = sidecar.settings["receivers"]["otlp"]["protocols"]
        protocols["grpc"]["endpoint"] = f"0.0.0.0:{sidecar.grpc_port}"
        protocols["http"]["endpoint"] = f"0.0.0.0:{sidecar.http_port}"
        sidecar.settings["api"]["endpoint"] = f"127.0.0.1:{sidecar.api_port}"
        sidecar.settings["windows"] = {"logs": {"max_age": "500ms"}}
        await sidecar.start()

        payload, other = request_of(Signal.LOGS), request_of(Signal.LOGS, 2)  # the same one twice would be one
        url = f"https://127.0.0.1:{sidecar.http_port}/v1/logs"
        authorized = {"authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(headers=PROTOBUF) as session:
            context = certificates.context(with_certificate=True)
            async with session.post(url, data=payload, headers=authorized, ssl=context) as answer:
                assert answer.status == 200
                assert answer.headers["Strict-Transport-Security"]
            async with session.post(url, data=payload, ssl=context) as answer:
                assert answer.status == 401
            with pytest.raises(aiohttp.ClientError):
                await session.post(url, data=payload, headers=authorized, ssl=certificates.context())

        target = f"127.0.0.1:{sidecar.grpc_port}"
        metadata = tuple(authorized.items())
        async with grpc.aio.secure_channel(target, certificates.credentials(with_certificate=True)) as channel:
            export = channel.unary_unary(EXPORT)
            await export(other, metadata=metadata, timeout=20.0)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await export(payload, timeout=20.0)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        async with grpc.aio.secure_channel(target, certificates.credentials()) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(EXPORT)(payload, metadata=metadata, timeout=20.0)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE

        await downstream.wait_for_items(Signal.LOGS, 3)
        await sidecar.settle()
        assert downstream.item_count(Signal.LOGS) == 3
