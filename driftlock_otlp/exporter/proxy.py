"""Which proxy an OTLP/HTTP request goes through."""

from __future__ import annotations

import ipaddress
from urllib.request import getproxies_environment, proxy_bypass

from yarl import URL

from driftlock_otlp.config.exporters import ExporterConfig
from driftlock_otlp.config.values import is_loopback, mask_user
from driftlock_otlp.errors import ConfigError


def proxy_for(name: str, config: ExporterConfig, url: URL) -> URL | None:
    """Return the proxy towards a URL; None to connect directly.

    That is `proxy_url`, or else what HTTPS_PROXY, HTTP_PROXY and NO_PROXY say (in lower case too).
    The environment's proxy is not used for this machine, as in the Collector.

    Args:
        name: The exporter's key.
        config: Its settings.
        url: The destination.

    Raises:
        ConfigError: The proxy is none that HTTP can be sent through.
    """
    text, origin = config.proxy_url, f"exporters.{name}.proxy_url"
    if not text:
        host = url.host or ""
        found = getproxies_environment()
        is_direct = proxy_bypass(f"{host}:{url.port}") or _is_in_network(host, found.get("no", ""))
        if is_loopback(host) or is_direct:
            return None
        text, origin = found.get(url.scheme, ""), f"exporters.{name}: {url.scheme.upper()}_PROXY"
        if not text:
            return None
        if "://" not in text:
            text = f"http://{text}"
    try:
        proxy = URL(text)
    except ValueError:
        proxy = URL()
    if proxy.scheme not in {"http", "https"} or not proxy.host:
        raise ConfigError(f"{origin}: {mask_user(text)!r} is not an HTTP proxy; write for example http://proxy:3128")
    return proxy


def _is_in_network(host: str, no_proxy: str) -> bool:
    """Return whether a host is an address in one of the networks of NO_PROXY, which Python leaves out."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for name in filter(lambda name: "/" in name, no_proxy.split(",")):
        try:
            if address in ipaddress.ip_network(name.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False
