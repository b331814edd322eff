"""Which proxy a request goes through, by settings and environment."""

from __future__ import annotations

import pytest
from yarl import URL

from driftlock_otlp.config.exporters import ExporterConfig
from driftlock_otlp.errors import ConfigError
from driftlock_otlp.exporter.proxy import proxy_for

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def proxy(url: str, proxy_url: str = "") -> str | None:
    found = proxy_for("otlp_http", ExporterConfig(endpoint=url, proxy_url=proxy_url), URL(url))
    return None if found is None else str(found)


def test_without_settings_there_is_none() -> None:
    assert proxy("http://collector:4318") is None
    assert proxy("https://collector") is None


def test_setting_wins_over_the_environment_and_holds_for_every_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://other:1")
    monkeypatch.setenv("NO_PROXY", "*")
    for url in ("http://collector", "https://collector", "http://localhost:4318"):
        assert proxy(url, "http://me:secret@proxy:3128") == "http://me:secret@proxy:3128"


def test_environment_has_one_for_each_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://plain:3128")
    monkeypatch.setenv("https_proxy", "secure:3129")
    assert proxy("http://collector:4318") == "http://plain:3128"
    assert proxy("https://collector") == "http://secure:3129"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_proxy_of_the_environment_is_not_for_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    assert proxy(f"http://{host}:4318") is None


@pytest.mark.parametrize(
    ("no_proxy", "host", "is_direct"),
    [
        ("collector", "collector", True),
        ("example.com", "otlp.example.com", True),
        (".example.com", "otlp.example.com", True),
        ("example.com", "badexample.com", False),
        ("other, collector:4318", "collector", True),
        ("collector:9999", "collector", False),
        ("*", "collector", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("192.168.0.0/16, 10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8,nonsense/8", "11.1.2.3", False),
        ("10.0.0.0/8", "collector", False),
        ("fd00::/8", "[fd00::1]", True),
    ],
)
def test_no_proxy_names_hosts_domains_ports_and_networks(
    no_proxy: str, host: str, is_direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy(f"http://{host}:4318") is None) is is_direct


@pytest.mark.parametrize("value", ["socks5://me:secret@proxy:1080", "http://", "http://[proxy"])
def test_proxy_that_cannot_be_used_is_refused_by_name(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="exporters.otlp_http.proxy_url: .* is not an HTTP proxy") as refusal:
        proxy("http://collector", value)
    assert "secret" not in str(refusal.value)
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(ConfigError, match="exporters.otlp_http: HTTPS_PROXY: .* is not an HTTP proxy"):
        proxy("https://collector")
