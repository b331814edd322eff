"""What `deploy/` gives to other programs, judged by those programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.interop import programs
from tests.interop.collector import validate

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE_LOADER = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"
"""The loader of Docker Compose itself, as a program."""


@pytest.mark.parametrize("path", sorted((DEPLOY / "collector").glob("*.yaml")), ids=lambda path: path.name)
def test_collector_takes_its_configuration(path: Path) -> None:
    assert validate(path) == ""


def test_collector_refuses_a_configuration_that_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "agent.yaml"
    text = (DEPLOY / "collector" / "agent.yaml").read_text(encoding="utf-8")
    wrong.write_text(text.replace("queue_size:", "queue_length:"))
    assert "queue_length" in validate(wrong)


@pytest.mark.timeout(300)  # the first run compiles it
def test_compose_takes_the_composed_path() -> None:
    programs.required(programs.COLLECTOR)  # where interoperability is tested, Go and its modules are at hand
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed here")
    loaded = subprocess.run(
        [go, "run", COMPOSE_LOADER, "docker-compose.yaml"],
        cwd=DEPLOY,
        env={**os.environ, "GOFLAGS": "-mod=mod"},
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert loaded.returncode == 0, loaded.stdout[-4000:]
    assert "driftlock-otlp:" in loaded.stdout
