"""What every request passes on its way in and out: its id, who may knock, how much it may bring."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Collection, Mapping

import structlog
from prometheus_client import Counter
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from driftlock_otlp.api.access import Access
from driftlock_otlp.api.v1 import problems
from driftlock_otlp.errors import DriftlockError, PayloadTooLargeError

REQUEST_ID = "driftlock.request_id"
"""Where the scope of a request holds its id."""
CALLER = "driftlock.caller"
"""Where it holds who asks."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BODY_S = 30.0
_MOST_BODY_BYTES = 1 << 20
_CSP = (
    b"default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", _CSP),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)

_logger = structlog.get_logger(__name__)


class Border:
    """Wraps the application; the border at which every error becomes an answer.

    Args:
        app: What answers.
        access: Who may knock.
        errors: Counts what should not have happened, by component.
        open_paths: What is the same for everybody, and needs no key.
        sending_paths: Where telemetry comes in, and how long its bodies may be; it has budgets of its own.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        errors: Counter,
        open_paths: Collection[str],
        sending_paths: Mapping[str, int],
    ) -> None:
        self._app = app
        self._access = access
        self._errors = errors
        self._open_paths = frozenset(open_paths)
        self._sending_paths = sending_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(8)
        scope[REQUEST_ID] = request_id
        has_started = False

        async def say(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                given = {name for name, _ in message["headers"]}
                added = [header for header in _HEADERS if header[0] not in given]
                message = {**message, "headers": [*message["headers"], *added, (b"x-request-id", request_id.encode())]}
            await send(message)

        try:
            client = scope.get("client")
            self._access.require_local(client[0] if client else None, headers.get("host"), headers.get("origin"))
            if scope["path"] not in self._open_paths:
                is_counted = scope["path"] not in self._sending_paths
                scope[CALLER] = self._access.identify(
                    headers.get("authorization"), headers.get("x-api-key"), is_counted=is_counted
                )
            limit = self._sending_paths.get(scope["path"], _MOST_BODY_BYTES)
            if int(headers.get("content-length", "0")) > limit:  # The HTTP parser has refused anything but digits.
                raise PayloadTooLargeError(_too_large(limit))
            await self._app(scope, _limited(receive, limit), say)
        except DriftlockError as error:
            answer = problems.of_error(error, request_id)
        except Exception:
            self._errors.labels("api").inc()
            _logger.exception("request_failed", path=scope["path"], request_id=request_id)
            answer = problems.unexpected(request_id)
        else:
            return
        if not has_started:
            await answer(scope, receive, say)


def _limited(receive: Receive, limit: int) -> Receive:
    """Return a `receive` that raises when a body is too long, or too long in coming.

    It raises what the framework lets pass while it reads a body.
    """
    deadline_s = asyncio.get_running_loop().time() + _BODY_S
    count = 0
    is_whole = False

    async def limited() -> Message:
        nonlocal count, is_whole
        if is_whole:
            return await receive()  # Waits for the client to go away.
        try:
            async with asyncio.timeout_at(deadline_s):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {_BODY_S:g} s; send it again") from None
        count += len(message.get("body", b""))
        is_whole = message["type"] != "http.request" or not message.get("more_body", False)
        if count > limit:
            raise HTTPException(413, _too_large(limit))
        return message

    return limited


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit} bytes"
