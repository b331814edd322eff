"""`keys`: API keys of the organisations that may send."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from driftlock_otlp.auth.keys import (
    KeyFile,
    Organization,
    check_organization,
    new_key,
    read_key_file,
    write_key_file,
)
from driftlock_otlp.auth.roles import Role
from driftlock_otlp.commands.command import Command, add_config_arguments, load_config
from driftlock_otlp.commands.terminal import cell, counted, plain_table, standard_output
from driftlock_otlp.errors import ConfigError

_DESCRIPTION = """\
API keys of organisations: to send with, and to look at and act on what was found. A key is shown
once, when it is made: the key file holds its SHA-256 alone. A running sidecar follows the file
within a second, so a key can be added, replaced and revoked without a restart.

Name the key file with --file, or a configuration whose auth.keys_file names it with --config.

examples:
  driftlock-otlp keys create --file keys.yaml --organization acme --name ci
  driftlock-otlp keys create --file keys.yaml --organization acme --name ann --role operator
  driftlock-otlp keys list --file keys.yaml
  driftlock-otlp keys revoke --file keys.yaml 4f1c09b2a7de"""

_CREATE = """\
Make a key and add it to the file, which is created if it does not exist. The key is printed to
standard output, and cannot be shown again.

A key has one role. sender: sends telemetry, and can do nothing else. viewer: reads anomalies,
incidents, streams, usage and the audit trail over the management API. operator: also acts on them.
admin: also changes how detection works, and may send."""

_LIST = """\
List every key with its state; never the key itself."""

_REVOKE = """\
Refuse a key from now on. It stays in the list, with the time of its revocation."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    creating = actions.add_parser("create", help="make a key", description=_CREATE, formatter_class=raw)
    listing = actions.add_parser("list", help="list the keys", description=_LIST, formatter_class=raw)
    revoking = actions.add_parser("revoke", help="refuse a key", description=_REVOKE, formatter_class=raw)
    creating.add_argument("--organization", metavar="NAME", required=True, help="whose key it is")
    creating.add_argument("--name", metavar="TEXT", default="", help="what it is for")
    creating.add_argument("--role", choices=[*Role], default=Role.SENDER, help="what it may do; without it, send")
    creating.add_argument("--expires", metavar="DAYS", type=int, help="days until it is refused; without it, never")
    revoking.add_argument("id", metavar="ID", help="the key's id: the twelve digits after dl_")
    for action in (creating, listing, revoking):
        action.add_argument("--file", type=Path, metavar="FILE", help="the key file")
        add_config_arguments(action)


def _run(arguments: argparse.Namespace) -> int:
    path = _path(arguments)
    if arguments.action == "create":
        return _create(path, arguments)
    return _list(path) if arguments.action == "list" else _revoke(path, arguments.id)


def _path(arguments: argparse.Namespace) -> Path:
    path: Path | None = arguments.file or load_config(arguments).auth.keys_file
    if path is None:
        raise ConfigError("no key file: name it with --file, or a configuration with auth.keys_file with --config")
    return path


def _create(path: Path, arguments: argparse.Namespace) -> int:
    check_organization(arguments.organization)
    if arguments.expires is not None and arguments.expires < 1:
        raise ConfigError(f"--expires {arguments.expires}: write the number of days, 1 or more")
    now = datetime.now(UTC).replace(microsecond=0)
    expires = None if arguments.expires is None else now + timedelta(days=arguments.expires)
    file = read_key_file(path, may_be_missing=True)
    key = new_key(arguments.name, now, expires, Role(arguments.role))
    owner = file.organizations.get(arguments.organization, Organization())
    owner = owner.model_copy(update={"keys": (*owner.keys, key.stored)})
    write_key_file(path, KeyFile(organizations={**file.organizations, arguments.organization: owner}))
    print(key.text)
    print(
        f"Key {key.stored.id} of {arguments.organization} is in {path}, with the role {key.stored.role}."
        " Keep the line above: it cannot be shown again."
        "\nShow it as `authorization: Bearer <key>` or `x-api-key: <key>`.",
        file=sys.stderr,
    )
    return 0


def _list(path: Path) -> int:
    file = read_key_file(path)
    now = datetime.now(UTC)
    console = standard_output()
    table = plain_table("ORGANIZATION", "ID", "NAME", "ROLE", "STATE", "CREATED", "EXPIRES")
    count = 0
    for name, organization in sorted(file.organizations.items()):
        for key in organization.keys:
            count += 1
            expires = "never" if key.expires is None else f"{key.expires:%Y-%m-%d}"
            state, created = key.state(now), f"{key.created:%Y-%m-%d}"
            table.add_row(cell(name), key.id, cell(key.name), key.role.value, state, created, expires)
    if not count:
        console.print(f"{path} holds no keys. `driftlock-otlp keys create` makes one.")
        return 0
    console.print(table)
    console.print(f"{counted(count, 'key')} of {counted(len(file.organizations), 'organisation')}.", style="dim")
    return 0


def _revoke(path: Path, key_id: str) -> int:
    file = read_key_file(path)
    now = datetime.now(UTC).replace(microsecond=0)
    found = False
    organizations = {}
    for name, organization in file.organizations.items():
        keys = []
        for key in organization.keys:
            is_meant = key.id == key_id
            found = found or is_meant
            keys.append(key.model_copy(update={"revoked": key.revoked or now}) if is_meant else key)
        organizations[name] = organization.model_copy(update={"keys": tuple(keys)})
    if not found:
        print(f"driftlock-otlp: {path} has no key {key_id!r}; `keys list` shows which there are", file=sys.stderr)
        return 1
    write_key_file(path, KeyFile(organizations=organizations))
    print(f"Revoked key {key_id}. A running sidecar refuses it within a second.")
    return 0


COMMAND = Command("keys", "API keys of organisations", _DESCRIPTION, _add_arguments, _run)
