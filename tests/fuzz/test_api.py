"""The management API keeps to its description: the short form of `make api-fuzz`."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.api import fuzz


async def test_no_request_made_up_from_the_description_breaks_it(tmp_path: Path) -> None:
    chosen = ["--phases", "examples,coverage", "--seed", "1"]  # About ten seconds, most of them the sidecar's start.
    code, output = await fuzz(tmp_path, chosen, 100.0)
    assert code == 0, output[-8000:]
