"""Writes the pages that follow from the code: `python -m tests.docs.generate` (or `make docs`).

`test_generated_pages.py` fails while a page differs from what this would write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from fastapi.routing import APIRoute
from prometheus_client import Counter, Gauge, Histogram
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from driftlock_otlp.api.v1.app import ROUTERS
from driftlock_otlp.api.v1.may import permission_of
from driftlock_otlp.auth.roles import Role
from driftlock_otlp.config.detection import WindowConfig, WindowsConfig
from driftlock_otlp.config.exporters import ExporterConfig, SignalConfig
from driftlock_otlp.config.root import Config
from driftlock_otlp.config.values import Section, parse_bytes, parse_duration, parse_endpoint, section_in
from driftlock_otlp.observability.collector_metrics import FAMILIES, MIRRORS, NOT_SERVED, NOUNS
from driftlock_otlp.observability.metrics import Metrics

DOCS = Path(__file__).resolve().parents[2] / "docs"

_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
_NAMES: dict[Any, str] = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}
_WRITTEN_AS = {
    parse_duration: "duration",
    parse_bytes: "size",
    parse_endpoint: "address",
}
_PLACEHOLDERS = {"exporters": "exporters.<name>", "webhooks": "webhooks.<name>"}

_CONFIGURATION_INTRODUCTION = """\
<!-- Written by `make docs` from driftlock_otlp/config/: change the text there. -->

# Configuration

The settings are one YAML file, named with `--config`. Every key has a default, so the file may be empty or missing.
A key that is not listed here is refused at start-up, with a suggestion. Examples to start from are in `config/`:
[minimal](../config/minimal.yaml), [beside one application](../config/sidecar.yaml),
[for many senders](../config/gateway.yaml) and [under rules](../config/regulated.yaml).
`validate` checks a file and ends, as a Collector does, with 0 or 1; `print-config` shows what is in force.

## How values are written

| Type | Written as |
| --- | --- |
| duration | A number with its unit (`ns`, `us`, `ms`, `s`, `m`, `h`), as `200ms`, `10s` or `1m30s`; `0` needs none. |
| size | Bytes, or a whole number of `KiB`, `MiB`, `GiB` or `TiB`, as `64MiB`. |
| address | Where to listen, as `127.0.0.1:4317`, `[::1]:4317` or `unix:/run/otlp.sock`. Port 0 takes a free one. |
| names | A list of keys of `exporters`, as `[otlp_grpc, otlp_http/backup]`. |
| path | A file or directory, seen from the working directory. |

A key without a value (`windows:`) means its default.

**Environment.** `${env:NAME}` is replaced by the variable's value, `${env:NAME:-text}` by `text` where the variable is
not set, `$$` is a literal `$`. A variable that is not set and has no default is an error. `${NAME}` is the same as
`${env:NAME}`.

**Command line.** `--set key.path=value` wins over the file; the value is YAML: `--set windows.logs.size=100`,
`--set forward.exporters='[otlp_http]'`.

**Secrets.** Header values, and user and password of an endpoint, are shown as `***`.

**OpenTelemetry's own variables.** Where `forward.exporters` is empty, `OTEL_EXPORTER_OTLP_ENDPOINT` names the
destination, with `OTEL_EXPORTER_OTLP_PROTOCOL` (`http/protobuf`, the default, `http/json` or `grpc`), `_HEADERS`,
`_COMPRESSION`, `_TIMEOUT` (milliseconds), `_CERTIFICATE`, `_CLIENT_CERTIFICATE`, `_CLIENT_KEY` and, for gRPC,
`_INSECURE`. Each has a form for one signal that wins over it, as `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`; over HTTP
such an endpoint is used as it is. A signal that no endpoint is set for goes to the default of every SDK,
`http://localhost:4318` or, for gRPC, `http://localhost:4317`; where that is this sidecar itself, it does not start. The
exporter is called `otlp_http/env` or `otlp_grpc/env`.
"""

_METRICS_INTRODUCTION = """\
<!-- Written by `make docs` from driftlock_otlp/observability/metrics.py: change the text there. -->

