"""Serves the dashboard: static files that were built beforehand and ship with the package.

The pages ask the management API for everything they show, with the viewer's own key if keys are
configured; nothing is decided here. Their sources are in `supabase/dashboard`.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

DIRECTORY = Path(__file__).parent / "dashboard"
"""Where the build puts its files; an index.html among them says that there are any."""

PAGES = (
    "/incidents",
    "/incidents/{id}",
    "/anomalies/{id}",
    "/streams",
    "/streams/{id}",
    "/live",
    "/usage",
    "/audit",
    "/settings",
)
"""Addresses that are pages, beside the root; the pages themselves tell them apart."""

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _CSP,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "vary": "accept-encoding",
    "x-content-type-options": "nosniff",
}
_FOR_GOOD = "public, max-age=31536000, immutable"
"""Names of assets hold a hash of their content."""


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    compressed: bytes
    media_type: str
    caching: str

    def answer(self, request: Request) -> Response:
        is_compressed = "gzip" in request.headers.get("accept-encoding", "")
        headers = {**_HEADERS, "cache-control": self.caching}
        if is_compressed:
            headers["content-encoding"] = "gzip"
        return Response(self.compressed if is_compressed else self.content, media_type=self.media_type, headers=headers)


class Dashboard:
    """The built files, in memory: about half a megabyte, and no path of a request ever reaches the disk.

    Args:
        directory: Where they are; there may be none.
    """

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._files = {
            f"/{path.relative_to(directory).as_posix()}": _read(path)
            for path in sorted(directory.rglob("*"))
            if path.suffix in _MEDIA_TYPES
        }
        self._index = self._files.pop("/index.html", None)

    @property
    def is_built(self) -> bool:
        """Whether there is anything to serve."""
        return self._index is not None

    def page(self, request: Request) -> Response:
        """Return the one document of all pages; only if `is_built`."""
        assert self._index is not None  # noqa: S101 - as said above
        return self._index.answer(request)

    def routes(self) -> list[Route]:
        """Return where pages and files are, but for the root; empty if nothing is built."""
        if not self.is_built:
            return []

        def file(request: Request) -> Response:
            return self._files[request.url.path].answer(request)

        return [*(Route(path, self.page) for path in PAGES), *(Route(path, file) for path in self._files)]


def _read(path: Path) -> _File:
    content = path.read_bytes()
    caching = _FOR_GOOD if path.parent.name == "assets" else "no-cache"
    return _File(content, gzip.compress(content, mtime=0), _MEDIA_TYPES[path.suffix], caching)
