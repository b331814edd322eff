"""`OTEL_EXPORTER_OTLP_*`: what the general variables and those of one signal make of the downstream."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftlock_otlp.config.exporters import SIGNALS, ExporterConfig, for_signal
from driftlock_otlp.config.file import load
from driftlock_otlp.config.root import Config
from driftlock_otlp.errors import ConfigError

# So that the default endpoints of OTLP are somebody else's.
ELSEWHERE = [
    "receivers.otlp.protocols.grpc.endpoint=127.0.0.1:14317",
    "receivers.otlp.protocols.http.endpoint=127.0.0.1:14318",
]


def loaded(*, overrides: list[str] | None = None, **variables: str) -> Config:
    environ = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()}
    return load(None, ELSEWHERE if overrides is None else overrides, environ)


def in_force(config: Config, signal: str) -> tuple[str, ExporterConfig]:
    (name,) = config.forward.exporters
    return for_signal(name, config.exporters[name], signal)


def test_endpoint_is_the_downstream_when_nothing_names_one() -> None:
    config = loaded(
        ENDPOINT="https://collector:4318/base",
        HEADERS="api-key=a%20b, x = y=z",
        COMPRESSION="none",
        TIMEOUT="2500",
        CERTIFICATE="/ca.pem",
        CLIENT_CERTIFICATE="/cert.pem",
        CLIENT_KEY="/key.pem",
    )
    assert config.forward.exporters == ("otlp_http/env",)
    for signal in SIGNALS:
        kind, exporter = in_force(config, signal)
        assert (kind, exporter.endpoint, exporter.encoding) == ("otlp_http", "https://collector:4318/base", "proto")
        assert exporter.headers == {"api-key": "a b", "x": "y=z"}
        assert (exporter.compression, exporter.timeout) == ("none", 2.5)
        files = exporter.tls
        assert (files.ca_file, files.cert_file, files.key_file) == (
            Path("/ca.pem"),
            Path("/cert.pem"),
            Path("/key.pem"),
        )


def test_without_an_endpoint_there_is_no_downstream() -> None:
    config = loaded(PROTOCOL="grpc", HEADERS="a=b", TRACES_TIMEOUT="5", ENDPOINT=" ", LOGS_ENDPOINT="")
    assert (config.forward.exporters, config.exporters) == ((), {})


def test_every_variable_has_a_form_for_one_signal() -> None:
    config = loaded(
        ENDPOINT="http://collector:4318",
        HEADERS="a=general",
        COMPRESSION="gzip",
        TIMEOUT="1000",
        CERTIFICATE="/ca.pem",
        CLIENT_CERTIFICATE="/cert.pem",
        CLIENT_KEY="/key.pem",
        TRACES_ENDPOINT="collector:4317",
        TRACES_PROTOCOL="grpc",
        TRACES_HEADERS="b=own",
        TRACES_COMPRESSION="none",
        TRACES_TIMEOUT="2000",
        TRACES_CERTIFICATE="/traces-ca.pem",
        TRACES_CLIENT_CERTIFICATE="/traces.pem",
        TRACES_CLIENT_KEY="/traces-key.pem",
        TRACES_INSECURE="true",
    )
    kind, own = in_force(config, "traces")
    assert (kind, own.endpoint, own.headers) == ("otlp_grpc", "collector:4317", {"b": "own"})
    assert (own.compression, own.timeout, own.tls.insecure) == ("none", 2.0, True)
    assert own.tls.ca_file == Path("/traces-ca.pem")
    assert (own.tls.cert_file, own.tls.key_file) == (Path("/traces.pem"), Path("/traces-key.pem"))
    for signal in ("logs", "metrics"):
        kind, others = in_force(config, signal)
        assert (kind, others.endpoint, others.headers) == ("otlp_http", "http://collector:4318", {"a": "general"})
        assert (others.compression, others.timeout, others.tls.insecure) == ("gzip", 1.0, False)
        assert others.tls.ca_file == Path("/ca.pem")


def test_one_tls_variable_of_a_signal_leaves_the_general_others() -> None:
    config = loaded(
        ENDPOINT="https://c", CLIENT_CERTIFICATE="/cert.pem", CLIENT_KEY="/key.pem", LOGS_CERTIFICATE="/ca.pem"
    )
    _, logs = in_force(config, "logs")
    assert (logs.tls.ca_file, logs.tls.cert_file) == (Path("/ca.pem"), Path("/cert.pem"))
    assert in_force(config, "traces")[1].tls.ca_file is None


@pytest.mark.parametrize(("insecure", "expected"), [("true", True), ("TRUE", True), ("false", False), ("", False)])
def test_protocol_chooses_grpc(insecure: str, expected: bool) -> None:
    config = loaded(ENDPOINT="collector:4317", PROTOCOL="grpc", INSECURE=insecure)
    assert config.forward.exporters == ("otlp_grpc/env",)
    assert config.exporters["otlp_grpc/env"].tls.insecure is expected


def test_protocol_of_one_signal_may_be_json() -> None:
    config = loaded(ENDPOINT="http://c:1", LOGS_PROTOCOL="http/json")
    assert [in_force(config, signal)[1].encoding for signal in SIGNALS] == ["json", "proto", "proto"]
    assert in_force(loaded(ENDPOINT="http://c:1", PROTOCOL="http/json"), "traces")[1].encoding == "json"


@pytest.mark.parametrize(
    ("protocol", "default"), [("http/protobuf", "http://localhost:4318"), ("grpc", "http://localhost:4317")]
)
def test_signal_without_an_endpoint_goes_to_the_default_of_its_protocol(protocol: str, default: str) -> None:
    config = loaded(TRACES_ENDPOINT="http://c:1", PROTOCOL=protocol)
    assert in_force(config, "logs")[1].endpoint == default
    config = loaded(TRACES_ENDPOINT="http://c:1", LOGS_PROTOCOL=protocol)
    kind, logs = in_force(config, "logs")
    assert logs.endpoint == default
    assert kind == ("otlp_grpc" if protocol == "grpc" else "otlp_http")
    config = loaded(TRACES_ENDPOINT="http://c:1", PROTOCOL="grpc", LOGS_PROTOCOL="http/protobuf")
    assert in_force(config, "logs")[1].logs_endpoint == "http://localhost:4318/v1/logs"


def test_default_endpoint_that_is_the_sidecar_itself_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError) as refusal:
        loaded(TRACES_ENDPOINT="http://c:1", overrides=[])
    assert "exporters.otlp_http/env.endpoint: http://localhost:4318 is this sidecar itself" in str(refusal.value)
    assert "a signal without an endpoint goes to localhost" in str(refusal.value)
    every_signal = {f"{signal.upper()}_ENDPOINT": "http://c:1" for signal in SIGNALS}
    assert loaded(overrides=[], **every_signal).exporters["otlp_http/env"].endpoint == ""


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PROTOCOL": "http/thrift"}, "OTEL_EXPORTER_OTLP_PROTOCOL is 'http/thrift'"),
        ({"LOGS_PROTOCOL": "kafka"}, "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL is 'kafka'"),
        ({"TIMEOUT": "10s"}, "OTEL_EXPORTER_OTLP_TIMEOUT is '10s'; write whole milliseconds"),
        ({"TRACES_HEADERS": "a=1,secret"}, "OTEL_EXPORTER_OTLP_TRACES_HEADERS is not a list of name=value pairs"),
        ({"COMPRESSION": "brotli"}, "exporters.otlp_http/env.compression: Input should be 'gzip'"),
        ({"TRACES_CLIENT_KEY": "/k"}, "exporters.otlp_http/env.signals.traces.tls: cert_file and key_file belong"),
        ({"TRACES_ENDPOINT": "c:1"}, "exporters.otlp_http/env.signals.traces.endpoint: 'c:1' is not a URL"),
    ],
)
def test_variable_that_makes_no_sense_is_refused_by_name(variables: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        loaded(**{"ENDPOINT": "http://c:1", **variables})
    assert words in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_endpoint_that_is_the_sidecar_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="exporters.otlp_http/env.endpoint: .* is this sidecar itself"):
        loaded(ENDPOINT="http://localhost:4318", overrides=[])


def test_file_that_names_a_downstream_wins_over_the_variables(tmp_path: Path) -> None:
    path = tmp_path / "driftlock.yaml"
    path.write_text("exporters: {otlp: {endpoint: 'c:1'}}\nforward: {exporters: [otlp]}", encoding="utf-8")
    config = load(path, environ={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other:4318"})
    assert set(config.exporters) == {"otlp"}


@pytest.mark.parametrize("text", ["forward: 3", "exporters: [a]"])
def test_variables_do_not_hide_a_mistake_in_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "driftlock.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="expected a mapping of settings"):
        load(path, environ={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other:4318"})
