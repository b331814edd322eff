"""The management API on a real state database, called without a socket."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from driftlock_otlp.api.access import Access
from driftlock_otlp.api.feed import Feed
from driftlock_otlp.api.findings import Findings
from driftlock_otlp.api.v1.app import build_v1
from driftlock_otlp.api.v1.backend import Backend
from driftlock_otlp.auth.keys import KeyFile, KeyRing, Organization, new_key, write_key_file
from driftlock_otlp.auth.roles import Role
from driftlock_otlp.config.receivers import AuthConfig, LimitsConfig
from driftlock_otlp.model import StreamKey
from driftlock_otlp.observability.live import LiveStream, LiveWorker
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.receiver.gate import Gate
from driftlock_otlp.receiver.ingest import Ingest
from driftlock_otlp.storage.state import StateDatabase
from tests.doubles.memory_log import MemoryLog

NOW = 1_800_000_000 * 10**9


@dataclass
class Answer:
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Workers:
    """Workers that say of their streams what they are told to."""

    def __init__(self) -> None:
        self.streams: list[LiveStream] = []

    async def look(self) -> tuple[list[LiveWorker], list[LiveStream]]:
        return [], self.streams


@dataclass
class Api:
    """The API and what it stands on."""

    app: ASGIApp
    backend: Backend
    workers: Workers
    metrics: Metrics
    log: MemoryLog
    keys: dict[tuple[str, Role], str]
    ring: KeyRing | None

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str = "",
        peer: str | None = "127.0.0.1",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return the answer to a request; a body that is no bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = {"host": "localhost:8080", "content-length": str(len(content)), **(headers or {})}
        if body is not None and "content-type" not in given:
            given["content-type"] = "application/json"
        if key:
            given["authorization"] = f"Bearer {key}"
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
            "http_version": "1.1",
            "scheme": "http",
            "root_path": "",
            "client": None if peer is None else (peer, 4321),
            "server": ("127.0.0.1", 8080),
        }
        sent: list[dict[str, Any]] = []
        incoming = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return incoming.pop() if incoming else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], answered, b"".join(message.get("body", b"") for message in sent[1:]))

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.call("GET", path, **options)


def new_api(
    state: StateDatabase,
    keys_file: Path | None = None,
    *,
    requests_per_second: float = 1e6,
    clock_s: Any = None,
    **feed: float,
) -> Api:
    """Return the API; with a key file, each of two organisations has a key of each role."""
    metrics, workers = Metrics(), Workers()
    keys: dict[tuple[str, Role], str] = {}
    ring = None
    if keys_file is not None:
        organizations = {}
        for name in ("acme", "globex"):
            made = {role: new_key("", datetime.now(UTC), None, role) for role in Role}
            keys |= {(name, role): key.text for role, key in made.items()}
            organizations[name] = Organization(keys=tuple(key.stored for key in made.values()))
        write_key_file(keys_file, KeyFile(organizations=organizations))
        ring = KeyRing(keys_file)
    access = Access(ring, requests_per_second, **({"clock_s": clock_s} if clock_s else {}))
    log = MemoryLog()
    findings = Findings(state, log, lambda: NOW, lambda kind: kind != "gen_ai")

    gate = Gate(AuthConfig(keys_file=keys_file, limits=LimitsConfig(requests_per_second=0.1)), 1 << 24, metrics)
    ingest = Ingest(log, metrics, lambda: NOW)

    async def pdf(bundle: bytes) -> bytes:
        return b"%PDF of " + bundle

    backend = Backend(
        "1.2.3", state, workers, lambda: NOW, findings, Feed(state, **feed), pdf, lambda kind: 0.01, gate, ingest
    )
    return Api(build_v1(backend, access, metrics.errors), backend, workers, metrics, log, keys, ring)


def live(key: StreamKey, **facts: Any) -> LiveStream:
    """Return what a worker says of a stream."""
    said: dict[str, Any] = {
        "window_size": 50,
        "open_window_count": 1,
        "open_record_count": 7,
        "oldest_open_s": 1.0,
        "window_count": 3,
        "baseline_window_count": 2,
        "baseline_record_count": 100,
        "windows_to_warm": 0,
        "last_outcome": "clean",
        "last_score": 0.1,
        "last_p_value": 0.5,
        "last_end_unix_nano": NOW,
        "anomaly_id": "",
    }
    return LiveStream(key=key, **{**said, **facts})