# Metrics

Served in the Prometheus text format at `/metrics` on `api.endpoint`. Counters only rise while the process lives; labels
take their values from small sets: signals, transports, outcomes, reasons and the names of configured exporters. Tenants
are never a label.

"""

_COLLECTOR_INTRODUCTION = """
## Under the Collector's names

Dashboards and alerts that were made for an OpenTelemetry Collector find its names on the same page, read off the
counters above. They are the names of a Collector whose Prometheus reader has `without_type_suffix: false` and
`without_units: false`, which is how Prometheus wants them; without these settings a Collector leaves `_total` and the
units out (`otelcol_receiver_accepted_spans`). The labels are the Collector's, without those of its libraries
(`otel_scope_*`, `service_*`) and without `data_type`, for a destination has one queue for all signals.

"""

_COLLECTOR_MISSING = """
Names that are not served, since nothing here means the same:

"""


_ROUTES_BEGIN = "<!-- routes: generated by `make docs` -->"
_ROUTES_END = "<!-- end of routes -->"


def configuration_page() -> str:
    """Return `docs/configuration.md`."""
    return "\n".join([_CONFIGURATION_INTRODUCTION, *_section_lines(Config, "")]).rstrip() + "\n"


def metrics_page() -> str:
    """Return `docs/metrics.md`."""
    rows = ["| Metric | Type | Labels | Meaning |", "| --- | --- | --- | --- |"]
    for metric in vars(Metrics()).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            name = metric._name + ("_total" if isinstance(metric, Counter) else "")
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            rows.append(f"| `{name}` | {metric._type} | {labels} | {metric._documentation} |")
    missing = [f"- {names}: {reason}." for names, reason in NOT_SERVED]
    return "\n".join([_METRICS_INTRODUCTION + "\n".join(rows), *_collector_lines(), *missing]) + "\n"


def _collector_lines() -> Iterator[str]:
    yield _COLLECTOR_INTRODUCTION.rstrip("\n") + "\n"
    yield "| Metric | Type | Labels | Meaning |\n| --- | --- | --- | --- |"
    for family in FAMILIES:
        labels = next((mirror.labels for mirror in MIRRORS if mirror.family == family.name), {})
        name = family.name.replace("{noun}", "<items>") + ("_total" if family.is_counter else "")
        named = ", ".join(f"`{label}`" for label in labels)
        text = family.text.replace("{nouns}", "Items")
        yield f"| `{name}` | {'counter' if family.is_counter else 'gauge'} | {named} | {text} |"
    yield f"\n`<items>`: {', '.join(f'`{noun}`' for noun in NOUNS.values())}.\n{_COLLECTOR_MISSING.rstrip()}\n"


def api_page() -> str:
    """Return `docs/api.md`: what is written there by hand, with the table of routes."""
    before, _, rest = (DOCS / "api.md").read_text(encoding="utf-8").partition(_ROUTES_BEGIN)
    after = rest.partition(_ROUTES_END)[2]
    lines = ["| Route | Role | What it does |", "| --- | --- | --- |"]
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute):
                roles = [role.value for role in Role if permission_of(route) in role.permissions]
                methods = " ".join(sorted(route.methods or ()))
                lines.append(f"| `{methods} {route.path}` | {', '.join(roles)} | {route.summary} |")
    return before + _ROUTES_BEGIN + "\n" + "\n".join(lines) + "\n" + _ROUTES_END + after


PAGES: dict[str, Callable[[], str]] = {
    "configuration.md": configuration_page,
    "metrics.md": metrics_page,
    "api.md": api_page,
}


def _section_lines(section: type[Section], prefix: str) -> Iterator[str]:
    """Describe a section's own settings in a table, then the sections within it."""
    # What is the same as for the whole exporter is not described again.
    is_leaf = section is SignalConfig
    rows = [(name, field) for name, field in section.model_fields.items() if is_leaf or _inner(field) is None]
    if rows:
        summary = (section.__doc__ or "").split(": ", 1)
        about = f"{summary[1].strip()[0].upper()}{summary[1].strip()[1:]}\n" if len(summary) > 1 else ""
        yield f"## `{prefix}`\n"
        if about:
            yield about
        if section is WindowConfig:
            yield "The kinds:\n"
            yield from (f"- `{kind}`: {field.description}" for kind, field in WindowsConfig.model_fields.items())
            yield ""
        yield "| Setting | Type | Default | Meaning |\n| --- | --- | --- | --- |"
        for name, field in rows:
            default = _default(field, _defaults_of(section, name))
            yield f"| `{prefix}.{name}` | {_type(field)} | {default} | {_escape(field.description or '')} |"
        yield ""
    if section.refused:
        yield "Keys of the Collector that are refused, and why:\n"
        yield from (f"- `{f'{prefix}.{key}'.removeprefix('.')}`: {reason}." for key, reason in section.refused.items())
        yield ""
    seen: set[type[Section]] = set()
    for name, field in section.model_fields.items():
        inner = None if is_leaf else _inner(field)
        if inner is not None and inner not in seen:
            seen.add(inner)
            yield from _section_lines(inner, _inner_prefix(section, name, prefix))


