"""The processes of the demo: the sidecar and the shop, started, asked and always stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

_START_S = 60.0
_STOP_S = 15.0


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Samples:
    """The sidecar's metrics at one moment."""

    def __init__(self, text: str) -> None:
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def total(self, name: str, **labels: str) -> int:
        """Return the sum of all samples of a name that have these labels."""
        return int(
            sum(
                sample.value
                for sample in self._samples
                if sample.name == name and labels.items() <= sample.labels.items()
            )
        )


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The running sidecar: where it listens.

    Attributes:
        grpc: host:port of its OTLP/gRPC receiver.
        http: host:port of its OTLP/HTTP receiver.
        api: URL of its management server.
    """

    grpc: str
    http: str
    api: str
    process: asyncio.subprocess.Process

    async def metrics(self) -> Samples:
        """Ask for `/metrics`.

        Raises:
            DemoError: The sidecar does not answer.
        """
        if self.process.returncode is not None:
            raise DemoError(f"the sidecar ended with exit code {self.process.returncode}")
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
                session.get(f"{self.api}/metrics") as response,
            ):
                return Samples(await response.text())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DemoError(f"the sidecar does not answer at {self.api}: {error!r}") from None


def release_command(data: Path) -> list[str]:
    """Return the arguments that release the whole quarantine of the sidecar with this data directory."""
    return ["quarantine", "release", "--all", "--set", f"queue.path={data}"]


async def run_command(arguments: Sequence[str]) -> str:
    """Run a command of `driftlock-otlp` to its end and return what it printed.

    Raises:
        DemoError: It failed.
    """
    process = await _start(
        ["-m", "driftlock_otlp", *arguments], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        printed, _ = await asyncio.wait_for(process.communicate(), _START_S)
    finally:
        await _stop(process)
    text = printed.decode().strip()
    if process.returncode:
        raise DemoError(f"driftlock-otlp {' '.join(arguments)} failed: {text}")
    return text


@contextlib.asynccontextmanager
async def running_sidecar(data: Path, downstream: str) -> AsyncIterator[Sidecar]:
    """Run the sidecar as a process of its own; its log goes to `sidecar.log` in the data directory.

    Raises:
        DemoError: It does not start.
    """
    arguments = ["run", "--config", str(HERE / "demo.yaml")]
    for setting in (f"queue.path={data}", f"exporters.otlp_grpc.endpoint={downstream}"):
        arguments += ["--set", setting]
    log = data / "sidecar.log"
    with log.open("wb") as output:
        process = await _start(["-m", "driftlock_otlp", *arguments], stderr=output.fileno())
        try:
            started = await _started_line(process, log)
            yield Sidecar(started["otlp_grpc"], started["otlp_http"], started["api"], process)
        finally:
            await _stop(process)


class Shop:
    """The process that sends telemetry."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def order(self, text: str) -> None:
        """Tell it to `break` or `mend` a signal.

        Raises:
            DemoError: It has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{text}\n".encode())
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError):
            raise DemoError(f"the senders ended with exit code {self._process.returncode}") from None

    async def close(self) -> None:
        """Let it send what it has, and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), _STOP_S)


@contextlib.asynccontextmanager
async def running_shop(sidecar: Sidecar, seed: int, log: Path) -> AsyncIterator[Shop]:
    """Run the senders as a process of its own; what they complain of goes to `log`."""
    command = [str(HERE / "senders.py"), "--grpc", sidecar.grpc, "--http", sidecar.http, "--seed", str(seed)]
    with log.open("wb") as output:
        process = await _start(command, stderr=output.fileno())
        try:
            yield Shop(process)
        finally:
            await _stop(process)


async def _start(
    arguments: Sequence[str], *, stderr: int, stdout: int = asyncio.subprocess.DEVNULL
) -> asyncio.subprocess.Process:
    # OpenTelemetry's variables of the shell would become settings of the sidecar and the SDK.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        cwd=ROOT,
        env=environ,
        # Ctrl-C is for the demo, which stops its processes in order.
        start_new_session=True,
    )


async def _started_line(process: asyncio.subprocess.Process, log: Path) -> dict[str, str]:
    """Return the sidecar's log line that says that it serves, and where."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_S):
            while process.returncode is None:
                for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
                    with contextlib.suppress(json.JSONDecodeError):
                        entry = json.loads(line)
                        if isinstance(entry, dict) and entry.get("event") == "started":
                            return entry
                await asyncio.sleep(0.1)
    said = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:])
    raise DemoError(f"the sidecar did not start; it said:\n{said}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End a process: kindly at first, at once when it takes too long or somebody is impatient."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_S)
    except (TimeoutError, asyncio.CancelledError) as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if isinstance(error, asyncio.CancelledError):
            raise
        await process.wait()
