"""Exporters whose settings do not go together, cannot be kept, or lead back to this sidecar."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from driftlock_otlp.config.exporters import SIGNALS, ExporterConfig, exporter_type, for_signal
from driftlock_otlp.config.values import Endpoint, is_loopback, mask_user

_HTTP_ONLY = ("encoding", "proxy_url", "logs_endpoint", "metrics_endpoint", "traces_endpoint", "compression_params")
_GRPC_ONLY = ("keepalive", "authority", "balancer_name")
_GRPC_COMPRESSION = ("gzip", "deflate", "none")
_HIGHEST_LEVEL = {"gzip": 9, "zlib": 9, "deflate": 9, "zstd": 22}


def check_exporter(name: str, exporter: ExporterConfig, listening: Sequence[Endpoint]) -> None:
    """Refuse an exporter that cannot work as it is set.

    Args:
        name: Its key.
        exporter: Its settings.
        listening: Where this sidecar listens.

    Raises:
        ValueError: It cannot; the message names the key.
    """
    key = f"exporters.{name}"
    kind = exporter_type(name)
    foreign, owner = (_GRPC_ONLY, "otlp_grpc") if kind == "otlp_http" else (_HTTP_ONLY, "otlp_http")
    for field in foreign:
        # What is set to its default does no harm: `print-config` writes every key.
        if getattr(exporter, field) != type(exporter).model_fields[field].default:
            raise ValueError(f"{key}.{field}: only {owner} has this setting")
    _check(key, kind, exporter)
    destinations = {"endpoint": exporter.endpoint}
    destinations |= {f"{signal}_endpoint": endpoint for signal, endpoint in exporter.signal_endpoints.items()}
    for field, endpoint in destinations.items():
        if endpoint:
            _check_destination(f"{key}.{field}", endpoint, listening, is_http=kind == "otlp_http")
    for signal in SIGNALS:
        own_kind, own = for_signal(name, exporter, signal)
        is_http = own_kind == "otlp_http"
        endpoint = (is_http and own.signal_endpoints.get(signal)) or own.endpoint
        if not endpoint:
            raise ValueError(f"{key}.endpoint: is required")
        if signal in exporter.signals:
            _check(f"{key}.signals.{signal}", own_kind, own)
            _check_destination(f"{key}.signals.{signal}.endpoint", endpoint, listening, is_http=is_http)


def _check(key: str, kind: str, exporter: ExporterConfig) -> None:
    tls = exporter.tls
    if (tls.cert_file is None) != (tls.key_file is None):
        raise ValueError(f"{key}.tls: cert_file and key_file belong together; set both or neither")
    if kind == "otlp_grpc":
        _check_grpc(key, exporter)
    else:
        _check_http(key, exporter)


def _check_grpc(key: str, exporter: ExporterConfig) -> None:
    if exporter.compression not in _GRPC_COMPRESSION:
        raise ValueError(
            f"{key}.compression: gRPC knows {', '.join(_GRPC_COMPRESSION)}, not {exporter.compression!r};"
            " otlp_http can send it"
        )
    if exporter.tls.min_version != "1.2":
        raise ValueError(
            f"{key}.tls.min_version: gRPC's library offers TLS 1.2 and 1.3 and cannot be told to leave out 1.2;"
            " remove it, or use otlp_http"
        )
    if exporter.tls.insecure_skip_verify:
        raise ValueError(
            f"{key}.tls.insecure_skip_verify: gRPC's library always verifies; name the server's CA in tls.ca_file,"
            " and another name in tls.server_name_override if need be"
        )


def _check_http(key: str, exporter: ExporterConfig) -> None:
    level, highest = exporter.compression_params.level, _HIGHEST_LEVEL.get(exporter.compression)
    if level is not None and highest is None:
        raise ValueError(f"{key}.compression_params.level: {exporter.compression} has no levels; remove it")
    if level is not None and highest is not None and level > highest:
        raise ValueError(f"{key}.compression_params.level: {exporter.compression} has levels 1 to {highest}")
    if exporter.proxy_url and urlsplit(exporter.proxy_url).scheme.lower() not in {"http", "https"}:
        raise ValueError(
            f"{key}.proxy_url: {mask_user(exporter.proxy_url)!r} is not an HTTP proxy; write for example"
            " http://proxy:3128"
        )


def _check_destination(key: str, endpoint: str, listening: Sequence[Endpoint], *, is_http: bool) -> None:
    """Refuse a destination that has no form of an address, or that is ours."""
    shown = mask_user(endpoint)
    scheme, separator, _ = endpoint.partition("://")
    if is_http and scheme.lower() not in {"http", "https"}:
        raise ValueError(f"{key}: {shown!r} is not a URL; write for example http://collector:4318")
    if endpoint.startswith("unix:"):
        path = endpoint.removeprefix("unix:").removeprefix("//")
        is_ours = any(path == own.path for own in listening)
    elif endpoint.startswith("dns:"):
        return
    else:
        try:
            parts = urlsplit(endpoint if separator else f"//{endpoint}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or (port is None and not separator):
            example = "http://collector:4318" if is_http else "collector:4317"
            raise ValueError(f"{key}: {shown!r} is not an address; write for example {example}")
        is_ours = any(port == own.port and port != 0 and _is_same_host(host, own.host) for own in listening)
    if is_ours:
        raise ValueError(f"{key}: {shown} is this sidecar itself, data would circle; name the next hop instead")


def _is_same_host(host: str, own: str) -> bool:
    return host == own or (is_loopback(host) and is_loopback(own))
