"""`keys create`, `list` and `revoke`."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftlock_otlp.__main__ import main
from driftlock_otlp.auth.keys import KeyRing
from driftlock_otlp.auth.roles import Role
from driftlock_otlp.errors import UnauthenticatedError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def create(path: Path, *arguments: str) -> int:
    return main(["keys", "create", "--file", str(path), *arguments])


def test_a_key_is_printed_once_and_works(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert create(path, "--organization", "acme", "--name", "ci") == 0
    captured = capsys.readouterr()
    key = captured.out.strip()
    assert KeyRing(path).owner_of(key).organization == "acme"
    assert "cannot be shown again" in captured.err
    assert key not in captured.err
    assert main(["keys", "list", "--file", str(path)]) == 0
    listed = capsys.readouterr().out
    assert key not in listed
    assert all(word in listed for word in ("acme", "ci", "active", "never", "1 key of 1 organisation."))


def test_keys_add_up_and_one_is_revoked(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = []
    for organization in ("acme", "acme", "globex"):
        create(path, "--organization", organization)
        keys.append(capsys.readouterr().out.strip())
    revoked = keys[0].split("_")[1]
    assert main(["keys", "revoke", "--file", str(path), revoked]) == 0
    assert f"Revoked key {revoked}" in capsys.readouterr().out
    ring = KeyRing(path)
    with pytest.raises(UnauthenticatedError):
        ring.owner_of(keys[0])
    assert [ring.owner_of(key).organization for key in keys[1:]] == ["acme", "globex"]
    main(["keys", "list", "--file", str(path)])
    listed = capsys.readouterr().out
    assert listed.count("active") == 2
    assert "revoked" in listed


def test_a_key_that_expires_is_listed_with_its_day(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert create(path, "--organization", "acme", "--expires", "0") == 2
    assert "1 or more" in capsys.readouterr().err
    assert create(path, "--organization", "acme", "--expires", "30") == 0
    main(["keys", "list", "--file", str(path)])
    assert "never" not in capsys.readouterr().out


def test_the_file_may_be_named_by_the_configuration(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"auth: {{keys_file: {path}}}\n")
    assert main(["keys", "create", "--organization", "acme", "--config", str(config)]) == 0
    assert path.exists()
    capsys.readouterr()
    assert main(["keys", "list"]) == 2
    assert "no key file: name it with --file" in capsys.readouterr().err


def test_mistakes_are_answered_with_the_remedy(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "list", "--file", str(path)]) == 2
    assert "`driftlock-otlp keys create`" in capsys.readouterr().err
    assert create(path, "--organization", "a/b") == 2
    assert "not a name for an organisation" in capsys.readouterr().err
    create(path, "--organization", "acme")
    capsys.readouterr()
    assert main(["keys", "revoke", "--file", str(path), "0" * 12]) == 1
    assert "has no key '000000000000'" in capsys.readouterr().err


@pytest.mark.parametrize("role", [None, *Role])
def test_a_key_has_the_role_it_was_made_with_and_sends_if_none_was_named(
    path: Path, capsys: pytest.CaptureFixture[str], role: Role | None
) -> None:
    assert create(path, "--organization", "acme", *(("--role", role.value) if role else ())) == 0
    key = capsys.readouterr().out.strip()
    assert KeyRing(path).owner_of(key).role == (role or Role.SENDER)
    main(["keys", "list", "--file", str(path)])
    assert (role or Role.SENDER).value in capsys.readouterr().out
