"""Builds and fetches what the interoperability tests run: `python -m tests.interop.build`.

A Collector from the modules in `collector/manifest.yaml`, with the Collector's own builder; its load generator
`telemetrygen` of the same release; rotel from PyPI; the Node SDK's exporters from npm. Everything goes into `.interop/`
(the Node modules beside the script that imports them), and what is there already in the wanted version is left alone.

Exits with 1 and the remedy where Go is missing. Without Node its part is left out, and said so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.interop.programs import BUILT, COLLECTOR, NODE_MODULES, NODE_PROJECT, ROTEL, TELEMETRYGEN

MANIFEST = Path(__file__).parent / "collector" / "manifest.yaml"
BUILDER = "go.opentelemetry.io/collector/cmd/builder"
GENERATOR = "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen"
MAY_BE_MISSING = ("isolationforestprocessor", "drainprocessor")
"""Components that not every module proxy serves, and that no test depends on."""
ROTEL_RELEASE = "rotel==0.0.1a15"
LONGEST_STEP_S = 1800.0


class BuildError(Exception):
    """A step failed; the text is for people."""


@dataclass(frozen=True)
class Product:
    """Something to build.

    Attributes:
        name: What it is called.
        path: What exists once it is built.
        recipe: What its content depends on.
        build: Builds it; returns a remark or nothing.
    """

    name: str
    path: Path
    recipe: bytes
    build: Callable[[], str]

    @property
    def _stamp(self) -> Path:
        return BUILT / "stamps" / self.name

    def ensure(self) -> None:
        """Build it unless it is there as its recipe wants it."""
        wanted = hashlib.sha256(self.recipe).hexdigest()
        made, _, remark = self._stamp.read_text().partition("\n") if self._stamp.exists() else ("", "", "")
        if self.path.exists() and made == wanted:
            say(f"{self.name}: is up to date{remark}")
            return
        say(f"{self.name}: building ...")
        start_s = time.monotonic()
        remark = self.build()
        if not self.path.exists():
            raise BuildError(f"{self.name}: {self.path} was not made")
        self._stamp.parent.mkdir(parents=True, exist_ok=True)
        self._stamp.write_text(f"{wanted}\n{remark}")
        size = f", {self.path.stat().st_size / 1e6:.0f} MB" if self.path.is_file() else ""
        say(f"{self.name}: done in {time.monotonic() - start_s:.0f} s{size}{remark}")


def say(text: str) -> None:
    """Print one line of progress at once."""
    print(f"interop: {text}", flush=True)


def run(command: Sequence[str | Path], cwd: Path | None = None, **environment: str) -> str:
    """Run a command to its end and return what it printed.

    Raises:
        BuildError: It failed or took too long.
    """
    arguments = [str(part) for part in command]
    try:
        done = subprocess.run(
            arguments, cwd=cwd, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=LONGEST_STEP_S, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{' '.join(arguments)}: {error}") from None
    if done.returncode:
        raise BuildError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def build_collector() -> str:
    """Build the Collector; the remark names components that could not be had."""
    manifest: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())
    left_out = _leave_out_what_is_not_served(manifest)
    source = BUILT / "src" / "collector"
    source.mkdir(parents=True, exist_ok=True)
    manifest["dist"]["output_path"] = str(source)
    used = source / "manifest.yaml"
    used.write_text(yaml.safe_dump(manifest, sort_keys=False))
    run(["go", "install", f"{BUILDER}@v{_release()}"], GOBIN=str(COLLECTOR.parent))
    say("collector: compiling (some minutes the first time) ...")
    run([COLLECTOR.parent / "builder", "--config", used])
    (source / COLLECTOR.name).replace(COLLECTOR)
    return f" (without {', '.join(left_out)}: the module proxy does not serve them)" if left_out else ""


def build_telemetrygen() -> str:
    """Build the load generator."""
    run(["go", "install", "-ldflags=-s -w", f"{GENERATOR}@v{_release()}"], GOBIN=str(TELEMETRYGEN.parent))
    return ""


def install_rotel() -> str:
    """Fetch rotel's wheel, whichever Python this is: it is wanted for the program inside."""
    target = BUILT / "rotel"
    shutil.rmtree(target, ignore_errors=True)
    run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp", "--target", target,
         ROTEL_RELEASE]
    )  # fmt: skip
    ROTEL.chmod(0o755)
    return ""


def install_node_sdk() -> str:
    """Install the Node SDK as the lock file says; no package's own scripts are run."""
    run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], NODE_PROJECT)
    return ""


def _release() -> str:
    release: str = yaml.safe_load(MANIFEST.read_text())["dist"]["version"]
    return release


def _leave_out_what_is_not_served(manifest: dict[str, Any]) -> list[str]:
    # Without `direct`: otherwise Go goes on to look for the module's repository.
    proxies = [part for part in run(["go", "env", "GOPROXY"]).strip().split(",") if part != "direct"]
    left_out = []
    for processor in list(manifest["processors"]):
        module, version = processor["gomod"].split()
        name = module.rpartition("/")[2]
        if name not in MAY_BE_MISSING:
            continue
        try:
            run(["go", "mod", "download", f"{module}@{version}"], BUILT, GOPROXY=",".join(proxies) or "off")
        except BuildError:
            manifest["processors"].remove(processor)
            left_out.append(name)
    return left_out


def main() -> int:
    """Build everything; return the exit code."""
    if shutil.which("go") is None:
        print(
            "interop: Go is not installed, and the Collector is built with it.\n"
            "  Debian, Ubuntu: apt-get install golang\n"
            "  macOS:          brew install go\n"
            "  elsewhere:      https://go.dev/dl",
            file=sys.stderr,
        )
        return 1
    # Others are at work on this machine too; children inherit it.
    os.nice(5)
    BUILT.mkdir(exist_ok=True)
    products = [
        Product("rotel", ROTEL, ROTEL_RELEASE.encode(), install_rotel),
        Product("collector", COLLECTOR, MANIFEST.read_bytes(), build_collector),
        Product("telemetrygen", TELEMETRYGEN, f"{GENERATOR} {_release()}".encode(), build_telemetrygen),
    ]
    if shutil.which("npm") is None:
        say("node: npm is not installed, the tests of the Node SDK will be skipped")
    else:
        lock = (NODE_PROJECT / "package-lock.json").read_bytes()
        products.insert(1, Product("node", NODE_MODULES, lock, install_node_sdk))
    try:
        for product in products:
            product.ensure()
    except BuildError as error:
        print(f"interop: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
