"""API keys, organisations and what each may send, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.rpc.error_details_pb2 import RetryInfo

from driftlock_otlp.auth.keys import KeyFile, Organization, OwnLimits, new_key, write_key_file
from driftlock_otlp.config.receivers import AuthConfig, LimitsConfig
from driftlock_otlp.model import Signal
from tests.conformance.receivers import JSON, JSON_LOG, Receivers, details_of, log_of_size, request_of, running

PAYLOAD = request_of(Signal.LOGS)
SECONDS = 20.0


class Keys:
    """A key file with one key of each organisation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.organizations: dict[str, Organization] = {}
        self.text: dict[str, str] = {}
        for name in ("acme", "globex"):
            self.add(name)

    def add(self, name: str, limits: OwnLimits | None = None) -> str:
        """Add a key and return it."""
        key = new_key("", datetime.now(UTC), None)
        owner = self.organizations.get(name, Organization())
        self.organizations[name] = Organization(limits=limits or owner.limits, keys=(*owner.keys, key.stored))
        self.text[name] = key.text
        self.write()
        return key.text

    def revoke(self, name: str) -> None:
        """Revoke the first key of an organisation."""
        owner = self.organizations[name]
        first = owner.keys[0].model_copy(update={"revoked": datetime.now(UTC)})
        self.organizations[name] = owner.model_copy(update={"keys": (first, *owner.keys[1:])})
        self.write()

    def write(self) -> None:
        write_key_file(self.path, KeyFile(organizations=self.organizations))


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.yaml")


@pytest_asyncio.fixture
async def receivers(keys: Keys) -> AsyncIterator[Receivers]:
    async with running(auth=AuthConfig(keys_file=keys.path)) as both:
        yield both


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def metadata(key: str) -> Any:
    return (("x-api-key", key),)


async def test_24_41_a_request_without_a_valid_key_is_unauthenticated(receivers: Receivers, keys: Keys) -> None:
    wrong = keys.text["acme"][:-1] + "~"
    for headers in ({}, bearer(wrong), bearer(""), {"X-Api-Key": wrong}, {"Authorization": f"Basic {wrong}"},
                    {**bearer(keys.text["acme"]), "X-Api-Key": keys.text["globex"]}):  # fmt: skip
        answer = await receivers.post(body=PAYLOAD, **headers)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "key" in answer.error.message
        calling = tuple((name.lower(), value) for name, value in headers.items())
        error = await receivers.failing_call(PAYLOAD, metadata=calling)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert (await receivers.post(body=JSON_LOG, content_type=JSON)).error.message.startswith("an API key is required")
    assert receivers.log.entries == []
    assert receivers.requests("http", "rejected") == 7
    assert receivers.requests("grpc", "rejected") == 6


async def test_nothing_of_a_body_is_read_before_its_sender_is_known(receivers: Receivers) -> None:
    async def never_ends() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async with asyncio.timeout(SECONDS):
        assert (await receivers.post(body=never_ends())).status == 401


async def test_a_key_in_either_header_says_whose_records_they_are(receivers: Receivers, keys: Keys) -> None:
    assert (await receivers.post(body=PAYLOAD, **bearer(keys.text["acme"]))).status == 200
    assert (await receivers.post(body=PAYLOAD, **{"X-Api-Key": keys.text["globex"]})).status == 200
    assert (await receivers.post(body=PAYLOAD, Authorization=f"bearer  {keys.text['acme']}")).status == 200
    await receivers.call(PAYLOAD, metadata=(("authorization", f"Bearer {keys.text['globex']}"),))
    await receivers.call(PAYLOAD, metadata=metadata(keys.text["acme"]))
    assert [entry.tenant for entry in receivers.log.entries] == ["acme", "globex", "acme", "globex", "acme"]


