"""Every example configuration, in `config/`, `deploy/` or within a document, loads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from driftlock_otlp.config.file import load
from driftlock_otlp.config.root import Config
from tests.docs.deployments import embedded_configurations, load_text, protocols

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "config").glob("*.yaml"))
OWN_DEPLOYED = [ROOT / "deploy" / "docker" / "config.yaml", ROOT / "deploy" / "demo" / "demo.yaml"]
OTHERS = {"collector", "kubernetes", "prometheus"}
"""Directories of `deploy/` whose files are other programs'."""
EMBEDDED = list(embedded_configurations())
DOCUMENTS = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.exists()]
YAML_BLOCK = re.compile(r"^```ya?ml\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(?:#[^)]*)?\)")


class AnyVariable(dict[str, str]):
    """An environment in which every variable that has no default is set."""

    def __missing__(self, name: str) -> str:
        return "text"

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        return self[name] if default is None else default


def test_there_are_examples() -> None:
    assert {"minimal.yaml", "sidecar.yaml", "gateway.yaml", "regulated.yaml"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_example_file_loads_with_no_environment(path: Path) -> None:
    config = load(path, environ={})
    assert config.forward.exporters
    assert config != Config()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_example_file_opens_with_what_it_is_for(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_regulated_example_is_as_strict_as_it_says() -> None:
    config = load(ROOT / "config" / "regulated.yaml", environ={})
    for protocol in protocols(config):
        assert protocol.tls is not None and protocol.tls.client_ca_file is not None
    assert config.auth.keys_file is not None and not config.auth.allow_unauthenticated
    assert config.auth.limits.requests_per_second and config.auth.limits.bytes_per_second
    assert (config.forward.policy, config.forward.anomalous_exporters) == ("divert", ())
    assert (config.queue.durability, config.detection.quote_max_bytes) == ("fsync", 0)
    assert all(exporter.tls.cert_file for exporter in config.exporters.values())
    assert config.api.endpoint.is_local


@pytest.mark.parametrize("path", OWN_DEPLOYED, ids=lambda path: str(path.relative_to(ROOT)))
def test_deployed_file_loads(path: Path) -> None:
    assert load(path, environ={}) != Config()


@pytest.mark.parametrize(("text", "environment"), [each[1:] for each in EMBEDDED], ids=[each[0] for each in EMBEDDED])
def test_configuration_within_a_manifest_loads(text: str, environment: dict[str, str], tmp_path: Path) -> None:
    assert load_text(text, tmp_path, environment).forward.exporters


def test_every_file_of_ours_in_deploy_is_loaded() -> None:
    ours = {path for path in (ROOT / "deploy").rglob("*.yaml") if path.parent.name not in OTHERS}
    assert ours == {*OWN_DEPLOYED, ROOT / "deploy" / "docker-compose.yaml"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_settings_shown_in_a_document_load(path: Path, tmp_path: Path) -> None:
    for block in YAML_BLOCK.findall(path.read_text(encoding="utf-8")):
        tree = yaml.safe_load(block)
        if not isinstance(tree, dict) or not set(tree) <= set(Config.model_fields):
            continue  # some other program's file
        names = {name for key in ("exporters", "anomalous_exporters") for name in tree.get("forward", {}).get(key, [])}
        for name in names - set(tree.get("exporters", {})):  # an excerpt may leave them out
            tree.setdefault("exporters", {})[name] = {"endpoint": "http://collector:4318"}
        example = tmp_path / "example.yaml"
        example.write_text(yaml.safe_dump(tree), encoding="utf-8")
        load(example, environ=AnyVariable())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []
