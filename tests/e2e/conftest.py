"""Sidecars that end with their test, and the destinations around them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.otlp_sink import OtlpSink
from tests.e2e.sidecar import Sidecar

NewSidecar = Callable[..., Sidecar]


@pytest.fixture
async def sink() -> AsyncIterator[OtlpSink]:
    async with OtlpSink() as downstream:
        yield downstream


@pytest.fixture
async def new_sidecar(tmp_path: Path) -> AsyncIterator[NewSidecar]:
    """Makes sidecars, each in a directory of its own."""
    made: list[Sidecar] = []

    def new(downstream: OtlpSink | None, settings: dict[str, Any] | None = None) -> Sidecar:
        directory = tmp_path / f"sidecar-{len(made)}"
        directory.mkdir()
        made.append(Sidecar(directory, downstream, settings))
        return made[-1]

    yield new
    for sidecar in made:
        await sidecar.close()
