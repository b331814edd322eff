"""Twice the capacity for a while; `make soak MINUTES=10` takes longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.soak import soak


@pytest.mark.timeout(240)
async def test_at_twice_the_capacity_memory_is_bounded_and_nobody_who_waits_loses_anything(tmp_path: Path) -> None:
    verdict = await soak(tmp_path, 18.0, print, measure_s=4.0, queue_s=4.0)
    assert not verdict.faults, "\n".join(verdict.faults)
    assert verdict.refusals, "nobody was told to wait: this was no overload"
    assert verdict.acknowledged > 0
    assert all(count["exported"] for count in verdict.sdk.values())
