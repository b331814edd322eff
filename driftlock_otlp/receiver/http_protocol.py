"""uvicorn's HTTP/1.1 protocol with what OTLP, Java's HTTP client and hostile clients call for beyond it."""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from driftlock_otlp.otlp.responses import Encoding, http_refusal

MAX_HEAD_BYTES = 512 << 10
"""A request whose head is longer is refused. The check runs per read of up to 256 KiB, hence generous."""

# Whoever stands between may go by the first of several and we by the last.
_ONCE = (b"host", b"content-type", b"content-encoding", b"authorization", b"x-api-key")


class OtlpHttpProtocol(HttpToolsProtocol):
    """Answers malformed HTTP with a `google.rpc.Status`, bounds the head of a request, and stays with HTTP/1.1."""

    head_timeout_s = 60.0
    """A connection whose request head does not arrive within this is closed (`read_header_timeout`)."""

    _head_bytes = 0
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Expect a head."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._have_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; close the connection if the head does not come to an end."""
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            is_ours = isinstance(error.__context__, _MalformedError)
            self.send_400_response(f"this is not a valid HTTP/1.1 request: {error.__context__ if is_ours else error}")
            return
        if not self._in_head:
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                # A server may ignore Upgrade (RFC 9110, 7.8), and Java's client sends it with every first
                # request. This parser takes the body for another protocol, and then for the next request:
                # another one reads the head again, without that field.
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it

    def _head_without_upgrade(self) -> bytes:
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                value = b", ".join(option for option in options if option.lower() != b"upgrade")  # noqa: PLW2901
            if name != b"upgrade":
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        """Note that a head has begun."""
        self._in_head = True
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that the head is complete."""
        self._require_sane_head()
        if self.parser.should_upgrade():
            return  # Read again in a moment.
        self._in_head = False
        self._have_head()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the body is complete."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _require_sane_head(self) -> None:
        """Refuse what this parser lets pass and RFC 9112 does not; the parser passes the error on in its own.

        References:
            RFC 9112, 2.3 (versions), 3.2 (Host), 6.1 (transfer codings).
        """
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise _MalformedError(f"HTTP/{version} is not served here")
        if self.parser.get_method() == b"CONNECT":
            raise _MalformedError("this is no proxy")
        names = [name for name, _ in self.headers]
        if version == "1.1" and b"host" not in names:
            raise _MalformedError("there is no Host")
        for name in _ONCE:
            if names.count(name) > 1:
                raise _MalformedError(f"{name.decode()} is there more than once")
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if any(coding.strip().lower() != b"chunked" for coding in codings):
            raise _MalformedError("chunked is the only transfer coding")

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._give_up)

    def _have_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self._refuse(b"408 Request Timeout", f"the head did not arrive within {self.head_timeout_s:g} s")

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP: OTLP wants a Status in every error response."""
        self._refuse(b"400 Bad Request", msg)

    def _refuse(self, status: bytes, message: str) -> None:
        response = http_refusal(int(status[:3]), message, Encoding.PROTOBUF)
        lines = [b"HTTP/1.1 " + status, *(name + b": " + value for name, value in response.headers)]
        self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", response.body]))
        self.transport.close()


class _MalformedError(Exception):
    """The head is not that of an HTTP/1.1 request."""