def _inner(field: FieldInfo) -> type[Section] | None:
    return section_in(field.annotation)


def _inner_prefix(section: type[Section], name: str, prefix: str) -> str:
    if section is WindowsConfig:
        return f"{prefix}.<kind>"
    if section is ExporterConfig and name == "signals":
        return f"{prefix}.signals.<signal>"
    return f"{prefix}.{name}".removeprefix(".") if prefix else _PLACEHOLDERS.get(name, name)


def _defaults_of(section: type[Section], name: str) -> dict[str, Any]:
    """Return the default of a setting, by kind of stream where the kinds may differ."""
    if section is WindowConfig:
        windows = WindowsConfig().model_dump(mode="json")
        return {kind: settings[name] for kind, settings in windows.items()}
    field = section.model_fields[name]
    if field.default is PydanticUndefined:
        return {"": PydanticUndefined}
    shown = section.model_construct(**{name: field.default}).model_dump(mode="json", include={name}, warnings=False)
    return {"": shown[name]}


def _default(field: FieldInfo, by_kind: dict[str, Any]) -> str:
    shown = {kind: _value(field, value) for kind, value in by_kind.items()}
    if len(set(shown.values())) == 1:
        return next(iter(shown.values()))
    return ", ".join(f"{kind} {value}" for kind, value in shown.items())


def _value(field: FieldInfo, value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "unset"
    if value in ([], {}, ()):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{_size(value)}`" if _written_as(field) == "size" else f"`{value}`"


def _size(count: int) -> str:
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)


def _written_as(field: FieldInfo) -> str | None:
    # The parts of `Size | None` keep their own metadata.
    inner = [item for kind in get_args(field.annotation) for item in getattr(kind, "__metadata__", ())]
    for item in [*field.metadata, *inner]:
        if isinstance(item, BeforeValidator) and item.func in _WRITTEN_AS:
            return _WRITTEN_AS[item.func]
    return None


def _type(field: FieldInfo) -> str:
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType] or [field.annotation]
    kind = field.annotation if get_origin(field.annotation) in {Literal, tuple, dict} else kinds[0]
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    bounds = [
        f"{sign} {getattr(item, name)}"
        for item in field.metadata
        for name, sign in _BOUNDS.items()
        if getattr(item, name, None) is not None
    ]
    written = _written_as(field)
    if written is not None:
        return ", ".join([written, *(bound for bound in bounds if bound != "≥ 0")])
    if get_origin(kind) is Literal:
        return " \\| ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        return "names"
    if get_origin(kind) is dict:
        return "mapping of text"
    if section_in(kind) is not None:
        return "section"
    return ", ".join([_NAMES[kind], *bounds])


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
