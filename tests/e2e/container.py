"""Builds and runs an image without an engine: the steps of a Dockerfile in namespaces of the kernel.

A stage is a directory that a step sees as `/`, so that every path is the image's own. In place of
the base image stand this machine's programs and Python, mounted read-only. What runs has a
network of its own (its ports collide with nobody's) and is process 1, as in a container.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.dockerfile import Stage, Step

_UNSHARE = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
_BASE_FILES = ["passwd", "group", "shadow", "login.defs", "nsswitch.conf", "hosts", "resolv.conf", "pip.conf"]
_PATIENCE_S = 40.0


def has_namespaces() -> bool:
    """Whether this process may make namespaces and mount in them."""
    if sys.platform != "linux" or os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "setpriv"))):
        return False
    attempt = [*_UNSHARE, "--net", "ip", "link", "set", "lo", "up"]
    return subprocess.run(attempt, check=False, capture_output=True).returncode == 0


class Image:
    """An image that is being built, then ready to run.

    Args:
        directory: For its files.
        context: Where COPY takes files from.
        stages: Of the Dockerfile.
    """

    def __init__(self, directory: Path, context: Path, stages: list[Stage]) -> None:
        self._context = context
        self._stages = stages
        self._roots = [directory / f"stage-{number}" for number in range(len(stages))]
        self.stage = stages[-1]
        self.root = self._roots[-1]

    def build(self) -> None:
        """Run every step of every stage.

        Raises:
            AssertionError: A step failed; the message is what it printed.
        """
        for stage, root in zip(self._stages, self._roots, strict=True):
            _lay_base(root)
            self._work_directory = "/"
            for step in stage.steps:
                self._perform(step, stage, root)

    def environment(self, stage: Stage) -> dict[str, str]:
        """Return the variables of a stage's processes."""
        path = f"{_base_path()}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "HOME": "/"} | {
            name: value.replace("$PATH", path) for name, value in stage.environment.items()
        }

    def _perform(self, step: Step, stage: Stage, root: Path) -> None:
        if step.kind == "WORKDIR":
            self._work_directory = step.text
            (root / step.text.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif step.kind == "COPY":
            source = self._context
            if "from" in step.options:
                names = [other.name for other in self._stages]
                source = self._roots[names.index(step.options["from"])]
            *names, target = step.text.split()
            for name in names:
                _copy(source / name.lstrip("/"), self._target(root, target, name))
        else:
            ours = {name: value for name, value in os.environ.items() if name in _FOR_PIP}
            script = [*_mounts(root), f"cd {shlex.quote(str(root))}"]
            command = _chroot(root, self.environment(stage) | ours, self._work_directory)
            result = _in_namespaces(script, [*command, "sh", "-ec", step.text])
            assert result.returncode == 0, f"RUN {step.text}\n{result.stdout[-4000:]}"

    def _target(self, root: Path, target: str, source: str) -> Path:
        place = root / os.path.join(self._work_directory, target).lstrip("/")
        return place / Path(source).name if target.endswith("/") else place


class Container:
    """An image that runs: as its user, on a root that cannot be written, with one volume and /tmp.

    Args:
        image: The image.
        volume: Directory of the host that becomes its volume; made as the image has it if it does not exist.
        command: In place of the image's entry point and command.
        environment: Variables beside the image's.
    """

    def __init__(
        self,
        image: Image,
        volume: Path,
        command: list[str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._image = image
        self._environment = image.environment(image.stage) | (environment or {})
        self._output = volume.with_suffix(".log")
        (place,) = image.stage.volumes
        if not volume.exists():
            inside = image.root / place.lstrip("/")
            shutil.copytree(inside, volume)
            os.chown(volume, inside.stat().st_uid, inside.stat().st_gid)
            volume.chmod(inside.stat().st_mode & 0o7777)
        root = shlex.quote(str(image.root))
        script = [
            f"mount --bind {root} {root}",
            f"mount -o remount,bind,ro {root}",
            *_mounts(image.root),
            f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp",
            f"mount --bind {shlex.quote(str(volume))} {root}{place}",
            "ip link set lo up",
        ]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [*_UNSHARE, "--net", "sh", "-ec", _script(script, self._as_user(command or self._default()))],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def output(self) -> str:
        """Everything it has printed."""
        return self._output.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        """Whether its first process lives."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its first process, as the host numbers it, once it sees the image as its root."""
        self.wait_until(self._has_entered, "does not enter its root")
        return _children(self._process.pid)[0]

    def run(self, command: list[str], timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a command within it, as its user."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid"]
        return subprocess.run(
            [*enter, *self._as_user(command)],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )

    def is_healthy(self) -> bool:
        """Whether the image's health check passes."""
        return self.run(self._image.stage.health_check).returncode == 0

    def wait_until(self, condition: Callable[[], bool], complaint: str) -> None:
        """Return when a condition holds.

        Raises:
            AssertionError: It does not in time, or the container has ended.
        """
        deadline_s = time.monotonic() + _PATIENCE_S
        while not condition():
            assert self._process.poll() is None, f"has ended ({self._process.returncode}):\n{self.output[-4000:]}"
            assert time.monotonic() < deadline_s, f"{complaint}:\n{self.output[-4000:]}"
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        """Send a signal to its first process."""
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = _PATIENCE_S) -> int:
        """Return its exit code once it has ended."""
        return self._process.wait(timeout_s)

    def close(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            # Its first process takes all others with it. `unshare --kill-child` alone does not reach it: a process that
            # changes its user forgets whose death ends it.
            for pid in _children(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()

    def _has_entered(self) -> bool:
        pids = _children(self._process.pid)
        return bool(pids) and os.path.samestat(os.stat(f"/proc/{pids[0]}/root"), os.stat(self._image.root))

    def _default(self) -> list[str]:
        return [*self._image.stage.entrypoint, *self._image.stage.command]

    def _as_user(self, command: list[str]) -> list[str]:
        uid, gid = self._image.stage.user.split(":")
        drop = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
        drop += ["--bounding-set=-all", "--inh-caps=-all"]
        inside = _chroot(self._image.root, self._environment, self._image.stage.work_directory)
        return [*inside, *drop, *command]


_FOR_PIP = {"PIP_CERT", "PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"}
"""How this machine reaches its package index; all else of our environment stays outside."""


def _lay_base(root: Path) -> None:
    """Make what a base image would bring, apart from what is mounted."""
    for name in ("etc", "dev", "proc", "tmp", "opt", "var/lib"):
        (root / name).mkdir(parents=True)
    for name in _BASE_FILES:
        if Path("/etc", name).exists():
            shutil.copy(Path("/etc", name), root / "etc" / name)
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(os.readlink(Path("/", name)))
    for place in _mounted():
        (root / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
    # Some systems have python3 alone, where the image has python.
    python = root / "base-bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(_base_python())} "$@"\n')
    python.chmod(0o755)


def _base_python() -> str:
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _base_path() -> str:
    return "/base-bin"


def _mounted() -> list[str]:
    """Return the directories of this machine that a stage sees, read-only."""
    own = ["/usr", *(f"/{name}" for name in ("bin", "sbin", "lib", "lib64") if not Path("/", name).is_symlink())]
    prefix = os.path.realpath(sys.base_prefix)
    return [*own, "/etc/ssl", *([] if prefix.startswith("/usr") else [prefix])]


def _mounts(root: Path) -> list[str]:
    here = shlex.quote(str(root))
    return [
        *(f"mount --bind -o ro {shlex.quote(place)} {here}{shlex.quote(place)}" for place in _mounted()),
        f"mount --rbind /dev {here}/dev",
        f"mount -t proc proc {here}/proc",
    ]


def _chroot(root: Path, environment: dict[str, str], work_directory: str) -> list[str]:
    variables = [f"{name}={value}" for name, value in environment.items()]
    change = 'cd "$1" && shift && exec "$@"'
    return ["chroot", str(root), "/usr/bin/env", "-i", *variables, "/bin/sh", "-c", change, "sh", work_directory]


def _script(lines: list[str], command: list[str]) -> str:
    return "\n".join([*lines, f"exec {shlex.join(command)}"])


def _in_namespaces(lines: list[str], command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_UNSHARE, "sh", "-ec", _script(lines, command)],
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=240,
        check=False,
    )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__") if source.name == "driftlock_otlp" else None
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=ignored)
    else:
        shutil.copy(source, target)


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found
