"""Reads the Dockerfile: as much of the language as it uses, and a complaint about anything else."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True, slots=True)
class Step:
    """A RUN, COPY or WORKDIR.

    Attributes:
        kind: Its name.
        text: What follows the name, without options.
        options: As `from` of `COPY --from=build`.
    """

    kind: str
    text: str
    options: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Stage:
    """One stage, in the order of the file.

    Attributes:
        base: The image that it begins with.
        name: What other stages call it; empty for the last one.
        steps: What changes its files.
        environment: Of its steps and of what runs; `$PATH` stands for the base's.
        labels: By key.
        user: As written, uid:gid.
        work_directory: The last WORKDIR.
        volumes: Where data is kept.
        ports: That are exposed.
        entrypoint: Command that is always run.
        command: Its arguments, unless others are given.
        health_check: Command that ends with 0 when all is well.
        health_options: As `interval`.
    """

    base: str
    name: str = ""
    steps: list[Step] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    user: str = ""
    work_directory: str = "/"
    volumes: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health_check: list[str] = field(default_factory=list)
    health_options: dict[str, str] = field(default_factory=dict)


def read_dockerfile(path: Path) -> list[Stage]:
    """Return the stages of a Dockerfile.

    Raises:
        ValueError: It uses something that is not understood here.
    """
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in _logical_lines(path.read_text(encoding="utf-8")):
        kind, _, rest = line.partition(" ")
        kind, rest = kind.upper(), rest.strip()
        if kind == "ARG" and not stages:
            name, _, default = rest.partition("=")
            arguments[name] = default
        elif kind == "FROM":
            words = _VARIABLE.sub(lambda match: arguments[match[1] or match[2]], rest).split()
            stages.append(Stage(words[0], words[2] if len(words) == 3 and words[1].upper() == "AS" else ""))
        else:
            _add(stages[-1], kind, rest)
    return stages


def _add(stage: Stage, kind: str, rest: str) -> None:
    options, text = _options(rest)
    if kind in {"RUN", "COPY", "WORKDIR"}:
        stage.steps.append(Step(kind, text, options))
        if kind == "WORKDIR":
            stage.work_directory = text
    elif kind in {"ENV", "LABEL"}:
        target = stage.environment if kind == "ENV" else stage.labels
        for word in shlex.split(text):
            name, _, value = word.partition("=")
            target[name] = value
    elif kind == "USER":
        stage.user = text
    elif kind == "VOLUME":
        stage.volumes += text.split()
    elif kind == "EXPOSE":
        stage.ports += [int(port) for port in text.split()]
    elif kind == "ENTRYPOINT":
        stage.entrypoint = json.loads(text)
    elif kind == "CMD":
        stage.command = json.loads(text)
    elif kind == "HEALTHCHECK":
        stage.health_options = options
        stage.health_check = json.loads(text.removeprefix("CMD").strip())
    else:
        raise ValueError(f"{kind} is not understood here")


def _options(rest: str) -> tuple[dict[str, str], str]:
    options = {}
    while rest.startswith("--"):
        option, _, rest = rest.partition(" ")
        name, _, value = option.removeprefix("--").partition("=")
        options[name] = value
        rest = rest.strip()
    return options, rest


def _logical_lines(text: str) -> list[str]:
    """Return instructions, one a line: joined where a line ends with a backslash, without comments."""
    kept = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(kept))
    return [line.strip() for line in joined.splitlines() if line.strip()]
