"""The key file, and looking up keys in it."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog.testing

from driftlock_otlp.auth.keys import (
    KeyFile,
    KeyRing,
    NewKey,
    Organization,
    OwnLimits,
    new_key,
    read_key_file,
    write_key_file,
)
from driftlock_otlp.errors import ConfigError, UnauthenticatedError

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def made(*, expires: datetime | None = None, revoked: datetime | None = None) -> NewKey:
    key = new_key("ci", NOW, expires)
    return NewKey(key.text, key.stored.model_copy(update={"revoked": revoked}))


def write(path: Path, **owners: NewKey) -> None:
    write_key_file(
        path, KeyFile(organizations={name: Organization(keys=(key.stored,)) for name, key in owners.items()})
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def test_a_key_leads_to_its_organisation(path: Path) -> None:
    one, other = made(), made()
    write(path, acme=one, globex=other)
    ring = KeyRing(path)
    assert (ring.owner_of(one.text).organization, ring.owner_of(other.text).organization) == ("acme", "globex")


def test_an_organisation_has_several_keys_and_limits_of_its_own(path: Path) -> None:
    keys = made(), made()
    limits = OwnLimits(requests_per_second=5.0, bytes_per_second=1 << 20)
    owner = Organization(limits=limits, keys=tuple(key.stored for key in keys))
    write_key_file(path, KeyFile(organizations={"acme": owner}))
    ring = KeyRing(path)
    assert {ring.owner_of(key.text).organization for key in keys} == {"acme"}
    assert ring.organizations["acme"].limits == limits


def test_the_file_holds_no_key_and_is_for_its_owner_alone(path: Path) -> None:
    key = made()
    write(path, acme=key)
    assert key.text.split("_", 2)[2] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_keys_never_resemble_each_other() -> None:
    texts = {new_key("", NOW, None).text for _ in range(100)}
    assert len({text.split("_")[1] for text in texts}) == len(texts) == 100


def wrong_keys(key: NewKey) -> list[str]:
    other = new_key("", NOW, None)
    prefix, key_id, secret = key.text.split("_", 2)
    swapped = ("A" if secret[0] != "A" else "B") + secret[1:]
    return [
        "",
        "dl_",
        key.text[:-1],
        f"{prefix}_{key_id}_{swapped}",
        f"{prefix}_{key_id}_{other.text.split('_', 2)[2]}",
        other.text,
        key.text.upper(),
        key.text + "\n",
        key.stored.sha256,
        "dl_ünïcödé",
    ]


@pytest.mark.parametrize("kind", range(10))
def test_a_wrong_key_is_refused_and_learns_nothing(path: Path, kind: int) -> None:
    key = made()
    write(path, acme=key)
    with pytest.raises(UnauthenticatedError) as caught:
        KeyRing(path).owner_of(wrong_keys(key)[kind])
    assert str(caught.value) == "the API key is not valid; ask for another one"


def test_expired_and_revoked_keys_are_refused_with_the_reason_in_the_log_alone(path: Path) -> None:
    expired, revoked = made(expires=NOW), made(revoked=NOW)
    write(path, acme=expired, globex=revoked)
    ring = KeyRing(path)
    with structlog.testing.capture_logs() as logs:
        for key in (expired, revoked):
            with pytest.raises(UnauthenticatedError, match="not valid"):
                ring.owner_of(key.text, NOW)
    assert [(entry["key_id"], entry["reason"]) for entry in logs] == [
        (expired.stored.id, "expired"), (revoked.stored.id, "revoked"),
    ]  # fmt: skip
    assert ring.owner_of(expired.text, NOW - timedelta(seconds=1)).organization == "acme"


def test_a_changed_file_is_followed_and_an_unchanged_one_not_read(path: Path) -> None:
    old, new = made(), made()
    write(path, acme=old)
    ring = KeyRing(path)
    assert ring.refresh() is False
    write(path, acme=new)
    assert ring.refresh() is True
    assert ring.owner_of(new.text).organization == "acme"
    with pytest.raises(UnauthenticatedError):
        ring.owner_of(old.text)


def test_a_file_that_becomes_unusable_leaves_the_keys_in_force(path: Path) -> None:
    key = made()
    write(path, acme=key)
    ring = KeyRing(path)
    for text in ("organizations: [", "organisations: {}"):
        path.write_text(text)
        with pytest.raises(ConfigError):
            ring.refresh()
        assert ring.owner_of(key.text).organization == "acme"
    path.unlink()
    with pytest.raises(ConfigError, match="there is no such key file"):
        ring.refresh()
    assert ring.owner_of(key.text).organization == "acme"
    write(path, acme=made())
    assert ring.refresh() is True
    with pytest.raises(UnauthenticatedError):
        ring.owner_of(key.text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("organizations: {acme: {keys: [{id: ab}]}}", r"organizations\.acme\.keys\.0\.id"),
        ("organizations: {'a b': {}}", "'a b' is not a name for an organisation"),
        ("organizations: {acme: {limits: {requests_per_second: 0}}}", r"limits\.requests_per_second"),
        ("organizations: {acme: {limits: {burst: 10}}}", "a duration needs a unit"),
        ("- a list", "valid dictionary"),
        ("{", "not valid YAML"),
        ("\xff", "not valid YAML"),
    ],
)
def test_an_unusable_file_is_refused_with_the_place(path: Path, text: str, complaint: str) -> None:
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=complaint):
        read_key_file(path)


def test_two_keys_of_one_id_are_refused(path: Path) -> None:
    key = made()
    write(path, acme=key, globex=key)
    with pytest.raises(ConfigError, match="two keys have the same id"):
        read_key_file(path)


def test_no_complaint_shows_a_hash(path: Path) -> None:
    key = made()
    write(path, acme=key)
    path.write_text(path.read_text().replace("created", "creatd"))
    with pytest.raises(ConfigError) as caught:
        read_key_file(path)
    assert key.stored.sha256 not in str(caught.value)


def test_writing_keeps_the_link_and_the_mode(path: Path, tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    target = tmp_path / "mounted" / "keys.yaml"
    write(target, acme=made())
    target.chmod(0o640)
    path.symlink_to(target)
    write(path, globex=made())
    assert path.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert list(read_key_file(target).organizations) == ["globex"]
    assert os.listdir(tmp_path / "mounted") == ["keys.yaml"]


def test_a_file_that_others_may_write_is_warned_of(path: Path) -> None:
    write(path, acme=made())
    path.chmod(0o666)
    with structlog.testing.capture_logs() as logs:
        KeyRing(path)
    assert [entry["event"] for entry in logs] == ["key_file_writable_by_others"]
