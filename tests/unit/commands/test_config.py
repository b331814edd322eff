"""`validate` and `print-config`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from driftlock_otlp.__main__ import main

_GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "commands"


def test_a_valid_file_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text("windows: {logs: {size: 100}}\n")
    assert main(["validate", str(path)]) == 0
    assert capsys.readouterr().out == f"{path} is valid\n"


def test_every_mistake_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text("windows: {logs: {sise: 100}}\nforward: {policy: dirvert}\n")
    assert main(["validate", str(path)]) == 1
    error = capsys.readouterr().err
    assert "windows.logs.sise: unknown key; did you mean 'size'?" in error
    assert "forward.policy: " in error


def test_a_setting_of_the_command_line_is_checked_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text("")
    assert main(["validate", str(path), "--set", "windows.logs.size=-1"]) == 1
    assert "windows.logs.size" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_not_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(tmp_path / "nowhere.yaml")]) == 1
    assert "nowhere.yaml" in capsys.readouterr().err


def test_a_wrong_command_line_is_told_from_a_wrong_configuration() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["validate"])
    assert ended.value.code == 2


def test_the_effective_configuration_is_printed_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["print-config", str(_GOLDEN / "print_config.input.yaml"), "--set", "windows.logs.size=123"]) == 0
    printed = capsys.readouterr().out
    expected = yaml.safe_load((_GOLDEN / "print_config.expected.yaml").read_text())
    tree = yaml.safe_load(printed)
    for section, value in expected.items():
        assert tree[section] == value
    assert "hush" not in printed


def test_what_is_printed_can_be_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["print-config"]) == 0
    printed = capsys.readouterr().out
    path = tmp_path / "again.yaml"
    path.write_text(printed)
    assert main(["print-config", str(path)]) == 0
    assert capsys.readouterr().out == printed
