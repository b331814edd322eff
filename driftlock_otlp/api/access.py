"""Who asks the management API, and what they may see and do.

With keys each request needs one, sees its own organisation and has a budget. Without keys everything
is open, to this machine alone: a web page that somebody looks at here is not this machine, so the
`Host` and `Origin` that its browser names must be local, too.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from driftlock_otlp.auth.budget import TokenBucket
from driftlock_otlp.auth.credentials import shown_key
from driftlock_otlp.auth.keys import KeyRing
from driftlock_otlp.auth.roles import Permission, Role
from driftlock_otlp.errors import ForbiddenError, RateLimitedError

LOCAL = "local"
"""The actor where nobody has a key."""

_BURST_S = 10.0
_REMEDY = "without auth.keys_file the management API answers this machine alone; make keys with `keys create`"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        tenant: The organisation whose data they see; None for everything.
        actor: What the history calls them: `key:<id>`, or `local`.
        role: What they may do.
    """

    tenant: str | None
    actor: str
    role: Role

    @property
    def organization(self) -> str:
        """Whose data is what they send; empty without keys."""
        return self.tenant or ""

    def require(self, permission: Permission) -> None:
        """Refuse what their role does not permit.

        Raises:
            ForbiddenError: It does not.
        """
        if permission not in self.role.permissions:
            raise ForbiddenError(f"a key of the role {self.role} may not {permission.value}")


_EVERYBODY = Caller(None, LOCAL, Role.ADMIN)


class Access:
    """Decides who may ask for what. For one event loop; not thread-safe.

    Args:
        keys: The keys in force; None if nobody authenticates.
        requests_per_second: Of each organisation.
        clock_s: Seconds of any clock that only goes forward.
    """

    def __init__(
        self, keys: KeyRing | None, requests_per_second: float, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = keys
        self._requests_per_second = requests_per_second
        self._clock_s = clock_s
        self._buckets: dict[str, TokenBucket] = {}

    def identify(self, authorization: str | None, api_key: str | None, *, is_counted: bool = True) -> Caller:
        """Return who asks; it counts against their budget.

        Args:
            authorization: Value of `authorization`, as `Bearer dl_…`.
            api_key: Value of `x-api-key`.
            is_counted: Whether it does count: what is sent has a budget of its own (`auth.limits`).

        Raises:
            UnauthenticatedError: There is no valid key.
            RateLimitedError: The organisation has used up its budget.
        """
        if self._keys is None:
            return _EVERYBODY
        owner = self._keys.owner_of(shown_key(authorization, api_key))
        if is_counted:
            self._spend(owner.organization)
        return Caller(owner.organization, f"key:{owner.key_id}", owner.role)

    def require_local(self, peer: str | None, host: str | None, origin: str | None) -> None:
        """Refuse a request from elsewhere if nobody has a key.

        Args:
            peer: Address that the connection comes from; None on a unix socket.
            host: Value of the header `host`; None where there is no such thing.
            origin: Value of the header `origin`, which browsers send; None if there is none.

        Raises:
            ForbiddenError: It is from elsewhere, or from a web page of elsewhere.
        """
        where = None if self._keys is not None else _elsewhere(peer, host, origin)
        if where is not None:
            raise ForbiddenError(f"{where}; {_REMEDY}")

    def may_see_all(self, peer: str | None, host: str | None, origin: str | None) -> bool:
        """Return whether a request may see what all organisations have: where there are any, this machine alone."""
        return self._keys is None or _elsewhere(peer, host, origin) is None

    def _spend(self, organization: str) -> None:
        bucket = self._buckets.get(organization)
        if bucket is None:
            # As many as there are organisations, also after some have left the key file.
            known = self._keys.organizations if self._keys is not None else {}
            self._buckets = {name: kept for name, kept in self._buckets.items() if name in known}
            bucket = TokenBucket(self._requests_per_second, _BURST_S, self._clock_s)
            self._buckets[organization] = bucket
        wait_s = bucket.wait_s(1)
        if wait_s > 0:
            raise RateLimitedError(f"organisation {organization!r} asks too often; try again later", wait_s)
        bucket.take(1)


def _elsewhere(peer: str | None, host: str | None, origin: str | None) -> str | None:
    """Return how a request shows that it is from elsewhere; None if it is from this machine."""
    if peer is not None and not _is_this_machine(peer):
        return "the request comes from another machine"
    if peer is not None and host is not None and not _is_this_machine(_host_of(f"//{host}")):
        return "the Host header does not name this machine"
    if origin is not None and not _is_this_machine(_host_of(origin)):
        return "the request comes from a web page of another machine"
    return None


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
