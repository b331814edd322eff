"""API keys: the file of organisations and hashed keys, and looking a key up in it.

A key is shown once, when it is made; the file holds its SHA-256 alone. A plain hash is enough
since a key is 256 random bits: there is nothing to guess that a slow hash would protect.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import structlog
import yaml
from pydantic import AwareDatetime, Field, ValidationError

from driftlock_otlp.auth.roles import Role
from driftlock_otlp.config.values import PositiveDuration, Section, Size
from driftlock_otlp.errors import ConfigError, UnauthenticatedError

_logger = structlog.get_logger(__name__)

_KEY = re.compile(r"dl_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_NO_HASH = "0" * 64
_ORGANIZATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class StoredKey(Section):
    """One key of an organisation."""

    id: str = Field(pattern="^[0-9a-f]{12}$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    name: str = ""
    role: Role = Role.SENDER
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None

    def state(self, now: datetime) -> str:
        """Return `active`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


class OwnLimits(Section):
    """Limits of one organisation, in place of those in `auth.limits`."""

    requests_per_second: float | None = Field(default=None, gt=0)
    bytes_per_second: Size | None = None
    burst: PositiveDuration | None = None
    in_flight_share: float | None = Field(default=None, gt=0, le=1)
    items_per_month: int | None = Field(default=None, ge=1)
    over_quota: Literal["continue", "block"] | None = None


class Organization(Section):
    """One organisation."""

    limits: OwnLimits = OwnLimits()
    keys: tuple[StoredKey, ...] = ()


class KeyFile(Section):
    """The whole file."""

    organizations: dict[str, Organization] = Field(default={})


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that has just been made.

    Attributes:
        text: The key, which is not stored anywhere.
        stored: What the file keeps of it.
    """

    text: str
    stored: StoredKey


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Whose key it is, and what it is for.

    Attributes:
        organization: Its organisation.
        key_id: The key's id, which is no secret.
        role: What it may do.
    """

    organization: str
    key_id: str
    role: Role


def new_key(name: str, now: datetime, expires: datetime | None, role: Role = Role.SENDER) -> NewKey:
    """Make a key of 256 random bits."""
    key_id = secrets.token_hex(6)
    text = f"dl_{key_id}_{secrets.token_urlsafe(32)}"
    stored = StoredKey(id=key_id, sha256=_hash(text), name=name, role=role, created=now, expires=expires)
    return NewKey(text, stored)


def read_key_file(path: Path, *, may_be_missing: bool = False) -> KeyFile:
    """Read a key file.

    Raises:
        ConfigError: It cannot be used; the message names what is wrong and never a hash.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if may_be_missing:
            return KeyFile()
        raise ConfigError(f"{path}: there is no such key file; make one with `driftlock-otlp keys create`") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the key file: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"{path}: the key file is not valid YAML") from None
    try:
        file = KeyFile.model_validate(tree or {}, context={"from_file": True})
    except ValidationError as error:
        mistakes = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)]
        raise ConfigError("\n".join(f"{path}: {mistake}" for mistake in mistakes)) from None
    ids = [key.id for organization in file.organizations.values() for key in organization.keys]
    if len(set(ids)) != len(ids):
        raise ConfigError(f"{path}: two keys have the same id")
    for name in file.organizations:
        check_organization(name)
    return file


def check_organization(name: str) -> None:
    """Refuse a name that could be mistaken in a path, a header or a list.

    Raises:
        ConfigError: It is one.
    """
    if not _ORGANIZATION.fullmatch(name):
        raise ConfigError(f"{name!r} is not a name for an organisation; use letters, digits, '.', '_' and '-'")


def write_key_file(path: Path, file: KeyFile) -> None:
    """Replace a key file as a whole; a reader sees the old one or the new one. Readable by its owner alone.

    Raises:
        ConfigError: It cannot be written.
    """
    tree = file.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    text = "# API keys, as SHA-256. Kept with `driftlock-otlp keys`.\n"
    text += yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    target = path.resolve()  # A link stays a link.
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as output:
                output.write(text)
                output.flush()
                os.fsync(output.fileno())
            if target.exists():
                os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot write the key file: {error.strerror}") from None


class KeyRing:
    """The keys in force; the file is looked at again with `refresh`.

    Args:
        path: The key file.

    Raises:
        ConfigError: It cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = _identity(path)
        self._file = KeyFile()
        self._owners: dict[str, tuple[str, StoredKey]] = {}
        self._take(read_key_file(path))
        self._warn_if_open_to_others()

    @property
    def organizations(self) -> dict[str, Organization]:
        """Every organisation by its name."""
        return self._file.organizations

    def owner_of(self, key: str, now: datetime | None = None) -> KeyOwner:
        """Return whom a key belongs to, and what it may do.

        Every refusal reads the same and takes the same path: a sender learns nothing of which
        keys exist. Why is in the log.

        Raises:
            UnauthenticatedError: The key is unknown, expired or revoked.
        """
        match = _KEY.fullmatch(key)
        owner = self._owners.get(match[1]) if match else None
        is_right = hmac.compare_digest(_hash(key), owner[1].sha256 if owner else _NO_HASH)
        if owner is not None and is_right:
            state = owner[1].state(now or datetime.now(UTC))
            if state == "active":
                return KeyOwner(owner[0], owner[1].id, owner[1].role)
            _logger.warning("key_refused", key_id=owner[1].id, organization=owner[0], reason=state)
        raise UnauthenticatedError("the API key is not valid; ask for another one")

    def refresh(self) -> bool:
        """Read the file again if it has changed; return whether it did.

        Raises:
            ConfigError: It has changed and cannot be used; the keys stay as they were.
        """
        identity = _identity(self._path)
        if identity == self._identity:
            return False
        self._identity = identity
        self._take(read_key_file(self._path))
        _logger.info("keys_reloaded", organizations=len(self.organizations), keys=len(self._owners))
        return True

    def _take(self, file: KeyFile) -> None:
        self._file = file
        self._owners = {
            key.id: (name, key) for name, organization in file.organizations.items() for key in organization.keys
        }

    def _warn_if_open_to_others(self) -> None:
        with contextlib.suppress(OSError):
            if self._path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                _logger.warning("key_file_writable_by_others", path=str(self._path), remedy="chmod go-w")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _identity(path: Path) -> Any:
    """Return what changes when the file is replaced, also behind a link."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_dev, found.st_mtime_ns, found.st_size
