"""Where the programs are that `make interop` builds or fetches, and what to say where they are not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BUILT = REPOSITORY / ".interop"

COLLECTOR = BUILT / "bin" / "collector"
TELEMETRYGEN = BUILT / "bin" / "telemetrygen"
ROTEL = BUILT / "rotel" / "rotel" / "rotel-agent"
NODE_PROJECT = REPOSITORY / "tests" / "interop" / "node"
NODE_MODULES = NODE_PROJECT / "node_modules"

_REASONS = {
    COLLECTOR: "no Collector is built here: run `make interop` (needs Go)",
    TELEMETRYGEN: "no telemetrygen is built here: run `make interop` (needs Go)",
    ROTEL: "rotel is not installed here: run `make interop` (needs Go)",
    NODE_MODULES: "the Node SDK is not installed here: run `make interop` (needs Go, Node and npm)",
}


def required(program: Path) -> Path:
    """Return a program's path; skip the test where it has not been built."""
    if not program.exists():
        pytest.skip(_REASONS[program])
    return program


def required_node() -> str:
    """Return the path of Node; skip the test where it, or the SDK for it, is missing."""
    required(NODE_MODULES)
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed here")
    return node
