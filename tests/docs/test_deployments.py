"""What `deploy/` says agrees with itself, with the image, and with the settings that it mounts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from driftlock_otlp.config.root import Config
from tests.docs.deployments import (
    COMPOSE,
    CONFIG_PATH,
    DEPLOY,
    MANIFESTS,
    OWN_IMAGE,
    ROOT,
    Pod,
    compose_config,
    documents,
    pods,
    protocols,
    seconds,
    unit,
)
from tests.e2e.dockerfile import read_dockerfile

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
IMAGE = read_dockerfile(ROOT / "Dockerfile")[-1]
SERVICES = COMPOSE["services"]
PODS = list(pods())
DATA = "/var/lib/driftlock"
OWN_PAGES = {"/metrics", "/healthz", "/readyz"}
"""What a probe or a scraper may ask for; `test_pages_that_are_probed_exist` holds them to the server."""

each_pod = pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod.name)


def ports_of(config: Config) -> set[int]:
    return {each.endpoint.port for each in (*protocols(config), config.api)}


def host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def test_pages_that_are_probed_exist() -> None:
    app = (ROOT / "driftlock_otlp/api/app.py").read_text(encoding="utf-8")
    assert set(re.findall(r'Route\("([^"]+)"', app)) >= OWN_PAGES


# The image


def test_image_runs_as_a_number_that_is_not_root_and_keeps_its_data_in_a_volume() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", IMAGE.user)
    assert IMAGE.volumes == [DATA]
    assert IMAGE.environment["DRIFTLOCK_DATA"] == DATA == IMAGE.work_directory
    assert [*IMAGE.entrypoint, *IMAGE.command] == ["driftlock-otlp", "run", "--config", CONFIG_PATH]
    assert IMAGE.labels["org.opencontainers.image.version"] == VERSION
    assert IMAGE.labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_image_exposes_and_probes_what_its_settings_listen_on() -> None:
    config = compose_config()
    assert set(IMAGE.ports) == ports_of(config)
    (probe,) = (word for word in IMAGE.health_check if "HTTPConnection" in word)
    assert f"('127.0.0.1', {config.api.endpoint.port}, " in probe
    assert "'/readyz'" in probe


def test_build_context_holds_what_the_image_copies_and_little_else() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        name.removeprefix("./")
        for stage in read_dockerfile(ROOT / "Dockerfile")
        for step in stage.steps
        if step.kind == "COPY" and "from" not in step.options
        for name in step.text.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_image_installs_nothing_that_is_not_locked() -> None:
    for stage in read_dockerfile(ROOT / "Dockerfile"):
        for step in stage.steps:
            for command in step.text.split("&&") if step.kind == "RUN" else []:
                if "pip" in command and " install" in command:
                    assert "--require-hashes" in command or "--no-index" in command, command


# The composed containers


def test_images_have_versions_and_ours_has_the_project_s() -> None:
    images = [service["image"] for service in SERVICES.values()]
    images += [container["image"] for pod in PODS for container in pod.containers]
    images += [stage.base for stage in read_dockerfile(ROOT / "Dockerfile")]
    for image in images:
        assert re.search(r":v?\d+\.\d+[\w.-]*$", image), image
    assert {image for image in images if image.startswith(OWN_IMAGE)} == {f"{OWN_IMAGE}:{VERSION}"}


@pytest.mark.parametrize("name", SERVICES)
def test_composed_container_cannot_write_its_root_or_gain_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_files_that_are_mounted_exist_and_volumes_are_declared(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source, target, *mode = mount.split(":")
        if source.startswith("."):
            assert (DEPLOY / source).is_file(), source
            assert mode == ["ro"]
            assert any(target in word for word in SERVICES[name]["command"]), f"{name} does not read {target}"
        else:
            assert source in COMPOSE["volumes"]
    for needed in SERVICES[name].get("depends_on", []):
        assert needed in SERVICES


def test_composed_sidecar_is_reached_where_it_listens() -> None:
    service, config = SERVICES["driftlock"], compose_config()
    assert not any(each.endpoint.is_local for each in protocols(config))
    assert [mount.split(":") for mount in service["volumes"]] == [["driftlock", DATA]]
    for published in service["ports"]:
        host, _, inside = published.split(":")
        assert host == "127.0.0.1"
        assert int(inside) == config.api.endpoint.port
    assert seconds(service["stop_grace_period"]) > config.service.shutdown_grace


def test_every_hop_of_the_composed_path_leads_to_a_listener() -> None:
    listeners = {("driftlock", port) for port in ports_of(compose_config())}
    for name, file in (("agent", "agent.yaml"), ("downstream", "downstream.yaml")):
        assert f"./collector/{file}:" in SERVICES[name]["volumes"][0]
        tree = yaml.safe_load((DEPLOY / "collector" / file).read_text(encoding="utf-8"))
        for protocol in tree["receivers"]["otlp"]["protocols"].values():
            listeners.add((name, host_and_port(protocol["endpoint"])[1]))
        (reader,) = tree["service"]["telemetry"]["metrics"]["readers"]
        listeners.add((name, reader["pull"]["exporter"]["prometheus"]["port"]))
    hops = [
        word.removeprefix("--otlp-endpoint=")
        for name, service in SERVICES.items()
        if name.startswith("app-")
        for word in service["command"]
        if word.startswith("--otlp-endpoint=")
    ]
    assert len(hops) == 3
    hops.append(SERVICES["agent"]["environment"]["DRIFTLOCK_ENDPOINT"])
    config = compose_config()
    hops += [config.exporters[name].endpoint.removeprefix("http://") for name in config.forward.exporters]
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8"))
    for job in prometheus["scrape_configs"]:
        assert job.get("metrics_path", "/metrics") in OWN_PAGES
        hops += [target for static in job["static_configs"] for target in static["targets"]]
    assert {host_and_port(hop) for hop in hops} <= listeners
    assert ("driftlock", config.api.endpoint.port) in {host_and_port(hop) for hop in hops}


# Kubernetes


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifest_fits_the_schemas_of_kubernetes(path: Path) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for document in documents(path):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@each_pod
def test_containers_of_a_pod_are_not_root_and_cannot_write_or_gain_rights(pod: Pod) -> None:
    uid, gid = IMAGE.user.split(":")
    security = pod.spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert (security["runAsUser"], security["runAsGroup"]) == (int(uid), int(gid))
    assert security["fsGroup"] == int(gid)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod.spec["automountServiceAccountToken"] is False
    for container in pod.containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert container["resources"]["limits"].keys() == {"memory"}


@each_pod
def test_pod_mounts_what_its_settings_name(pod: Pod, tmp_path: Path) -> None:
    config = pod.config(tmp_path)
    mounts = {each["mountPath"]: each for each in pod.sidecar["volumeMounts"]}
    assert str(config.queue.path) in mounts
    assert "/tmp" in mounts
    assert {each["name"] for each in mounts.values()} == pod.volumes.keys() | pod.claims
    if config.auth.keys_file is not None:
        assert str(config.auth.keys_file.parent) in mounts
    writable = {path for path, each in mounts.items() if not each.get("readOnly")}
    assert writable == {str(config.queue.path), "/tmp"}


@each_pod
def test_probes_ask_for_pages_that_exist_where_the_kubelet_can_reach_them(pod: Pod, tmp_path: Path) -> None:
    config = pod.config(tmp_path)
    assert not config.api.endpoint.is_local
    named = {port["name"]: port["containerPort"] for port in pod.sidecar["ports"]}
    assert set(named.values()) <= ports_of(config)
    probes = {key: each for key, each in pod.sidecar.items() if key.endswith("Probe")}
    assert probes.keys() >= {"startupProbe", "livenessProbe"}
    for probe in probes.values():
        assert probe["httpGet"]["path"] in OWN_PAGES
        assert named[probe["httpGet"]["port"]] == config.api.endpoint.port
    assert probes["livenessProbe"]["httpGet"]["path"] == "/healthz", "a full disk is no reason to be killed"
    assert pod.annotations["prometheus.io/port"] == str(config.api.endpoint.port)
    assert pod.annotations["prometheus.io/path"] in OWN_PAGES


@each_pod
def test_pod_is_given_longer_to_stop_than_the_sidecar_takes(pod: Pod, tmp_path: Path) -> None:
    assert pod.spec["terminationGracePeriodSeconds"] > pod.config(tmp_path).service.shutdown_grace


@each_pod
def test_log_fits_the_volume(pod: Pod, tmp_path: Path) -> None:
    config = pod.config(tmp_path)
    (mount,) = (each for each in pod.sidecar["volumeMounts"] if each["mountPath"] == str(config.queue.path))
    sizes = {name: volume["emptyDir"]["sizeLimit"] for name, volume in pod.volumes.items() if "emptyDir" in volume}
    for path in MANIFESTS:
        for document in documents(path):
            for claim in document.get("spec", {}).get("volumeClaimTemplates", []):
                sizes.setdefault(claim["metadata"]["name"], claim["spec"]["resources"]["requests"]["storage"])
    assert int(sizes[mount["name"]].removesuffix("Gi")) << 30 > config.queue.max_bytes


def test_sidecar_starts_before_the_application_and_takes_its_telemetry_on_loopback(tmp_path: Path) -> None:
    (pod,) = (each for each in PODS if each.name.startswith("sidecar.yaml"))
    assert pod.sidecar in pod.spec["initContainers"]
    assert pod.sidecar["restartPolicy"] == "Always"
    grpc, http = protocols(pod.config(tmp_path))
    assert grpc.endpoint.is_local and http.endpoint.is_local
    (application,) = pod.spec["containers"]
    (variable,) = (each["value"] for each in application["env"] if each["name"] == "OTEL_EXPORTER_OTLP_ENDPOINT")
    assert variable == f"http://{http.endpoint}"
    assert f"--otlp-endpoint={grpc.endpoint}" in application["args"]


def test_gateway_asks_for_keys_and_its_service_leads_to_its_ports(tmp_path: Path) -> None:
    (pod,) = (each for each in PODS if each.name.startswith("gateway.yaml"))
    config = pod.config(tmp_path)
    assert config.auth.keys_file is not None and not config.auth.allow_unauthenticated
    (service,) = (each for each in documents(DEPLOY / "kubernetes/gateway.yaml") if each["kind"] == "Service")
    assert service["spec"]["selector"].items() <= pod.labels.items()
    named = {port["name"]: port["containerPort"] for port in pod.sidecar["ports"]}
    assert {named[port["targetPort"]] for port in service["spec"]["ports"]} == ports_of(config)


# systemd


def test_unit_runs_what_the_image_runs_and_keeps_its_data_where_the_settings_say() -> None:
    service = unit()["Service"]
    assert service["ExecStart"] == [f"/opt/driftlock/bin/driftlock-otlp run --config {CONFIG_PATH}"]
    assert f"/var/lib/{service['StateDirectory'][0]}" == DATA == service["WorkingDirectory"][0]
    assert service["Environment"] == [f"DRIFTLOCK_DATA={DATA}"]
    assert "${env:DRIFTLOCK_DATA:-" in (ROOT / "config/sidecar.yaml").read_text(encoding="utf-8")


def test_unit_gives_longer_to_stop_than_the_sidecar_takes_unless_told_otherwise() -> None:
    assert seconds(unit()["Service"]["TimeoutStopSec"][0]) > Config().service.shutdown_grace


def test_unit_does_not_restart_what_is_configured_wrongly(tmp_path: Path) -> None:
    wrong = tmp_path / "config.yaml"
    wrong.write_text("no_such_section: {}\n")
    ended: Any = subprocess.run(
        [sys.executable, "-m", "driftlock_otlp", "run", "--config", wrong], check=False, capture_output=True
    )
    assert unit()["Service"]["RestartPreventExitStatus"] == [str(ended.returncode)]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed here")
def test_systemd_takes_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    text = (DEPLOY / "systemd/driftlock-otlp.service").read_text(encoding="utf-8")
    installed = tmp_path / "driftlock-otlp.service"
    program = tmp_path / "driftlock-otlp"
    program.symlink_to(sys.executable)  # The interpreter's own path may hold a blank.
    installed.write_text(text.replace("/opt/driftlock/bin/driftlock-otlp", str(program)))
    for arguments in (["verify", "--man=no"], ["security", "--offline=true", "--threshold=20"]):
        done = subprocess.run(
            ["systemd-analyze", *arguments, installed],
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, done.stdout
        assert arguments[0] != "verify" or installed.name not in done.stdout, done.stdout
