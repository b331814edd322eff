"""The version that runs."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Return the installed version, `0` when run from a source tree that is not installed."""
    try:
        return metadata.version("driftlock-otlp")
    except metadata.PackageNotFoundError:
        return "0"
