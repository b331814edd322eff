"""An HTTP/1.1 listener: uvicorn on TCP or a unix socket, with TLS whose files may change.

Owns sockets, TLS and the end of the server; what is answered is the application's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from driftlock_otlp.config.values import Endpoint
from driftlock_otlp.errors import ConfigError
from driftlock_otlp.tls_files import TlsFiles

_BACKLOG = 2048
_LAST_WORDS_S = 1.0


class HttpListener:
    """Serves an ASGI application; a `Component`.

    Args:
        name: In log lines.
        key: The setting of the address, for messages.
        endpoint: Where to listen.
        app: What answers.
        protocol: uvicorn's HTTP/1.1 protocol, or one derived from it.
        idle_timeout_s: A kept-alive connection without requests is closed after this.
        tls: Certificates; None for plaintext.
    """

    def __init__(
        self,
        name: str,
        key: str,
        endpoint: Endpoint,
        app: ASGIApp,
        *,
        protocol: type[HttpToolsProtocol] = HttpToolsProtocol,
        idle_timeout_s: float = 60.0,
        tls: TlsFiles | None = None,
    ) -> None:
        self.name = name
        self._key = key
        self._endpoint = endpoint
        self._app = app
        self._protocol = protocol
        self._idle_timeout_s = idle_timeout_s
        self._tls = tls
        self._server: _Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._port = 0

    @property
    def port(self) -> int:
        """The port in use once started; 0 for a unix socket."""
        return self._port

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        sockets = await _bind(self._key, self._endpoint)
        self._port = 0 if self._endpoint.path else sockets[0].getsockname()[1]
        config = uvicorn.Config(
            self._app,
            http=self._protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=self._idle_timeout_s,  # type: ignore[arg-type]  # passed on to call_later
        )
        config.load()
        config.ssl = self._tls.context if self._tls is not None else None
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets), name=self.name)
        started = asyncio.create_task(server.listening.wait())
        await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if serving.done():
            serving.result()
        self._server, self._tasks = server, [serving]
        if self._tls is not None:
            self._tasks.append(asyncio.create_task(self._watch(self._tls, server)))

    async def stop(self, grace_s: float) -> None:
        """Accept no more connections, let requests in flight finish within `grace_s` seconds.

        What is not finished then is cancelled.
        """
        server = self._server
        if server is None:
            return
        self._server = None
        serving, *watching = self._tasks
        for task in watching:
            task.cancel()
        server.config.timeout_graceful_shutdown = int(grace_s)
        server.should_exit = True
        await serving
        # uvicorn has cancelled what overran the grace, but does not wait for its last words.
        if server.server_state.tasks:
            await asyncio.wait(server.server_state.tasks, timeout=_LAST_WORDS_S)
        if self._endpoint.path:
            with contextlib.suppress(OSError):
                os.unlink(self._endpoint.path)

    async def _watch(self, tls: TlsFiles, server: _Server) -> None:
        while True:
            await asyncio.sleep(1.0)
            if await asyncio.to_thread(tls.refresh):
                await server.use(tls.context)


class _Server(uvicorn.Server):
    """uvicorn without its hold on signals, with a way to await readiness and to change certificates."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._sockets: list[socket.socket] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._sockets = sockets or []
        # A listening socket of its own per TLS context: the one that is replaced is closed.
        await super().startup([entry.dup() for entry in self._sockets])
        self.listening.set()

    async def use(self, context: ssl.SSLContext) -> None:
        """Use other certificates for new connections; established ones go on."""
        loop = asyncio.get_running_loop()
        replaced = self.servers
        self.servers = [
            await loop.create_server(self._new_protocol, sock=entry.dup(), ssl=context, backlog=_BACKLOG)
            for entry in self._sockets
        ]
        for server in replaced:
            server.close()

    def _new_protocol(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        created: asyncio.Protocol = protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return created

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _bind(key: str, endpoint: Endpoint) -> list[socket.socket]:
    """Return listening sockets for every address of the host; port 0 is the same port for all."""
    loop = asyncio.get_running_loop()
    sockets: list[socket.socket] = []
    port = endpoint.port
    try:
        if endpoint.path:
            return [_bind_unix(endpoint.path)]
        found = await loop.getaddrinfo(endpoint.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((entry[0], entry[4][0]) for entry in found):
            listener = socket.create_server((str(address), port), family=family, backlog=_BACKLOG)
            listener.setblocking(False)
            # Connections inherit it. asyncio's own loop leaves it off, and answers would wait 40 ms to be acknowledged.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sockets.append(listener)
            port = listener.getsockname()[1]
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise ConfigError(
            f"{key}: cannot listen on {endpoint} (is it taken?): {error}; choose another with --set {key}=…"
        ) from None
    return sockets


def _bind_unix(path: str) -> socket.socket:
    remove_stale_socket(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def remove_stale_socket(path: str) -> None:
    """Remove the socket file that a process left behind when it was killed.

    Raises:
        OSError: Somebody listens on it.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return  # Binding will say what is wrong.
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError("another process listens there")
