"""The tutorial, as it is written: every command is run, and what it shows must appear."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.sidecar import free_ports

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
PATIENCE_S = 40.0
_BLOCK = re.compile(r"```sh\n(.*?)```", re.S)


class Reader:
    """Somebody who types what the tutorial says, on ports that are free here."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._grpc, self._http, self._api = free_ports(3)
        self._variables: dict[str, str] = {}
        self.sidecar: subprocess.Popen[bytes] | None = None

    def start(self, command: str) -> None:
        """Start the sidecar as the tutorial does, and wait until it is ready."""
        protocols = "receivers.otlp.protocols"
        options = [
            f"{protocols}.grpc.endpoint=127.0.0.1:{self._grpc}",
            f"{protocols}.http.endpoint=127.0.0.1:{self._http}",
            f"api.endpoint=127.0.0.1:{self._api}",
        ]
        with (self._directory / "sidecar.log").open("wb") as log:
            self.sidecar = subprocess.Popen(
                ["bash", "-c", f"exec {self._here(command)} " + " ".join(f"--set {option}" for option in options)],
                cwd=self._directory,
                stdout=log,
                stderr=log,
            )
        self.see("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/readyz || true", "200")

    def do(self, script: str) -> str:
        """Run a block; return what it printed. Variables it exports stay."""
        kept = "".join(f"export {name}={value!r}\n" for name, value in self._variables.items())
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{kept}{self._here(script)}\necho; export -p > .exported"],
            cwd=self._directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        for name in re.findall(r"^export (\w+)=", script, re.M):
            exported = re.search(rf'^declare -x {name}="(.*)"$', (self._directory / ".exported").read_text(), re.M)
            assert exported is not None
            self._variables[name] = exported[1]
        return done.stdout.strip()

    def see(self, command: str, shown: str) -> None:
        """Run a command until it prints what the tutorial shows; `...` stands for anything."""
        wanted = re.compile(".*".join(re.escape(part) for part in shown.strip().split("...")), re.S)
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            printed = self.do(command)
            if wanted.fullmatch(printed):
                return
            assert time.monotonic() < deadline_s, f"{command}\nprints\n{printed}\nin place of\n{shown}"
            time.sleep(0.3)

    def _here(self, text: str) -> str:
        for port, own in ((4317, self._grpc), (4318, self._http), (8080, self._api)):
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{own}")
        python = shlex.quote(sys.executable)
        return text.replace("driftlock-otlp ", f"{python} -m driftlock_otlp ").replace("python3 ", f"{python} ")


@pytest.mark.timeout(240)
@pytest.mark.skipif(shutil.which("jq") is None or shutil.which("curl") is None, reason="the tutorial needs curl and jq")
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    blocks = _BLOCK.findall(TUTORIAL.read_text())
    assert len(blocks) >= 12
    try:
        for block in blocks:
            if "driftlock-otlp run" in block:
                reader.start(block.strip())
            elif block.startswith("$ "):
                for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
                    command, _, shown = part.partition("\n")
                    reader.see(command, shown)
            else:
                reader.do(block)
        assert reader.sidecar is not None
        reader.sidecar.terminate()
        assert reader.sidecar.wait(40) == 0
    finally:
        if reader.sidecar is not None and reader.sidecar.poll() is None:
            reader.sidecar.kill()
            reader.sidecar.wait()
