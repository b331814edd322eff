"""Reading the configuration: a YAML file, `KEY=VALUE` overrides, the environment; in that order.

Anything wrong is a `ConfigError` that names the key and the remedy, one line per mistake.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from driftlock_otlp.config.environment import environment_exporter
from driftlock_otlp.config.root import Config
from driftlock_otlp.config.values import Section, did_you_mean, section_in
from driftlock_otlp.errors import ConfigError

_ENV = re.compile(r"\$\$|\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-((?:[^}])*))?\}|\$(?=[A-Za-z_{])")


def load(path: Path | None, overrides: list[str] | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read, expand and check the configuration.

    Args:
        path: YAML file; None for the embedded defaults.
        overrides: `key.path=value` pairs that win over the file, values in YAML.
        environ: Environment for `${env:NAME}` and `OTEL_EXPORTER_OTLP_*`; the process's by default.

    Raises:
        ConfigError: Something is wrong; the message has one line per mistake.
    """
    environ = os.environ if environ is None else environ
    origin = str(path) if path is not None else "settings"
    tree = _expand(_read_yaml(path), environ, "") if path is not None else {}
    for override in overrides or []:
        _apply_override(tree, override)
    from_environment = _add_environment_exporter(tree, environ)
    try:
        return Config.model_validate(tree, context={"from_file": True})
    except ValidationError as error:
        lines = _explain(error)
        if from_environment and any(line.startswith(f"exporters.{from_environment}") for line in lines):
            lines.append(
                f"exporters.{from_environment} is what the OTEL_EXPORTER_OTLP_* variables say; a signal without an"
                " endpoint goes to localhost"
            )
        raise ConfigError("\n".join(f"{origin}: {line}" for line in lines)) from None


def dump_yaml(config: Config) -> str:
    """Return the effective configuration as YAML, secrets shown as `***`."""
    tree = config.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: the top level must be a mapping such as 'forward: {{exporters: [otlp_grpc]}}'")
    return tree


def _expand(node: Any, environ: Mapping[str, str], key: str) -> Any:
    """Replace `${env:NAME:-default}` as the Collector does; `$$` is a literal `$`."""
    if isinstance(node, dict):
        return {str(name): _expand(item, environ, f"{key}.{name}" if key else str(name)) for name, item in node.items()}
    if isinstance(node, list):
        return [_expand(item, environ, key) for item in node]
    if not isinstance(node, str) or "$" not in node:
        return node

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        name, default = match[1], match[2]
        if name is None:
            raise ConfigError(f"{key}: write ${{env:NAME}} for an environment variable, or $$ for a literal $")
        value = environ.get(name, default)
        if value is None:
            raise ConfigError(
                f"{key}: environment variable {name} is not set; set it, or write ${{env:{name}:-default}}"
            )
        return value

    whole = _ENV.fullmatch(node)
    expanded = _ENV.sub(replace, node)
    if whole is None or whole[0] == "$$":
        return expanded
    # A value that is one reference alone may also be nothing or a list, as in the Collector. All
    # else stays text, which the settings convert: a key of digits, or with a #, is kept as it is.
    if not expanded.strip():
        return None
    return _flow_list(expanded) if expanded.startswith("[") else expanded


def _flow_list(text: str) -> object:
    """Return the list that `text` is in YAML, or `text` itself."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, list) else text


def _apply_override(tree: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"--set {override!r}: write KEY=VALUE, for example --set windows.logs.size=100")
    *parents, last = dotted.split(".")
    node = tree
    for parent in parents:
        child = node.get(parent)
        if not isinstance(child, dict):
            child = node[parent] = {}
        node = child
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {dotted}: {text!r} is not a YAML value: {error}") from None


def _add_environment_exporter(tree: dict[str, Any], environ: Mapping[str, str]) -> str | None:
    """Use what `OTEL_EXPORTER_OTLP_*` says as the downstream when nothing names one; return its key."""
    forward = tree.get("forward") or {}
    exporters = tree.get("exporters") or {}
    if not isinstance(forward, dict) or not isinstance(exporters, dict) or forward.get("exporters"):
        return None
    found = environment_exporter(environ)
    if found is None:
        return None
    name, exporter = found
    tree["exporters"] = {**exporters, name: exporter}
    tree["forward"] = {**forward, "exporters": [name]}
    return name


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors(include_url=False):
        location = tuple(part for part in item["loc"] if not (isinstance(part, str) and part.startswith("function-")))
        key = ".".join(str(part) for part in location)
        section = _section_at(location[:-1])
        if item["type"] == "extra_forbidden" and section is not None and location[-1] in section.refused:
            lines.append(f"{key}: not supported: {section.refused[str(location[-1])]}")
        elif item["type"] == "extra_forbidden":
            known = list(section.model_fields) if section is not None else []
            hint = did_you_mean(str(location[-1]), known) or "."
            lines.append(f"{key}: unknown key{hint} Known here: {', '.join(known)}")
        elif item["type"] == "missing":
            lines.append(f"{key}: is required")
        elif item["type"] in {"model_type", "model_attributes_type", "dict_type"}:
            lines.append(f"{key}: expected a mapping of settings")
        else:
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{key}: {message}" if key else message)
    return lines


def _section_at(location: tuple[int | str, ...]) -> type[Section] | None:
    """Return the section at this place of the tree; None if there is none."""
    model: Any = Config
    for part in location:
        field = model.model_fields.get(str(part)) if isinstance(model, type) and issubclass(model, Section) else None
        annotation = field.annotation if field is not None else model
        model = section_in(annotation)
        if model is None:
            return None
    return model if isinstance(model, type) and issubclass(model, Section) else None
