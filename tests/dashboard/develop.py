"""`make dashboard`: the pages with live reload, against a sidecar in front of a shop that keeps breaking."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import tempfile
from pathlib import Path

from tests.dashboard.scene import WINDOW, Shop
from tests.doubles.otlp_sink import OtlpSink
from tests.e2e.sidecar import Sidecar, small_windows

SOURCES = Path(__file__).parents[2] / "supabase/dashboard"
_CALM_S = 20.0
_FAULT_S = 10.0


async def _serve_pages(sidecar_url: str) -> None:
    """Run Vite until it ends, or this is cancelled."""
    process = await asyncio.create_subprocess_exec(
        "npm", "run", "--silent", "dev", cwd=SOURCES, env={**os.environ, "DRIFTLOCK_SIDECAR": sidecar_url}
    )
    try:
        await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()


async def _break_again_and_again(shop: Shop) -> None:
    """Let the shop break, in turns, with calm in between; forever."""
    await shop.open()
    while True:
        for fault in (shop.break_payment, shop.slow_down):
            await fault()
            await asyncio.sleep(_FAULT_S)
            await shop.recover()
            await asyncio.sleep(_CALM_S)


async def _develop(url: str | None) -> None:
    if url is not None:
        await _serve_pages(url)
        return
    with tempfile.TemporaryDirectory() as directory:
        async with OtlpSink() as sink:
            sidecar = Sidecar(Path(directory), sink, small_windows(WINDOW))
            try:
                await sidecar.start()
                url = f"http://127.0.0.1:{sidecar.api_port}"
                print(f"a sidecar with traffic: {url}", flush=True)
                breaking = asyncio.create_task(_break_again_and_again(Shop(sidecar)))
                try:
                    await _serve_pages(url)
                finally:
                    breaking.cancel()
            finally:
                await sidecar.close()


async def _main(url: str | None) -> None:
    work = asyncio.ensure_future(_develop(url))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sidecar", metavar="URL", help="a running sidecar; without it, one is started")
    asyncio.run(_main(parser.parse_args().sidecar))
