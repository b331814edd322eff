"""uvicorn's HTTP/1.1 protocol with two additions that OTLP and hostile clients call for."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from driftlock_otlp.otlp.responses import Encoding, http_refusal

MAX_HEAD_BYTES = 512 << 10
"""A request whose head is longer is refused. The check runs per read of up to 256 KiB, hence generous."""


class OtlpHttpProtocol(HttpToolsProtocol):
    """Answers malformed HTTP with a `google.rpc.Status` and bounds the head of a request."""

    _head_bytes = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        """Feed the parser; close the connection if the head does not come to an end."""
        super().data_received(data)
        if not self._in_head:
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        """Note that a head has begun."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that the head is complete."""
        self._in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP: OTLP wants a Status in every error response."""
        response = http_refusal(400, msg, Encoding.PROTOBUF)
        lines = [b"HTTP/1.1 400 Bad Request", *(name + b": " + value for name, value in response.headers)]
        self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", response.body]))
        self.transport.close()
