"""The dashboard in Debian's Chromium, against a real sidecar and real telemetry. `make dashboard-test` runs these."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from driftlock_otlp.__main__ import main
from driftlock_otlp.storage.state import STATE_FILE
from tests.benchmark.anomalies import fill
from tests.dashboard.scene import WINDOW, Shop
from tests.doubles.otlp_sink import OtlpSink
from tests.e2e.conftest import NewSidecar
from tests.e2e.sidecar import Sidecar, laid_over, small_windows

SCRIPTS = Path(__file__).parents[2] / "supabase/dashboard/browser"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NODE = shutil.which("node")


def _missing() -> str:
    """Return why these tests cannot run; empty if they can."""
    if not os.environ.get("DASHBOARD_TESTS"):
        return "they need Node and a browser: make dashboard-test runs them"
    if CHROMIUM is None:
        return "Chromium is not installed: apt-get install chromium"
    if NODE is None or not (SCRIPTS.parent / "node_modules/playwright-core").is_dir():
        return "Node's packages are not installed: make dashboard-test does it"
    return ""


pytestmark = [pytest.mark.skipif(bool(_missing()), reason=_missing() or "-"), pytest.mark.timeout(600)]


async def _script(name: str, *arguments: str) -> None:
    """Run one of the scripts; its output is the test's.

    Raises:
        AssertionError: It failed.
    """
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(NODE, str(SCRIPTS / name), *arguments)
    assert await process.wait() == 0, f"{name} failed; see above"


async def _with_faults(sidecar: Sidecar, key: str = "") -> str:
    """Start a sidecar in front of a shop that breaks twice; return where its dashboard is."""
    await sidecar.start()
    shop = Shop(sidecar, key)
    await shop.open()
    await shop.slow_down()
    await shop.recover()
    await shop.break_payment()
    return f"http://127.0.0.1:{sidecar.api_port}"


async def test_a_person_finds_understands_and_settles_an_incident(new_sidecar: NewSidecar, sink: OtlpSink) -> None:
    base = await _with_faults(new_sidecar(sink, small_windows(WINDOW)))
    await _script("walk.mjs", base)


async def test_with_keys_one_signs_in_and_may_do_what_the_key_may(
    new_sidecar: NewSidecar, sink: OtlpSink, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys_file = tmp_path / "keys.yaml"
    keys = {}
    for role in ("sender", "viewer", "operator"):
        assert main(["keys", "create", "--file", str(keys_file), "--organization", "acme", "--role", role]) == 0
        keys[role] = capsys.readouterr().out.strip()
    sidecar = new_sidecar(sink, laid_over(small_windows(WINDOW), {"auth": {"keys_file": str(keys_file)}}))
    base = await _with_faults(sidecar, keys["sender"])
    await _script("sign_in.mjs", base, keys["viewer"], keys["operator"])


async def test_a_hundred_thousand_anomalies_are_shown_within_a_second(new_sidecar: NewSidecar) -> None:
    sidecar = new_sidecar(None)
    sidecar.data.mkdir()
    await asyncio.to_thread(fill, sidecar.data / STATE_FILE, 100_000)
    await sidecar.start()
    await _script("many.mjs", f"http://127.0.0.1:{sidecar.api_port}")


async def test_pictures_are_taken_of_every_page(new_sidecar: NewSidecar, sink: OtlpSink) -> None:
    directory = os.environ.get("DASHBOARD_SCREENSHOTS")
    if not directory:
        pytest.skip("make dashboard-screenshots says where to put them")
    base = await _with_faults(new_sidecar(sink, small_windows(WINDOW)))
    await _script("screenshots.mjs", base, directory)
