"""`/v1/anomalies/stream`: what is new about anomalies, as it happens, as server-sent events.

References:
    HTML Living Standard, "Server-sent events".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from driftlock_otlp.api.access import Access, Caller
from driftlock_otlp.api.feed import Feed, News
from driftlock_otlp.api.v1.anomaly_schemas import AnomalySummary, HistoryItem
from driftlock_otlp.api.v1.backend import Backing
from driftlock_otlp.api.v1.may import Reader
from driftlock_otlp.api.v1.problems import documented
from driftlock_otlp.errors import DriftlockError, RetryableError

router = APIRouter(tags=["anomalies"])

_MOST_SEQ = (1 << 63) - 1

_logger = structlog.get_logger(__name__)


@router.get(
    "/v1/anomalies/stream",
    responses=documented(429, 503)
    | {
        200: {
            "description": "Events without end",
            "content": {"text/event-stream": {"schema": {"type": "string", "description": "Server-sent events."}}},
        }
    },
    response_class=Response,
    operation_id="follow_anomalies",
    summary="Follow what is new",
)
async def follow_anomalies(
    request: Request,
    caller: Reader,
    backend: Backing,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=_MOST_SEQ, description="Number of the last event seen: what came since follows.")
    ] = None,
    after: Annotated[
        int | None, Query(ge=0, le=_MOST_SEQ, description="The same, for those who set no header.")
    ] = None,
) -> Response:
    """Server-sent events, each with a number as its id.

    `connected` comes first; `missed` if what was asked for is no longer stored; then one event for each thing that
    happens to an anomaly, named after the action in the history, with `{"entry": …, "anomaly": …}` as its data. A
    comment comes whenever nothing has for 15 seconds.
    """
    access: Access = request.app.state.access
    since = last_event_id if last_event_id is not None else after
    return _EventStream(backend.feed, access, caller, request, since)


class _EventStream(Response):
    """Sends what is new for as long as the client takes it."""

    media_type = "text/event-stream"

    def __init__(self, feed: Feed, access: Access, caller: Caller, request: Request, since: int | None) -> None:
        self._feed = feed
        self._access = access
        self._caller = caller
        self._request_headers = request.headers
        self._since = since
        self.status_code = 200
        self.background = None
        self.init_headers({"x-accel-buffering": "no"})  # nginx keeps nothing back.
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._feed.place(self._caller):
            floor, newest = await self._feed.ends()
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            leaving = asyncio.create_task(_wait_gone(receive))
            saying = asyncio.create_task(self._say(send, floor, newest))
            try:
                await asyncio.wait({leaving, saying}, return_when=asyncio.FIRST_COMPLETED)
                if saying.done():
                    saying.result()
            except asyncio.CancelledError:
                _logger.info(
                    "follower_left_behind", actor=self._caller.actor
                )  # The server stops, and it takes nothing.
            finally:
                for task in (leaving, saying):
                    task.cancel()
                await asyncio.gather(leaving, saying, return_exceptions=True)

    async def _say(self, send: Send, floor: int, newest: int) -> None:
        async for text in self._events(floor, newest):
            try:
                async with asyncio.timeout(self._feed.slow_s):
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
            except TimeoutError:
                _logger.info("slow_follower_left", actor=self._caller.actor)
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self, floor: int, newest: int) -> AsyncIterator[str]:
        """Yield events, until the key is not valid any more or the database cannot be read."""
        after = newest if self._since is None else min(self._since, newest)
        yield f"retry: 2000\nid: {after}\nevent: connected\ndata: {{}}\n\n"
        if after < floor:
            yield f'event: missed\ndata: {{"after":{after},"up_to":{floor}}}\n\n'
        try:
            async for up_to, news in self._feed.follow(self._caller, after):
                for item in news:
                    yield _event(item)
                if not news:
                    yield f": nothing new up to {up_to}\n\n"
                    self._access.identify(
                        self._request_headers.get("authorization"), self._request_headers.get("x-api-key")
                    )
        except DriftlockError as error:
            if isinstance(error, RetryableError):
                _logger.warning("followers_left", error=str(error))


def _event(news: News) -> str:
    entry = HistoryItem.of(news.entry).model_dump_json()
    anomaly = AnomalySummary.of(news.anomaly).model_dump_json()
    return f'id: {news.entry.seq}\nevent: {news.entry.action}\ndata: {{"entry":{entry},"anomaly":{anomaly}}}\n\n'


async def _wait_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
