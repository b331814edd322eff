"""The Dockerfile's steps, carried out: what is built runs as its user on a root that cannot be written."""

from __future__ import annotations

import json
import re
import shlex
import signal
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.docs.deployments import seconds, unit
from tests.e2e.container import Container, Image, has_namespaces
from tests.e2e.dockerfile import read_dockerfile

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

pytestmark = [
    pytest.mark.timeout(300),  # the first test installs every dependency anew
    pytest.mark.skipif(not has_namespaces(), reason="needs root on Linux, to make namespaces"),
]

INSTALLED = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
SEND = """
import http.client, json, sys
record = {"timeUnixNano": "1", "body": {"stringValue": "hello"}}
body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})
connection = http.client.HTTPConnection("127.0.0.1", 4318, timeout=10)
connection.request("POST", "/v1/logs", body, {"Content-Type": "application/json"})
sys.exit(connection.getresponse().status != 200)
"""
BEGIN = """
import socket, subprocess, sys
connection = socket.create_connection(("127.0.0.1", 4318))
head = ["POST /v1/logs HTTP/1.1", "Host: x", "Content-Type: application/json", "Content-Length: 9", "", "{"]
connection.sendall("\\r\\n".join(head).encode())
connection.set_inheritable(True)
subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""
"""Begins a request and leaves it to a process that never ends it: stopping waits for it."""
WITHOUT_CODE_IN_DATA = """
import ctypes, os, sys
refuse_writable_code = 65, 1  # PR_SET_MDWE; kernels before 6.3 do not know it
ctypes.CDLL(None).prctl(*refuse_writable_code, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a command as `MemoryDenyWriteExecute=yes` of systemd does; what else the unit restricts, the container does."""

NewContainer = Callable[..., Container]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    built = Image(tmp_path_factory.mktemp("image"), ROOT, read_dockerfile(ROOT / "Dockerfile"))
    built.build()
    return built


@pytest.fixture
def new_container(image: Image, tmp_path: Path) -> Iterator[NewContainer]:
    made: list[Container] = []

    def new(command: list[str] | None = None, environment: dict[str, str] | None = None) -> Container:
        made.append(Container(image, tmp_path / "volume", command, environment))
        return made[-1]

    yield new
    for container in made:
        container.close()


def test_image_holds_what_is_locked_and_nothing_that_builds(image: Image, new_container: NewContainer) -> None:
    container = new_container(["sleep", "60"])
    printed = container.run(["python", "-c", INSTALLED])
    installed = {re.sub("[-_.]+", "-", name).lower(): version for name, version in json.loads(printed.stdout).items()}
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = [Requirement(line.rstrip(" \\")) for line in text.splitlines() if re.match(r"\w", line)]
    wanted = {
        each.name: str(each.specifier).removeprefix("==")
        for each in locked
        if each.marker is None or each.marker.evaluate()
    }
    assert installed == wanted | {PROJECT["name"]: PROJECT["version"]}
    assert not (image.root / "opt/build").exists()
    assert not list((image.root / "opt/driftlock/bin").glob("pip*"))


def test_image_starts_becomes_healthy_takes_data_and_stops_within_its_grace(
    image: Image, new_container: NewContainer, tmp_path: Path
) -> None:
    container = new_container()
    assert not container.is_healthy()
    container.wait_until(container.is_healthy, "is not healthy")
    sent = container.run(["python", "-c", SEND])
    assert sent.returncode == 0, sent.stdout + container.output
    assert sorted(path.name for path in (tmp_path / "volume").iterdir() if "-" not in path.name) == ["log", "state.db"]
    container.signal(signal.SIGTERM)
    assert container.wait() == 0, container.output
    assert '"stopped"' in container.output.splitlines()[-1], container.output


def test_process_of_the_image_may_write_its_volume_and_tmp_alone(new_container: NewContainer) -> None:
    container = new_container(["sleep", "60"])
    assert container.run(["id", "-u"]).stdout.strip() == "10001"
    for place, may in {"/var/lib/driftlock": True, "/tmp": True, "/opt/driftlock": False, "/etc": False}.items():
        assert (container.run(["touch", f"{place}/file"]).returncode == 0) is may, place
    capabilities = container.run(["grep", "Cap", "/proc/self/status"]).stdout
    assert set(re.findall(r"\t(\w+)$", capabilities, re.MULTILINE)) == {"0" * 16}


def test_second_request_to_stop_ends_process_1_at_once(new_container: NewContainer) -> None:
    # The kernel delivers no signal to process 1 of a container whose default action would end it.
    container = new_container()
    container.wait_until(container.is_healthy, "is not healthy")
    container.run(["python", "-c", BEGIN])
    container.signal(signal.SIGTERM)
    container.wait_until(lambda: '"stopping"' in container.output, "does not stop")
    time.sleep(1.0)  # within half a second it is one request that arrived twice
    assert container.is_running
    container.signal(signal.SIGTERM)
    container.wait(5.0)


def test_systemd_unit_s_command_runs_under_its_restrictions(new_container: NewContainer) -> None:
    service = unit()["Service"]
    command = shlex.split(service["ExecStart"][0])
    environment = dict(line.split("=", 1) for line in service["Environment"])
    container = new_container(["python", "-c", WITHOUT_CODE_IN_DATA, *command], environment)
    container.wait_until(container.is_healthy, "is not healthy")
    assert container.run(["python", "-c", SEND]).returncode == 0
    container.signal(signal.SIGTERM)
    assert container.wait(seconds(service["TimeoutStopSec"][0])) == 0, container.output


@pytest.mark.parametrize("environment", [{}, {"DRIFTLOCK_ALLOW_UNAUTHENTICATED": "true"}])
def test_image_is_not_open_to_the_network_unless_told_so(
    new_container: NewContainer, environment: dict[str, str]
) -> None:
    container = new_container(environment={"DRIFTLOCK_LISTEN": "0.0.0.0", **environment})
    if environment:
        container.wait_until(container.is_healthy, "is not healthy")
    else:
        assert container.wait() != 0
        assert "nobody has to authenticate" in container.output
