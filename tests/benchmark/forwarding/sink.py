"""The destination, as a process of its own: counts items and bytes of what arrives, and keeps nothing.

    python -m tests.benchmark.forwarding.sink

It prints one JSON line with its ports. `GET /counts` on the HTTP port says what has arrived since the last
`POST /reset`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
from aiohttp import web

from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import count_items, decode

_HOST = "127.0.0.1"
_MOST_BYTES = 64 << 20


class Counts:
    """What has arrived."""

    def __init__(self) -> None:
        self.items = self.bytes = self.requests = 0
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.items = self.bytes = self.requests = 0

    def take(self, signal: Signal, payload: bytes, wire_bytes: int) -> None:
        """Count a request."""
        self.items += count_items(signal, decode(signal, payload))
        self.bytes += wire_bytes
        self.requests += 1


async def main() -> None:
    """Serve until killed."""
    counts = Counts()
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", _MOST_BYTES)])
    for signal in Signal:
        server.add_generic_rpc_handlers((_handler(signal, counts),))
    grpc_port = server.add_insecure_port(f"{_HOST}:0")
    await server.start()

    app = web.Application(client_max_size=_MOST_BYTES)
    for signal in Signal:
        app.router.add_post(signal.http_path, _over_http(signal, counts))
    app.router.add_get("/counts", lambda _: _answer(vars(counts)))

    async def reset(request: web.Request) -> web.Response:
        counts.reset()
        return web.json_response({})

    app.router.add_post("/reset", reset)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, _HOST, 0)
    await site.start()
    print(json.dumps({"grpc": grpc_port, "http": runner.addresses[0][1]}), flush=True)
    await asyncio.Event().wait()


async def _answer(tree: dict[str, Any]) -> web.Response:
    return web.json_response(tree)


def _handler(signal: Signal, counts: Counts) -> Any:
    async def export(payload: bytes, context: Any) -> bytes:
        # grpcio does not tell how large a message was on the wire; the senders' side is measured instead.
        counts.take(signal, payload, len(payload))
        return b""

    return grpc.method_handlers_generic_handler(
        signal.grpc_service, {"Export": grpc.unary_unary_rpc_method_handler(export)}
    )


def _over_http(signal: Signal, counts: Counts) -> Any:
    async def export(request: web.Request) -> web.Response:
        payload = await request.read()  # aiohttp decompresses
        counts.take(signal, payload, request.content_length or len(payload))
        return web.Response(body=b"", content_type="application/x-protobuf")

    return export


if __name__ == "__main__":
    asyncio.run(main())
