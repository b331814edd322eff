"""A real Prometheus beside a sidecar: from PATH, or Debian's package, unpacked and not installed."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.sidecar import free_ports

_KEPT = Path(__file__).resolve().parents[2] / ".interop" / "prometheus"
_FETCH_S = 90.0


class UnavailableError(Exception):
    """There is no Prometheus here, and none can be had."""


@functools.cache
def program(name: str) -> str:
    """Return the path of `prometheus` or `promtool`; fetch both once where they are missing.

    Raises:
        UnavailableError: They are not on PATH and cannot be fetched.
    """
    found = shutil.which(name)
    if found is not None:
        return found
    kept = _KEPT / "usr" / "bin" / name
    if not kept.exists():
        _fetch()
    return str(kept)


def _fetch() -> None:
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise UnavailableError(f"prometheus is not on PATH, and without {' and '.join(missing)} it cannot be fetched")
    _KEPT.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_KEPT.parent, prefix="prometheus-") as name:
        scratch = Path(name)
        lists, archives = scratch / "lists", scratch / "archives"
        for directory in (lists, archives):
            (directory / "partial").mkdir(parents=True)
        # Lists of our own where the machine's are too old or absent: nothing of the machine is changed.
        own = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={archives}", "-o", "APT::Sandbox::User=root"]
        try:
            try:
                _run(["apt-get", "-o", "APT::Sandbox::User=root", "download", "prometheus"], scratch)
            except subprocess.CalledProcessError:
                _run(["apt-get", *own, "update"], scratch)
                _run(["apt-get", *own, "download", "prometheus"], scratch)
            (package,) = scratch.glob("prometheus_*.deb")
            _run(["dpkg-deb", "-x", str(package), str(scratch / "unpacked")], scratch)
        except (subprocess.SubprocessError, ValueError) as error:
            output = getattr(error, "stderr", None) or b""
            reason = output.decode(errors="replace").strip().splitlines()[-1:] or [str(error)]
            raise UnavailableError(
                f"prometheus is not on PATH, and Debian's package cannot be fetched: {reason[0]}"
            ) from None
        # Whoever was faster has put the same there.
        if not _KEPT.exists():
            (scratch / "unpacked").rename(_KEPT)


def _run(command: list[str], directory: Path) -> None:
    subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=_FETCH_S)


def lint(exposition: bytes) -> str:
    """Return what `promtool check metrics` has to say of a page of metrics; nothing if it is clean."""
    command = [program("promtool"), "check", "metrics"]
    done = subprocess.run(command, input=exposition, capture_output=True, timeout=30.0, check=False)
    said = (done.stdout + done.stderr).decode().strip()
    assert said or done.returncode == 0, f"promtool ended with {done.returncode}"
    return said


class Prometheus:
    """A running Prometheus; asked over its HTTP API.

    Args:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5.0) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and values that an expression gives now."""
        answer = self._get(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        return [(series["metric"], float(series["value"][1])) for series in answer["result"]]

    def total(self, expression: str) -> float:
        """Return the sum of an expression; 0 if it gives nothing."""
        return sum(value for _, value in self.query(expression))

    def targets(self) -> list[dict[str, Any]]:
        """Return what it scrapes, and how that goes."""
        active: list[dict[str, Any]] = self._get("/api/v1/targets")["activeTargets"]
        return active

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self._url}{path}", timeout=10.0) as response:
            return json.loads(response.read())["data"]


@contextmanager
def scraping(port: int, directory: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes a port on this machine every second.

    Args:
        port: Where `/metrics` is.
        directory: Where it keeps its configuration, its data and its log.
    """
    (own_port,) = free_ports(1)
    job = {"job_name": "driftlock", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        program("prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{own_port}",
        "--log.level=warn",
    ]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield Prometheus(own_port)
    finally:
        process.terminate()
        try:
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
