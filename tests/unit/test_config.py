"""Settings: how values are written, where they come from, and what is refused in which words.

`tests/golden/config` holds whole files: `good_*.yaml` load; each line of
`bad_*.expected.txt` is part of the message that `bad_*.yaml` is refused with.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from driftlock_otlp.config.detection import WindowConfig, WindowsConfig
from driftlock_otlp.config.exporters import ExporterConfig, ForwardConfig, exporter_type
from driftlock_otlp.config.file import dump_yaml, load
from driftlock_otlp.config.operation import QueueConfig
from driftlock_otlp.config.receivers import HttpReceiverConfig
from driftlock_otlp.config.root import Config
from driftlock_otlp.config.values import Endpoint, format_duration, parse_bytes, parse_duration_s
from driftlock_otlp.errors import ConfigError

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "config"


def load_text(
    directory: Path, text: str, overrides: list[str] | None = None, environ: dict[str, str] | None = None
) -> Config:
    path = directory / "driftlock.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, overrides, environ or {})


# --- Files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("good_*.yaml")), ids=lambda path: path.stem)
def test_good_file_loads(path: Path) -> None:
    load(path, environ={})


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("bad_*.yaml")), ids=lambda path: path.stem)
def test_bad_file_is_refused_with_the_expected_words(path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(path, environ={})
    for line in path.with_suffix(".expected.txt").read_text(encoding="utf-8").splitlines():
        assert line in str(refusal.value)


def test_refusal_names_the_file() -> None:
    path = GOLDEN / "bad_unknown_key.yaml"
    with pytest.raises(ConfigError) as refusal:
        load(path, environ={})
    assert str(refusal.value).startswith(f"{path}: ")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration .*none.yaml: No such file"):
        load(tmp_path / "none.yaml", environ={})


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load(path, environ={})


def test_no_file_means_the_defaults() -> None:
    assert load(None, environ={}) == Config()


def test_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_text(tmp_path, "") == Config()


def test_key_without_a_value_means_its_default(tmp_path: Path) -> None:
    assert load_text(tmp_path, "windows:\nqueue:\n  path:\nreceivers:\n  otlp:\n") == Config()


def test_protocol_without_settings_is_on_and_an_unlisted_one_off(tmp_path: Path) -> None:
    protocols = load_text(tmp_path, "receivers: {otlp: {protocols: {http: }}}").receivers.otlp.protocols
    assert protocols.grpc is None
    assert protocols.http is not None


def test_both_spellings_of_the_collector_name_the_same_exporter_types() -> None:
    assert [exporter_type(name) for name in ("otlp", "otlp_grpc/a", "otlphttp/b/c", "otlp_http")] == [
        "otlp_grpc",
        "otlp_grpc",
        "otlp_http",
        "otlp_http",
    ]
    with pytest.raises(ValueError, match="unknown exporter type 'kafka'"):
        exporter_type("kafka")


def test_one_setting_of_a_kind_keeps_the_other_defaults_of_that_kind(tmp_path: Path) -> None:
    windows = load_text(tmp_path, "windows: {metrics: {size: 30}}").windows
    assert windows.metrics == WindowsConfig().metrics.model_copy(update={"size": 30})
    assert windows.logs == WindowsConfig().logs


def test_settings_cannot_be_changed_once_loaded() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().queue.path = Path("elsewhere")  # type: ignore[misc]


def test_settings_travel_to_other_processes_whole(tmp_path: Path) -> None:
    config = load_text(tmp_path, "exporters: {otlp_http: {endpoint: 'http://c:1', headers: {a: secret}}}")
    assert pickle.loads(pickle.dumps(config)) == config


def test_settings_travel_as_json_without_their_secrets(tmp_path: Path) -> None:
    text = """
        receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:4317"}}}}
        exporters: {otlp_http: {endpoint: "http://me:hunter2@c:1", headers: {a: hunter3}}}
        """
    config = load_text(tmp_path, text)
    sent = config.model_dump_json()
    assert "hunter" not in sent
    received = Config.model_validate_json(sent)
    assert (received.receivers, received.windows, received.detection) == (
        config.receivers,
        config.windows,
        config.detection,
    )


# --- Values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), (0, 0.0), ("10s", 10.0), ("1m30s", 90.0), ("1.5h", 5400.0), (" 200ms ", 0.2), ("3us", 3e-6)],
)
def test_duration_is_read(text: object, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1 s", "1s!", "1d", None, True, False, [1]])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration_s(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_duration_survives_being_written_and_read(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration_s(format_duration(seconds)) == pytest.approx(seconds)


def test_long_duration_is_written_without_an_exponent() -> None:
    assert format_duration(3_600_000.0) == "3600000s"


@pytest.mark.parametrize(
    ("text", "count"), [(1, 1), ("17", 17), ("1KiB", 1024), ("64 mib", 64 << 20), ("2TiB", 2 << 40)]
)
def test_size_is_read(text: object, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "1.5MiB", "1MB", "MiB", "-1", None, True, 1.0])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_bytes(text)


def test_listening_address_may_be_ipv6(tmp_path: Path) -> None:
    endpoint = load_text(tmp_path, "api: {endpoint: '[::1]:9'}").api.endpoint
    assert endpoint == Endpoint(host="::1", port=9)
    assert str(endpoint) == "[::1]:9"


def test_in_code_a_duration_is_seconds() -> None:
    assert WindowConfig(size=1, max_age=2.5).max_age == 2.5


def test_several_servers_may_each_take_a_free_port(tmp_path: Path) -> None:
    text = "receivers: {otlp: {protocols: {grpc: {endpoint: 'localhost:0'}, http: {endpoint: 'localhost:0'}}}}"
    load_text(tmp_path, text + "\nexporters: {otlp_http: {endpoint: 'http://localhost:0'}}")


def test_destination_on_this_host_with_another_port_is_allowed(tmp_path: Path) -> None:
    load_text(tmp_path, "exporters: {otlp: {endpoint: 'localhost:14317'}, otlp/b: {endpoint: 'other:4317'}}")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]", "0.0.0.0"])
def test_destination_that_is_this_process_is_refused_by_any_name(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="is this sidecar itself"):
        load_text(tmp_path, f"exporters: {{otlp_http: {{endpoint: 'http://{host}:4318/v1'}}}}")


def test_significance_of_a_kind_wins_over_the_common_one(tmp_path: Path) -> None:
    config = load_text(tmp_path, "detection: {significance: 0.02}\nwindows: {logs: {significance: 0.001}}")
    assert config.significance("logs") == 0.001
    assert config.significance("gen_ai") == 0.02
    assert config.window("logs") is config.windows.logs


def test_events_follow_the_clean_data_unless_they_are_told_otherwise(tmp_path: Path) -> None:
    head = "exporters: {otlp: {endpoint: 'a:1'}, otlp/b: {endpoint: 'b:1'}}\nforward: {exporters: [otlp]}\n"
    assert load_text(tmp_path, head).event_exporters == ("otlp",)
    assert load_text(tmp_path, head + "events: {exporters: [otlp/b]}").event_exporters == ("otlp/b",)
    assert load_text(tmp_path, head + "events: {exporters: []}").event_exporters == ()


# --- Environment -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("${env:NAME}", "value"),
        ("${NAME}", "value"),
        ("a-${env:NAME}-b", "a-value-b"),
        ("${env:NONE:-fallback}", "fallback"),
        ("${env:NONE:-}", ""),
        ("${env:NAME:-fallback}", "value"),
        ("$$NAME", "$NAME"),
        ("$${env:NAME}", "${env:NAME}"),
        ("5$", "5$"),
        ("${env:DIGITS}", "0123"),
        ("${env:HASH}", "a #b: c"),
        ("${env:NO}", "no"),
    ],
)
def test_environment_reference_is_replaced(tmp_path: Path, written: str, expected: str) -> None:
    environ = {"NAME": "value", "DIGITS": "0123", "HASH": "a #b: c", "NO": "no"}
    text = f"exporters: {{otlp_http: {{endpoint: 'http://c', headers: {{key: '{written}'}}}}}}"
    assert load_text(tmp_path, text, environ=environ).exporters["otlp_http"].headers["key"] == expected


def test_environment_reference_may_stand_for_any_kind_of_value(tmp_path: Path) -> None:
    config = load_text(
        tmp_path,
        """
        exporters: {otlp: {endpoint: "c:1", timeout: "${env:T}", tls: {insecure: "${env:B}", ca_file: "${env:C:-}"}}}
        forward: {exporters: "${env:L}"}
        detection: {workers: "${env:I}", significance: "${env:F}"}
        queue: {max_bytes: "${env:S}"}
        """,
        environ={"T": "3s", "B": "true", "L": "[otlp]", "I": "2", "F": "0.05", "S": "1GiB"},
    )
    assert config.exporters["otlp"].timeout == 3.0
    assert config.exporters["otlp"].tls.insecure is True
    assert config.exporters["otlp"].tls.ca_file is None
    assert config.forward.exporters == ("otlp",)
    assert (config.detection.workers, config.detection.significance) == (2, 0.05)
    assert config.queue.max_bytes == 1 << 30


def test_value_from_the_environment_cannot_refer_to_the_environment(tmp_path: Path) -> None:
    config = load_text(tmp_path, "queue: {path: '${env:A}'}", environ={"A": "${env:B}", "B": "secret"})
    assert config.queue.path == Path("${env:B}")


# --- Command line ------------------------------------------------------------------------------


def test_override_wins_over_the_file(tmp_path: Path) -> None:
    config = load_text(tmp_path, "windows: {logs: {size: 5}}", ["windows.logs.size=7", "windows.logs.size=9"])
    assert config.windows.logs.size == 9


def test_override_makes_the_sections_it_needs() -> None:
    overrides = ["exporters.otlp_http/a.endpoint=http://c", "forward.exporters=[otlp_http/a]", "forward.policy=pass"]
    config = load(None, overrides, {})
    assert config.exporters == {"otlp_http/a": ExporterConfig(endpoint="http://c")}
    assert config.forward == ForwardConfig(exporters=("otlp_http/a",), policy="pass")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("windows.logs.size", "write KEY=VALUE"),
        ("=5", "write KEY=VALUE"),
        ("windows.logs.sise=5", "windows.logs.sise: unknown key; did you mean 'size'?"),
        ("windows.logs.size=[", "is not a YAML value"),
        ("windows.logs.size=many", "settings: windows.logs.size: Input should be a valid integer"),
    ],
)
def test_override_that_is_wrong_is_refused(override: str, words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(None, [override], {})
    assert words in str(refusal.value)


# --- Showing -----------------------------------------------------------------------------------


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    text = "exporters: {otlp_http: {endpoint: 'https://me:hunter2@c/x', headers: {authorization: hunter3, empty: }}}"
    config = load_text(tmp_path, text)
    shown = yaml.safe_load(dump_yaml(config))["exporters"]["otlp_http"]
    assert shown["endpoint"] == "https://***@c/x"
    assert shown["headers"] == {"authorization": "***", "empty": ""}
    assert "hunter3" not in repr(config)
    logs = "{endpoint: 'http://me:hunter2@c', headers: {a: hunter3}}"
    text = f"exporters: {{otlp_http: {{endpoint: 'http://c', signals: {{logs: {logs}}}}}}}"
    assert "hunter" not in dump_yaml(load_text(tmp_path, text))
    assert "hunter3" not in repr(load_text(tmp_path, text))
    assert config.exporters["otlp_http"].headers["authorization"] == "hunter3"


@pytest.mark.parametrize("name", ["good_signals_of_an_exporter", "good_collector_exporters_complete"])
def test_exporters_that_are_shown_can_be_loaded_again(tmp_path: Path, name: str) -> None:
    config = load(GOLDEN / f"{name}.yaml", environ={})
    shown = dump_yaml(config)
    assert dump_yaml(load_text(tmp_path, shown)) == shown


def test_what_is_shown_can_be_loaded_again(tmp_path: Path) -> None:
    config = load(GOLDEN / "good_collector_spellings.yaml", ["queue.path=/data", "windows.traces.max_age=200ms"], {})
    assert config.queue == QueueConfig(path=Path("/data"))
    assert load_text(tmp_path, dump_yaml(config)) == config


def test_http_keepalive_may_be_written_either_way_and_not_both(tmp_path: Path) -> None:
    def loaded(http: str) -> HttpReceiverConfig:
        path = tmp_path / "config.yaml"
        path.write_text(f"receivers: {{otlp: {{protocols: {{http: {{{http}}}}}}}}}")
        http_receiver = load(path, environ={}).receivers.otlp.protocols.http
        assert http_receiver is not None
        return http_receiver

    for text in ("keepalive: {enabled: false, idle_timeout: 7s}", "keep_alives_enabled: false, idle_timeout: 7s"):
        assert (loaded(text).keep_alives_enabled, loaded(text).idle_timeout) == (False, 7.0)
    assert loaded("keepalive: ").keep_alives_enabled
    with pytest.raises(ConfigError, match="idle_timeout: set it in keepalive or beside it"):
        loaded("keepalive: {idle_timeout: 7s}, idle_timeout: 8s")
    with pytest.raises(ConfigError, match="two settings here, enabled and idle_timeout"):
        loaded("keepalive: {time: 7s}")
