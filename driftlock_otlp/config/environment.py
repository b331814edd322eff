"""`OTEL_EXPORTER_OTLP_*`: the variables that every OpenTelemetry SDK knows, as an exporter.

They name the downstream where the configuration names none. Each has a general form and one for
each signal, which wins (OpenTelemetry specification, "OpenTelemetry Protocol Exporter").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from driftlock_otlp.config.exporters import SIGNALS
from driftlock_otlp.errors import ConfigError

_PREFIX = "OTEL_EXPORTER_OTLP_"
_KINDS = {"grpc": "otlp_grpc", "http/protobuf": "otlp_http", "http/json": "otlp_http"}
_DEFAULT_PROTOCOL = "http/protobuf"
_DEFAULT_ENDPOINTS = {"otlp_grpc": "http://localhost:4317", "otlp_http": "http://localhost:4318"}
_TLS_FILES = {"CERTIFICATE": "ca_file", "CLIENT_CERTIFICATE": "cert_file", "CLIENT_KEY": "key_file"}


def environment_exporter(environ: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
    """Return the key and the settings, as in a file, of the exporter that the variables ask for.

    A signal that only other signals have an endpoint for goes to the default one, as in any SDK.

    Args:
        environ: Variables; an empty one counts as not set.

    Returns:
        `otlp_http/env` or `otlp_grpc/env` with its settings; None if no variable names an endpoint.

    Raises:
        ConfigError: A variable has a value that makes no sense; the message names it.
    """
    general = _options(environ, _PREFIX)
    own = {signal: _options(environ, f"{_PREFIX}{signal.upper()}_") for signal in SIGNALS}
    if not any("endpoint" in options for options in (general, *own.values())):
        return None
    protocol = general.pop("protocol", _DEFAULT_PROTOCOL)
    kind = _KINDS[protocol]
    exporter: dict[str, Any] = {**general, "signals": {}}
    if protocol == "http/json":
        exporter["encoding"] = "json"
    for signal, options in own.items():
        if "tls" in options:
            options["tls"] = {**general.get("tls", {}), **options["tls"]}
        own_kind = _KINDS[options.get("protocol", protocol)]
        if own_kind != kind and "endpoint" not in general and "endpoint" not in options:
            path = f"/v1/{signal}" if own_kind == "otlp_http" else ""
            options["endpoint"] = _DEFAULT_ENDPOINTS[own_kind] + path
        if options:
            exporter["signals"][signal] = options
    if not all("endpoint" in options for options in own.values()):
        exporter.setdefault("endpoint", _DEFAULT_ENDPOINTS[kind])
    return f"{kind}/env", exporter


def _options(environ: Mapping[str, str], prefix: str) -> dict[str, Any]:
    """Return what the variables of one prefix set."""

    def variable(name: str) -> str:
        return environ.get(prefix + name, "").strip()

    options: dict[str, Any] = {}
    if variable("PROTOCOL"):
        options["protocol"] = variable("PROTOCOL")
        if options["protocol"] not in _KINDS:
            known = ", ".join(_KINDS)
            raise ConfigError(f"{prefix}PROTOCOL is {options['protocol']!r}; supported are {known}")
    for name in ("ENDPOINT", "COMPRESSION"):
        if variable(name):
            options[name.lower()] = variable(name)
    if variable("HEADERS"):
        options["headers"] = _headers(f"{prefix}HEADERS", variable("HEADERS"))
    if variable("TIMEOUT"):
        if not variable("TIMEOUT").isdecimal():
            raise ConfigError(f"{prefix}TIMEOUT is {variable('TIMEOUT')!r}; write whole milliseconds, as 10000")
        options["timeout"] = f"{variable('TIMEOUT')}ms"
    tls: dict[str, Any] = {key: variable(name) for name, key in _TLS_FILES.items() if variable(name)}
    if variable("INSECURE"):
        tls["insecure"] = variable("INSECURE").lower() == "true"
    if tls:
        options["tls"] = tls
    return options


def _headers(variable: str, text: str) -> dict[str, str]:
    """Return headers from their W3C Baggage form: `key=value` pairs after commas, percent-encoded."""
    headers = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = pair.partition("=")
        if not separator or not name.strip():
            # The pair itself is not shown: it may be a secret.
            raise ConfigError(f"{variable} is not a list of name=value pairs with commas between them")
        headers[unquote(name.strip())] = unquote(value.strip())
    return headers
