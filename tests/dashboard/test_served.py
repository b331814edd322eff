"""The built pages: that they are there, are those of the sources, and how they are served. Needs no Node."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse

from driftlock_otlp.api.app import ApiServer, build_app
from driftlock_otlp.api.dashboard import DIRECTORY, PAGES, Dashboard
from driftlock_otlp.config.operation import ApiConfig
from driftlock_otlp.config.values import Endpoint
from driftlock_otlp.lifecycle import Readiness
from driftlock_otlp.observability.live import LivePipeline
from driftlock_otlp.observability.metrics import Metrics

SOURCES = Path(__file__).parents[2] / "supabase/dashboard"
FILES = ("index.html", "package-lock.json", "package.json", "tsconfig.json", "vite.config.ts")
FOLDERS = ("public", "src")
MOST_BYTES = 300_000
"""Before charts load, compressed."""


def hash_of_sources() -> str:
    """Return what `sources.mjs` computes."""
    below = [path for folder in FOLDERS for path in (SOURCES / folder).rglob("*") if path.is_file()]
    names = sorted(path.relative_to(SOURCES).as_posix() for path in (*(SOURCES / name for name in FILES), *below))
    whole = hashlib.sha256()
    for name in names:
        whole.update(f"{hashlib.sha256((SOURCES / name).read_bytes()).hexdigest()}  {name}\n".encode())
    return whole.hexdigest()


def test_built_pages_are_those_of_the_sources() -> None:
    built = (DIRECTORY / "sources.sha256").read_text().strip()
    assert built == hash_of_sources(), "run `make dashboard-build` and commit what it writes"


def test_no_page_is_known_to_one_side_only() -> None:
    source = (SOURCES / "src/App.tsx").read_text()
    assert {re.sub(r"\{(\w+)\}", r":\1", path) for path in PAGES} | {"/"} == set(
        re.findall(r'{ path: "([^"]+)"', source)
    )


def test_what_loads_first_is_small() -> None:
    page = (DIRECTORY / "index.html").read_text()
    first = [DIRECTORY / name for name in re.findall(r'(?:src|href)="/(assets/[^"]+)"', page)]
    assert first
    # What a first file imports itself loads with it.
    first += [
        first[0].parent / name for path in first for name in re.findall(r'from"\./([^"]+\.js)"', path.read_text())
    ]
    assert sum(len(gzip.compress(path.read_bytes())) for path in set(first)) < MOST_BYTES


def test_built_pages_name_no_other_host_and_hold_no_inline_script() -> None:
    page = (DIRECTORY / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=", page)
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page)
    for path in (DIRECTORY / "assets").glob("*.css"):
        assert not re.search(r"url\(|@import", path.read_text())


def test_without_built_pages_there_are_none(tmp_path: Path) -> None:
    dashboard = Dashboard(tmp_path)
    assert not dashboard.is_built
    assert dashboard.routes() == []


@contextlib.asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client of a server of this application."""
    server = ApiServer(ApiConfig(endpoint=Endpoint(host="127.0.0.1", port=0)), app)
    await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client:
            yield client
    finally:
        await server.stop(1.0)


async def test_the_root_is_the_dashboard_for_browsers_and_a_list_of_addresses_for_others() -> None:
    async def look() -> LivePipeline:
        raise AssertionError("nobody asks for it here")

    app = build_app(Metrics().registry, Readiness(), "1.2.3", look, PlainTextResponse("v1", status_code=404))
    async with serving(app) as client:
        async with client.get("/", headers={"accept": "text/html,*/*;q=0.8"}) as answer:
            assert '<div id="root">' in await answer.text()
        async with client.get("/") as answer:
            assert "/metrics" in (await answer.text()).splitlines()


@pytest.fixture
def built(tmp_path: Path) -> Dashboard:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html><p>pages")
    (tmp_path / "assets/index-abc.js").write_text("export {}")
    (tmp_path / "sources.sha256").write_text("0")
    return Dashboard(tmp_path)


async def test_pages_and_files_are_served_under_a_strict_policy(built: Dashboard) -> None:
    async with serving(Starlette(routes=built.routes())) as client:
        for path in ("/incidents", "/anomalies/0123", "/streams/WyJ"):
            async with client.get(path) as answer:
                assert await answer.text() == "<!doctype html><p>pages"
                policy = answer.headers["content-security-policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert answer.headers["cache-control"] == "no-cache"
        async with client.get("/assets/index-abc.js") as answer:
            assert answer.headers["content-encoding"] == "gzip"
            assert answer.headers["content-type"].startswith("text/javascript")
            assert "immutable" in answer.headers["cache-control"]
            assert await answer.text() == "export {}"
        async with client.get("/assets/index-abc.js", headers={"accept-encoding": "identity"}) as answer:
            assert "content-encoding" not in answer.headers
        for path in ("/sources.sha256", "/assets/..%2fsources.sha256", "/assets/x.js", "/index.html"):
            async with client.get(path) as answer:
                assert answer.status == 404, path
