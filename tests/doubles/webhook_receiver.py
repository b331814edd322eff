"""A webhook on a real socket: keeps what it gets, checks signatures, answers as it is told."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from aiohttp import web

_PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"


def documented_check() -> Callable[..., bool]:
    """Return the function that the page on webhooks tells people to check signatures with."""
    (code,) = re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, found)
    check: Callable[..., bool] = found["is_from_driftlock"]
    return check


class WebhookReceiver:
    """A receiver.

    Args:
        secret: What calls must be signed with; empty: they need not be signed.
    """

    def __init__(self, secret: str = "") -> None:
        self.url = ""
        self.calls: list[dict[str, Any]] = []
        self.refused = 0
        self._secret = secret
        self._check = documented_check()
        self._answers: deque[tuple[int, dict[str, str]]] = deque()
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    def answer_next(self, *statuses: int, **headers: str) -> None:
        """Answer the next calls so; those are not kept."""
        self._answers += [
            (status, {name.replace("_", "-"): value for name, value in headers.items()}) for status in statuses
        ]

    async def wait_for(self, count: int, within_s: float = 30.0) -> list[dict[str, Any]]:
        """Return the calls once there are so many."""
        async with asyncio.timeout(within_s):
            while len(self.calls) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.calls

    async def __aenter__(self) -> WebhookReceiver:
        app = web.Application()
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self._answers:
            status, headers = self._answers.popleft()
            return web.Response(status=status, headers=headers, text="told to")
        if self._secret and not self._check(self._secret, request.headers.get("Driftlock-Signature", ""), body):
            self.refused += 1
            return web.Response(status=401)
        self.calls.append(msgspec.json.decode(body))
        self._changed.set()
        return web.Response()