async def test_keys_are_added_and_revoked_without_a_restart(receivers: Receivers, keys: Keys) -> None:
    old = keys.text["acme"]
    assert (await receivers.post(body=PAYLOAD, **bearer(old))).status == 200
    new = keys.add("acme")
    async with asyncio.timeout(SECONDS):
        while (await receivers.post(body=PAYLOAD, **bearer(new))).status != 200:
            await asyncio.sleep(0.05)
    assert (await receivers.post(body=PAYLOAD, **bearer(old))).status == 200
    keys.revoke("acme")
    async with asyncio.timeout(SECONDS):
        while (await receivers.post(body=PAYLOAD, **bearer(old))).status != 401:
            await asyncio.sleep(0.05)
    assert (await receivers.post(body=PAYLOAD, **bearer(new))).status == 200
    with pytest.raises(grpc.aio.AioRpcError):
        await receivers.call(PAYLOAD, metadata=metadata(old))


async def test_21_39_an_organisation_beyond_its_requests_is_told_to_wait_and_what_is_left(keys: Keys) -> None:
    limits = LimitsConfig(requests_per_second=0.25, burst=8.0)
    async with running(auth=AuthConfig(keys_file=keys.path, limits=limits)) as receivers:
        first = await receivers.post(body=PAYLOAD, **bearer(keys.text["acme"]))
        assert first.status == 200
        assert first.headers["RateLimit-Policy"] == '"requests";q=2;w=8'
        assert first.headers["RateLimit"].startswith('"requests";r=1;t=')
        call = receivers.channel.unary_unary(Signal.LOGS.grpc_method)(PAYLOAD, metadata=metadata(keys.text["acme"]))
        await call
        assert dict(await call.trailing_metadata())["ratelimit"].startswith('"requests";r=0;t=')

        refused = await receivers.post(body=PAYLOAD, **bearer(keys.text["acme"]))
        assert refused.status == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 4
        assert refused.headers["RateLimit"].startswith('"requests";r=0;t=')
        assert "'acme'" in refused.error.message
        error = await receivers.failing_call(PAYLOAD, metadata=metadata(keys.text["acme"]))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        status, info = details_of(error), RetryInfo()
        assert status is not None
        assert status.details[0].Unpack(info)
        assert 0 < info.retry_delay.ToTimedelta().total_seconds() <= 4
        assert dict(error.trailing_metadata() or ())["ratelimit"].startswith('"requests";r=0')

        assert (await receivers.post(body=PAYLOAD, **bearer(keys.text["globex"]))).status == 200
        assert receivers.requests("http", "refused") == receivers.requests("grpc", "refused") == 1


async def test_bytes_are_counted_uncompressed_and_an_organisation_may_have_limits_of_its_own(keys: Keys) -> None:
    keys.add("globex", OwnLimits(bytes_per_second=1 << 30))
    limits = LimitsConfig(bytes_per_second=1000, burst=1.0)
    body = gzip.compress(log_of_size(100_000))
    assert len(body) < 1000
    async with running(auth=AuthConfig(keys_file=keys.path, limits=limits)) as receivers:
        for name, expected in (("acme", [200, 429]), ("globex", [200, 200])):
            sent = [
                (await receivers.post(body=body, Content_Encoding="gzip", **bearer(keys.text[name]))).status
                for _ in expected
            ]
            assert sent == expected


async def test_a_noisy_organisation_leaves_room_for_another(keys: Keys) -> None:
    auth = AuthConfig(keys_file=keys.path, limits=LimitsConfig(in_flight_share=0.5))
    payload = log_of_size(100_000)
    async with running(max_in_flight_bytes=1_000_000, auth=auth) as receivers:
        receivers.log.gate.clear()  # The disk is slow: what is admitted stays in flight.
        noisy = [asyncio.ensure_future(receivers.post(body=payload, **bearer(keys.text["acme"]))) for _ in range(20)]
        async with asyncio.timeout(SECONDS):
            while sum(task.done() for task in noisy) < 15:
                await asyncio.sleep(0.01)
        refused = [task.result() for task in noisy if task.done()]
        assert {answer.status for answer in refused} == {429}
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        modest = [
            asyncio.ensure_future(receivers.call(payload, metadata=metadata(keys.text["globex"]))) for _ in range(5)
        ]
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in modest)
        receivers.log.gate.set()
        await asyncio.gather(*modest, *noisy)
        tenants = [entry.tenant for entry in receivers.log.entries]
        assert (tenants.count("acme"), tenants.count("globex")) == (5, 5)
        assert receivers.gate.in_flight_bytes == 0
