"""What `deploy/` consists of, read once: its containers, and the settings that each one runs with."""

from __future__ import annotations

import configparser
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from driftlock_otlp.config.file import load
from driftlock_otlp.config.operation import ServiceConfig
from driftlock_otlp.config.receivers import GrpcReceiverConfig, HttpReceiverConfig
from driftlock_otlp.config.root import Config

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
COMPOSE = yaml.safe_load((DEPLOY / "docker-compose.yaml").read_text(encoding="utf-8"))
OWN_IMAGE = "driftlock-otlp"
CONFIG_PATH = "/etc/driftlock/config.yaml"


class MultiValues(dict[str, Any]):
    """A section of a unit file, where a key that is repeated adds to its values."""

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(value, list) and isinstance(self.get(key), list):
            self[key].extend(value)
        else:
            super().__setitem__(key, value)


@dataclass(slots=True)
class Pod:
    """The pods of a workload.

    Attributes:
        name: File and workload.
        labels: Of its pods.
        annotations: Of its pods.
        spec: Of its pods.
        config_maps: Of the same file, by name.
        claims: Names of the volumes that it claims.
    """

    name: str
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: dict[str, Any]
    config_maps: dict[str, dict[str, str]]
    claims: set[str] = field(default_factory=set)

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Every container, those that start first too."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def sidecar(self) -> dict[str, Any]:
        """The one that runs our image."""
        (found,) = (each for each in self.containers if each["image"].split(":")[0] == OWN_IMAGE)
        return found

    @property
    def volumes(self) -> dict[str, dict[str, Any]]:
        """Every volume but the claimed ones, by name."""
        return {volume["name"]: volume for volume in self.spec["volumes"]}

    def config(self, directory: Path) -> Config:
        """Return the settings that the sidecar finds where the image looks for them."""
        environment = {each["name"]: each["value"] for each in self.sidecar.get("env", [])}
        (mount,) = (each for each in self.sidecar["volumeMounts"] if each["mountPath"] == str(Path(CONFIG_PATH).parent))
        source = self.config_maps[self.volumes[mount["name"]]["configMap"]["name"]]
        return load_text(source[Path(CONFIG_PATH).name], directory, environment)


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a manifest."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def pods() -> Iterator[Pod]:
    """Yield the pods of every workload."""
    for path in MANIFESTS:
        found = documents(path)
        config_maps = {each["metadata"]["name"]: each["data"] for each in found if each["kind"] == "ConfigMap"}
        for document in found:
            if template := document.get("spec", {}).get("template"):
                yield Pod(
                    f"{path.name}:{document['metadata']['name']}",
                    template["metadata"]["labels"],
                    template["metadata"].get("annotations", {}),
                    template["spec"],
                    config_maps,
                    {each["metadata"]["name"] for each in document["spec"].get("volumeClaimTemplates", [])},
                )


def embedded_configurations() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield a name, the text and the environment of each configuration that a manifest holds."""
    for pod in pods():
        environment = {each["name"]: each["value"] for each in pod.sidecar.get("env", [])}
        for name, files in pod.config_maps.items():
            for file, text in files.items():
                yield f"{pod.name}:{name}/{file}", text, environment


def load_text(text: str, directory: Path, environment: Mapping[str, str]) -> Config:
    """Load a configuration that stands within another file."""
    path = directory / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, environ=environment)


def protocols(config: Config) -> tuple[GrpcReceiverConfig, HttpReceiverConfig]:
    """Return the two ways in; all that is deployed has both."""
    both = config.receivers.otlp.protocols
    assert both.grpc is not None and both.http is not None
    return both.grpc, both.http


def seconds(text: str) -> float:
    """Return a duration as other programs write it too."""
    return ServiceConfig.model_validate({"shutdown_grace": text}, context={"from_file": True}).shutdown_grace


def compose_config() -> Config:
    """Return the settings of the composed sidecar: the image's own, with its variables."""
    service = COMPOSE["services"]["driftlock"]
    return load(DEPLOY / "docker" / "config.yaml", environ=service["environment"])


def unit() -> dict[str, dict[str, list[str]]]:
    """Return the systemd unit: by section and key, every value in the order of the file."""
    parser = configparser.RawConfigParser(
        strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",), dict_type=MultiValues
    )
    parser.optionxform = str  # type: ignore[method-assign]
    parser.read(DEPLOY / "systemd" / "driftlock-otlp.service", encoding="utf-8")
    return {name: {key: value.split("\n") for key, value in parser[name].items()} for name in parser.sections()}
