"""What a key may do: its role, and what a role permits."""

from __future__ import annotations

from enum import Enum, StrEnum


class Permission(Enum):
    """What can be asked of the sidecar, each with how a refusal names it."""

    INGEST = "send telemetry"
    READ = "read what was found"
    ACT = "act on what was found"
    CONFIGURE = "change how detection works"


class Role(StrEnum):
    """The role of a key."""

    SENDER = "sender"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def permissions(self) -> frozenset[Permission]:
        """What it permits."""
        return _PERMISSIONS[self]


_PERMISSIONS = {
    Role.SENDER: frozenset({Permission.INGEST}),
    Role.VIEWER: frozenset({Permission.READ}),
    Role.OPERATOR: frozenset({Permission.READ, Permission.ACT}),
    Role.ADMIN: frozenset(Permission),
}
