"""What is new, as server-sent events: resumed, bounded, alive."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from driftlock_otlp.auth.keys import KeyFile, write_key_file
from driftlock_otlp.auth.roles import Role
from driftlock_otlp.storage import history
from driftlock_otlp.storage.state import StateDatabase
from tests.unit.api.v1.api import NOW, Api, new_api
from tests.unit.api.v1.found import ANOMALY, BILLING, happen, numbered, record

PATIENCE_S = 10.0


class Follower:
    """A client that follows, reads one event at a time, and can stop reading."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_reading = asyncio.Event()
        self.is_reading.set()
        self.has_ended = False
        self._texts: asyncio.Queue[str] = asyncio.Queue()
        self._gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.is_reading.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif message["body"]:
            self._texts.put_nowait(message["body"].decode())
        self.has_ended = message["type"] == "http.response.body" and not message.get("more_body")

    async def text(self) -> str:
        async with asyncio.timeout(PATIENCE_S):
            return await self._texts.get()

    async def event(self) -> dict[str, str]:
        """Return the fields of the next event; comments are passed over."""
        while (text := await self.text()).startswith(":"):
            pass
        return dict(line.split(": ", 1) for line in text.strip().splitlines())


@contextlib.asynccontextmanager
async def following(api: Api, query: str = "", **headers: str) -> AsyncIterator[Follower]:
    follower = Follower()
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/anomalies/stream",
        "raw_path": b"/v1/anomalies/stream",
        "query_string": query.encode(),
        "headers": [
            (b"host", b"localhost"),
            *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()),
        ],
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "client": ("127.0.0.1", 4321),
    }
    task = asyncio.create_task(api.app(scope, follower.receive, follower.send))
    try:
        yield follower
    finally:
        follower.is_reading.set()
        follower._gone.set()
        async with asyncio.timeout(PATIENCE_S):
            await task


async def test_what_happens_is_told_as_it_happens_with_the_anomaly(api: Api) -> None:
    await record(api, ANOMALY)
    seen = await happen(api, ANOMALY, "anomaly_opened")
    async with following(api) as follower:
        connected = await follower.event()
        assert (connected["event"], connected["id"]) == ("connected", str(seen))
        await api.call("PATCH", f"/v1/anomalies/{ANOMALY.id}/status", {"status": "acknowledged", "note": "a\nb"})
        event = await follower.event()
    assert follower.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (event["event"], event["id"]) == ("status_changed", str(seen + 1))
    data = json.loads(event["data"])
    assert (data["entry"]["detail"]["note"], data["anomaly"]["status"]) == ("a\nb", "acknowledged")


@pytest.mark.parametrize("how", ["header", "query"])
async def test_who_comes_back_is_told_what_they_missed_and_nothing_twice(api: Api, how: str) -> None:
    await record(api, *(numbered(index) for index in range(250)))
    for index in range(250):
        await happen(api, numbered(index), "anomaly_opened")
    given = {"last_event_id": "3"} if how == "header" else {}
    async with following(api, "after=3" if how == "query" else "", **given) as follower:
        assert (await follower.event())["event"] == "connected"
        ids = [int((await follower.event())["id"]) for _ in range(247)]
    assert ids == list(range(4, 251))


async def test_who_was_away_for_longer_than_is_stored_is_told_so(api: Api) -> None:
    await record(api, ANOMALY)
    for _ in range(5):
        await happen(api, ANOMALY, "anomaly_opened")
    await api.backend.state.write(lambda c: history.prune(c, NOW + 1, NOW + 2, 3))
    async with following(api, last_event_id="1") as follower:
        await follower.event()
        missed = await follower.event()
        assert (missed["event"], json.loads(missed["data"])) == ("missed", {"after": 1, "up_to": 3})
        assert (await follower.event())["id"] == "4"


async def test_an_organisation_hears_of_its_own_anomalies_alone(keyed: Api) -> None:
    theirs = numbered(9, stream=BILLING)
    await record(keyed, ANOMALY, theirs)
    async with following(keyed, x_api_key=keyed.keys["acme", Role.VIEWER]) as follower:
        await follower.event()
        await happen(keyed, theirs, "anomaly_opened")
        await happen(keyed, ANOMALY, "anomaly_opened")
        assert json.loads((await follower.event())["data"])["anomaly"]["id"] == ANOMALY.id


async def test_something_is_said_when_nothing_happens_until_the_key_is_revoked(
    state: StateDatabase, tmp_path: Path
) -> None:
    api = new_api(state, tmp_path / "keys.yaml", idle_s=0.01)
    async with following(api, x_api_key=api.keys["acme", Role.VIEWER]) as follower:
        await follower.event()
        assert (await follower.text()).startswith(": nothing new")
        write_key_file(tmp_path / "keys.yaml", KeyFile())
        assert api.ring is not None
        api.ring.refresh()
        async with asyncio.timeout(PATIENCE_S):
            while not follower.has_ended:
                await asyncio.sleep(0.01)


async def test_a_client_that_takes_nothing_is_let_go_and_nobody_waits_for_it(state: StateDatabase) -> None:
    api = new_api(state, slow_s=0.05)
    await record(api, ANOMALY)
    async with following(api) as slow, following(api) as quick:
        assert [(await one.event())["event"] for one in (slow, quick)] == ["connected"] * 2
        slow.is_reading.clear()
        await happen(api, ANOMALY, "anomaly_opened")
        assert (await quick.event())["event"] == "anomaly_opened"
        await happen(api, ANOMALY, "anomaly_resolved")
        assert (await quick.event())["event"] == "anomaly_resolved"
        async with asyncio.timeout(PATIENCE_S):
            while api.backend.feed.client_count != 1:
                await asyncio.sleep(0.01)


async def test_there_are_so_many_places_and_no_more(keyed: Api) -> None:
    key = keyed.keys["acme", Role.VIEWER]
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(64):
            await (await stack.enter_async_context(following(keyed, x_api_key=key))).event()
        async with following(keyed, x_api_key=key) as refused:
            problem = json.loads(await refused.text())
        assert (refused.status, problem["status"]) == (429, 429)
        async with following(keyed, x_api_key=keyed.keys["globex", Role.VIEWER]) as other:
            assert (await other.event())["event"] == "connected"
    assert keyed.backend.feed.client_count == 0
